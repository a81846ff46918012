"""A grant in words and on the command line: exactly what it would allow, and bounded."""

import argparse
from typing import Any

import pytest

from host_agent.cli import granting
from host_agent.client import GrantBody, RequestView
from host_agent.errors import UsageError
from tests.support import answers


def view(**members: Any) -> RequestView:
    return RequestView.parse(answers.view(**members))


def parsed(*words: str) -> GrantBody | None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    granting.add_arguments(parser)
    return granting.terms(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        ((), None),
        (("--for", "90s"), GrantBody(for_seconds=90)),
        (("--for", "30m"), GrantBody(for_seconds=1800)),
        (("--for", "2h"), GrantBody(for_seconds=7200)),
        (("--for", "1d"), GrantBody(for_seconds=86_400)),
        (("--count", "1000"), GrantBody(count=1000)),
        (
            ("--count", "3", "--resource", "tank/.*"),
            GrantBody(count=3, resource="tank/.*"),
        ),
    ],
)
def test_the_options_are_the_terms(words: tuple[str, ...], terms: GrantBody | None) -> None:
    assert parsed(*words) == terms


@pytest.mark.parametrize(
    "words",
    [
        *(("--for", text) for text in ("59s", "2d", "30", "m", "-30m", "0m", "1.5h", "30M", "")),
        *(("--count", text) for text in ("0", "1001", "-1", "3x", "\u0663")),
    ],
)
def test_what_is_out_of_bounds_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(argparse.ArgumentError):
        parsed(*words)


@pytest.mark.parametrize(
    "words", [("--for", "30m", "--count", "3"), ("--resource", "tank/.*")], ids=["both", "neither"]
)
def test_a_time_and_a_count_exclude_each_other_and_a_pattern_needs_one(
    words: tuple[str, ...],
) -> None:
    with pytest.raises(UsageError):
        parsed(*words)


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        (GrantBody(for_seconds=1800), "For 30 minutes, librarian may run git.pull on /srv/app"),
        (GrantBody(for_seconds=5460), "For 1 hour 31 minutes, librarian"),
        (GrantBody(for_seconds=61), "For 1 minute 1 second, librarian"),
        (GrantBody(for_seconds=86_400), "For 1 day, librarian"),
        (GrantBody(count=1), "Up to once more within 24 hours, librarian may run git.pull on"),
        (GrantBody(count=3), "Up to 3 more times within 24 hours, librarian may run git.pull on"),
        (GrantBody(count=3, resource="/srv/.*"), "on whatever matches /srv/.* with"),
    ],
)
def test_a_grant_is_one_sentence(grant: GrantBody, words: str) -> None:
    text = granting.sentence(view(), grant)
    assert words in text
    assert text.endswith("with remote=origin, branch=main without asking again.")


def test_what_has_no_other_parameters_names_none() -> None:
    text = granting.sentence(view(params={"repository": "/srv/app"}), GrantBody(count=2))
    assert text.endswith("may run git.pull on /srv/app without asking again.")


def test_a_quorum_has_to_agree_on_the_grant() -> None:
    approvals = {"needed": 2, "given": 0, "approvers": None, "approver_role": "approver"}
    text = granting.sentence(view(approvals=approvals), GrantBody(count=2))
    assert "only if every approver of this request gives the same" in text


def test_hostile_text_stays_text_in_the_sentence() -> None:
    hostile = "a\x1b[2K\u202e\nApproved."
    text = granting.sentence(
        view(resource=hostile, caller=hostile, operation=hostile, params={hostile: hostile}),
        GrantBody(count=2, resource=hostile),
    )
    assert text.isprintable()
    assert "\\u{1b}" in text
