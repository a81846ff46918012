"""Signal over the socket of signal-cli's daemon: what is sent, what arrives, and how it breaks."""

import asyncio
import json
import os
import pwd
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from host_agent.notify.channel import ChannelError, ChannelReply
from host_agent.notify.prompts import Prompt
from host_agent.notify.signal.channel import SignalChannel
from host_agent.notify.signal.signal_cli import MAX_LINE_BYTES, SignalCli
from host_agent.requests.notification import Failure
from tests.support.messages import CODE, an_outcome
from tests.support.signal_cli_server import (
    ACCOUNT,
    ALICE,
    BOB,
    SignalCliServer,
    envelope,
    reacted,
    said,
)
from tests.support.signal_people import Ears, Pauses, for_alice, listening, sent_by


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "signal.sock"


@pytest_asyncio.fixture
async def daemon(socket: Path) -> AsyncIterator[SignalCliServer]:
    async with SignalCliServer(socket) as started:
        yield started


def channel(
    socket: Path, *, user: str = "nobody", deadline_seconds: float = 10.0, **changes: Any
) -> SignalChannel:
    driver = SignalCli(socket, ACCOUNT, user=user, deadline_seconds=deadline_seconds)
    return SignalChannel(driver, **{"pause": Pauses(), **changes})


def written(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


async def refused(
    daemon: SignalCliServer,
    *answers: dict[str, Any],
    prompt: Prompt | None = None,
    **changes: Any,
) -> ChannelError:
    """Return how a sending ends that gets these answers; nothing must have gone out."""
    daemon.answers.extend(answers)
    message = for_alice() if prompt is None else for_alice(prompt=prompt)
    with pytest.raises(ChannelError) as raised:
        await sent_by(channel(daemon.socket, **changes), message)
    assert not daemon.sent
    return raised.value


# -- sending ---------------------------------------------------------------------------------------


async def test_a_prompt_goes_to_one_person_by_their_identifier(daemon: SignalCliServer) -> None:
    delivery = await sent_by(channel(daemon.socket), for_alice())
    (sent,) = daemon.sent
    assert delivery.reference == str(sent.pop("timestamp"))
    assert sent == {"recipient": [ALICE], "message": for_alice().prompt.text}
    assert daemon.called[0]["params"]["account"] == ACCOUNT


PROMPT = Prompt(title="DESTROY", text="DESTROY on host: tank", answer="CONFIRM ABCD EFGH JKLM NPQR")


async def test_the_code_follows_its_prompt_as_a_message_of_its_own(
    daemon: SignalCliServer,
) -> None:
    delivery = await sent_by(channel(daemon.socket), for_alice(prompt=PROMPT))
    assert [sent["message"] for sent in daemon.sent] == [PROMPT.text, PROMPT.answer]
    assert [sent["recipient"] for sent in daemon.sent] == [[ALICE], [ALICE]]
    stamps = [str(sent["timestamp"]) for sent in daemon.sent]
    assert [delivery.reference, delivery.answer_reference] == stamps


async def test_a_prompt_that_is_not_taken_sends_no_code(daemon: SignalCliServer) -> None:
    error = await refused(daemon, {"type": "NETWORK_FAILURE"}, prompt=PROMPT)
    assert error.failure is Failure.UNREACHABLE
    assert len([call for call in daemon.called if call["method"] == "send"]) == 1


async def test_a_code_that_is_not_taken_fails_the_prompt_with_it(daemon: SignalCliServer) -> None:
    daemon.answers.extend([{"type": "SUCCESS"}, {"type": "NETWORK_FAILURE"}])
    with pytest.raises(ChannelError):
        await sent_by(channel(daemon.socket), for_alice(prompt=PROMPT))
    assert [sent["message"] for sent in daemon.sent] == [PROMPT.text]


async def test_an_outcome_quotes_the_prompt(daemon: SignalCliServer) -> None:
    outcome = an_outcome(address=ALICE, reply_to="1699999999000")
    await sent_by(channel(daemon.socket), outcome)
    (sent,) = daemon.sent
    assert (sent["quoteTimestamp"], sent["quoteAuthor"]) == (1_699_999_999_000, ACCOUNT)


async def test_a_daemon_of_one_account_takes_it_as_well(socket: Path) -> None:
    async with SignalCliServer(socket, is_single=True) as daemon:
        await sent_by(channel(socket), for_alice())
        assert len(daemon.sent) == 1


@pytest.mark.parametrize(
    ("answer", "failure", "seconds", "is_final"),
    [
        ({"type": "NETWORK_FAILURE"}, Failure.UNREACHABLE, None, False),
        ({"type": "UNREGISTERED_FAILURE"}, Failure.REFUSED, None, True),
        ({"type": "IDENTITY_FAILURE"}, Failure.IDENTITY_CHANGED, None, True),
        (
            {"type": "RATE_LIMIT_FAILURE", "retryAfterSeconds": 3600},
            Failure.RATE_LIMITED,
            3600.0,
            False,
        ),
        ({"error": {"code": -1, "message": CODE}}, Failure.REFUSED, None, False),
        ({"error": {"code": -3, "message": CODE}}, Failure.UNREACHABLE, None, False),
        ({"error": {"code": -4, "message": ALICE}}, Failure.IDENTITY_CHANGED, None, True),
        ({"error": {"code": -5, "message": ALICE}}, Failure.RATE_LIMITED, None, False),
        ({"error": {"code": -32601, "message": ""}}, Failure.BAD_ANSWER, None, False),
        ({"error": {"code": "x"}}, Failure.REFUSED, None, False),
    ],
)
async def test_refusals(
    daemon: SignalCliServer,
    answer: dict[str, Any],
    failure: Failure,
    seconds: float | None,
    is_final: bool,
) -> None:
    error = await refused(daemon, answer)
    assert (error.failure, error.retry_after_seconds, error.is_final) == (
        failure,
        seconds,
        is_final,
    )
    assert CODE not in str(error)
    assert ALICE not in str(error)


async def test_results_inside_an_error_say_more_than_its_code(daemon: SignalCliServer) -> None:
    results = [{"type": "RATE_LIMIT_FAILURE", "retryAfterSeconds": 60, "token": "t0ken"}]
    data = {"response": {"timestamp": 1, "results": results}}
    error = await refused(daemon, {"error": {"code": -5, "message": "x", "data": data}})
    assert (error.failure, error.retry_after_seconds) == (Failure.RATE_LIMITED, 60.0)
    assert "captcha" in str(error)
    assert "t0ken" not in str(error)


async def test_an_account_that_the_daemon_does_not_hold(socket: Path) -> None:
    async with SignalCliServer(socket, accounts=("+439999",)) as daemon:
        error = await refused(daemon)
    assert error.failure is Failure.NOT_CONFIGURED
    assert ACCOUNT not in str(error)


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc":"2.0","id":"1"}',
        '{"jsonrpc":"2.0","id":"1","result":null}',
        '{"jsonrpc":"2.0","id":"1","result":[]}',
        '{"jsonrpc":"2.0","id":"1","result":{"results":[{"type":"SUCCESS"}]}}',
        '{"jsonrpc":"2.0","id":"1","result":{"timestamp":"1"}}',
        '{"jsonrpc":"2.0","id":"1","result":{"timestamp":true}}',
    ],
)
async def test_an_answer_without_a_timestamp(daemon: SignalCliServer, line: str) -> None:
    assert (await refused(daemon, {"raw": line})).failure is Failure.BAD_ANSWER


