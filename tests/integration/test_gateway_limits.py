"""Slow, silent and numerous peers: each is closed at its deadline, and holds up nobody."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.errors import ConfigurationError
from host_agent.http.refusals import TlsRejection
from host_agent.http.stream import ConnectionLimits, StreamEvents, TlsStream
from host_agent.http.tls import mutual_tls
from tests.support.door import GET, PIECE, Door, Wire, post
from tests.support.patience import OUTLASTING, PATIENCE

SHORT = 0.3
QUICK = ConnectionLimits(
    handshake_seconds=SHORT,
    head_seconds=SHORT,
    body_seconds=SHORT,
    write_seconds=SHORT,
    idle_seconds=SHORT,
    linger_seconds=SHORT,
)
HOLD = b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "pki", limits=QUICK) as opened:
        yield opened


async def drip(wire: Wire, data: bytes) -> None:
    """Send a byte every hundredth of a second, so that no gap is long and the whole is."""
    for byte in data:
        wire.send(bytes((byte,)))
        await asyncio.sleep(0.01)


# -- deadlines are totals --------------------------------------------------------------------------


@pytest.mark.promise("c16")
async def test_a_handshake_that_is_not_finished_is_closed(door: Door) -> None:
    async with door.plain() as silent, door.plain() as slow:
        dripping = asyncio.ensure_future(drip(slow, b"\x16\x03\x01\x02\x00\x01" + b"\0" * 200))
        assert await silent.rest() == b""
        assert await slow.rest() == b""
        dripping.cancel()
    assert door.rejections == [TlsRejection.TIMEOUT] * 2
    assert not door.probe.scopes


@pytest.mark.promise("c16")
async def test_a_connection_that_a_reload_ends_before_it_has_begun_is_closed() -> None:
    lost: list[TlsStream] = []
    events = StreamEvents(opened=lost.append, lost=lost.append, rejected=lambda *_: None)
    buffer = memoryview(bytearray(1024))
    stream = TlsStream(mutual_tls(()), buffer=buffer, limits=QUICK, events=events)
    stream.abort()
    ours, theirs = socket.socketpair()
    with theirs:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, ours)
        theirs.settimeout(PATIENCE)
        assert await asyncio.to_thread(theirs.recv, 1) == b""
    assert lost == [stream]


@pytest.mark.promise("c16")
async def test_a_header_section_that_drips_is_answered_408_and_closed(door: Door) -> None:
    async with door.dial() as wire:
        dripping = asyncio.ensure_future(drip(wire, GET[:-2] + b"X: " + b"y" * 1000))
        reply = await wire.reply()
        assert (reply.status, reply.code) == (408, "request:timeout")
        assert reply.headers["x-request-id"] == reply.json["exchange_id"]
        assert await wire.rest() == b""
        dripping.cancel()
    assert [code for code, _, _ in door.refusals] == ["request:timeout"]


@pytest.mark.promise("c16")
async def test_a_body_that_drips_is_answered_408_and_closed(door: Door) -> None:
    async with door.dial() as wire:
        wire.send(post(b"", b"Content-Length: 1000"))
        dripping = asyncio.ensure_future(drip(wire, b"a" * 999))
        reply = await wire.reply()
        assert (reply.status, reply.code) == (408, "request:timeout")
        assert reply.headers["connection"] == "close"
        assert await wire.rest() == b""
        dripping.cancel()
    assert door.probe.failures == ["RequestTimeoutError"]


@pytest.mark.promise("c16")
async def test_a_peer_that_never_reads_is_closed(door: Door) -> None:
    wire = await door.open(door.client_context(door.pki.client()), limit=1000)
    wire.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.wait_for(door.probe.left.wait(), PATIENCE)
    assert door.probe.failures == ["ConnectionError"]
    assert len(await wire.rest()) < 32 * 1024 * 1024
    await wire.close()
    assert await door.is_alive()


@pytest.mark.promise("c16")
async def test_a_stream_that_nobody_reads_holds_one_piece_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what the kernel took, one piece waits; no second one is asked for until it is gone."""
    async with Door(tmp_path / "pki", limits=QUICK) as door:
        held: list[int] = []
        write = TlsStream.write

        def record(stream: TlsStream, data: bytes) -> None:
            write(stream, data)
            held.append(stream.transport.get_write_buffer_size())

        monkeypatch.setattr(TlsStream, "write", record)
        wire = await door.open(door.client_context(door.pki.client()), limit=1000)
        wire.send(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(door.probe.left.wait(), PATIENCE)
        assert door.probe.failures == ["ConnectionError"]
        assert 0 < max(held) < 2 * PIECE
        await wire.close()
        assert await door.is_alive()


@pytest.mark.promise("c16")
async def test_answers_that_nobody_reads_are_made_one_at_a_time(tmp_path: Path) -> None:
    """Requests that are sent ahead wait on the wire, not as answers in memory."""
    async with Door(tmp_path / "pki", limits=QUICK) as door:
        wire = await door.open(door.client_context(door.pki.client()), limit=1000)
        wire.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        await asyncio.wait_for(door.probe.left.wait(), PATIENCE)
        await wire.close()
        assert await door.is_alive()
        asked = [scope["path"] for scope in door.probe.scopes]
    assert asked == ["/big", "/echo"]


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(door: Door) -> None:
    async with door.dial() as unused, door.dial() as used, door.dial() as busy:
        busy.send(HOLD)
        await used.ask(GET)
        assert await unused.rest() == b""
        assert await used.rest() == b""
        door.probe.release.set()
        assert (await busy.reply()).json["held"]


@pytest.mark.promise("c16")
async def test_many_slow_peers_hold_up_nobody(tmp_path: Path) -> None:
    """Two hundred of each kind at once; good clients are answered all the while."""
    patient = ConnectionLimits(
        handshake_seconds=OUTLASTING, head_seconds=OUTLASTING, body_seconds=OUTLASTING
    )
    async with Door(tmp_path / "pki", limits=patient) as door:
        leaf = door.pki.client()
        context = door.client_context(leaf)
        silent = [await door.open(None) for _ in range(200)]
        heads = [await door.open(context) for _ in range(100)]
        bodies = [await door.open(context) for _ in range(100)]
        for wire in heads:
            wire.send(GET[:20])
        for wire in bodies:
            wire.send(post(b"a", b"Content-Length: 1000"))
        for _ in range(20):
            assert await door.is_alive()
        assert door.gateway.connections >= 400
        for wire in (*silent, *heads, *bodies):
            await wire.close()


# -- caps ------------------------------------------------------------------------------------------


async def test_unfinished_handshakes_go_first_at_the_cap(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        door = await stack.enter_async_context(Door(tmp_path / "pki", max_connections=3))
        oldest = await stack.enter_async_context(door.plain())
        older = await stack.enter_async_context(door.plain())
        good = await stack.enter_async_context(door.dial())
        await good.ask(GET)
        for evicted in (oldest, older):
            another = await stack.enter_async_context(door.dial())
            assert (await another.ask(GET)).status == 200
            assert await evicted.rest() == b""
        assert (await good.ask(GET)).status == 200
        assert door.rejections == [TlsRejection.OTHER] * 2


async def test_established_connections_are_never_evicted(tmp_path: Path) -> None:
    full = Door(tmp_path / "pki", max_connections=2)
    async with full as door, door.dial() as one, door.dial() as two:
        await one.ask(GET)
        await two.ask(GET)
        async with door.plain() as refused:
            assert await refused.rest() == b""
        assert (await one.ask(GET)).status == 200
        assert (await two.ask(GET)).status == 200
        door.gateway.limit_connections(3)
        assert await door.is_alive()


class StarvedSocket(socket.socket):
    """A listener whose first accepts fail for want of file descriptors."""

    left = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.left:
            StarvedSocket.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.mark.promise("c39")
async def test_an_accept_without_file_descriptors_backs_off_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = StarvedSocket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    async with Door(tmp_path / "pki", bind=listener) as door:
        assert await door.is_alive()
    assert StarvedSocket.left == 0
    assert caplog.text.count("Too many open files") == 3


# -- life ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6 beside IPv4")
async def test_every_address_is_those_of_ipv4_and_of_ipv6(tmp_path: Path) -> None:
    async with Door(tmp_path / "pki") as door:
        every, only = door.another(("::", 0)), door.another(("::1", 0))
        async with every, only:
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, every.port), timeout=PATIENCE).close()
            socket.create_connection(("::1", only.port), timeout=PATIENCE).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", only.port), timeout=PATIENCE)


