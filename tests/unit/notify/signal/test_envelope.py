"""Of all that arrives over Signal, only what one person said to us counts, by who they are."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.notify.channel import ChannelReply
from host_agent.notify.signal.envelope import (
    MAX_HEARD_CHARACTERS,
    Params,
    is_aci,
    read_envelope,
)
from tests.support.signal_cli_server import ACCOUNT, ALICE, envelope, reacted, said

STAMP = 1_700_000_000_123
PROMPT = 1_699_999_999_000


def heard(params: Params) -> ChannelReply | None:
    return read_envelope(params, account=ACCOUNT)


def changed(params: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    change(params["envelope"])
    return params


def test_a_message() -> None:
    assert heard(said(ALICE, "DENY", STAMP)) == ChannelReply(
        channel="signal",
        address=ALICE,
        text="DENY",
        sent_at=datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC),
        reference=f"{ALICE}:{STAMP}",
    )


def test_an_answer_to_our_message() -> None:
    answer = heard(said(ALICE, "DENY", STAMP, quotes=PROMPT))
    assert answer is not None
    assert answer.quotes == str(PROMPT)


def test_a_reaction_to_our_message() -> None:
    reaction = heard(reacted(ALICE, "👎", PROMPT, STAMP))
    assert reaction is not None
    assert (reaction.reaction, reaction.quotes, reaction.text) == ("👎", str(PROMPT), "")


def test_the_sender_is_the_account_identifier_in_lower_case() -> None:
    message = heard(said(ALICE.upper(), "DENY", STAMP))
    assert message is not None
    assert (message.address, message.reference) == (ALICE, f"{ALICE}:{STAMP}")


def test_a_number_beside_it_says_nothing() -> None:
    params = changed(said(ALICE, "DENY", STAMP), lambda e: e.update(sourceNumber="+499876"))
    message = heard(params)
    assert message is not None
    assert message.address == ALICE


@pytest.mark.parametrize("aci", [None, "", "+499876", f"PNI:{ALICE}", ALICE[:-1], 7, [ALICE]])
def test_without_an_account_identifier_nobody_spoke(aci: object) -> None:
    params = changed(said(ALICE, "DENY", STAMP), lambda e: e.update(sourceUuid=aci))
    params["envelope"] |= {"sourceNumber": "+499876", "source": "+499876"}
    assert heard(params) is None


@pytest.mark.parametrize(
    "part",
    [
        "syncMessage",
        "editMessage",
        "storyMessage",
        "receiptMessage",
        "typingMessage",
        "callMessage",
    ],
)
def test_other_envelopes_are_none_even_beside_a_message(part: str) -> None:
    params = changed(said(ALICE, "DENY", STAMP), lambda e: e.update({part: {"timestamp": 1}}))
    assert heard(params) is None
    del params["envelope"]["dataMessage"]
    assert heard(params) is None


def test_an_edit_with_the_words_in_it_is_none() -> None:
    data = said(ALICE, "CONFIRM ABCDEFGH23456789", STAMP)["envelope"]["dataMessage"]
    edit = {"targetSentTimestamp": PROMPT, "dataMessage": data}
    assert heard(envelope(ALICE, STAMP, editMessage=edit)) is None


def test_our_own_devices_are_not_heard() -> None:
    sent = {"sentMessage": {"destinationUuid": ALICE, "message": "CONFIRM ABCDEFGH23456789"}}
    assert heard(envelope(ALICE, STAMP, syncMessage=sent)) is None
    own = changed(said(ALICE, "DENY", STAMP), lambda e: e.update(sourceNumber=ACCOUNT))
    assert heard(own) is None


@pytest.mark.parametrize(
    "part",
    [
        {"groupInfo": {"groupId": "Z3JvdXA=", "type": "DELIVER"}},
        {"storyContext": {"sentTimestamp": 1}},
        {"remoteDelete": {"timestamp": PROMPT}},
    ],
)
def test_what_is_said_elsewhere_is_none(part: dict[str, Any]) -> None:
    message = said(ALICE, "DENY", STAMP)
    message["envelope"]["dataMessage"] |= part
    assert heard(message) is None
    reaction = reacted(ALICE, "👎", PROMPT, STAMP)
    reaction["envelope"]["dataMessage"] |= part
    assert heard(reaction) is None


def test_what_could_not_be_read_or_trusted_is_none() -> None:
    fault = {"message": "", "type": "UntrustedIdentityException"}
    assert heard({**said(ALICE, "DENY", STAMP), "exception": fault}) is None


def test_another_account_of_the_daemon_is_none_of_ours() -> None:
    assert heard({**said(ALICE, "DENY", STAMP), "account": "+439999"}) is None
    assert heard({"envelope": said(ALICE, "DENY", STAMP)["envelope"]}) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"isRemove": True},
        {"isRemove": None},
        {"targetAuthorNumber": "+499876", "targetAuthor": "+499876"},
        {"targetAuthorNumber": None, "targetAuthor": ALICE},
        {"targetSentTimestamp": None},
        {"targetSentTimestamp": True},
        {"emoji": ""},
        {"emoji": 7},
    ],
)
def test_reactions_that_are_not_to_us(change: dict[str, Any]) -> None:
    params = reacted(ALICE, "👎", PROMPT, STAMP)
    params["envelope"]["dataMessage"]["reaction"] |= change
    assert heard(params) is None


def test_a_quote_of_somebody_elses_message_binds_to_nothing() -> None:
    params = said(ALICE, "DENY", STAMP, quotes=PROMPT)
    params["envelope"]["dataMessage"]["quote"] |= {"author": ALICE, "authorNumber": "+499876"}
    message = heard(params)
    assert message is not None
    assert message.quotes is None


@pytest.mark.parametrize("stamp", [None, 0, -1, True, "1700000000123", 1.5, 10**18])
def test_without_a_time_it_is_none(stamp: object) -> None:
    params = changed(said(ALICE, "DENY", STAMP), lambda e: e.update(timestamp=stamp))
    assert heard(params) is None


@pytest.mark.parametrize("text", [None, "", "  \n", 7, ["DENY"]])
def test_without_words_it_is_none(text: object) -> None:
    params = said(ALICE, "", STAMP)
    params["envelope"]["dataMessage"]["message"] = text
    assert heard(params) is None


def test_long_and_broken_text_is_bounded_and_whole() -> None:
    message = heard(said(ALICE, "a\ud800" * 5_000, STAMP))
    assert message is not None
    assert message.text == "a?" * (MAX_HEARD_CHARACTERS // 2)


def test_addresses() -> None:
    assert is_aci(ALICE)
    assert not any(map(is_aci, [None, "", ALICE.upper(), f"{ALICE}\n", "+499876"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
NAMES = (
    "timestamp", "sourceUuid", "sourceNumber", "source", "dataMessage", "message", "reaction",
    "quote", "id", "author", "authorNumber", "emoji", "isRemove", "targetAuthor",
    "targetAuthorNumber", "targetSentTimestamp", "groupInfo", "syncMessage",
)  # fmt: skip


@given(JSON, JSON)
def test_no_json_breaks_it(anything: Any, account: Any) -> None:  # noqa: ANN401
    assert heard({"envelope": anything, "account": account}) is None


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), JSON)
def test_no_value_in_any_place_breaks_it(name: str, other: str, value: Any) -> None:  # noqa: ANN401
    for params in (
        said(ALICE, "DENY", STAMP, quotes=PROMPT),
        reacted(ALICE, "👎", PROMPT, STAMP),
    ):
        outer = params["envelope"]
        data = outer["dataMessage"]
        inner = data.get("quote") or data.get("reaction")
        for place in (outer, data, inner):
            kept = dict(place)
            place |= {name: value, other: value}
            found = heard(params)
            assert found is None or is_aci(found.address)
            place.clear()
            place |= kept