@pytest.mark.parametrize("line", ["", "nonsense", "[]", "7", '{"id":[]}', '{"id":"9"}', "[" * 5000])
async def test_lines_that_are_no_answer_are_passed_over(daemon: SignalCliServer, line: str) -> None:
    error = await refused(daemon, {"raw": line}, deadline_seconds=0.1)
    assert error.failure is Failure.TIMED_OUT


async def test_no_answer(daemon: SignalCliServer) -> None:
    error = await refused(daemon, {"hold": True}, deadline_seconds=0.05)
    assert (error.failure, error.is_final) == (Failure.TIMED_OUT, False)


async def test_a_connection_lost_on_the_way(daemon: SignalCliServer) -> None:
    error = await refused(daemon, {"drop": True})
    assert (error.failure, error.is_final) == (Failure.UNREACHABLE, False)


async def test_all_that_wait_for_an_answer_hear_of_the_loss(daemon: SignalCliServer) -> None:
    it = channel(daemon.socket)
    daemon.answers.extend([{"hold": True}, {"hold": True}, {"drop": True}])
    ends = await asyncio.gather(*(it.send(for_alice()) for _ in range(3)), return_exceptions=True)
    assert [end.failure for end in ends if isinstance(end, ChannelError)] == (
        [Failure.UNREACHABLE] * 3
    )
    assert (await it.send(for_alice())).reference is not None
    await it.close()


