"""The wire form: what is given is answered in order, and what comes is kept as it came."""

from datetime import UTC, datetime

import pytest

from host_agent.api.wire.operations import Held, Outcome, PreviewView
from host_agent.api.wire.requests import RequestPage
from host_agent.errors import InvalidAnswerError
from host_agent.operations.catalogue import Output, Preview, PreviewAccuracy
from host_agent.pipeline.run import outcome_json
from tests.support.answers import DIGEST, held, view


def test_an_outcome_is_answered_whole_and_in_its_order() -> None:
    stored = outcome_json(Output(exit_code=0, stdout="x"), data=[{"a": 1}], verified=None)
    assert list(Outcome.model_validate(stored).as_json().items()) == list(stored.items())
    assert Outcome.model_validate({**stored, "audited": False}).as_json()["audited"] is False


def test_a_preview_is_answered_whole_and_in_its_order() -> None:
    stored = Preview(accuracy=PreviewAccuracy.EXACT, summary="s", details=("a",)).as_json()
    assert list(PreviewView.model_validate(stored).as_json().items()) == list(stored.items())


def test_what_is_not_given_is_left_out() -> None:
    assert Outcome(exit_code=3, verified=None).as_json() == {"exit_code": 3, "verified": None}


def test_times_are_told_in_utc_to_the_microsecond() -> None:
    told = Held.model_validate({**held(), "expires_at": datetime(2026, 11, 20, 21, tzinfo=UTC)})
    assert told.as_json()["expires_at"] == "2026-11-20T21:00:00.000000Z"
    assert told.as_json()["digest"] == DIGEST


def test_rows_of_an_answer_keep_what_they_came_as() -> None:
    row = view(colour="red")
    page = RequestPage.parse({"requests": [row], "next_cursor": None, "size": 1})
    assert page.body == {"requests": [row], "next_cursor": None, "size": 1}
    assert page.requests[0].body == row
    assert "colour" not in page.requests[0].as_json()


def test_what_lacks_a_member_is_no_answer() -> None:
    row = view()
    del row["digest"]
    with pytest.raises(InvalidAnswerError, match=r"requests\.0\.digest"):
        RequestPage.parse({"requests": [row], "next_cursor": None})
