"""Matrix against a homeserver: prompts into a room of two, answers out of it, and what is not."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.notify.channel import Channel, ChannelError, ChannelReply, Message
from host_agent.notify.flood import MAX_ANSWERS_EACH
from host_agent.notify.matrix import channel as module
from host_agent.notify.matrix.channel import (
    EVENTS_EACH,
    FILE_NAME,
    HAS_OTHERS,
    INVITATION_TRIES,
    IS_ENCRYPTED,
    MAX_ANSWERS,
    MatrixChannel,
)
from host_agent.notify.matrix.homeserver import MAX_ROOMS
from host_agent.notify.matrix.homeserver import Homeserver as Account
from host_agent.notify.outbound import Outbound
from host_agent.requests.notification import Failure
from tests.support.matrix_homeserver import AGENT, ALICE, ERIN, MALLORY, TOKEN, Homeserver
from tests.support.messages import CODE, a_message, an_outcome
from tests.support.signal_people import Ears, Pauses, listening, sent_by
from tests.support.visit import until

ROOM, OTHER = "!alice:home.example", "!team:home.example"
LIMITED = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 2500}


@pytest.fixture
def home() -> Iterator[Homeserver]:
    with Homeserver() as started:
        started.server.make(ROOM, AGENT, ALICE)
        yield started


def channel(url: str, folder: Path, **changes: Any) -> MatrixChannel:
    (folder / "token").write_text(f"{changes.pop('token', TOKEN)}\n")
    account = Account(
        Outbound(url, deadline_seconds=5, max_answer_bytes=changes.pop("room", 1_048_576)),
        base="",
        user=changes.pop("user", AGENT),
        token_file=folder / "token",
    )
    settings: dict[str, Any] = {
        "domains": ["home.example"],
        "state": folder,
        "pause": Pauses(),
        **changes,
    }
    return MatrixChannel(account, **settings)


def for_alice(**changes: Any) -> Message:
    return a_message(**{"address": ALICE, "code": CODE, **changes})


async def refusal(it: Channel, **changes: Any) -> ChannelError:
    with pytest.raises(ChannelError) as refused:
        await sent_by(it, for_alice(**changes))
    return refused.value


async def begun(home: Homeserver) -> None:
    """Wait until the account follows from a token: what is written from now on is heard."""
    await until(lambda: home.server.asked.count("GET /v3/sync") > 1, "a second sync")


# -- out -------------------------------------------------------------------------------------------


async def test_a_prompt_and_its_code_go_into_the_room_of_two(
    home: Homeserver, tmp_path: Path
) -> None:
    home.server.make("!a-crowd:home.example", AGENT, ALICE, ERIN)
    home.server.make("!b-encrypted:home.example", AGENT, ALICE, is_encrypted=True)
    message = for_alice()
    prompt = message.prompt
    told = await sent_by(
        channel(home.url, tmp_path),
        for_alice(prompt=type(prompt)(title="t", text="the prompt", answer=f"CONFIRM {CODE}")),
    )
    assert home.server.texts() == ["the prompt", f"CONFIRM {CODE}"]
    assert {room for room, _ in home.server.sent} == {ROOM}
    events = [event for _, event in home.server.sent]
    assert [told.reference, told.answer_reference] == [event["event_id"] for event in events]
    assert all(event["content"]["msgtype"] == "m.text" for event in events)


async def test_the_same_message_again_is_one_message(home: Homeserver, tmp_path: Path) -> None:
    first = await sent_by(channel(home.url, tmp_path), for_alice())
    again = await sent_by(channel(home.url, tmp_path), for_alice())
    other = await sent_by(channel(home.url, tmp_path), for_alice(id="another"))
    assert first.reference == again.reference != other.reference
    assert len(home.server.sent) == 2


async def test_an_outcome_answers_its_prompt(home: Homeserver, tmp_path: Path) -> None:
    await sent_by(channel(home.url, tmp_path), an_outcome(address=ALICE))
    ((_, event),) = home.server.sent
    assert event["content"]["m.relates_to"] == {"m.in_reply_to": {"event_id": "prompt-1"}}


@pytest.mark.parametrize("address", [None, "", "@alice:elsewhere.example", "alice"])
async def test_who_has_no_believed_address_is_told_nothing(
    home: Homeserver, tmp_path: Path, address: str | None
) -> None:
    error = await refusal(channel(home.url, tmp_path), address=address)
    assert (error.failure, error.is_final) == (Failure.NOT_ENROLLED, True)
    assert not home.server.asked


async def test_without_a_room_of_two_nothing_is_told(home: Homeserver, tmp_path: Path) -> None:
    home.server.context[ROOM].joined.append(ERIN)
    error = await refusal(channel(home.url, tmp_path))
    assert (error.failure, error.is_final) == (Failure.NOT_ENROLLED, True)
    assert "shares no room" in str(error)
    assert not home.server.sent


async def test_into_an_encrypted_room_no_code_is_written(home: Homeserver, tmp_path: Path) -> None:
    home.server.context[ROOM].is_encrypted = True
    error = await refusal(channel(home.url, tmp_path))
    assert (error.failure, error.is_final) == (Failure.NOT_ENROLLED, True)
    assert "encrypted" in str(error)
    assert not home.server.sent


async def test_a_room_is_asked_for_anew_at_each_prompt(home: Homeserver, tmp_path: Path) -> None:
    it = channel(home.url, tmp_path)
    await it.send(for_alice())
    home.server.context[ROOM].joined.append(ERIN)
    assert (await refusal(it, id="next")).failure is Failure.NOT_ENROLLED
    home.server.context[ROOM].joined.remove(AGENT)
    assert (await refusal(it, id="next")).failure is Failure.NOT_ENROLLED
    assert len(home.server.sent) == 1


async def test_a_token_of_another_account_sends_nothing(home: Homeserver, tmp_path: Path) -> None:
    error = await refusal(channel(home.url, tmp_path, user="@other:home.example"))
    assert error.failure is Failure.NOT_CONFIGURED
    assert "another account" in str(error)
    assert not home.server.sent


async def test_a_token_that_is_not_known_is_said_and_not_shown(
    home: Homeserver, tmp_path: Path
) -> None:
    error = await refusal(channel(home.url, tmp_path, token="syt_old"))
    assert (error.failure, error.is_final) == (Failure.NOT_CONFIGURED, False)
    assert "M_UNKNOWN_TOKEN" in str(error)
    assert "syt_old" not in str(error)


async def test_a_token_that_ends_is_asked_about_anew(home: Homeserver, tmp_path: Path) -> None:
    it = channel(home.url, tmp_path)
    await it.send(for_alice())
    home.server.tokens.clear()
    assert (await refusal(it, id="2")).failure is Failure.NOT_CONFIGURED
    home.server.tokens["syt_new"] = AGENT
    (tmp_path / "token").write_text("syt_new")
    await it.send(for_alice(id="3"))
    await it.close()
    assert home.server.asked.count("GET /v3/account/whoami") == 2


@pytest.mark.parametrize(
    ("status", "told", "headers", "seconds"),
    [
        (429, LIMITED, {}, 2.5),
        (429, LIMITED, {"Retry-After": "7"}, 7.0),
        (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": True}, {}, None),
        (429, LIMITED | {"retry_after_ms": 10**12}, {}, 3600.0),
    ],
)
async def test_a_rate_limit_says_how_long(
    home: Homeserver,
    tmp_path: Path,
    status: int,
    told: object,
    headers: dict[str, str],
    seconds: float | None,
) -> None:
    home.server.refuse(f"/v3/rooms/{ROOM.replace('!', '%21').replace(':', '%3A')}/send",
                       status, told, headers=headers)  # fmt: skip
    error = await refusal(channel(home.url, tmp_path))
    assert (error.failure, error.is_final) == (Failure.RATE_LIMITED, False)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("status", "told", "failure", "is_final"),
    [
        (413, {"errcode": "M_TOO_LARGE"}, Failure.REFUSED, True),
        (500, {"errcode": "M_UNKNOWN", "error": "Internal"}, Failure.REFUSED, False),
        (502, b"<html>Bad gateway</html>", Failure.REFUSED, False),
        (403, {"error": "a secret word"}, Failure.REFUSED, True),
        (200, {"event_id": 7}, Failure.BAD_ANSWER, False),
        (200, b"[1, 2]", Failure.BAD_ANSWER, False),
    ],
)
async def test_other_refusals_are_what_they_are(
    home: Homeserver,
    tmp_path: Path,
    status: int,
    told: object,
    failure: Failure,
    is_final: bool,
) -> None:
    home.server.refuse("/v3/rooms/%21alice%3Ahome.example/send", status, told)
    error = await refusal(channel(home.url, tmp_path))
    assert (error.failure, error.is_final) == (failure, is_final)
    assert "secret" not in str(error)


@pytest.mark.parametrize("path", ["/v3/joined_rooms", "/v3/rooms/%21alice%3Ahome.example/joined"])
async def test_an_answer_of_another_form_is_none(
    home: Homeserver, tmp_path: Path, path: str
) -> None:
    home.server.refuse(path, 200, {"joined": 7, "joined_rooms": 7})
    assert (await refusal(channel(home.url, tmp_path))).failure is Failure.BAD_ANSWER


@pytest.mark.parametrize(
    ("path", "status", "code", "failure", "is_final"),
    [
        ("joined_members", 403, "M_FORBIDDEN", Failure.NOT_ENROLLED, True),
        ("joined_members", 500, "M_UNKNOWN", Failure.REFUSED, False),
        ("state", 500, "M_UNKNOWN", Failure.REFUSED, False),
    ],
)
async def test_a_room_that_cannot_be_looked_at_gets_no_code(
    home: Homeserver,
    tmp_path: Path,
    path: str,
    status: int,
    code: str,
    failure: Failure,
    is_final: bool,
) -> None:
    home.server.refuse(f"/v3/rooms/%21alice%3Ahome.example/{path}", status, {"errcode": code})
    error = await refusal(channel(home.url, tmp_path))
    assert (error.failure, error.is_final) == (failure, is_final)
    assert not home.server.sent


async def test_a_homeserver_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with Homeserver() as gone:
        url = gone.url
    assert (await refusal(channel(url, tmp_path))).failure is Failure.UNREACHABLE


# -- in --------------------------------------------------------------------------------------------


async def test_what_an_approver_writes_is_heard_and_answered_there(
    home: Homeserver, tmp_path: Path
) -> None:
    ears = Ears(lambda heard: "Approved." if heard.text.startswith("CONFIRM") else None)
    async with listening(channel(home.url, tmp_path), ears):
        await begun(home)
        event = home.server.write(ROOM, ALICE, f"CONFIRM {CODE}")
        heard = await ears.next()
        assert (heard.channel, heard.address, heard.reference) == ("matrix", ALICE, event)
        await until(lambda: home.server.sent, "an answer")
        thumb = home.server.react(ROOM, ALICE, "$prompt", "\N{THUMBS DOWN SIGN}\ufe0f")
        assert (await ears.next()).reference == thumb
    ((room, answer),) = home.server.sent
    assert room == ROOM
    assert answer["content"] == {
        "msgtype": "m.notice",
        "body": "Approved.",
        "m.relates_to": {"m.in_reply_to": {"event_id": event}},
    }


async def heard_between(
    home: Homeserver, folder: Path, write: Callable[[], object], **changes: Any
) -> list[str]:
    """Return the texts that are heard of what `write` puts there, in order, up to a last one."""
    async with listening(channel(home.url, folder, **changes)) as ears:
        await begun(home)
        write()
        home.server.write(ROOM, ALICE, "the end")
        texts = await ears.texts_until("the end")
        syncs = home.server.asked.count("GET /v3/sync")
        home.server.write(ROOM, AGENT, "so that one more sync ends")
        await until(lambda: home.server.asked.count("GET /v3/sync") > syncs, "another sync")
        return texts


async def test_strangers_other_rooms_edits_and_the_echo_are_not_heard(
    home: Homeserver, tmp_path: Path
) -> None:
    server = home.server
    server.make(OTHER, AGENT, ALICE, ERIN)
    server.make("!theirs:home.example", AGENT, MALLORY)

    def write() -> None:
        server.write("!theirs:home.example", MALLORY, "CONFIRM theirs")
        server.write(OTHER, ALICE, "CONFIRM there")
        server.write(OTHER, ALICE, "hello everybody")
        first = server.write(ROOM, ALICE, "first")
        edit = {"rel_type": "m.replace", "event_id": first}
        new = {"msgtype": "m.text", "body": "CONFIRM edited"}
        more = {"m.new_content": new, "m.relates_to": edit}
        server.write(ROOM, ALICE, "* CONFIRM edited", **more)
        server.write(ROOM, AGENT, "CONFIRM echoed")

    assert await heard_between(home, tmp_path, write) == ["first", "the end"]
    assert [(room, event["content"]["body"]) for room, event in server.sent] == [
        (OTHER, HAS_OTHERS)
    ]


async def test_in_an_encrypted_room_it_says_that_it_cannot_read(
    home: Homeserver, tmp_path: Path
) -> None:
    server = home.server
    server.make(OTHER, AGENT, ALICE, ERIN, is_encrypted=True)

    def write() -> None:
        cipher = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEnACgAkLmt6qF84IK"}
        server.put(ROOM, ALICE, cipher, kind="m.room.encrypted")
        server.put(OTHER, ALICE, cipher, kind="m.room.encrypted")

    assert await heard_between(home, tmp_path, write) == ["the end"]
    assert [(room, event["content"]["body"]) for room, event in server.sent] == [
        (ROOM, IS_ENCRYPTED)
    ]


async def test_what_was_written_before_the_first_start_is_not_heard(
    home: Homeserver, tmp_path: Path
) -> None:
    home.server.write(ROOM, ALICE, "CONFIRM old")
    assert await heard_between(home, tmp_path, lambda: None) == ["the end"]


async def test_what_is_written_while_the_agent_is_away_is_heard_once(
    home: Homeserver, tmp_path: Path
) -> None:
    await heard_between(home, tmp_path, lambda: None)
    await until(lambda: (tmp_path / FILE_NAME).exists(), "a token")
    home.server.write(ROOM, ALICE, "meanwhile")
    async with listening(channel(home.url, tmp_path)) as ears:
        assert "meanwhile" in await ears.texts_until("meanwhile")
        syncs = home.server.asked.count("GET /v3/sync")
        await until(lambda: home.server.asked.count("GET /v3/sync") > syncs)
    home.server.write(ROOM, ALICE, "later")
    async with listening(channel(home.url, tmp_path)) as ears:
        assert await ears.texts_until("later") == ["later"]


async def test_what_fails_while_it_is_heard_comes_again_and_is_heard_once(
    home: Homeserver, tmp_path: Path
) -> None:
    server = home.server
    server.make(OTHER, AGENT, ERIN)

    async with listening(channel(home.url, tmp_path)) as ears:
        await begun(home)
        with server.changed:  # so that one sync brings both rooms
            server.refuse("/v3/rooms/%21team", 503, {"errcode": "M_UNKNOWN"})
            server.write(ROOM, ALICE, "hers")
            server.write(OTHER, ERIN, "theirs")
        assert [(await ears.next()).text for _ in range(2)] == ["hers", "theirs"]
        server.write(ROOM, ALICE, "the end")
        assert await ears.texts_until("the end") == ["the end"]


async def test_a_token_that_the_homeserver_does_not_know_begins_anew(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await heard_between(home, tmp_path, lambda: None)
    kept = tmp_path / FILE_NAME
    before = kept.read_text()
    home.server.oldest = 10_000
    home.server.write(ROOM, ALICE, "lost")
    async with listening(channel(home.url, tmp_path)) as ears:
        await until(lambda: "begun anew" in caplog.text, "a word of it")
        home.server.oldest = 0
        await until(lambda: kept.read_text() != before, "a new token")
        home.server.write(ROOM, ALICE, "found")
        assert await ears.texts_until("found") == ["found"]


async def test_a_homeserver_that_does_not_sync_for_a_while_loses_nothing(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await heard_between(home, tmp_path, lambda: None)
    home.server.write(ROOM, ALICE, "meanwhile")
    home.server.refuse("/v3/sync", 404, {"errcode": "M_UNRECOGNIZED"})
    home.server.refuse("/v3/sync", 403, {"errcode": "M_FORBIDDEN"})
    async with listening(channel(home.url, tmp_path)) as ears:
        assert "meanwhile" in await ears.texts_until("meanwhile")
    assert "begun anew" not in caplog.text


async def test_where_nothing_is_new_no_token_is_written(
    home: Homeserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = module.Since.write

    def keep(it: module.Since, token: str) -> None:
        written.append(token)
        write(it, token)

    monkeypatch.setattr(module.Since, "write", keep)
    async with listening(channel(home.url, tmp_path)):
        await begun(home)
        home.server.refuse("/v3/sync", 200, {"next_batch": "s1"}, times=2)
        home.server.write(ROOM, AGENT, "so that the sync ends")
        await until(lambda: not home.server.refusals, "two syncs with nothing new")
        home.server.write(ROOM, AGENT, "something new")
        await until(lambda: written[-1] == "s2", "the next token")
    assert written == ["s0", "s1", "s2"]
    assert '"s2"' in (tmp_path / FILE_NAME).read_text()


@pytest.mark.parametrize("kept", ["", "[]", '{"account": "@other:x", "since": "s1"}', "{"])
async def test_a_file_of_another_account_or_form_is_no_token(
    home: Homeserver, tmp_path: Path, kept: str
) -> None:
    (tmp_path / FILE_NAME).write_text(kept)
    home.server.write(ROOM, ALICE, "CONFIRM old")
    assert await heard_between(home, tmp_path, lambda: None) == ["the end"]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_where_the_token_cannot_be_kept_people_are_heard_all_the_same(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "nowhere"
    assert await heard_between(home, tmp_path, lambda: None, state=state) == ["the end"]
    assert "cannot be kept" in caplog.text


async def test_a_broken_connection_is_made_again_after_a_growing_pause(
    home: Homeserver, tmp_path: Path
) -> None:
    home.server.refuse("/v3/sync", 502, b"bad gateway", times=3)
    pauses = Pauses()
    it = channel(home.url, tmp_path, pause=pauses, jitter=lambda: 1.0)
    async with listening(it) as ears:
        await begun(home)
        await until(lambda: len(pauses.seconds) == 3)
        syncs = home.server.asked.count("GET /v3/sync")
        await until(lambda: home.server.asked.count("GET /v3/sync") >= max(syncs, 5))
        home.server.write(ROOM, ALICE, "hello")
        assert await ears.texts_until("hello") == ["hello"]
    assert pauses.seconds == [1.0, 2.0, 4.0]


async def test_a_rate_limit_of_the_sync_is_waited_for(home: Homeserver, tmp_path: Path) -> None:
    home.server.refuse("/v3/sync", 429, LIMITED | {"retry_after_ms": 120_000})
    pauses = Pauses(is_held=True)
    async with listening(channel(home.url, tmp_path, pause=pauses)):
        assert await pauses.begun() == 120.0


@pytest.mark.parametrize("told", [{}, {"next_batch": 7}, b"nothing"])
async def test_a_sync_without_a_token_is_a_failure(
    home: Homeserver, tmp_path: Path, told: object, caplog: pytest.LogCaptureFixture
) -> None:
    home.server.refuse("/v3/sync", 200, told)
    async with listening(channel(home.url, tmp_path)):
        await until(lambda: "does not answer as a Matrix homeserver" in caplog.text)


async def test_a_defect_in_hearing_ends_nothing(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []

    def answer(heard: ChannelReply) -> str | None:
        if heard.text == "bad" and not failed:
            failed.append(heard.text)
            raise RuntimeError
        return None

    ears = Ears(answer)
    async with listening(channel(home.url, tmp_path), ears):
        await begun(home)
        home.server.write(ROOM, ALICE, "bad")
        home.server.write(ROOM, ALICE, "good")
        assert (await ears.texts_until("good"))[-1] == "good"
    assert "a defect, RuntimeError" in caplog.text


# -- too much --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remembered", "texts"),
    [(module.MAX_REMEMBERED, ["a", "b", "c"]), (1, ["a", "b", "a", "b", "c"])],
)
async def test_the_memory_of_what_was_heard_is_bounded(
    home: Homeserver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    remembered: int,
    texts: list[str],
) -> None:
    """What comes again after a failure is heard again where it is not remembered."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", remembered)
    server = home.server
    server.make(OTHER, AGENT, ERIN)

    def write() -> None:
        with server.changed:  # so that one sync brings both rooms
            server.refuse("/v3/rooms/%21team", 503, {"errcode": "M_UNKNOWN"})
            server.write(ROOM, ALICE, "a")
            server.write(ROOM, ALICE, "b")
            server.write(OTHER, ERIN, "c")

    async with listening(channel(home.url, tmp_path)) as ears:
        await begun(home)
        write()
        assert await ears.texts_until("c") == texts


