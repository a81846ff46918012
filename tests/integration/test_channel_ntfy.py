"""ntfy against a server with access control: prompts out, denials in, and no way to approve."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.notify import ntfy as module
from host_agent.notify.channel import Channel, ChannelError, ChannelReply
from host_agent.notify.ntfy import NtfyChannel
from host_agent.notify.outbound import Outbound
from host_agent.requests.notification import Failure
from tests.support.messages import CODE, a_message, an_outcome
from tests.support.ntfy_server import NtfyServer, press
from tests.support.patience import PATIENCE

AGENT, REPLY, PHONE = "tk_agent", "tk_reply", "tk_phone"
TOPIC, REPLIES = "host-agent-bob-x7", "host-agent-replies"
OTHER_CODE = "9876543298765432"


def wall() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def ntfy() -> Iterator[NtfyServer]:
    with NtfyServer() as started:
        started.server.access = {
            (AGENT, "write"): {TOPIC},
            (AGENT, "read"): {REPLIES},
            (REPLY, "write"): {REPLIES},
            (PHONE, "read"): {TOPIC},
        }
        yield started


def channel(url: str, folder: Path, **changes: Any) -> NtfyChannel:
    (folder / "token").write_text(f"{AGENT}\n")
    (folder / "reply").write_text(f"{REPLY}\n")
    settings: dict[str, Any] = {
        "token_file": folder / "token",
        "reply_topic": REPLIES,
        "reply_token_file": folder / "reply",
        "now": wall,
        "jitter": lambda: 0.0,
    }
    return NtfyChannel(Outbound(url, deadline_seconds=5), **{**settings, **changes})


async def send(sender: NtfyChannel, **changes: Any) -> str | None:
    try:
        return (await sender.send(a_message(code=CODE, **changes))).reference
    finally:
        await sender.close()


class Ears:
    """Keeps what is heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[ChannelReply] = asyncio.Queue()

    async def __call__(self, heard: ChannelReply) -> str | None:
        await self.heard.put(heard)
        return None

    async def next(self) -> ChannelReply:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def until(self, text: str) -> list[ChannelReply]:
        """Return everything up to the message with `text`."""
        found = [await self.next()]
        while found[-1].text != text:
            found.append(await self.next())
        return found


@asynccontextmanager
async def listening(listener: NtfyChannel) -> AsyncIterator[Ears]:
    ears = Ears()
    task = asyncio.create_task(listener.listen(ears))
    try:
        yield ears
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await listener.close()


def say(ntfy: NtfyServer, message: str, topic: str = REPLIES) -> str:
    identifier: str = ntfy.server.publish({"topic": topic, "message": message})["id"]
    return identifier


# -- out -------------------------------------------------------------------------------------------


async def test_a_prompt_with_its_button(ntfy: NtfyServer, tmp_path: Path) -> None:
    sender: Channel = channel(ntfy.url, tmp_path, review_url="https://agent.example/requests/")
    delivery = await sender.send(a_message(code=CODE))
    await sender.close()
    (told,) = ntfy.server.published
    assert not ntfy.server.faults
    assert delivery.reference == told["id"]
    assert (told["topic"], told["title"]) == (TOPIC, a_message().prompt.title)
    assert told["message"] == a_message().prompt.text
    review, deny = told["actions"]
    assert (review["action"], review["url"]) == (
        "view",
        f"https://agent.example/requests/{a_message().request.id}",
    )
    assert (deny["action"], deny["label"], deny["url"]) == ("http", "Deny", f"{ntfy.url}/")
    assert json.loads(deny["body"]) == {"topic": REPLIES, "message": f"deny {CODE}"}
    assert deny["headers"]["Authorization"] == f"Bearer {REPLY}"
    assert AGENT not in json.dumps(told)


async def test_nothing_in_it_approves(ntfy: NtfyServer, tmp_path: Path) -> None:
    await send(channel(ntfy.url, tmp_path))
    (told,) = ntfy.server.published
    said = json.dumps(told["actions"]).lower()
    assert "approve" not in said
    assert "confirm" not in said
    assert all(action["action"] in {"view", "http"} for action in told["actions"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reply_topic": None, "reply_token_file": None}, {}),
        ({}, {"code": None}),
    ],
)
async def test_without_topic_or_token_there_is_no_button(
    ntfy: NtfyServer, tmp_path: Path, changes: dict[str, Any], message: dict[str, Any]
) -> None:
    sender = channel(ntfy.url, tmp_path, **changes)
    await sender.send(a_message(**{"code": CODE, **message}))
    await sender.close()
    assert ntfy.server.published[0]["actions"] == []
    assert CODE not in json.dumps(ntfy.server.published)


