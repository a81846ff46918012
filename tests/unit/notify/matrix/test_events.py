"""What of a sync is an answer: only texts and reactions of people who are believed to be they."""

from datetime import UTC, datetime
from typing import Any

import pytest

from host_agent.notify.channel import ChannelReply
from host_agent.notify.matrix.events import (
    MAX_HEARD_CHARACTERS,
    Arrived,
    SyncReader,
    is_limited,
    next_batch,
)

AGENT, ALICE, ROOM = "@host-agent:home.example", "@alice:home.example", "!abc:home.example"
READER = SyncReader(user=AGENT, domains=("home.example",))
SPOKEN = 1_700_000_000_123


def text(**changes: Any) -> dict[str, Any]:
    """Return an event as the specification shows it; the keywords replace keys."""
    event = {
        "type": "m.room.message",
        "sender": ALICE,
        "event_id": "$143273582443PhrSn",
        "origin_server_ts": SPOKEN,
        "content": {"msgtype": "m.text", "body": "CONFIRM ABCD"},
        "unsigned": {"age": 1234},
    }
    return {**event, **changes}


def content(body: object = "CONFIRM ABCD", **more: Any) -> dict[str, Any]:
    return {"content": {"msgtype": "m.text", "body": body, **more}}


def sync(*events: object, room: str = ROOM) -> dict[str, Any]:
    return {"next_batch": "s1", "rooms": {"join": {room: {"timeline": {"events": [*events]}}}}}


def arrived(*events: object, room: str = ROOM) -> list[Arrived]:
    return list(READER.arrived(sync(*events, room=room)))


def heard(event: object) -> ChannelReply:
    (one,) = arrived(event)
    assert one.reply is not None
    return one.reply


def test_a_text_is_heard_from_who_the_homeserver_says() -> None:
    (one,) = arrived(text())
    assert (one.room, one.event, one.sender) == (ROOM, "$143273582443PhrSn", ALICE)
    assert one.reply == ChannelReply(
        channel="matrix",
        address=ALICE,
        text="CONFIRM ABCD",
        sent_at=datetime.fromtimestamp(SPOKEN / 1000, UTC),
        reference="$143273582443PhrSn",
    )


EDIT = {"rel_type": "m.replace", "event_id": "$first"}


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(text(sender=AGENT), id="the agent's own echo"),
        pytest.param(text(sender="@alice:elsewhere.example"), id="another homeserver"),
        pytest.param(text(sender="@alice:home.example.evil.example"), id="a longer domain"),
        pytest.param(text(sender="alice:home.example"), id="no user id"),
        pytest.param(text(sender=7), id="a number"),
        pytest.param(text(**content(**{"m.relates_to": EDIT})), id="an edit"),
        pytest.param(text(**content(**{"m.new_content": {"body": "x"}})), id="new content"),
        pytest.param(text(unsigned={"m.relations": {"m.replace": {}}}), id="edited since"),
        pytest.param(text(content={}), id="redacted"),
        pytest.param(text(unsigned={"redacted_because": {}}), id="redacted, with its content"),
        pytest.param(text(content={"msgtype": "m.notice", "body": "CONFIRM A"}), id="a notice"),
        pytest.param(text(content={"msgtype": "m.emote", "body": "CONFIRM A"}), id="an emote"),
        pytest.param(text(**content("  \n ")), id="blank"),
        pytest.param(text(**content(["CONFIRM"])), id="a body that is a list"),
        pytest.param(text(state_key=""), id="state"),
        pytest.param(text(type="m.room.topic"), id="another type"),
        pytest.param(text(event_id="143273582443PhrSn"), id="no event id"),
        pytest.param(text(event_id="$" + "x" * 255), id="too long an event id"),
        pytest.param(text(origin_server_ts="1700000000123"), id="no time"),
        pytest.param(text(origin_server_ts=True), id="true for a time"),
        pytest.param(text(origin_server_ts=10**18), id="a time beyond all years"),
        pytest.param("CONFIRM ABCD", id="no object"),
        pytest.param(text(type="m.reaction", content={"m.relates_to": 7}), id="no relation"),
    ],
)
def test_what_is_no_answer_is_passed_over(event: object) -> None:
    assert not arrived(event)


