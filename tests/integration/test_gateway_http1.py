"""HTTP/1.1 on raw sockets: good requests, and every message that could be read in two ways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api, api
from tests.support.door import GET, Door, Wire, post
from tests.support.patience import PATIENCE


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "pki") as opened:
        yield opened


@pytest.fixture
async def wire(door: Door) -> AsyncIterator[Wire]:
    async with door.dial() as dialled:
        yield dialled


# -- good ones -------------------------------------------------------------------------------------


async def test_one_connection_serves_many_requests(door: Door, wire: Wire) -> None:
    for number in range(5):
        reply = await wire.ask(post(b"a" * number))
        assert (reply.status, reply.json["size"]) == (200, number)
    assert (
        len({scope["extensions"]["host_agent"]["exchange_id"] for scope in door.probe.scopes}) == 5
    )
    assert door.gateway.connections == 1


async def test_every_response_names_its_exchange_and_its_date(door: Door, wire: Wire) -> None:
    reply = await wire.ask(GET)
    told = door.probe.scopes[0]["extensions"]["host_agent"]["exchange_id"]
    assert reply.headers["x-request-id"] == told
    assert reply.headers["date"].endswith("GMT")
    assert "server" not in reply.headers


async def test_requests_sent_at_once_are_answered_in_order(door: Door, wire: Wire) -> None:
    wire.send(b"".join(post(b"a" * number) for number in range(20)))
    assert [(await wire.reply()).json["size"] for _ in range(20)] == list(range(20))


async def test_a_request_may_come_in_pieces_of_one_byte(wire: Wire) -> None:
    for byte in b"\r\n" + post(b"hello"):
        wire.send(bytes((byte,)))
        await asyncio.sleep(0)
    assert (await wire.reply()).json["size"] == 5


async def test_a_chunked_body_is_joined(door: Door, wire: Wire) -> None:
    body = b"3\r\nabc\r\n4;name=value\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
    reply = await wire.ask(post(body, b"Transfer-Encoding: chunked"))
    assert reply.json["size"] == 7
    assert door.probe.bodies == [b"abcdefg"]
    assert (await wire.ask(GET)).status == 200


async def test_a_body_of_a_mebibyte_arrives_whole(door: Door, wire: Wire) -> None:
    body = bytes(range(256)) * 4096
    assert (await wire.ask(post(body))).json["size"] == len(body)
    assert door.probe.bodies == [body]


async def test_a_large_response_arrives_whole(wire: Wire) -> None:
    reply = await wire.ask(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reply.body == b"a" * 32 * 1024 * 1024
    assert (await wire.ask(GET)).status == 200


async def test_a_response_in_pieces_is_chunked(wire: Wire) -> None:
    reply = await wire.ask(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reply.headers["transfer-encoding"] == "chunked"
    chunked = await wire.reader.readuntil(b"0\r\n\r\n")
    assert chunked == b"3\r\nabc\r\n" * 3 + b"0\r\n\r\n"
    assert (await wire.ask(GET)).status == 200


async def test_head_has_the_length_and_no_body(wire: Wire) -> None:
    reply_head = b"HEAD /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    wire.send(reply_head)
    data = await wire.rest()
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"content-length: 29" in head.lower()
    assert body == b""


async def test_connection_close_is_kept(wire: Wire) -> None:
    wire.send(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await wire.reply()).headers["connection"] == "close"
    assert await wire.rest() == b""


async def test_a_peer_that_ends_its_side_still_gets_the_answer(tmp_path: Path) -> None:
    async with Door(tmp_path / "pki") as door, door.by_hand() as client:
        client.send(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
        client.wire.writer.write_eof()
        door.probe.release.set()
        assert b'{"held": true}' in await client.read()


async def test_an_application_that_waits_hears_of_a_peer_that_leaves(door: Door) -> None:
    async with door.dial() as wire:
        wire.send(b"GET /linger HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
    await asyncio.wait_for(door.probe.left.wait(), PATIENCE)


# -- Expect: 100-continue --------------------------------------------------------------------------


async def test_a_waiting_body_is_invited_once_somebody_reads_it(wire: Wire) -> None:
    head = post(b"", b"Content-Length: 5", b"Expect: 100-continue")
    assert (await wire.ask(head)).status == 100
    assert (await wire.ask(b"hello")).json["size"] == 5
    assert (await wire.ask(GET)).status == 200


async def test_a_body_that_nobody_wants_is_not_invited(wire: Wire) -> None:
    head = post(b"", b"Content-Length: 5", b"Expect: 100-continue", path=b"/deaf")
    reply = await wire.ask(head)
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert await wire.rest() == b""


# -- forms of a request that a server has to take (RFC 9110, RFC 9112) ----------------------------

WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
H2C = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)


async def test_an_absolute_target_is_the_path_in_it_on_the_host_in_it(
    door: Door, wire: Wire
) -> None:
    reply = await wire.ask(b"GET https://localhost:1/echo?a=b HTTP/1.1\r\nHost: other\r\n\r\n")
    assert reply.status == 200
    scope = door.probe.scopes[0]
    assert (scope["path"], scope["raw_path"]) == ("/echo", b"/echo")
    assert scope["query_string"] == b"a=b"
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"localhost:1"]


@pytest.mark.parametrize("offer", [WEBSOCKET, H2C], ids=["websocket", "h2c"])
async def test_an_offer_of_another_protocol_is_answered_as_the_request_it_came_with(
    door: Door, wire: Wire, offer: bytes
) -> None:
    reply = await wire.ask(offer)
    assert (reply.status, reply.json["version"]) == (200, "1.1")
    assert "upgrade" not in reply.headers
    # What comes next is the next request, and nothing of the other protocol is one.
    assert (await wire.ask(post(b"hello", b"Connection: upgrade", b"Upgrade: x"))).json["size"] == 5
    reply = await wire.ask(b"\x81\x85\x01\x02\x03\x04hello\r\n\r\n")
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert await wire.rest() == b""
    assert len(door.probe.scopes) == 2


async def test_an_offer_with_what_should_follow_it_at_once_reaches_nobody(
    door: Door, wire: Wire
) -> None:
    wire.send(H2C + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await wire.reply()).status == 200
    reply = await wire.reply()
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert await wire.rest() == b""
    assert len(door.probe.scopes) == 1


async def test_an_expectation_that_is_not_known_is_no_obstacle(wire: Wire) -> None:
    assert (await wire.ask(post(b"hello", b"Expect: the-best"))).json["size"] == 5


# -- refusals of the server itself -----------------------------------------------------------------

LONG = b"a" * 20_000
C17: dict[str, tuple[bytes, int, str]] = {
    "TE and CL": (
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        400,
        "request:malformed",
    ),
    "CL and TE": (
        post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        400,
        "request:malformed",
    ),
    "TE twice": (
        post(b"", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        400,
        "request:malformed",
    ),
    "TE identity": (post(b"", b"Transfer-Encoding: identity"), 400, "request:malformed"),
    "TE gzip": (post(b"", b"Transfer-Encoding: gzip, chunked"), 400, "request:malformed"),
    "TE with a tail": (post(b"", b"Transfer-Encoding: xchunked"), 400, "request:malformed"),
    "TE with a space before the colon": (
        post(b"", b"Content-Length: 0", b"Transfer-Encoding : chunked"),
        400,
        "request:malformed",
    ),
    "two equal lengths": (
        post(b"a", b"Content-Length: 1", b"Content-Length: 1"),
        400,
        "request:malformed",
    ),
    "two lengths": (
        post(b"a", b"Content-Length: 1", b"Content-Length: 2"),
        400,
        "request:malformed",
    ),
    "a list of lengths": (post(b"a", b"Content-Length: 1, 1"), 400, "request:malformed"),
    "a signed length": (post(b"a", b"Content-Length: +1"), 400, "request:malformed"),
    "two hosts": (post(b"", b"Host: evil.test"), 400, "request:malformed"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "request:malformed"),
    "a host that is none": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "request:malformed"),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", 400, "request:malformed"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "request:malformed"),
    "folded": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "request:malformed"),
    "NUL": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0\r\n\r\n", 400, "request:malformed"),
    "a space in a name": (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n", 400, "request:malformed"),
    "no colon": (b"GET / HTTP/1.1\r\nHost: a\r\nXY\r\n\r\n", 400, "request:malformed"),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 400, "request:malformed"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "request:malformed"),
    "HTTP/2 without saying so": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        400,
        "request:malformed",
    ),
    "no request": (b"\r\n\r\n\r\n", 400, "request:malformed"),
    "an absolute target of another scheme": (
        b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        400,
        "request:malformed",
    ),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request:malformed"),
    "bytes in the target": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request:malformed"),
    "escapes that are no UTF-8": (
        b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
        "request:malformed",
    ),
    "a line of 20 kB": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + LONG + b"\r\n\r\n",
        431,
        "request:headers-too-large",
    ),
    "a line of 1 MB": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + LONG * 50,
        431,
        "request:headers-too-large",
    ),
    "a target of 20 kB": (b"GET /" + LONG, 431, "request:headers-too-large"),
    "10,000 fields": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        431,
        "request:headers-too-large",
    ),
    "101 fields": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        431,
        "request:headers-too-large",
    ),
}


@pytest.mark.promise("c17")
@pytest.mark.parametrize(("data", "status", "code"), C17.values(), ids=C17.keys())
async def test_a_request_that_is_none_is_a_problem_and_the_end(
    door: Door, wire: Wire, data: bytes, status: int, code: str
) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wire.send(data + smuggled)
    reply = await wire.reply()
    assert (reply.status, reply.code) == (status, code)
    assert reply.headers["connection"] == "close"
    assert reply.headers["x-request-id"] == reply.json["exchange_id"]
    assert await wire.rest() == b""
    assert not door.probe.scopes
    peer = door.refusals[0][2]
    assert door.refusals == [(code, reply.json["request_id"], peer)]
    assert getattr(peer, "common_name", None) == "librarian"
    assert await door.is_alive()


@pytest.mark.promise("c17")
@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\na\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"ffffffffffffffffffffff\r\n",
        b"1;" + LONG,
        b"0\r\nTrailer: " + LONG,
    ],
)
async def test_a_malformed_chunked_body_is_a_problem_and_the_end(
    door: Door, wire: Wire, body: bytes
) -> None:
    reply = await wire.ask(post(body, b"Transfer-Encoding: chunked"))
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert reply.headers["connection"] == "close"
    assert await wire.rest() == b""
    assert not door.probe.bodies


@pytest.mark.promise("c17")
async def test_a_chunked_bomb_is_too_large_on_the_wire(door: Door, wire: Wire) -> None:
    # Each byte of the body costs ten thousand of framing.
    wire.send(post(b"", b"Transfer-Encoding: chunked"))
    chunk = b"1;" + b"x" * 10_000 + b"\r\na\r\n"
    for _ in range(300):
        wire.send(chunk)
    reply = await wire.reply()
    assert (reply.status, reply.code) == (413, "request:too-large")
    assert await wire.rest() == b""


@pytest.mark.promise("c17")
async def test_two_gigabytes_are_refused_unread_and_the_answer_arrives(tmp_path: Path) -> None:
    async with speaking(tmp_path) as (agent, wire):
        head = (b"Content-Type: application/json", b"Content-Length: 2147483648")
        wire.send(post(b"", *head, path=b"/host/op"))
        wire.send(b"a" * 1_500_000)  # a client that is already sending still gets the answer
        reply = await wire.reply()
        assert (reply.status, reply.code) == (413, "request:too-large")
        assert reply.headers["connection"] == "close"
        assert await wire.rest() == b""
        assert await agent.is_untouched()


@contextlib.asynccontextmanager
async def speaking(directory: Path) -> AsyncIterator[tuple[Api, Wire]]:
    """Open the API, and a connection of a caller to it."""
    async with (
        api(directory / "agent") as agent,
        Door(directory / "pki", agent.app) as door,
        door.dial(door.pki.client("deployer")) as wire,
    ):
        yield agent, wire


@pytest.mark.promise("c17")
async def test_an_endless_body_is_cut(tmp_path: Path) -> None:
    async with speaking(tmp_path) as (agent, wire):
        head = (b"Content-Type: application/json", b"Transfer-Encoding: chunked")
        wire.send(post(b"", *head, path=b"/host/op"))
        chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        for _ in range(20):
            wire.send(chunk)
        assert (await wire.reply()).status == 413
        with pytest.raises(ConnectionError):
            await send_forever(wire, chunk)
        assert await agent.is_untouched()


async def send_forever(wire: Wire, chunk: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            wire.send(chunk)
            await wire.writer.drain()


async def test_an_error_that_leaves_a_body_unread_closes(door: Door, wire: Wire) -> None:
    reply = await wire.ask(post(b"", b"Content-Length: 100", path=b"/deaf"))
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    wire.send(b"a" * 100 + GET)
    assert await wire.rest() == b""
    assert len(door.probe.scopes) == 1


# -- applications that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/crash", b"/silent"])
async def test_an_application_that_fails_is_500_with_a_body(
    door: Door, wire: Wire, path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await wire.ask(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert reply.headers["x-request-id"] in caplog.text
    assert (await wire.ask(GET)).status == 200


async def test_a_response_that_breaks_off_closes(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.send(b"GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = await wire.rest()
    assert data.endswith(b"abc")
    assert "secret-of-the-inside" in caplog.text