async def test_answers_find_their_questions_in_any_order(daemon: SignalCliServer) -> None:
    it = channel(daemon.socket)
    daemon.answers.append({"hold": True})
    first = asyncio.create_task(it.send(for_alice()))
    await daemon.until(lambda: len(daemon.called) == 1)
    second = await it.send(for_alice())
    held = {"timestamp": 42, "results": [{"type": "SUCCESS"}]}
    answer = {"jsonrpc": "2.0", "result": held, "id": daemon.called[0]["id"]}
    daemon.raw(json.dumps(answer).encode())
    assert (await first).reference == "42"
    assert second.reference == str(daemon.sent[0]["timestamp"])
    await it.close()


async def test_nobody_listens(socket: Path) -> None:
    for is_file in (False, True):
        if is_file:
            socket.touch()
        with pytest.raises(ChannelError) as raised:
            await sent_by(channel(socket), for_alice())
        assert (raised.value.failure, raised.value.is_final) == (Failure.UNREACHABLE, False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
async def test_a_socket_that_is_not_ours(daemon: SignalCliServer) -> None:
    daemon.socket.chmod(0)
    with pytest.raises(ChannelError, match="permission denied"):
        await sent_by(channel(daemon.socket), for_alice())
    daemon.socket.chmod(stat.S_IRUSR | stat.S_IWUSR)


async def test_the_daemon_comes_back(socket: Path) -> None:
    it, daemon = channel(socket), SignalCliServer(socket)
    await daemon.start()
    await it.send(for_alice())
    await daemon.stop()
    with pytest.raises(ChannelError):
        await it.send(for_alice())
    await daemon.start()
    await it.send(for_alice())
    assert len(daemon.sent) == 2
    await it.close()
    await daemon.stop()


# -- hearing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["on-connection", "manual", "on-start"])
async def test_what_people_send_is_heard_once_in_each_mode(socket: Path, mode: str) -> None:
    async with SignalCliServer(socket, mode=mode) as daemon, listening(channel(socket)) as ears:
        await daemon.until(lambda: any(client.subscriptions for client in daemon.clients))
        stamp = daemon.say(ALICE, f"CONFIRM {CODE}")
        daemon.react(ALICE, "👎", 1_699_999_999_000)
        daemon.say(BOB, "last")
        heard = await ears.next()
        assert (heard.address, heard.text) == (ALICE, f"CONFIRM {CODE}")
        assert heard.reference == f"{ALICE}:{stamp}"
        assert (await ears.next()).reaction == "👎"
        assert (await ears.next()).text == "last"
        assert ears.heard.empty()


@pytest.mark.parametrize("mode", ["on-connection", "manual"])
async def test_what_was_sent_while_nobody_listened_arrives(socket: Path, mode: str) -> None:
    async with SignalCliServer(socket, mode=mode) as daemon:
        daemon.say(ALICE, "meanwhile")
        async with listening(channel(socket)) as ears:
            assert (await ears.next()).text == "meanwhile"


async def test_an_answer_goes_to_who_asked_as_a_reply(daemon: SignalCliServer) -> None:
    ears = Ears(lambda heard: f"taken: {heard.text}")
    async with listening(channel(daemon.socket), ears):
        await daemon.until(lambda: bool(daemon.clients))
        stamp = daemon.say(ALICE, "DENY")
        (sent,) = await daemon.wait_sent(1)
    assert (sent["recipient"], sent["message"]) == ([ALICE], "taken: DENY")
    assert (sent["quoteTimestamp"], sent["quoteAuthor"]) == (stamp, ALICE)


async def test_what_is_not_for_us_is_not_heard(daemon: SignalCliServer) -> None:
    group = said(ALICE, "DENY", 5)
    group["envelope"]["dataMessage"]["groupInfo"] = {"groupId": "Z3JvdXA=", "type": "DELIVER"}
    removed = reacted(ALICE, "👎", 1, 6)
    removed["envelope"]["dataMessage"]["reaction"]["isRemove"] = True
    elsewhere = {**said(ALICE, "DENY", 7), "account": "+439999"}
    async with listening(channel(daemon.socket)) as ears:
        await daemon.until(lambda: bool(daemon.clients))
        for params in (
            envelope(ALICE, 1, typingMessage={"action": "STARTED", "timestamp": 1}),
            envelope(ALICE, 2, receiptMessage={"isRead": True, "timestamps": [1]}),
            envelope(ALICE, 3, syncMessage={"sentMessage": {"message": "DENY"}}),
            envelope(ALICE, 4, editMessage={"dataMessage": {"message": "DENY"}}),
            envelope(None, 4, dataMessage={"message": "DENY", "timestamp": 4}),
            group,
            removed,
            elsewhere,
            said(BOB, "last", 8),
        ):
            daemon.deliver(params)
        assert await ears.texts_until("last") == ["last"]


async def test_broken_lines_end_nothing(
    daemon: SignalCliServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(channel(daemon.socket)) as ears:
        await daemon.until(lambda: bool(daemon.clients))
        for line in (
            b"nonsense",
            b"\xff\xfe",
            b"[]",
            b'{"method":"receive"}',
            b'{"method":"receive","params":[]}',
            b'{"method":"receive","params":{"envelope":7}}',
            b'{"method":"receive","params":{"envelope":{"sourceUuid":{}},"account":[]}}',
            b'{"method":"callEvent","params":{}}',
            b'{"method":"receive","params":{"result":7}}',
        ):
            daemon.raw(line)
        daemon.say(ALICE, "still here")
        assert (await ears.next()).text == "still here"
    assert "nonsense" not in written(caplog)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES, 9 * MAX_LINE_BYTES])
