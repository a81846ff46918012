"""Signal over signal-cli-rest-api: HTTP out, a websocket or polls in, and how each breaks."""

import asyncio
import builtins
import importlib.util
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from host_agent.notify import connect
from host_agent.notify.channel import ChannelError
from host_agent.notify.outbound import Outbound
from host_agent.notify.signal.channel import LOST_SECONDS, SignalChannel
from host_agent.notify.signal.signal_rest import MAX_FRAME_BYTES, MAX_POLLED, SignalRest
from host_agent.requests.notification import Failure
from tests.support.messages import CODE, an_outcome
from tests.support.signal_cli_server import ACCOUNT, ALICE, BOB, envelope, said
from tests.support.signal_people import Ears, Pauses, for_alice, listening, sent_by
from tests.support.signal_rest_server import Reply, SignalRestServer

POLLED = ["normal", "native"]
FOLLOWED = ["json-rpc", "json-rpc-native"]


@pytest_asyncio.fixture
async def service() -> AsyncIterator[SignalRestServer]:
    async with SignalRestServer() as started:
        yield started


def channel(
    service: SignalRestServer,
    *,
    url: str | None = None,
    deadline_seconds: float = 10.0,
    max_answer_bytes: int = 262_144,
    ping_seconds: float = 10.0,
    **changes: Any,
) -> SignalChannel:
    outbound = Outbound(
        url or service.url, deadline_seconds=deadline_seconds, max_answer_bytes=max_answer_bytes
    )
    driver = SignalRest(outbound, ACCOUNT, poll_seconds=0.01, ping_seconds=ping_seconds)
    return SignalChannel(driver, **{"pause": Pauses(), **changes})