async def test_an_address_in_use_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    async with Door(tmp_path / "pki") as door:
        second = door.another(("127.0.0.1", door.gateway.port))
        with pytest.raises(ConfigurationError, match=r"server\.bind"):
            await second.start()
        with pytest.raises(RuntimeError):
            assert second.port


async def test_who_says_goodbye_and_goes_on_sending_is_cut_off(tmp_path: Path) -> None:
    """While its request still runs, nothing of what it sends is kept."""
    limits = ConnectionLimits(linger_bytes=4 * PIECE)
    async with Door(tmp_path / "pki", limits=limits) as door, door.by_hand() as client:
        client.send(HOLD)
        client.say_goodbye()
        await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
        assert door.gateway.connections == 1
        for _ in range(5):
            client.wire.send(b"x" * PIECE)
        await client.wire.rest()
        assert not door.probe.left.is_set()
        door.probe.release.set()
        assert await door.is_alive()


async def test_draining_ends_idle_connections_and_waits_for_busy_ones(tmp_path: Path) -> None:
    door = Door(tmp_path / "pki")
    await door.gateway.start()
    port = door.gateway.port
    async with door.dial() as idle, door.dial() as busy:
        await idle.ask(GET)
        door.probe.entered.clear()
        busy.send(HOLD)
        await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
        closing = asyncio.ensure_future(door.gateway.close(PATIENCE))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not closing.done()
        door.probe.release.set()
        reply = await busy.reply()
        assert (reply.json["held"], reply.headers["connection"]) == (True, "close")
        await closing
    assert door.gateway.connections == 0


async def test_draining_ends_what_does_not_end(tmp_path: Path) -> None:
    door = Door(tmp_path / "pki")
    await door.gateway.start()
    async with door.dial() as stuck, door.dial() as busy, door.plain():
        stuck.send(HOLD)
        busy.send(HOLD)
        await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
        await door.gateway.close(0.05)
        await stuck.rest()
    assert door.gateway.connections == 0
    assert door.probe.left.is_set()