async def test_a_line_without_measure_is_passed_over_whole(
    daemon: SignalCliServer, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = json.dumps({"method": "receive", "params": said(ALICE, "hidden", 3)}).encode()
    async with listening(channel(daemon.socket)) as ears:
        await daemon.until(lambda: bool(daemon.clients))
        daemon.raw(b"x" * (size - len(hidden)) + hidden)
        daemon.say(ALICE, "after it")
        assert (await ears.next()).text == "after it"
    assert written(caplog).count("a line of more than is taken") == 1


async def test_it_listens_again_after_each_loss(daemon: SignalCliServer) -> None:
    async with listening(channel(daemon.socket)) as ears:
        for number in range(3):
            await daemon.until(lambda: bool(daemon.clients))
            daemon.say(ALICE, f"before {number}")
            assert (await ears.next()).text == f"before {number}"
            daemon.drop()
            daemon.say(ALICE, f"during {number}")
            texts = await ears.texts_until(f"during {number}")
            assert texts == [f"during {number}"]


async def test_it_waits_for_a_daemon_that_is_not_there_yet(
    socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pauses = Pauses(is_held=True)
    async with listening(channel(socket, pause=pauses)) as ears:
        await pauses.begun()
        async with SignalCliServer(socket) as daemon:
            daemon.say(ALICE, "DENY")
            pauses.go()
            assert (await ears.next()).text == "DENY"
    assert "no such file" in written(caplog)


async def test_what_arrives_during_a_sending_is_kept(daemon: SignalCliServer) -> None:
    """A sending may open the connection before anybody listens on it."""
    it = channel(daemon.socket)
    await it.send(for_alice())
    daemon.say(ALICE, "DENY")
    async with listening(it) as ears:
        assert (await ears.next()).text == "DENY"


async def test_nothing_of_a_person_is_logged(
    daemon: SignalCliServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    def answer(heard: ChannelReply) -> str:
        return f"{CODE} was heard from {heard.address}"

    async with listening(channel(daemon.socket), Ears(answer)) as ears:
        await daemon.until(lambda: bool(daemon.clients))
        daemon.answers.extend([{"type": "IDENTITY_FAILURE"}, {"error": {"code": -5}}])
        for text in (f"CONFIRM {CODE}", f"DENY {CODE}", "last"):
            daemon.say(ALICE, text)
        await ears.texts_until("last")
        await daemon.wait_sent(1)
        daemon.drop()
        daemon.say(ALICE, "back")
        await ears.next()
    for secret in (CODE, ALICE, ACCOUNT):
        assert secret not in written(caplog)


# -- doctor ----------------------------------------------------------------------------------------


async def test_a_probe_says_which_program_answers(socket: Path) -> None:
    for is_single, end in ((False, "holds the account"), (True, "for one account")):
        async with SignalCliServer(socket, is_single=is_single) as daemon:
            it = channel(socket)
            said_of_it = await it.probe()
            await it.close()
            me = pwd.getpwuid(os.geteuid()).pw_name
            assert said_of_it.startswith(
                f"signal-cli 0.14.6 of the user {me} answers on its socket"
            )
            assert said_of_it.endswith(end)
            assert not daemon.sent


async def test_a_probe_takes_no_message_where_the_daemon_waits_to_be_asked(socket: Path) -> None:
    async with SignalCliServer(socket, mode="manual") as daemon:
        daemon.say(ALICE, "DENY")
        it = channel(socket)
        await it.probe()
        await it.close()
        assert len(daemon.waiting) == 1


@pytest.mark.parametrize("version", [None, 7, "0.14\x1b[2J", "é"])
async def test_a_version_is_shown_only_if_it_is_one(socket: Path, version: Any) -> None:  # noqa: ANN401
    async with SignalCliServer(socket) as daemon:
        daemon.version = version
        it = channel(socket)
        assert "signal-cli unknown of the user" in await it.probe()
        await it.close()


async def test_a_probe_fails_where_the_account_is_missing(socket: Path) -> None:
    it = channel(socket)
    with pytest.raises(ChannelError, match="no such file"):
        await it.probe()
    async with SignalCliServer(socket, accounts=("+439999",)):
        with pytest.raises(ChannelError, match="does not hold") as raised:
            await it.probe()
        await it.close()
    assert raised.value.failure is Failure.NOT_CONFIGURED


@pytest.mark.parametrize("method", ["version", "listAccounts"])
async def test_a_probe_says_no_more_than_the_daemon_did(
    daemon: SignalCliServer, method: str
) -> None:
    daemon.broken.add(method)
    it = channel(daemon.socket)
    with pytest.raises(ChannelError) as raised:
        await it.probe()
    await it.close()
    assert (raised.value.failure, raised.value.is_final) == (Failure.BAD_ANSWER, False)


async def test_a_daemon_that_refuses_to_bring_messages_is_asked_again(
    daemon: SignalCliServer, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.broken.add("subscribeReceive")
    pauses = Pauses(is_held=True)
    async with listening(channel(daemon.socket, pause=pauses)) as ears:
        await pauses.begun()
        assert "Signal is not heard" in written(caplog)
        daemon.broken.clear()
        pauses.go()
        await daemon.until(lambda: any(client.subscriptions for client in daemon.clients))
        daemon.say(ALICE, "hello")
        assert (await ears.next()).text == "hello"


async def test_an_answer_counts_though_the_daemon_ends_with_it(daemon: SignalCliServer) -> None:
    daemon.answers.append({"type": "SUCCESS", "ends": True})
    assert (await sent_by(channel(daemon.socket), for_alice())).reference is not None
    assert len(daemon.sent) == 1