def written(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


async def connected(service: SignalRestServer, count: int = 1) -> None:
    await service.until(lambda: len(service.sockets) == count)


async def refused(service: SignalRestServer, **changes: Any) -> ChannelError:
    with pytest.raises(ChannelError) as raised:
        await sent_by(channel(service, **changes), for_alice())
    assert not service.sent
    return raised.value


# -- sending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_list_shape", [False, True])
async def test_a_prompt_goes_to_one_person_as_plain_text(
    service: SignalRestServer, is_list_shape: bool
) -> None:
    service.is_list_shape = is_list_shape
    delivery = await sent_by(channel(service), for_alice())
    (sent,) = service.sent
    assert delivery.reference == str(sent.pop("timestamp"))
    assert sent == {
        "number": ACCOUNT,
        "recipients": [ALICE],
        "message": for_alice().prompt.text,
        "text_mode": "normal",
    }


async def test_an_outcome_quotes_the_prompt(service: SignalRestServer) -> None:
    await sent_by(channel(service), an_outcome(address=ALICE, reply_to="1699999999000"))
    (sent,) = service.sent
    assert (sent["quote_timestamp"], sent["quote_author"]) == (1_699_999_999_000, ACCOUNT)


def listed(reason: str, *before: object) -> Reply:
    one = {"number": "", "uuid": ALICE, "username": "", "reason": reason}
    errors = {"recipients": [*before, one]}
    return Reply(201, [{"timestamp": "1700000000000", "errors": errors}])


@pytest.mark.parametrize(
    ("reply", "failure", "seconds", "is_final"),
    [
        (listed("IDENTITY_FAILURE"), Failure.IDENTITY_CHANGED, None, True),
        (listed("UNREGISTERED_FAILURE"), Failure.REFUSED, None, True),
        (listed("NETWORK_FAILURE"), Failure.UNREACHABLE, None, False),
        (listed("RATE_LIMIT_FAILURE"), Failure.RATE_LIMITED, None, False),
        (listed("NETWORK_FAILURE", 7), Failure.UNREACHABLE, None, False),
        (
            Reply(400, {"error": f"Untrusted Identity for {ALICE}"}),
            Failure.IDENTITY_CHANGED,
            None,
            True,
        ),
        (Reply(400, {"error": f"Unregistered user {ALICE}"}), Failure.REFUSED, None, True),
        (Reply(400, {"error": "Rate limit exceeded"}), Failure.RATE_LIMITED, None, False),
        (Reply(400, {"error": "CAPTCHA proof required"}), Failure.RATE_LIMITED, None, False),
        (Reply(400, {"error": "Network failure"}), Failure.UNREACHABLE, None, False),
        (Reply(400, {"error": f"something about {CODE}"}), Failure.REFUSED, None, False),
        (Reply(400, b"\xff<html>"), Failure.REFUSED, None, False),
        (Reply(429, {"error": "x", "challenge_tokens": ["t"]}), Failure.RATE_LIMITED, None, False),
        (Reply(429, {"error": "x"}, {"Retry-After": "90"}), Failure.RATE_LIMITED, 90.0, False),
        (Reply(429, {"error": "x"}, {"Retry-After": "-1"}), Failure.RATE_LIMITED, None, False),
        (Reply(500, {"error": "x"}), Failure.REFUSED, None, False),
        (Reply(302, b"", {"Location": "http://127.0.0.1:9/"}), Failure.REFUSED, None, False),
        (Reply(404, {"error": "x"}), Failure.REFUSED, None, True),
    ],
)  # fmt: skip
async def test_refusals(
    service: SignalRestServer,
    reply: Reply,
    failure: Failure,
    seconds: float | None,
    is_final: bool,
) -> None:
    service.replies.append(reply)
    error = await refused(service)
    assert (error.failure, error.retry_after_seconds, error.is_final) == (
        failure,
        seconds,
        is_final,
    )
    for secret in (CODE, ALICE, ACCOUNT):
        assert secret not in str(error)


async def test_a_captcha_is_told_without_its_token(service: SignalRestServer) -> None:
    body = {"error": "x", "challenge_tokens": ["t0ken"], "account": ACCOUNT}
    service.replies.append(Reply(429, body))
    error = await refused(service)
    assert "captcha" in str(error)
    assert "t0ken" not in str(error)


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[", b"7", b"[]", b"{}", b"[[]]", b'{"timestamp":null}',
     b'{"timestamp":"-1"}', b'{"timestamp":"1.5"}', b'{"timestamp":"\xd9\xa1"}',
     b'{"timestamp":"99999999999999999999"}', b"[" * 5_000],
)  # fmt: skip
async def test_an_answer_that_is_not_understood(service: SignalRestServer, body: bytes) -> None:
    service.replies.append(Reply(201, body))
    assert (await refused(service)).failure is Failure.BAD_ANSWER


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 30\r\n\r\n{")
    await hang(writer)


async def stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 900000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65_536)
        await writer.drain()


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        (hang, Failure.TIMED_OUT),
        (trickle, Failure.TIMED_OUT),
        (hang_up, Failure.BAD_ANSWER),
        (stream, Failure.BAD_ANSWER),
    ],
)
async def test_a_service_that_does_not_answer(
    service: SignalRestServer, script: Callable[[asyncio.StreamWriter], Any], failure: Failure
) -> None:
    service.replies.append(script)
    seconds = 0.2 if failure is Failure.TIMED_OUT else 10.0
    error = await refused(service, deadline_seconds=seconds)
    assert error.failure in {failure, Failure.UNREACHABLE}
    assert not error.is_final


async def test_nobody_listens(service: SignalRestServer) -> None:
    await service.stop()
    assert (await refused(service)).failure is Failure.UNREACHABLE


@pytest.mark.parametrize(
    "url", ["http://signal.example:8080", "http://192.168.1.2:8080", "ftp://x"]
)
def test_only_loopback_or_https(url: str) -> None:
    with pytest.raises(ValueError):
        Outbound(url)


# -- hearing over the websocket --------------------------------------------------------------------