async def test_a_topic_that_everybody_may_write_needs_no_token(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    ntfy.server.access = None
    assert await send(channel(ntfy.url, tmp_path, token_file=None, reply_token_file=None))
    (action,) = ntfy.server.published[0]["actions"]
    assert action["headers"] == {"Content-Type": "application/json"}
    assert press(action) == 200


async def test_a_server_with_access_control_takes_nothing_without_a_token(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    with pytest.raises(ChannelError) as raised:
        await send(channel(ntfy.url, tmp_path, token_file=None))
    assert (raised.value.failure, raised.value.is_final) == (Failure.REFUSED, True)
    assert not ntfy.server.published


async def test_an_outcome_has_no_button(ntfy: NtfyServer, tmp_path: Path) -> None:
    sender = channel(ntfy.url, tmp_path)
    await sender.send(an_outcome(code=CODE))
    await sender.close()
    assert ntfy.server.published[0]["actions"] == []


@pytest.mark.parametrize("address", [None, "", "a b", "a/b", "a" * 65, "t\u00e4"])
async def test_an_owner_without_a_topic_is_told_nothing(
    ntfy: NtfyServer, tmp_path: Path, address: str | None
) -> None:
    with pytest.raises(ChannelError) as caught:
        await send(channel(ntfy.url, tmp_path), address=address)
    assert (caught.value.failure, caught.value.is_final) == (Failure.NOT_ENROLLED, True)
    assert not ntfy.server.published


async def test_a_token_that_may_not_write_is_refused_for_good(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    with pytest.raises(ChannelError) as caught:
        await send(channel(ntfy.url, tmp_path), address="somebody-elses")
    assert (caught.value.failure, caught.value.is_final) == (Failure.REFUSED, True)
    assert not ntfy.server.published


@pytest.mark.promise("c44")
async def test_rate_limit_is_honoured(ntfy: NtfyServer, tmp_path: Path) -> None:
    ntfy.server.refuse_with = (429, {"Retry_After": "9"})
    with pytest.raises(ChannelError) as caught:
        await send(channel(ntfy.url, tmp_path))
    assert caught.value.failure is Failure.RATE_LIMITED
    assert caught.value.retry_after_seconds == 9.0


async def test_an_answer_of_another_server_is_no_delivery(tmp_path: Path) -> None:
    from tests.support.webhook_receiver import Receiver

    with Receiver() as other:
        with pytest.raises(ChannelError) as caught:
            await send(channel(other.url.removesuffix("/hook"), tmp_path))
        assert caught.value.failure is Failure.BAD_ANSWER


@pytest.mark.parametrize("content", ["", "two words", "t\u00f6ken"])
async def test_a_token_that_is_none_is_not_sent(
    ntfy: NtfyServer, tmp_path: Path, content: str
) -> None:
    sender = channel(ntfy.url, tmp_path)
    (tmp_path / "token").write_text(content)
    with pytest.raises(ChannelError) as caught:
        await send(sender)
    assert caught.value.failure is Failure.NOT_CONFIGURED
    assert not ntfy.server.published


# -- in --------------------------------------------------------------------------------------------


async def test_the_button_is_heard(ntfy: NtfyServer, tmp_path: Path) -> None:
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        await send(channel(ntfy.url, tmp_path))
        (deny,) = ntfy.server.published[0]["actions"]
        assert await asyncio.to_thread(press, deny) == 200
        heard = await ears.next()
    assert (heard.channel, heard.address, heard.text) == ("ntfy", "", f"DENY {CODE}")
    assert heard.reference == ntfy.server.published[1]["id"]


async def test_a_button_without_the_token_of_the_topic_is_refused_by_the_server(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    await send(channel(ntfy.url, tmp_path))
    (deny,) = ntfy.server.published[0]["actions"]
    for headers in ({}, {"Authorization": f"Bearer {PHONE}"}):
        assert await asyncio.to_thread(press, {**deny, "headers": headers}) == 403
    assert len(ntfy.server.published) == 1


async def test_what_was_said_while_nobody_listened_is_heard(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    say(ntfy, f"deny {CODE}")
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        assert (await ears.next()).text == f"DENY {CODE}"


async def test_what_was_said_before_that_is_not(ntfy: NtfyServer, tmp_path: Path) -> None:
    say(ntfy, f"deny {CODE}")
    later = wall() + timedelta(minutes=1)
    async with listening(channel(ntfy.url, tmp_path, since=later)) as ears:
        await heard_afterwards(ntfy, ears, [])
    assert ntfy.server.asked_since[0] == str(int(later.timestamp()))


async def heard_afterwards(ntfy: NtfyServer, ears: Ears, expected: list[str]) -> None:
    """Say one more thing, and make sure that what was heard until then is what was expected."""
    while not ntfy.server.asked_since:
        await asyncio.sleep(0.01)
    say(ntfy, f"deny {OTHER_CODE}")
    assert [heard.text for heard in await ears.until(f"DENY {OTHER_CODE}")] == [
        *expected,
        f"DENY {OTHER_CODE}",
    ]


@pytest.mark.promise("c44")
@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[" * 50_000,
        b"[]",
        b"7",
        b'{"event": "message"}',
        b'{"event": "keepalive", "topic": "host-agent-replies"}',
        b"\xff\xfe",
        b"",
        b"x" * 10_000_000,
    ],
)
async def test_what_is_no_message_is_passed_over(
    ntfy: NtfyServer, tmp_path: Path, line: bytes
) -> None:
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        ntfy.server.say(REPLIES, line)
        await heard_afterwards(ntfy, ears, [])
    assert len(ntfy.server.asked_since) == 1


async def test_words_that_approve_are_not_heard(ntfy: NtfyServer, tmp_path: Path) -> None:
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        for words in (f"CONFIRM {CODE}", f"approve {CODE}", "yes", CODE):
            say(ntfy, words)
        await heard_afterwards(ntfy, ears, [])


@pytest.mark.promise("c44")
async def test_a_broken_stream_is_taken_up_where_it_ended(ntfy: NtfyServer, tmp_path: Path) -> None:
    pauses: list[float] = []
    async with listening(channel(ntfy.url, tmp_path, pause=counting(pauses))) as ears:
        last = say(ntfy, f"deny {CODE}")
        await ears.next()
        ntfy.server.break_streams()
        say(ntfy, f"deny {OTHER_CODE}")
        assert (await ears.next()).text == f"DENY {OTHER_CODE}"
    assert ntfy.server.asked_since[1:] == [last]
    assert len(pauses) == 1


async def test_a_server_that_forgot_everything_repeats_nothing_to_us(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        say(ntfy, f"deny {CODE}")
        await ears.next()
        lines = ntfy.server.topics[REPLIES]
        lines[-1] = ("", *lines[-1][1:])  # it knows the id no more, and sends all that it has
        ntfy.server.break_streams()
        while len(ntfy.server.asked_since) < 2:
            await asyncio.sleep(0.01)
        await heard_afterwards(ntfy, ears, [])


@pytest.mark.parametrize("identifier", ["", "a b", "../../other", "x" * 65])
async def test_a_message_whose_id_is_none_is_not_heard_nor_begun_from(
    ntfy: NtfyServer, tmp_path: Path, identifier: str
) -> None:
    line = {
        "id": identifier,
        "time": int(wall().timestamp()),
        "event": "message",
        "topic": REPLIES,
        "message": f"deny {CODE}",
    }
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        first = ntfy.server.publish({"topic": REPLIES, "message": "hello"})["id"]
        ntfy.server.say(REPLIES, json.dumps(line).encode())
        while not ntfy.server.asked_since:
            await asyncio.sleep(0.01)
        ntfy.server.break_streams()
        while len(ntfy.server.asked_since) < 2:
            await asyncio.sleep(0.01)
        await heard_afterwards(ntfy, ears, [])
    assert ntfy.server.asked_since[1] == first


@pytest.mark.parametrize("remembered", [3, 2])
async def test_the_memory_of_what_was_heard_is_bounded(
    ntfy: NtfyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """What a server sends again is heard again where it is not remembered."""
    monkeypatch.setattr(module, "_REMEMBERED", remembered)
    async with listening(channel(ntfy.url, tmp_path)) as ears:
        codes = [f"{number}{CODE[1:]}" for number in (2, 3, 4)]
        for code in codes:
            say(ntfy, f"deny {code}")
            await ears.next()
        lines = ntfy.server.topics[REPLIES]
        lines[-1] = ("", *lines[-1][1:])  # it knows the id no more, and sends all that it has
        ntfy.server.break_streams()
        while len(ntfy.server.asked_since) < 2:
            await asyncio.sleep(0.01)
        again = [] if remembered == len(codes) else [f"DENY {code}" for code in codes]
        await heard_afterwards(ntfy, ears, again)


def counting(pauses: list[float], limit: int = 50) -> Callable[[float], Any]:
    """Return a pause that takes no time, and stops the test where there are too many of them."""

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > limit:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    return pause


@pytest.mark.promise("c44")
async def test_down_and_back(tmp_path: Path) -> None:
    with NtfyServer() as gone:
        url, port = gone.url, gone.port
    pauses: list[float] = []
    tried = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        tried.set()
        await asyncio.sleep(0.02)

    async with listening(channel(url, tmp_path, pause=pause, jitter=lambda: 1.0)) as ears:
        await tried.wait()
        with NtfyServer(port=port) as back:
            say(back, f"deny {CODE}")
            assert (await ears.next()).text == f"DENY {CODE}"
    assert pauses[:3] == [1.0, 2.0, 4.0][: len(pauses)]


@pytest.mark.promise("c44")
async def test_backoff_grows_has_an_end_and_honours_what_is_asked(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    pauses: list[float] = []
    done = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            ntfy.server.refuse_with = (429, {"Retry_After": "90"})
        if len(pauses) == 9:
            done.set()
            await asyncio.Event().wait()

    ntfy.server.refuse_with = (503, {})
    async with listening(channel(ntfy.url, tmp_path, pause=pause, jitter=lambda: 1.0)):
        await asyncio.wait_for(done.wait(), PATIENCE)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 90.0]


async def test_without_a_reply_topic_nothing_is_asked(ntfy: NtfyServer, tmp_path: Path) -> None:
    async with listening(channel(ntfy.url, tmp_path, reply_topic=None)) as ears:
        say(ntfy, f"deny {CODE}")
        await send(channel(ntfy.url, tmp_path))
        assert ears.heard.empty()
    assert not ntfy.server.asked_since


# -- probe -----------------------------------------------------------------------------------------


async def probe(prober: NtfyChannel) -> str:
    try:
        return await prober.probe()
    finally:
        await prober.close()


async def test_probe_with_access_control(ntfy: NtfyServer, tmp_path: Path) -> None:
    said = await probe(channel(ntfy.url, tmp_path))
    assert said.endswith("is a healthy ntfy server; the agent may read the reply topic.")
    assert not ntfy.server.published


async def test_probe_warns_where_everybody_reads(ntfy: NtfyServer, tmp_path: Path) -> None:
    ntfy.server.access = None
    assert "WARNING: so may everybody" in await probe(channel(ntfy.url, tmp_path))


async def test_probe_refuses_what_cannot_work(ntfy: NtfyServer, tmp_path: Path) -> None:
    assert ntfy.server.access is not None
    ntfy.server.access[(AGENT, "read")] = set()
    with pytest.raises(ChannelError, match="403"):
        await probe(channel(ntfy.url, tmp_path))
    ntfy.server.healthy = False
    with pytest.raises(ChannelError, match="not a healthy ntfy server"):
        await probe(channel(ntfy.url, tmp_path))


async def test_probe_warns_of_the_public_server(
    ntfy: NtfyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "it is public" not in await probe(channel(ntfy.url, tmp_path))
    monkeypatch.setattr(module, "PUBLIC_SERVER", "127.0.0.1")
    assert "WARNING: it is public" in await probe(channel(ntfy.url, tmp_path))


async def test_probe_asks_for_no_reply_topic_where_there_is_none(
    ntfy: NtfyServer, tmp_path: Path
) -> None:
    ntfy.server.access = {}
    said = await probe(channel(ntfy.url, tmp_path, reply_topic=None))
    assert said.endswith("is a healthy ntfy server.")
    with pytest.raises(ChannelError, match="403"):
        await probe(channel(ntfy.url, tmp_path))
