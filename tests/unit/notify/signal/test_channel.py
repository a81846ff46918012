"""The channel over any driver: it goes on whatever happens, and nobody crowds out the others."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest

from host_agent.notify.channel import Channel, ChannelError, ChannelReply
from host_agent.notify.flood import MAX_ANSWERS_EACH, Complaints
from host_agent.notify.signal import channel as signal
from host_agent.notify.signal.arrivals import (
    MAX_ARRIVED,
    MAX_QUEUED,
    MAX_QUEUED_EACH,
    Arrivals,
    Inbox,
)
from host_agent.notify.signal.channel import (
    LONGEST_PAUSE_SECONDS,
    LOST_SECONDS,
    MAX_REMEMBERED,
    OnOpened,
    Quote,
    SignalChannel,
    refusal,
    require_success,
)
from host_agent.notify.signal.envelope import Params, read_envelope
from host_agent.requests.notification import Failure, Purpose
from tests.support.messages import CODE, an_outcome
from tests.support.patience import PATIENCE
from tests.support.signal_cli_server import ACCOUNT, ALICE, BOB, said
from tests.support.signal_people import Ears, Pauses, for_alice, listening

LOG = logging.getLogger("host_agent.notify.signal")
SPOKEN = 1_700_000_000_000


class Line:
    """A driver whose line the test holds: connections come off `connections`."""

    def __init__(self) -> None:
        self.account = ACCOUNT
        self.sent: asyncio.Queue[tuple[str, str, Quote | None]] = asyncio.Queue()
        self.refuse: Exception | None = None
        self.keeps = True
        self.connections: asyncio.Queue[Exception | list[Params]] = asyncio.Queue()
        self.is_held = False
        self.opened, self.hung_up = asyncio.Event(), asyncio.Event()
        self.is_closed = False

    async def send(self, aci: str, text: str, *, quote: Quote | None = None) -> str:
        if self.refuse is not None:
            raise self.refuse
        await self.sent.put((aci, text, quote))
        return "1700000000000"

    async def receive(self, opened: OnOpened) -> AsyncGenerator[Params, None]:
        connection = await self.connections.get()
        if isinstance(connection, Exception):
            raise connection
        opened(keeps=self.keeps)
        for params in connection:
            yield params
        if connection or self.is_held:
            self.opened.set()
            await self.hung_up.wait()

    async def about(self) -> str:
        return "a line"

    async def hang_up(self) -> list[Params]:
        return []

    async def close(self) -> None:
        self.is_closed = True

    def connect(self, *params: Params) -> None:
        """Let the next connection bring this, and stay; with nothing, one not held ends."""
        self.connections.put_nowait(list(params))

    def fail(self, error: Exception) -> None:
        self.connections.put_nowait(error)

    async def next_sent(self) -> tuple[str, str, Quote | None]:
        return await asyncio.wait_for(self.sent.get(), PATIENCE)


LOST = ChannelError(Failure.UNREACHABLE, "the line is lost")


def written(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def channel(line: Line, **changes: Any) -> SignalChannel:
    return SignalChannel(line, **{"jitter": lambda: 1.0, **changes})


# -- sending ---------------------------------------------------------------------------------------


async def test_it_is_a_channel_that_carries_a_code() -> None:
    line = Line()
    it: Channel = channel(line)
    assert (it.name, it.purpose, it.max_characters) == ("signal", Purpose.CONFIRM, 2_000)
    delivery = await it.send(for_alice())
    assert delivery.reference == "1700000000000"
    assert await line.next_sent() == (ALICE, for_alice().prompt.text, None)
    assert await it.probe() == "a line"
    await it.close()
    assert line.is_closed


@pytest.mark.parametrize("address", [None, "", "+499876", ALICE.upper(), f"PNI:{ALICE}"])
async def test_without_an_address_nothing_is_sent(address: str | None) -> None:
    line = Line()
    with pytest.raises(ChannelError) as raised:
        await channel(line).send(for_alice(address=address))
    assert (raised.value.failure, raised.value.is_final) == (Failure.NOT_ENROLLED, True)
    assert line.sent.empty()


async def test_an_outcome_answers_the_prompt() -> None:
    line = Line()
    await channel(line).send(an_outcome(address=ALICE, reply_to="1699999999000"))
    _, _, quote = await line.next_sent()
    assert quote is not None
    assert (quote.timestamp, quote.author) == ("1699999999000", ACCOUNT)


@pytest.mark.parametrize("reference", ["", "x", "١٢", "9" * 30])
async def test_what_is_no_timestamp_is_not_quoted(reference: str) -> None:
    line = Line()
    await channel(line).send(an_outcome(address=ALICE, reply_to=reference))
    assert (await line.next_sent())[2] is None


# -- hearing ---------------------------------------------------------------------------------------


async def test_what_is_heard_is_answered_to_the_same_person_as_a_reply() -> None:
    line = Line()
    async with listening(channel(line), Ears(lambda heard: f"taken: {heard.text}")) as ears:
        line.connect(said(ALICE, "DENY", SPOKEN), said(BOB, "hello", SPOKEN))
        assert (await ears.next()).address == ALICE
        quote = Quote(timestamp=str(SPOKEN), author=ALICE, text="")
        assert await line.next_sent() == (ALICE, "taken: DENY", quote)
        assert (await line.next_sent())[:2] == (BOB, "taken: hello")


async def test_nothing_is_sent_where_nothing_is_to_be_answered() -> None:
    line = Line()
    async with listening(channel(line)) as ears:
        line.connect(said(ALICE, "DENY", SPOKEN), said(BOB, "last", SPOKEN))
        assert await ears.texts_until("last") == ["DENY", "last"]
    assert line.sent.empty()


async def test_what_comes_twice_is_heard_once() -> None:
    line = Line()
    async with listening(channel(line)) as ears:
        again = said(ALICE, "DENY", SPOKEN)
        other = said(ALICE, "DENY", SPOKEN + 1)
        line.connect(again, again, said(BOB, "DENY", SPOKEN), other, said(ALICE, "last", 1))
        assert await ears.texts_until("last") == ["DENY", "DENY", "DENY", "last"]


async def test_the_memory_of_what_came_is_bounded() -> None:
    it = channel(Line())
    for number in range(MAX_REMEMBERED + 500):
        it._take(said(ALICE, "hello", SPOKEN + number))
    assert len(it._known) == MAX_REMEMBERED


@pytest.mark.parametrize("error", [LOST, RuntimeError(f"{CODE} {ALICE}")])
async def test_an_answer_that_is_not_taken_is_told_without_its_text(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    line.refuse = error
    it = channel(line, pause=Pauses())
    async with listening(it, Ears(lambda heard: f"{CODE} {heard.text}")):
        line.connect(said(ALICE, f"CONFIRM {CODE}", SPOKEN))
        while not caplog.records:
            await asyncio.sleep(0)
        line.refuse = None
        line.connect(said(ALICE, "again", SPOKEN + 1))
        line.hung_up.set()
        assert (await line.next_sent())[1] == f"{CODE} again"
    assert "an answer over Signal was not sent" in written(caplog)
    assert CODE not in written(caplog)
    assert ALICE not in written(caplog)


async def test_a_defect_of_hearing_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()

    def answer(heard: ChannelReply) -> str:
        if heard.text == "first":
            raise RuntimeError(heard.text)
        return "answer"

    async with listening(channel(line), Ears(answer)):
        line.connect(said(ALICE, "first", SPOKEN), said(ALICE, "second", SPOKEN + 1))
        assert (await line.next_sent())[1] == "answer"
    assert "a defect, RuntimeError" in written(caplog)
    assert "first" not in written(caplog)


async def test_an_answer_on_its_way_holds_up_no_decision() -> None:
    line = Line()
    stuck = asyncio.Event()

    async def send(aci: str, text: str, *, quote: Quote | None = None) -> str:
        await stuck.wait()
        return "1"

    line.send = send  # type: ignore[method-assign]
    async with listening(channel(line), Ears(lambda _: "taken")) as ears:
        line.connect(*(said(ALICE, str(number), SPOKEN + number) for number in range(5)))
        assert await ears.texts_until("4") == ["0", "1", "2", "3", "4"]
        stuck.set()


async def test_what_was_taken_is_read_and_answered_when_listening_ends() -> None:
    line, held = Line(), asyncio.Event()
    texts: list[str] = []

    async def hear(heard: ChannelReply) -> str:
        await held.wait()
        texts.append(heard.text)
        return f"taken: {heard.text}"

    it = channel(line)
    task = asyncio.create_task(it.listen(hear))
    line.connect(said(ALICE, "first", SPOKEN), said(ALICE, "second", SPOKEN + 1))
    while len(it._known) < 2:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert texts == ["first", "second"]
    assert [(await line.next_sent())[1] for _ in texts] == ["taken: first", "taken: second"]


async def test_what_cannot_be_read_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "FINISH_SECONDS", 0.01)
    line, begun = Line(), asyncio.Event()

    async def hear(heard: ChannelReply) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(channel(line).listen(hear))
    line.connect(said(ALICE, "first", SPOKEN))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


# -- crowds ----------------------------------------------------------------------------------------


def of(aci: str, number: int) -> ChannelReply:
    heard = read_envelope(said(aci, str(number), SPOKEN + number), account=ACCOUNT)
    assert heard is not None
    return heard


async def test_who_sends_many_loses_only_their_own(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox(Complaints(LOG))
    inbox.put(of(ALICE, 0))
    for number in range(1, MAX_QUEUED * 2):
        inbox.put(of(BOB, number))
    waiting = [await inbox.get() for _ in range(MAX_QUEUED_EACH + 1)]
    assert [heard.address for heard in waiting] == [ALICE] + [BOB] * MAX_QUEUED_EACH
    assert waiting[-1].text == str(MAX_QUEUED * 2 - 1)
    assert written(caplog).count("the oldest was dropped") == 1


@pytest.mark.promise("c45")
async def test_many_who_send_much_push_out_their_own() -> None:
    inbox = Inbox(Complaints(LOG))
    inbox.put(of(ALICE, 0))
    for number in range(1, MAX_QUEUED * 3):
        inbox.put(of(f"{number % 30:08x}-2222-4333-8444-555555555555", number))
    waiting = [await inbox.get() for _ in range(MAX_QUEUED)]
    assert waiting[0].address == ALICE
    assert ALICE not in {heard.address for heard in waiting[1:]}


async def test_of_too_many_people_the_oldest_message_goes() -> None:
    inbox = Inbox(Complaints(LOG))
    for number in range(MAX_QUEUED + 3):
        inbox.put(of(f"{number:08x}-2222-4333-8444-555555555555", number))
    assert (await inbox.get()).text == "3"


async def test_of_too_much_that_arrives_the_oldest_goes() -> None:
    arrivals = Arrivals(Complaints(LOG))
    for number in range(MAX_ARRIVED + 2):
        arrivals.put({"number": number})
    arrivals.end()
    assert await arrivals.get() == {"number": 2}


async def test_answers_that_do_not_get_out_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    line, now, held = Line(), [0.0], asyncio.Event()
    sent: list[str] = []

    async def send(aci: str, text: str, *, quote: Quote | None = None) -> str:
        sent.append(text)
        await held.wait()
        return "1"

    line.send = send  # type: ignore[method-assign]
    it = channel(line, monotonic=lambda: now[0])
    async with listening(it, Ears(lambda heard: f"re {heard.text}")) as ears:
        line.connect(said(ALICE, "0", SPOKEN))
        await ears.next()
        for number in range(1, signal.MAX_ANSWERS + 3):
            now[0] += 60.0
            it._take(said(ALICE, str(number), SPOKEN + number))
            await ears.next()
        held.set()
        last = f"re {signal.MAX_ANSWERS + 2}"
        async with asyncio.timeout(PATIENCE):
            while last not in sent:
                await asyncio.sleep(0)
    assert sent == ["re 0", *(f"re {number}" for number in range(3, signal.MAX_ANSWERS + 3))]
    assert written(caplog).count("the oldest was dropped") == 2


async def test_nobody_gets_answers_without_end(caplog: pytest.LogCaptureFixture) -> None:
    line, now = Line(), [0.0]
    it = channel(line, monotonic=lambda: now[0])
    many = [said(BOB, "ENROL", SPOKEN + number) for number in range(MAX_ANSWERS_EACH + 30)]
    waves = [many[at : at + MAX_QUEUED_EACH] for at in range(0, len(many), MAX_QUEUED_EACH)]
    async with listening(it, Ears(lambda heard: heard.text)) as ears:
        line.connect(*waves[0])
        for _ in waves[0]:
            await ears.next()
        for params in [*many[MAX_QUEUED_EACH : MAX_QUEUED_EACH + 10], said(ALICE, "hers", SPOKEN)]:
            it._take(params)
        await ears.texts_until("hers")
        answered = [await line.next_sent() for _ in range(MAX_ANSWERS_EACH + 1)]
        assert [aci for aci, _, _ in answered] == [BOB] * MAX_ANSWERS_EACH + [ALICE]
        now[0] = 60.0
        it._take(said(BOB, "later", SPOKEN + 999))
        assert (await line.next_sent())[:2] == (BOB, "later")
    assert written(caplog).count("gets no more answers") == 1
    assert BOB not in written(caplog)


def test_complaints_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    complaints = Complaints(LOG, lambda: now[0])
    for _ in range(50):
        complaints.add("a line is broken")
    complaints.add("another kind")
    now[0] = 160.0
    complaints.add("a line is broken")
    assert [record.getMessage() for record in caplog.records] == [
        "a line is broken",
        "another kind",
        "a line is broken (49 times more since the last word)",
    ]


# -- connections -----------------------------------------------------------------------------------


async def test_it_goes_on_after_losses_and_defects(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()
    for error in (LOST, RuntimeError("secret"), LOST):
        line.fail(error)
    line.connect(said(ALICE, "DENY", SPOKEN))
    pauses = Pauses()
    async with listening(channel(line, pause=pauses)) as ears:
        assert (await ears.next()).text == "DENY"
    assert pauses.seconds == [1.0, 2.0, 4.0]
    assert "a defect, RuntimeError" in written(caplog)
    assert "secret" not in written(caplog)


async def test_pauses_grow_to_a_minute_with_jitter() -> None:
    line = Line()
    for _ in range(10):
        line.fail(LOST)
    line.connect(said(ALICE, "DENY", SPOKEN))
    pauses = Pauses()
    async with listening(channel(line, pause=pauses, jitter=lambda: 0.0)) as ears:
        await ears.next()
    assert pauses.seconds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


async def test_a_connection_that_held_in_silence_begins_anew() -> None:
    line, now = Line(), [0.0]
    pauses = Pauses(is_held=True)
    async with listening(channel(line, pause=pauses, monotonic=lambda: now[0])):
        for expected in (1.0, 2.0):
            line.fail(LOST)
            assert await pauses.begun() == expected
            pauses.go()
        line.connect()  # opens and ends at once: that is no recovery
        assert await pauses.begun() == 4.0
        line.is_held = True
        line.connect()
        pauses.go()
        await asyncio.wait_for(line.opened.wait(), PATIENCE)
        now[0] += LONGEST_PAUSE_SECONDS
        line.hung_up.set()
        assert await pauses.begun() == 1.0


@pytest.mark.parametrize(
    ("keeps", "seconds", "is_lost"),
    [(False, LOST_SECONDS, True), (False, LOST_SECONDS - 1, False), (True, 3_600.0, False)],
)
async def test_after_an_outage_it_says_that_messages_may_be_lost(
    keeps: bool, seconds: float, is_lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    line, now, broke = Line(), [0.0], datetime(2026, 1, 1, tzinfo=UTC)
    line.keeps = keeps
    pauses = Pauses(is_held=True)
    it = channel(line, pause=pauses, monotonic=lambda: now[0], now=lambda: broke)
    async with listening(it) as ears:
        line.connect()
        await pauses.begun()
        assert it.lost_since is None
        for _ in range(2):
            pauses.go()
            line.fail(LOST)
            await pauses.begun()
        now[0] += seconds
        line.connect(said(ALICE, "DENY", SPOKEN))
        pauses.go()
        await ears.next()
    assert it.lost_since == (broke if is_lost else None)
    assert ("must be repeated" in written(caplog)) == is_lost


# -- how sendings fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "failure", "is_final"),
    [
        ("NETWORK_FAILURE", Failure.UNREACHABLE, False),
        ("UNREGISTERED_FAILURE", Failure.REFUSED, True),
        ("IDENTITY_FAILURE", Failure.IDENTITY_CHANGED, True),
        ("RATE_LIMIT_FAILURE", Failure.RATE_LIMITED, False),
        ("INVALID_PRE_KEY_FAILURE", Failure.REFUSED, False),
        ("SOMETHING_NEW", Failure.REFUSED, False),
        (None, Failure.REFUSED, False),
        ([], Failure.REFUSED, False),
    ],
)
def test_each_type_of_result_has_its_failure(
    kind: object, failure: Failure, is_final: bool
) -> None:
    error = refusal(kind)
    assert (error.failure, error.is_final, error.retry_after_seconds) == (failure, is_final, None)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (3600, 3600.0),
        (0.5, 0.5),
        (10**400, 86_400.0),
        (float("inf"), 86_400.0),
        (float("nan"), None),
        (-1, None),
        (0, None),
        (True, None),
        ("60", None),
    ],
)
def test_what_is_asked_for_is_bounded(asked: object, seconds: float | None) -> None:
    assert refusal("RATE_LIMIT_FAILURE", retry_after=asked).retry_after_seconds == seconds


def test_a_captcha_is_told_without_its_token() -> None:
    with pytest.raises(ChannelError) as raised:
        require_success([{"type": "SUCCESS"}, {"type": "RATE_LIMIT_FAILURE", "token": "s3cret"}])
    assert raised.value.failure is Failure.RATE_LIMITED
    assert "captcha" in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("results", [None, [], "x", [None], [{"type": "SUCCESS"}]])
def test_what_is_no_failure_passes(results: object) -> None:
    require_success(results)