@pytest.mark.parametrize("mode", FOLLOWED)
async def test_what_people_send_is_heard(service: SignalRestServer, mode: str) -> None:
    service.mode = mode
    async with listening(channel(service)) as ears:
        await connected(service)
        stamp = service.say(ALICE, f"CONFIRM {CODE}")
        service.react(ALICE, "👎", 1_699_999_999_000)
        service.say(BOB, "last")
        heard = await ears.next()
        assert (heard.address, heard.text) == (ALICE, f"CONFIRM {CODE}")
        assert heard.reference == f"{ALICE}:{stamp}"
        assert (await ears.next()).reaction == "👎"
        assert (await ears.next()).text == "last"
    assert f"GET /v1/receive/%2B{ACCOUNT[1:]}" in service.asked


async def test_an_answer_goes_to_who_asked_as_a_reply(service: SignalRestServer) -> None:
    async with listening(channel(service), Ears(lambda heard: f"taken: {heard.text}")):
        await connected(service)
        stamp = service.say(ALICE, "DENY")
        await service.until(lambda: bool(service.sent))
    (sent,) = service.sent
    assert (sent["recipients"], sent["message"]) == ([ALICE], "taken: DENY")
    assert (sent["quote_timestamp"], sent["quote_author"]) == (stamp, ALICE)


async def test_what_comes_twice_and_what_is_not_for_us(service: SignalRestServer) -> None:
    async with listening(channel(service)) as ears:
        await connected(service)
        again = said(ALICE, "DENY", 5)
        edit = {"targetSentTimestamp": 5, "dataMessage": {"message": "CONFIRM"}}
        for params in (
            again,
            again,
            envelope(ALICE, 6, editMessage=edit),
            envelope(ALICE, 7, syncMessage={"sentMessage": {"message": "CONFIRM"}}),
            said(BOB, "last", 8),
        ):
            service.deliver(params)
        assert await ears.texts_until("last") == ["DENY", "last"]


