"""The monitoring listener as monitors, browsers and odd peers meet it."""

import asyncio
import contextlib
import shutil
import socket
import struct
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from host_agent.api import monitoring
from host_agent.api.monitoring import MonitoringListener
from host_agent.errors import ConfigurationError
from tests.support.asgi import Reply
from tests.support.door import Wire
from tests.support.monitored import BODY, metrics_app
from tests.support.patience import PATIENCE

GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def listener() -> AsyncIterator[MonitoringListener]:
    app = metrics_app()
    async with MonitoringListener(app, bind=("127.0.0.1", 0)) as opened:
        yield opened


@contextlib.asynccontextmanager
async def dialled(listener: MonitoringListener) -> AsyncIterator[Wire]:
    wire = Wire(*await asyncio.open_connection("127.0.0.1", listener.port))
    try:
        yield wire
    finally:
        await wire.close()


@pytest.fixture
async def wire(listener: MonitoringListener) -> AsyncIterator[Wire]:
    async with dialled(listener) as opened:
        yield opened


async def scraped(listener: MonitoringListener) -> Reply:
    async with dialled(listener) as wire:
        return await wire.ask(GET)


# -- what HTTP asks of a server --------------------------------------------------------------------


async def test_a_monitor_is_answered_again_and_again(wire: Wire) -> None:
    for _ in range(3):
        reply = await wire.ask(GET)
        assert (reply.status, reply.body) == (200, BODY)
        assert reply.headers["x-request-id"]
        assert reply.headers["date"]


async def test_head_says_what_get_would_and_nothing_more(wire: Wire) -> None:
    said = (await wire.ask(GET)).headers
    wire.send(GET.replace(b"GET", b"HEAD"))
    head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), PATIENCE)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: %d\r\n" % len(BODY) in head
    assert said["content-type"].encode() in head
    assert (await wire.ask(GET)).body == BODY  # nothing of a body was in between


@pytest.mark.parametrize("line", [b"", b"Host: localhost\r\n", b"Connection: keep-alive\r\n"])
async def test_http_10_is_answered_and_closed(wire: Wire, line: bytes) -> None:
    reply = await wire.ask(b"GET /health HTTP/1.0\r\n" + line + b"\r\n")
    assert (reply.status, reply.json["status"]) == (200, "ok")
    assert await wire.rest() == b""


async def test_a_target_in_absolute_form_is_the_same_resource(wire: Wire) -> None:
    reply = await wire.ask(b"GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (reply.status, reply.body) == (200, BODY)
    reply = await wire.ask(b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (reply.status, reply.code) == (404, "route:not-found")


async def test_nothing_can_be_done_and_what_can_is_said(wire: Wire) -> None:
    for method in (b"POST", b"OPTIONS", b"FROB"):
        reply = await wire.ask(GET.replace(b"GET", method))
        assert (reply.status, reply.code) == (405, "route:method-not-allowed")
        assert reply.headers["allow"] == "GET, HEAD"
    reply = await wire.ask(b"GET /host/op HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (reply.status, reply.code) == (404, "route:not-found")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 300 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused(
    listener: MonitoringListener, wire: Wire, request_: bytes
) -> None:
    assert (await wire.ask(request_)).status == 400
    assert await wire.rest() == b""
    assert (await scraped(listener)).status == 200


# -- offers of another protocol (RFC 9110, section 7.8) --------------------------------------------


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade\r\nUpgrade: frob/2\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        (
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        ),
    ],
)
async def test_an_offer_that_is_not_taken_up_is_answered_in_http_11(
    wire: Wire, offer: bytes
) -> None:
    reply = await wire.ask(GET[:-2] + offer + b"\r\n")
    assert (reply.status, reply.body) == (200, BODY)
    assert "upgrade" not in reply.headers


async def test_an_offer_of_http2_is_taken_up(wire: Wire) -> None:
    wire.send(GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")
    wire.send(b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
    head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), PATIENCE)
    assert head.startswith(b"HTTP/1.1 101")
    assert b"upgrade: h2c" in head.lower()
    frame = await asyncio.wait_for(wire.reader.readexactly(9), PATIENCE)
    assert frame[3] == 4  # SETTINGS


async def test_who_speaks_http2_at_once_is_answered(wire: Wire) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    fields = [(":method", "GET"), (":path", "/metrics"), (":scheme", "http")]
    client.send_headers(1, [*fields, (":authority", "localhost")], end_stream=True)
    wire.send(client.data_to_send())
    body = b""
    async with asyncio.timeout(PATIENCE):
        while not body:
            for event in client.receive_data(await wire.reader.read(65536)):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
    assert body == BODY


