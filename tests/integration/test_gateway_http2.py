"""HTTP/2: the same application, and the attacks that only it makes possible."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest

from host_agent.gateway.app import create_app
from host_agent.gateway.stream import ConnectionLimits
from tests.support.asgi import Reply
from tests.support.door import PATIENCE, Door, Wire
from tests.support.fake_pipeline import FakeAgent


@dataclass
class Peer:
    """An HTTP/2 client that may do what it likes."""

    wire: Wire
    connection: h2.connection.H2Connection
    replies: dict[int, Reply] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    resets: dict[int, int] = field(default_factory=dict)
    is_terminated: bool = False
    at_eof: bool = False

    def flush(self) -> None:
        self.wire.send(self.connection.data_to_send())

    def ask(
        self,
        *fields: tuple[str, str],
        method: str = "GET",
        path: str = "/echo",
        authority: str = "localhost",
        is_whole: bool = True,
    ) -> int:
        """Begin a request and return its stream."""
        stream_id = self.connection.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", authority),
            (":path", path),
        ]
        self.connection.send_headers(stream_id, [*pseudo, *fields], end_stream=is_whole)
        self.flush()
        return stream_id

    async def until(self, stream_id: int) -> Reply:
        """Return the response on `stream_id` once it is whole, or the stream reset."""
        async with asyncio.timeout(PATIENCE):
            while stream_id not in self.ended and not self.at_eof:
                await self.turn()
        return self.replies.setdefault(stream_id, Reply())

    async def until_closed(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.at_eof:
                await self.turn()

    async def turn(self) -> None:
        """Read once and take what came."""
        data = await self.wire.reader.read(65536)
        if not data:
            self.at_eof = True
            return
        for event in self.connection.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            headers = {name.decode(): value.decode() for name, value in event.headers or ()}
            self.replies[event.stream_id] = Reply(int(headers.pop(":status")), headers)
        elif isinstance(event, h2.events.DataReceived):
            self.replies[event.stream_id].body += event.data or b""
            size = event.flow_controlled_length or 0
            self.connection.acknowledge_received_data(size, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.ended.add(event.stream_id)
            self.resets[event.stream_id] = int(event.error_code or 0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.is_terminated = True


async def shake_hands(wire: Wire, *, window: int | None = None) -> Peer:
    """Begin HTTP/2 on `wire`; a `window` of 0 takes no response body."""
    config = h2.config.H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    if window is not None:
        connection.local_settings = h2.settings.Settings(
            client=True,
            initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window},
        )
    connection.initiate_connection()
    peer = Peer(wire, connection)
    peer.flush()
    return peer


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "pki") as opened:
        yield opened


@pytest.fixture
async def peer(door: Door) -> AsyncIterator[Peer]:
    async with door.dial(alpn="h2") as wire:
        yield await shake_hands(wire)


# -- good ones -------------------------------------------------------------------------------------


async def test_a_usual_client_speaks_http2(tmp_path: Path) -> None:
    agent = FakeAgent()
    async with Door(tmp_path / "pki", create_app(agent)) as door:
        context = door.client_context(door.pki.client(), alpn=("h2",))
        url = f"https://localhost:{door.gateway.port}"
        async with httpx.AsyncClient(verify=context, http2=True, base_url=url) as client:
            ask = {"operation": "git.status", "params": {"repository": "/srv/app"}}
            replies = await asyncio.gather(*(client.post("/host/op", json=ask) for _ in range(50)))
            assert {reply.status_code for reply in replies} == {200}
            assert {reply.http_version for reply in replies} == {"HTTP/2"}
            assert len({reply.headers["x-request-id"] for reply in replies}) == 50
            large = {**ask, "reason": "a" * 2_000_000}
            refused = await client.post("/host/op", json=large)
            assert refused.status_code == 413
            assert refused.json()["code"] == "request:too-large"
            assert (await client.get("/nope")).json()["code"] == "route:not-found"
            assert (await client.get("/health")).status_code == 200
        assert door.gateway.connections <= 1


async def test_the_scope_is_as_for_http11(door: Door, peer: Peer) -> None:
    reply = await peer.until(peer.ask(("x-a", "b"), path="/echo?c=d"))
    assert reply.json == {"size": 0, "version": "2"}
    scope = door.probe.scopes[0]
    assert (scope["method"], scope["path"], scope["query_string"]) == ("GET", "/echo", b"c=d")
    assert scope["extensions"]["host_agent"]["peer"].common_name == "librarian"
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304
    assert (b"host", b"localhost") in scope["headers"]
    assert reply.headers["x-request-id"] == scope["extensions"]["host_agent"]["exchange_id"]


async def test_many_streams_are_served_side_by_side(door: Door, peer: Peer) -> None:
    held = peer.ask(path="/hold")
    others = [peer.ask() for _ in range(20)]
    for stream_id in others:
        assert (await peer.until(stream_id)).status == 200
    assert held not in peer.ended
    door.probe.release.set()
    assert (await peer.until(held)).json["held"]


async def test_a_response_in_pieces_and_a_large_one_arrive_whole(peer: Peer) -> None:
    assert (await peer.until(peer.ask(path="/stream"))).body == b"abcabcabc"
    assert len((await peer.until(peer.ask(path="/large"))).body) == 2 * 1024 * 1024


async def test_what_nobody_read_does_not_stay_charged_to_the_connection(
    door: Door, peer: Peer
) -> None:
    for _ in range(5):
        stream_id = peer.ask(method="POST", path="/deaf", is_whole=False)
        peer.connection.send_data(stream_id, b"a" * 16384)
        peer.flush()
        reply = await peer.until(stream_id)
        assert reply.status == 413
    stream_id = peer.ask(method="POST", is_whole=False)
    for _ in range(12):
        while peer.connection.local_flow_control_window(stream_id) < 16384:
            await asyncio.wait_for(peer.turn(), PATIENCE)
        peer.connection.send_data(stream_id, b"a" * 16384)
        peer.flush()
    peer.connection.end_stream(stream_id)
    peer.flush()
    assert (await peer.until(stream_id)).json["size"] == 12 * 16384


async def test_a_body_that_nobody_reads_is_dropped_for_a_while_and_then_stopped(
    tmp_path: Path,
) -> None:
    limits = ConnectionLimits(linger_seconds=0.2, linger_bytes=100_000)
    async with Door(tmp_path / "pki", limits=limits) as door, door.dial(alpn="h2") as wire:
        peer = await shake_hands(wire)
        whole, late, large = (
            peer.ask(method="POST", path="/deaf", is_whole=False) for _ in range(3)
        )
        for stream_id in (whole, late, large):
            assert (await peer.until(stream_id)).status == 413
        peer.connection.send_data(whole, b"a" * 1000, end_stream=True)
        peer.flush()
        while large not in peer.resets:
            if peer.connection.local_flow_control_window(large) >= 16384:
                peer.connection.send_data(large, b"a" * 16384)
                peer.flush()
            await asyncio.wait_for(peer.turn(), PATIENCE)
        while late not in peer.resets:
            await asyncio.wait_for(peer.turn(), PATIENCE)
        assert set(peer.resets.values()) == {0}
        assert whole not in peer.resets
        assert (await peer.until(peer.ask())).status == 200


async def test_an_application_hears_of_a_stream_that_is_reset(door: Door, peer: Peer) -> None:
    stream_id = peer.ask(path="/linger")
    await asyncio.wait_for(peer.turn(), PATIENCE)
    await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
    peer.connection.reset_stream(stream_id)
    peer.flush()
    await asyncio.wait_for(door.probe.left.wait(), PATIENCE)
    assert (await peer.until(peer.ask())).status == 200


async def test_data_for_a_stream_that_is_over_harms_nobody(door: Door, peer: Peer) -> None:
    stream_id = peer.ask(method="POST", path="/deaf", is_whole=False)
    assert (await peer.until(stream_id)).status == 413
    # h2's own client would not send this any more: a DATA frame, by hand.
    peer.wire.send(b"\x00\x00\x05\x00\x01" + stream_id.to_bytes(4, "big") + b"hello")
    assert (await peer.until(peer.ask())).status == 200


async def test_an_application_that_fails_is_500_with_a_body(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await peer.until(peer.ask(path="/crash"))
    assert (reply.status, reply.code) == (500, "internal")
    assert reply.headers["x-request-id"] in caplog.text
    broken = peer.ask(path="/half")
    await peer.until(broken)
    assert broken in peer.resets
    assert (await peer.until(peer.ask())).status == 200


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "status", "code"),
    [
        ([], "/%ff", 400, "request:malformed"),
        ([("x", "a" * 20_000)], "/echo", 431, "request:headers-too-large"),
        ([(f"x{number}", "a") for number in range(101)], "/echo", 431, "request:headers-too-large"),
    ],
)
async def test_c17_a_request_that_is_none_is_a_problem(
    door: Door, peer: Peer, fields: list[tuple[str, str]], path: str, status: int, code: str
) -> None:
    reply = await peer.until(peer.ask(*fields, path=path))
    assert (reply.status, reply.code) == (status, code)
    assert reply.headers["x-request-id"] == reply.json["request_id"]
    assert not door.probe.scopes
    assert [refusal[:2] for refusal in door.refusals] == [(code, reply.json["request_id"])]
    assert (await peer.until(peer.ask())).status == 200


@pytest.mark.parametrize("authority", ["a b", "", "a@b"])
async def test_c17_an_authority_that_is_none_reaches_nobody(
    door: Door, peer: Peer, authority: str
) -> None:
    reply = await peer.until(peer.ask(authority=authority))
    assert reply.status in {0, 400}
    assert not door.probe.scopes
    assert await door.is_alive()


async def test_websockets_and_tunnels_are_refused(door: Door, peer: Peer) -> None:
    await asyncio.wait_for(peer.turn(), PATIENCE)
    codes = h2.settings.SettingCodes
    assert peer.connection.remote_settings.get(codes.ENABLE_CONNECT_PROTOCOL, 0) == 0
    stream_id = peer.ask((":protocol", "websocket"), method="CONNECT", is_whole=False)
    reply = await peer.until(stream_id)
    assert reply.status in {0, 400}
    assert not door.probe.scopes
    assert await door.is_alive()


@pytest.mark.parametrize(
    "fields",
    [
        [("host", "evil.test")],
        [("upgrade", "websocket")],
        [("transfer-encoding", "chunked")],
        [("connection", "close")],
        [("content-length", "1"), ("content-length", "2")],
        [("Upper", "a")],
        [(":path", "/other")],
        [("x", "a\r\nb")],
    ],
)
async def test_c17_ambiguous_requests_reach_nobody(
    door: Door, peer: Peer, fields: list[tuple[str, str]]
) -> None:
    reply = await peer.until(peer.ask(*fields))
    assert reply.status in {0, 400}
    assert not door.probe.scopes
    assert await door.is_alive()


async def test_c17_a_header_list_beyond_all_bounds_ends_the_connection(
    door: Door, peer: Peer
) -> None:
    peer.ask(*[(f"x-{number}", "a" * 4000) for number in range(30)])
    await peer.until_closed()
    assert not door.probe.scopes
    assert await door.is_alive()


async def test_a_flood_of_resets_ends_the_connection(door: Door, peer: Peer) -> None:
    for _ in range(600):
        stream_id = peer.ask(path="/linger")
        peer.connection.reset_stream(stream_id)
        peer.flush()
    await peer.until_closed()
    assert peer.is_terminated
    assert await door.is_alive()


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"a" * 300_000,  # longer than any may be
        b"\x00\x00\x00\x09\x04\x00\x00\x00\x01",  # CONTINUATION of nothing
        b"\x00\x00\x05\x00\x00\x00\x00\x00\x07hello",  # DATA on a stream that is idle
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # a window grown by nothing
        b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff",  # HEADERS that do not decode
    ],
)
async def test_frames_that_make_no_sense_end_the_connection(
    door: Door, peer: Peer, frame: bytes
) -> None:
    peer.wire.send(frame)
    await peer.until_closed()
    assert not door.probe.scopes
    assert await door.is_alive()


async def test_priorities_are_ignored(door: Door, peer: Peer) -> None:
    for number in range(1, 4001, 2):
        peer.connection.prioritize(number, weight=10)
    peer.flush()
    assert (await peer.until(peer.ask())).status == 200


# -- deadlines -------------------------------------------------------------------------------------

QUICK = ConnectionLimits(
    head_seconds=0.3, body_seconds=0.3, write_seconds=0.3, linger_seconds=0.3, idle_seconds=0.3
)


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "quick", limits=QUICK) as opened:
        yield opened


async def test_c16_a_body_that_does_not_come_is_408(quick: Door) -> None:
    async with quick.dial(alpn="h2") as wire:
        peer = await shake_hands(wire)
        reply = await peer.until(peer.ask(method="POST", is_whole=False))
        assert (reply.status, reply.code) == (408, "request:timeout")


async def test_c16_a_frame_that_does_not_end_closes_the_connection(quick: Door) -> None:
    async with quick.dial(alpn="h2") as wire:
        peer = await shake_hands(wire)
        wire.send(b"\x00\x00\x10\x01\x05\x00\x00\x00\x01\x82")
        await peer.until_closed()
        assert not quick.probe.scopes


async def test_c16_a_peer_that_opens_no_window_is_cut(quick: Door) -> None:
    async with quick.dial(alpn="h2") as wire:
        peer = await shake_hands(wire, window=0)
        stream_id = peer.ask(path="/big")
        await asyncio.wait_for(quick.probe.entered.wait(), PATIENCE)
        await peer.until(stream_id)
        assert stream_id in peer.resets
        assert quick.probe.failures == ["ConnectionError"]


async def test_an_idle_connection_is_closed(quick: Door) -> None:
    async with quick.dial(alpn="h2") as wire:
        peer = await shake_hands(wire)
        assert (await peer.until(peer.ask())).status == 200
        await peer.until_closed()


async def test_a_retired_connection_ends_after_its_exchanges(door: Door, peer: Peer) -> None:
    held = peer.ask(path="/hold")
    await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
    door.gateway.swap_context(door.server_context(door.pki))
    late = peer.ask()
    await peer.until(late)
    assert late in peer.resets
    door.probe.release.set()
    assert (await peer.until(held)).json["held"]
    await peer.until_closed()