@pytest.mark.parametrize(("most", "is_known"), [(MAX_ROOMS, True), (1, False)])
async def test_the_memory_of_where_people_write_is_bounded(
    home: Homeserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, is_known: bool
) -> None:
    """A prompt goes where its approver wrote last, or else into their first room."""
    monkeypatch.setattr(module, "MAX_ROOMS", most)
    second, erins = home.server.make("!z:home.example", AGENT, ALICE), "!erins:home.example"
    home.server.make(erins, AGENT, ERIN)
    it = channel(home.url, tmp_path)
    async with listening(it) as ears:
        await begun(home)
        home.server.write(second, ALICE, "here")
        await ears.texts_until("here")
        home.server.write(erins, ERIN, "there")
        await ears.texts_until("there")
        await it.send(for_alice())
    assert [room for room, _ in home.server.sent] == [second if is_known else ROOM]


async def test_too_large_a_sync_is_asked_for_in_smaller_pieces(
    home: Homeserver, tmp_path: Path
) -> None:
    def write() -> None:
        with home.server.changed:
            for number in range(EVENTS_EACH):
                home.server.write(ROOM, ALICE, f"{number} " + "x" * 8_000)

    texts = await heard_between(home, tmp_path, write, room=65_536)
    assert texts[-1] == "the end"