async def test_streams_that_no_window_lets_send_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer reads its connection all the time, so for TCP all is well."""
    monkeypatch.setattr(monitoring, "WRITE_SECONDS", 1)
    settings: dict[h2.settings.SettingCodes | int, int] = {
        h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0
    }
    before = asyncio.all_tasks()
    async with MonitoringListener(metrics_app(), bind=("127.0.0.1", 0)) as listener:
        async with dialled(listener) as wire:
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            client.initiate_connection()
            client.update_settings(settings)
            fields = [(":method", "GET"), (":path", "/metrics"), (":scheme", "http")]
            for stream in range(1, 101, 2):
                client.send_headers(stream, [*fields, (":authority", "localhost")], end_stream=True)
            wire.send(client.data_to_send())
            reading = asyncio.create_task(wire.rest())
            assert (await scraped(listener)).status == 200
            async with asyncio.timeout(PATIENCE):
                while len(asyncio.all_tasks() - before) > 20:
                    await asyncio.sleep(0.05)
            reading.cancel()
        assert (await scraped(listener)).status == 200


# -- odd peers hold up nobody ----------------------------------------------------------------------


async def test_silent_and_slow_peers_hold_up_nobody_and_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitoring, "HEAD_SECONDS", 1)
    app = metrics_app()
    async with (
        MonitoringListener(app, bind=("127.0.0.1", 0)) as listener,
        contextlib.AsyncExitStack() as exits,
    ):
        silent = [await exits.enter_async_context(dialled(listener)) for _ in range(100)]
        for wire in silent[::2]:
            wire.send(GET[:20])
        assert (await scraped(listener)).body == BODY
        for wire in silent:
            await wire.rest()


async def test_a_body_is_dropped_and_one_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitoring, "BODY_SECONDS", 0.3)
    app = metrics_app()
    async with MonitoringListener(app, bind=("127.0.0.1", 0)) as listener:
        assert (await scraped(listener)).status == 200
        before = asyncio.all_tasks()
        async with dialled(listener) as wire:
            chunks = b"".join(b"1\r\nx\r\n" for _ in range(5000))
            head = GET.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
            assert (await wire.ask(head + chunks + b"0\r\n\r\n")).status == 405
            assert (await wire.ask(GET)).status == 200
            reply = await wire.ask(head + chunks)
            assert (reply.status, reply.code) == (408, "request:timeout")
            assert reply.headers["connection"] == "close"
            with contextlib.suppress(ConnectionError):
                for _ in range(50):
                    wire.send(chunks)
                    await wire.writer.drain()
            await wire.rest()
        async with asyncio.timeout(PATIENCE):
            while left := asyncio.all_tasks() - before:
                await asyncio.wait(left)
        assert (await scraped(listener)).status == 200


async def test_who_asks_and_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "WRITE_SECONDS", 1)
    app = metrics_app()
    async with MonitoringListener(app, bind=("127.0.0.1", 0)) as listener:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect(("127.0.0.1", listener.port))
            deaf.setblocking(False)
            sending = asyncio.get_running_loop().sock_sendall(deaf, GET * 10**6)
            asked = asyncio.ensure_future(sending)
            assert (await scraped(listener)).status == 200
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(asked, PATIENCE)
        assert (await scraped(listener)).status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("option", ["--http1.0", "--http1.1", "--http2", "--head"])
async def test_curl_is_served(listener: MonitoringListener, option: str) -> None:
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--max-time", "20", option),
        *("--write-out", "\n%{http_code}", f"http://127.0.0.1:{listener.port}/metrics"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await curl.communicate()
    assert out.splitlines()[-1] == b"200"


# -- its end ---------------------------------------------------------------------------------------


async def test_it_ends_with_idle_and_waiting_peers_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    listener = MonitoringListener(metrics_app(), bind=("127.0.0.1", 0))
    await listener.start()
    async with dialled(listener) as idle, dialled(listener) as busy, dialled(listener):
        assert (await idle.ask(GET)).status == 200
        busy.send(GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 10\r\n\r\nabc")
        async with asyncio.timeout(PATIENCE):
            await listener.close()
        assert await idle.rest() == b""
        await busy.rest()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", listener.port)
    assert asyncio.all_tasks() == before


async def test_a_peer_that_resets_is_no_trouble(
    listener: MonitoringListener, caplog: pytest.LogCaptureFixture
) -> None:
    for data in (b"", GET[:10], GET):
        with socket.create_connection(("127.0.0.1", listener.port)) as rude:
            rude.sendall(data)
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert (await scraped(listener)).status == 200
    assert not caplog.records


async def test_an_address_in_use_is_a_fault_that_names_its_key(
    listener: MonitoringListener,
) -> None:
    app = metrics_app()
    second = MonitoringListener(app, bind=("127.0.0.1", listener.port))
    with pytest.raises(ConfigurationError, match=r"metrics\.bind: 127\.0\.0\.1:"):
        await second.start()