def test_what_is_encrypted_is_known_to_be_and_not_read() -> None:
    (one,) = arrived(text(type="m.room.encrypted", content={"ciphertext": "AwgAEnACgAkLmt6qF84"}))
    assert (one.sender, one.reply) == (ALICE, None)


def test_a_reply_says_what_it_answers_and_its_fallback_is_not_read() -> None:
    answers = {"m.relates_to": {"m.in_reply_to": {"event_id": "$prompt"}}}
    plain = heard(text(**content("DENY too late", **answers)))
    assert (plain.text, plain.quotes) == ("DENY too late", "$prompt")
    old = heard(text(**content("> <@agent> CONFIRM ABCD\n> more\n\nDENY too late", **answers)))
    assert (old.text, old.quotes) == ("DENY too late", "$prompt")
    only = heard(text(**content("> <@agent> CONFIRM ABCD", **answers)))
    assert only.text == "> <@agent> CONFIRM ABCD"


def test_a_quotation_without_a_reply_is_read_as_it_stands() -> None:
    assert heard(text(**content("> x\n\nDENY it"))).text == "> x\n\nDENY it"


def test_a_message_of_a_thread_answers_nothing() -> None:
    thread = {
        "rel_type": "m.thread",
        "event_id": "$root",
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": "$prompt"},
    }
    assert heard(text(**content("DENY it", **{"m.relates_to": thread}))).quotes is None


def test_a_reaction_is_bound_to_the_message() -> None:
    relation = {"rel_type": "m.annotation", "event_id": "$prompt", "key": "\N{THUMBS DOWN SIGN}"}
    found = heard(text(type="m.reaction", content={"m.relates_to": relation}))
    assert (found.text, found.quotes, found.reaction) == ("", "$prompt", "\N{THUMBS DOWN SIGN}")


def test_long_and_broken_texts_are_bounded_and_whole() -> None:
    assert len(heard(text(**content("x" * 70_000))).text) == MAX_HEARD_CHARACTERS
    assert heard(text(**content("CONFIRM \ud800"))).text == "CONFIRM ?"


@pytest.mark.parametrize("broken", [{}, {"rooms": []}, {"rooms": {"join": {"!a:b": 7}}}])
def test_a_sync_of_another_form_tells_nothing(broken: dict[str, Any]) -> None:
    assert not list(READER.arrived(broken))
    assert not list(READER.invitations(broken))
    assert not is_limited(broken)


def test_a_room_needs_an_id() -> None:
    assert not arrived(text(), room="#alias:home.example")


def test_the_token_and_whether_something_was_left_out() -> None:
    assert next_batch({"next_batch": "s72594_4483_1934"}) == "s72594_4483_1934"
    assert next_batch({"next_batch": ""}) is None
    assert next_batch({"next_batch": "s" * 5000}) is None
    assert is_limited({"rooms": {"join": {ROOM: {"timeline": {"limited": True}}}}})


def invitation(**changes: Any) -> dict[str, Any]:
    member = {
        "type": "m.room.member",
        "state_key": AGENT,
        "sender": ALICE,
        "content": {"membership": "invite"},
    }
    events = [{"type": "m.room.name", "state_key": "", "sender": ALICE}, {**member, **changes}]
    return {"rooms": {"invite": {ROOM: {"invite_state": {"events": events}}}}}


def test_an_invitation_of_who_is_believed_is_taken() -> None:
    assert list(READER.invitations(invitation())) == [ROOM]


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": "@mallory:elsewhere.example"},
        {"state_key": "@erin:home.example"},
        {"content": {"membership": "join"}},
    ],
)
def test_another_invitation_is_not(changes: dict[str, Any]) -> None:
    assert not list(READER.invitations(invitation(**changes)))


@pytest.mark.parametrize("is_first", [True, False])
def test_an_invitation_that_comes_with_a_forged_one_is_not_taken(is_first: bool) -> None:
    """What comes along with the invitation is not signed by anybody."""
    told = invitation()
    events = told["rooms"]["invite"][ROOM]["invite_state"]["events"]
    real = {**events[-1], "sender": "@mallory:elsewhere.example"}
    events.insert(0 if is_first else len(events), real)
    assert not list(READER.invitations(told))