async def test_more_than_is_read_loses_the_oldest_and_says_so(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write() -> None:
        with home.server.changed:
            for number in range(EVENTS_EACH + 5):
                home.server.write(ROOM, ALICE, f"{number}")

    texts = await heard_between(home, tmp_path, write)
    assert "0" not in texts
    assert f"{EVENTS_EACH + 4}" in texts
    assert "more is written over Matrix than is read" in caplog.text


async def test_who_writes_without_end_is_answered_so_often_and_no_more(
    home: Homeserver, tmp_path: Path
) -> None:
    it = channel(home.url, tmp_path, monotonic=lambda: 100.0)
    ears = Ears(lambda heard: f"re {heard.text}")
    async with listening(it, ears):
        await begun(home)
        for number in range(MAX_ANSWERS_EACH + 3):
            home.server.write(ROOM, ALICE, f"{number}")
            await ears.next()
        await until(lambda: len(home.server.sent) >= MAX_ANSWERS_EACH)
    assert len(home.server.sent) == MAX_ANSWERS_EACH


async def test_answers_that_do_not_get_out_are_bounded(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.server.refuse("/v3/rooms/%21alice%3Ahome.example/send", 503, {}, times=10_000)
    clock = iter(range(0, 10_000_000, 60))
    it = channel(home.url, tmp_path, monotonic=lambda: float(next(clock)))
    held = asyncio.Event()

    async def never(*_: object, **__: object) -> str:
        await held.wait()
        return ""

    it._homeserver.send = never  # type: ignore[method-assign]
    ears = Ears(lambda _: "re")
    async with listening(it, ears):
        await begun(home)
        for number in range(MAX_ANSWERS + 3):
            home.server.write(ROOM, ALICE, f"{number}")
            await ears.next()
        held.set()
    assert "do not get out" in caplog.text


async def test_an_answer_that_is_refused_ends_nothing(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.server.refuse("/v3/rooms/%21alice%3Ahome.example/send", 403, {"errcode": "M_FORBIDDEN"})
    ears = Ears(lambda heard: f"re {heard.text}")
    async with listening(channel(home.url, tmp_path), ears):
        await begun(home)
        home.server.write(ROOM, ALICE, "one")
        await until(lambda: "an answer over Matrix was not sent" in caplog.text)
        home.server.write(ROOM, ALICE, "two")
        await until(lambda: home.server.texts() == ["re two"])


async def test_a_defect_in_answering_ends_nothing(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    it = channel(home.url, tmp_path)

    async def broken(*_: object, **__: object) -> str:
        raise RuntimeError

    it._homeserver.send = broken  # type: ignore[method-assign]
    async with listening(it, Ears(lambda _: "re")):
        await begun(home)
        home.server.write(ROOM, ALICE, "one")
        await until(lambda: "was not sent: a defect, RuntimeError" in caplog.text)


# -- invitations -----------------------------------------------------------------------------------


async def test_an_invitation_of_an_approver_is_taken_and_the_room_used(
    home: Homeserver, tmp_path: Path
) -> None:
    room = "!erins:home.example"
    async with listening(channel(home.url, tmp_path)) as ears:
        await begun(home)
        home.server.invite(room, by=ERIN)
        await until(lambda: AGENT in home.server.context[room].joined, "joining")
        home.server.write(room, ERIN, "ENROL ABCD")
        assert (await ears.next()).address == ERIN
        it = channel(home.url, tmp_path)
        await sent_by(it, for_alice(address=ERIN))
    assert [where for where, _ in home.server.sent] == [room]


async def test_an_invitation_of_a_stranger_is_not_taken(home: Homeserver, tmp_path: Path) -> None:
    room = "!theirs:elsewhere.example"
    await heard_between(home, tmp_path, lambda: home.server.invite(room, by=MALLORY))
    assert AGENT not in home.server.context[room].joined


async def test_an_invitation_waits_where_the_homeserver_is_busy(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.server.refuse("/v3/rooms/%21erins%3Ahome.example/join", 429, LIMITED)
    home.server.refuse("/v3/rooms/%21gone%3Ahome.example/join", 404, {"errcode": "M_NOT_FOUND"})
    erins, gone = "!erins:home.example", "!gone:home.example"
    async with listening(channel(home.url, tmp_path)):
        await begun(home)
        home.server.invite(erins, by=ERIN)
        await until(lambda: "an invitation waits" in caplog.text)
        assert AGENT not in home.server.context[erins].joined
        home.server.invite(gone, by=ERIN)
        await until(lambda: "an invitation was not taken" in caplog.text)
        await until(lambda: AGENT in home.server.context[erins].joined, "joining")
    assert AGENT not in home.server.context[gone].joined


async def test_an_invitation_that_fails_again_and_again_holds_up_no_other(
    home: Homeserver, tmp_path: Path
) -> None:
    dead, good = "!dead:home.example", "!good:home.example"
    home.server.refuse("/v3/rooms/%21dead%3Ahome.example/join", 504, {}, times=INVITATION_TRIES)

    def invite() -> None:
        home.server.invite(dead, by=ERIN)
        home.server.invite(good, by=ERIN)

    async with listening(channel(home.url, tmp_path)):
        await begun(home)
        invite()
        for number in range(INVITATION_TRIES + 2):
            syncs = home.server.asked.count("GET /v3/sync")
            home.server.write(ROOM, AGENT, f"so that sync {number} ends")
            await until(lambda n=syncs: home.server.asked.count("GET /v3/sync") > n)  # type: ignore[misc]
    assert AGENT in home.server.context[good].joined
    assert AGENT not in home.server.context[dead].joined
    assert not home.server.refusals  # so often it was tried, and not once more


async def test_a_room_whose_members_cannot_be_read_silences_nobody(
    home: Homeserver, tmp_path: Path
) -> None:
    big = "!a-big-one:home.example"
    home.server.make(big, AGENT, ALICE, ERIN, MALLORY)
    home.server.refuse("/v3/rooms/%21a-big-one%3Ahome.example/joined_members", 502, {}, times=99)

    def write() -> None:
        home.server.write(big, ERIN, f"CONFIRM {CODE}")

    assert await heard_between(home, tmp_path, write) == ["the end"]
    await sent_by(channel(home.url, tmp_path), for_alice(address=ALICE))
    assert home.server.sent[-1][0] == ROOM


async def test_where_no_room_can_be_read_a_prompt_is_tried_again(
    home: Homeserver, tmp_path: Path
) -> None:
    home.server.refuse("/v3/rooms/", 502, {}, times=1)
    it = channel(home.url, tmp_path)
    with pytest.raises(ChannelError) as raised:
        await sent_by(it, for_alice(address=ALICE))
    assert not raised.value.is_final
    await sent_by(it, for_alice(address=ALICE))
    assert home.server.sent[-1][0] == ROOM


async def test_an_account_in_too_many_rooms_takes_no_more(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MAX_ROOMS):
        home.server.make(f"!{number}:home.example", AGENT, ERIN)
    await heard_between(home, tmp_path, lambda: home.server.invite("!more:home.example", by=ERIN))
    assert AGENT not in home.server.context["!more:home.example"].joined
    assert "too many rooms" in caplog.text


# -- the rest --------------------------------------------------------------------------------------


async def test_a_probe_says_who_answers_and_what_cannot_be_read(
    home: Homeserver, tmp_path: Path
) -> None:
    it = channel(home.url, tmp_path)
    assert "is a Matrix homeserver (v1.11); the account is in 1 room(s)." in await it.probe()
    home.server.context[ROOM].is_encrypted = True
    assert "WARNING: 1 encrypted" in await it.probe()
    assert not home.server.sent
    home.server.refuse("/versions", 200, {"versions": []})
    assert "of unknown version" in await it.probe()
    await it.close()
    await it.close()


async def test_a_probe_with_a_token_that_is_not_known_fails(
    home: Homeserver, tmp_path: Path
) -> None:
    it = channel(home.url, tmp_path, token="old")
    with pytest.raises(ChannelError, match="M_UNKNOWN_TOKEN"):
        await it.probe()
    await it.close()


async def test_no_text_code_or_token_is_logged(
    home: Homeserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    home.server.refuse("/v3/sync", 500, {"errcode": "M_UNKNOWN", "error": "words of a peer"})
    await heard_between(home, tmp_path, lambda: home.server.write(ROOM, ALICE, f"CONFIRM {CODE}"))
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("host_agent"))
    for secret in (CODE, TOKEN, "words of a peer", ROOM):
        assert secret not in ours