async def test_broken_frames_end_nothing(
    service: SignalRestServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(channel(service)) as ears:
        await connected(service)
        for frame in ("", "nonsense", "[]", "7", '{"envelope":[]}', '{"account":{}}', "[" * 5000):
            service.frame(frame)
        service.frame_bytes(b"\xff\xfe")
        service.ping()
        service.say(ALICE, "still here")
        assert (await ears.next()).text == "still here"
        assert len(service.sockets) == 1
    assert "nonsense" not in written(caplog)
    assert written(caplog).count("no JSON object") == 1


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_frame_without_measure_costs_the_connection_only(
    service: SignalRestServer, hangs_up: bool
) -> None:
    """It is closed by us; a service that does not hang up then is noticed by its silence."""
    async with listening(channel(service, ping_seconds=10.0 if hangs_up else 0.2)) as ears:
        await connected(service)
        first = service.sockets[0]
        first.hangs_up = hangs_up
        service.frame("x" * (MAX_FRAME_BYTES + 1))
        await service.until(lambda: bool(service.sockets) and service.sockets[0] is not first)
        service.say(ALICE, "still here")
        assert (await ears.next()).text == "still here"


async def test_it_listens_again_after_each_loss(service: SignalRestServer) -> None:
    async with listening(channel(service)) as ears:
        for number in range(3):
            await connected(service)
            service.say(ALICE, f"before {number}")
            assert (await ears.next()).text == f"before {number}"
            service.drop()
            await connected(service, 0)


async def test_what_was_sent_during_an_outage_is_said_to_be_lost(
    service: SignalRestServer, caplog: pytest.LogCaptureFixture
) -> None:
    now, pauses = [0.0], Pauses(is_held=True)
    it = channel(service, monotonic=lambda: now[0], pause=pauses)
    async with listening(it) as ears:
        await connected(service)
        await service.stop()
        await pauses.begun()
        service.say(ALICE, "lost")
        now[0] += LOST_SECONDS
        await service.start()
        pauses.go()
        await connected(service)
        service.say(ALICE, "repeated")
        assert await ears.texts_until("repeated") == ["repeated"]
    assert it.lost_since is not None
    assert "must be repeated" in written(caplog)


async def test_a_silent_websocket_is_given_up(service: SignalRestServer) -> None:
    async with listening(channel(service, ping_seconds=0.05)):
        await connected(service)
        first = service.sockets[0]
        first.pongs_back = False
        await service.until(lambda: bool(service.sockets) and service.sockets[0] is not first)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(302, b"", {"Location": "/v1/receive/elsewhere"}),
        Reply(400, {"error": "upgrade token not found"}),
        Reply(200, b"{}"),
        Reply(500, b""),
    ],
)
async def test_a_websocket_that_is_not_opened(
    service: SignalRestServer, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    service.overrides[f"/v1/receive/{ACCOUNT}"] = reply
    pauses = Pauses(is_held=True)
    async with listening(channel(service, pause=pauses)):
        await pauses.begun()
    assert not service.sockets
    assert [asked for asked in service.asked if "elsewhere" in asked] == []
    assert written(caplog).count("does not open a websocket") == 1


async def test_a_proxy_of_the_environment_is_not_asked(
    service: SignalRestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with listening(channel(service)) as ears:
        await connected(service)
        service.say(ALICE, "DENY")
        assert (await ears.next()).text == "DENY"


@pytest.mark.parametrize("fault", [None, "another authority", "no certificate shown"])
async def test_tls_proves_both_ends(
    fault: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    believed = trustme.CA() if fault == "another authority" else authority
    believed.cert_pem.write_to_path(tmp_path / "ca.crt")
    shown = authority.issue_cert("agent.example")
    shown.cert_chain_pems[0].write_to_path(tmp_path / "agent.crt")
    shown.private_key_pem.write_to_path(tmp_path / "agent.key")
    pair = (
        None
        if fault == "no certificate shown"
        else (tmp_path / "agent.crt", tmp_path / "agent.key")
    )
    pauses = Pauses(is_held=True)
    async with SignalRestServer(tls=server) as service:
        outbound = Outbound(service.url, ca_file=tmp_path / "ca.crt", pair=pair)
        driver = SignalRest(outbound, ACCOUNT, poll_seconds=0.01, ping_seconds=10.0)
        async with listening(SignalChannel(driver, pause=pauses)) as ears:
            if fault is None:
                await connected(service)
                service.say(ALICE, "DENY")
                assert (await ears.next()).text == "DENY"
            else:
                await pauses.begun()
                assert "is not heard" in written(caplog)
        assert bool(service.asked) == (fault is None)


async def test_an_address_that_may_not_be_sent_to_is_not_connected(
    service: SignalRestServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A name may lead elsewhere the second time that it is looked up."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    monkeypatch.setattr(connect, "system_addresses", lambda *_: next(answers))
    pauses = Pauses(is_held=True)
    url = f"http://localhost:{service.port}"
    async with listening(channel(service, url=url, pause=pauses)):
        await pauses.begun()
    assert "this machine" in written(caplog)
    assert not service.sockets


async def test_no_address_of_the_name_takes_the_websocket(
    service: SignalRestServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [["127.0.0.1"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.1"]]
    monkeypatch.setattr(
        connect, "system_addresses", lambda *_: answers.pop(0) if answers[1:] else answers[0]
    )
    pauses = Pauses(is_held=True)
    url = f"http://localhost:{service.port}"
    async with listening(channel(service, url=url, pause=pauses)) as ears:
        await pauses.begun()
        assert "does not open a websocket" in written(caplog)
        assert not service.sockets
        pauses.go()
        await connected(service)
        service.say(ALICE, "hello")
        assert (await ears.next()).text == "hello"


async def test_without_the_package_it_says_what_to_install(
    service: SignalRestServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "websockets" else found(name)
    )
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:  # noqa: ANN401
        assert not name.startswith("websockets")
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    pauses = Pauses(is_held=True)
    async with listening(channel(service, pause=pauses)):
        await pauses.begun()
    assert "extra signal" in written(caplog)
    with pytest.raises(ChannelError, match="extra signal") as raised:
        await channel(service).probe()
    assert raised.value.failure is Failure.NOT_CONFIGURED


# -- hearing by polls ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", POLLED)
async def test_polls_bring_what_was_sent_meanwhile(service: SignalRestServer, mode: str) -> None:
    service.mode = mode
    service.say(ALICE, "meanwhile")
    async with listening(channel(service)) as ears:
        assert (await ears.next()).text == "meanwhile"
        service.say(ALICE, "later")
        assert (await ears.next()).text == "later"
    assert not service.sockets


async def test_a_poll_takes_no_more_than_fits_into_its_answer(service: SignalRestServer) -> None:
    service.mode = "normal"
    people = [f"{number:08x}-2222-4333-8444-555555555555" for number in range(MAX_POLLED + 10)]
    for aci in people:
        service.say(aci, "x" * 2_000)
    async with listening(channel(service, max_answer_bytes=1_048_576)) as ears:
        heard = [(await ears.next()).address for _ in people]
    assert heard == people


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b"7"])
async def test_a_poll_that_is_not_understood(
    service: SignalRestServer, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    service.mode = "normal"
    service.overrides[f"/v1/receive/{ACCOUNT}"] = Reply(200, body)
    pauses = Pauses(is_held=True)
    async with listening(channel(service, pause=pauses)) as ears:
        await pauses.begun()
        service.overrides.clear()
        service.say(ALICE, "still here")
        pauses.go()
        assert (await ears.next()).text == "still here"
    assert "not understood" in written(caplog)


# -- doctor ----------------------------------------------------------------------------------------


async def test_a_probe_says_which_program_answers(service: SignalRestServer) -> None:
    it = channel(service)
    assert await it.probe() == (
        "signal-cli-rest-api 0.100 answers, mode json-rpc, and holds the account"
    )
    service.overrides["/v1/accounts"] = Reply(404, {"error": "x"})
    assert "does not tell its accounts" in await it.probe()
    await it.close()
    assert not service.sent
    assert not service.sockets


@pytest.mark.parametrize("mode", POLLED)
async def test_a_probe_of_a_service_that_is_polled_needs_no_package(
    service: SignalRestServer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    service.mode = mode
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    it = channel(service)
    assert f"answers, mode {mode}, and holds the account" in await it.probe()
    await it.close()


async def test_a_probe_fails_where_the_accounts_do_not_come(service: SignalRestServer) -> None:
    service.overrides["/v1/accounts"] = Reply(200, b"x" * 300_000)
    it = channel(service)
    with pytest.raises(ChannelError) as raised:
        await it.probe()
    await it.close()
    assert raised.value.failure is Failure.BAD_ANSWER


@pytest.mark.parametrize("accounts", [[], ["+439999"], {}, None, "x"])
async def test_a_probe_fails_where_the_account_is_missing(
    service: SignalRestServer, accounts: object
) -> None:
    service.accounts = accounts
    it = channel(service)
    with pytest.raises(ChannelError, match="does not hold") as raised:
        await it.probe()
    await it.close()
    assert raised.value.failure is Failure.NOT_CONFIGURED
    assert ACCOUNT not in str(raised.value)


@pytest.mark.parametrize("about", [b"", b"[]", b'{"mode":[]}', b"nonsense"])
async def test_a_probe_fails_where_something_else_answers(
    service: SignalRestServer, about: bytes
) -> None:
    service.overrides["/v1/about"] = Reply(200, about)
    it = channel(service)
    with pytest.raises(ChannelError, match="not understood"):
        await it.probe()
    await it.close()


async def test_nothing_of_a_person_is_logged(
    service: SignalRestServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    ears = Ears(lambda heard: f"{CODE} was heard from {heard.address}")
    service.replies.extend([Reply(400, {"error": f"{ALICE} {CODE}"}), Reply(429, {"error": CODE})])
    async with listening(channel(service), ears):
        await connected(service)
        for text in (f"CONFIRM {CODE}", f"DENY {CODE}", "last"):
            service.say(ALICE, text)
        await ears.texts_until("last")
        await service.until(lambda: bool(service.sent))
        service.drop()
        await connected(service, 0)
    assert json.dumps(service.sent).count(CODE) == 1
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("host_agent")
    )
    others = [record for record in caplog.records if record.name.startswith(("websockets", "http"))]
    assert not others
    for secret in (CODE, ALICE, ACCOUNT, ACCOUNT[1:]):
        assert secret not in ours
