"""Who gets through TLS, and who does not: each success with its refusal twins."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from host_agent.errors import ConfigurationError, InvalidIdentityError
from host_agent.http.refusals import HandshakeRefusedError, TlsRejection
from host_agent.identity.certificate import PeerCertificate
from host_agent.pki.door import server_context
from tests.support.api import api
from tests.support.certificates import HOSTILE_SHAPES, Leaf, Pki, make_pki
from tests.support.door import GET, Door
from tests.support.patience import PATIENCE


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "pki") as opened:
        yield opened


async def refused(door: Door, context: ssl.SSLContext) -> str:
    """Connect and send a request; return what the refusal was, or fail if there was an answer."""
    try:
        wire = await door.open(context)
    except (ssl.SSLError, ConnectionError) as error:
        return str(error)
    try:
        wire.send(GET)
        data = await wire.reader.read()
    except (ssl.SSLError, ConnectionError) as error:
        return str(error)
    else:
        assert not data
        return ""
    finally:
        await wire.close()


# -- good ones -------------------------------------------------------------------------------------


async def test_a_good_client_is_answered_and_named(door: Door) -> None:
    leaf = door.pki.client("librarian")
    async with door.dial(leaf) as wire:
        assert (await wire.ask(GET)).json["version"] == "1.1"
        assert wire.tls.version() == "TLSv1.3"
        assert wire.tls.compression() is None
    extensions = door.probe.scopes[0]["extensions"]
    peer = extensions["host_agent"]["peer"]
    assert isinstance(peer, PeerCertificate)
    assert (peer.common_name, peer.fingerprint) == ("librarian", leaf.fingerprint)
    assert extensions["tls"]["tls_version"] == 0x0304
    assert extensions["tls"]["cipher_suite"] in {0x1301, 0x1302, 0x1303}
    assert extensions["tls"]["client_cert_name"] == "CN=librarian"
    assert extensions["tls"]["client_cert_chain"] == [
        leaf.pem.decode(),
        door.pki.ca_pem.decode(),
    ]
    assert not door.rejections


async def test_a_client_without_alpn_gets_http11(door: Door) -> None:
    wire = await door.open(door.client_context(door.pki.client(), alpn=()))
    assert (await wire.ask(GET)).json["version"] == "1.1"
    await wire.close()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@pytest.mark.parametrize(
    ("offer", "selected"),
    [
        (("h2", "http/1.1"), "http/1.1"),
        (("http/1.1", "h2"), "http/1.1"),
        (("http/1.1",), "http/1.1"),
        (("h2",), None),
        (("h2c", "h3", "spdy/3.1"), None),
    ],
    ids=str,
)
async def test_http11_is_all_that_is_selected(
    door: Door, offer: tuple[str, ...], selected: str | None
) -> None:
    wire = await door.open(door.client_context(door.pki.client(), alpn=offer))
    assert wire.tls.selected_alpn_protocol() == selected
    reply = await wire.ask(GET)
    assert (reply.status, reply.json["version"]) == (200, "1.1")
    await wire.close()


async def test_who_speaks_http2_all_the_same_is_told_and_reaches_nobody(door: Door) -> None:
    wire = await door.open(door.client_context(door.pki.client(), alpn=("h2",)))
    reply = await wire.ask(PREFACE)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert "only HTTP/1.1" in reply.json["detail"]
    assert await wire.rest() == b""
    assert not door.probe.scopes
    assert [code for code, *_ in door.refusals] == ["request:malformed"]
    await wire.close()
    assert await door.is_alive()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("option", ["--http2", "--http1.1"])
async def test_curl_falls_back(door: Door, option: str) -> None:
    leaf = door.pki.client()
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", option, "--cacert", door.pki.ca_path),
        *("--cert", leaf.certificate_path, "--key", leaf.key_path),
        *("--write-out", "\n%{http_version} %{http_code}", "--max-time", "20"),
        f"https://localhost:{door.gateway.port}/echo",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await curl.communicate()
    assert curl.returncode == 0, error
    assert out.splitlines()[-1] == b"1.1 200"


@pytest.mark.promise("c15")
async def test_the_name_that_a_client_asks_for_changes_nothing(door: Door) -> None:
    context = door.client_context(door.pki.client())
    context.check_hostname = False
    for name in ("evil.test", "a" * 60 + ".test", "127.0.0.1", "xn--e1afmkfd.test"):
        wire = await door.open(context, name=name)
        assert (await wire.ask(GET)).status == 200
        await wire.close()


# -- refusal twins ---------------------------------------------------------------------------------

TWINS: dict[str, tuple[Callable[[Pki, Pki], Leaf | None], TlsRejection, str]] = {
    "no certificate": (
        lambda _own, _foreign: None,
        TlsRejection.NO_CERTIFICATE,
        "CERTIFICATE_REQUIRED",
    ),
    "foreign CA of the same name": (
        lambda _own, foreign: foreign.client("librarian"),
        TlsRejection.UNKNOWN_CA,
        "",
    ),
    "expired": (
        lambda own, _foreign: own.expired_client(),
        TlsRejection.EXPIRED,
        "CERTIFICATE_EXPIRED",
    ),
    "not yet valid": (lambda own, _foreign: own.future_client(), TlsRejection.BAD_CERTIFICATE, ""),
    "for servers": (
        lambda own, _foreign: own.server(file_name="other"),
        TlsRejection.BAD_CERTIFICATE,
        "",
    ),
}


@pytest.mark.promise("c15")
@pytest.mark.parametrize(("make", "reason", "alert"), TWINS.values(), ids=TWINS.keys())
async def test_a_client_that_is_not_ours_gets_an_alert_and_no_handler(
    door: Door,
    tmp_path: Path,
    make: Callable[[Pki, Pki], Leaf | None],
    reason: TlsRejection,
    alert: str,
) -> None:
    foreign = make_pki(tmp_path / "foreign")
    said = await refused(door, door.client_context(make(door.pki, foreign)))
    assert alert in said.upper().replace(" ", "_")
    assert not door.probe.scopes
    assert door.rejections == [reason]
    assert await door.is_alive()


@pytest.mark.promise("c15")
async def test_tls_12_gets_an_alert_and_no_handler(door: Door) -> None:
    context = door.client_context(door.pki.client())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "PROTOCOL_VERSION" in (await refused(door, context)).upper().replace(" ", "_")
    assert not door.probe.scopes
    assert door.rejections == [TlsRejection.BAD_PROTOCOL]


@pytest.mark.promise("c15")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GET, TlsRejection.PLAIN_HTTP),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", TlsRejection.PLAIN_HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", TlsRejection.BAD_PROTOCOL),
        (b"SSH-2.0-OpenSSH\r\n", TlsRejection.BAD_PROTOCOL),
        (b"\x80\x2e\x01\x00\x02" + b"\0" * 60, None),
        (b"\x16\x03\x01\xff\xff" + b"\xff" * 70000, None),
        (b"\0" * 100, None),
    ],
)
async def test_bytes_that_are_no_tls_are_closed_and_counted(
    door: Door, data: bytes, reason: TlsRejection | None
) -> None:
    async with door.plain() as wire:
        wire.send(data)
        assert b"HTTP" not in await wire.rest()
    assert not door.probe.scopes
    assert len(door.rejections) == 1
    assert reason in {None, door.rejections[0]}
    assert await door.is_alive()


@pytest.mark.promise("c15")
async def test_every_refusal_leaves_its_reason_in_the_log(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    older = door.client_context(door.pki.client())
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (door.client_context(), older, door.client_context()):
        await refused(door, context)
    async with door.plain() as wire:
        wire.send(GET)
        await wire.rest()
    said = [one.getMessage() for one in caplog.records if "in the handshake" in one.getMessage()]
    assert [one.rpartition(": ")[2] for one in said] == [
        "peer did not return a certificate",
        "unsupported protocol",
        "http request",
    ]
    async with door.dial() as good:
        assert (await good.ask(GET)).status == 200
    assert len(caplog.records) == len(said)


@pytest.mark.promise("c15")
async def test_a_connection_that_ends_unsaid_is_counted_once(door: Door) -> None:
    async with door.plain() as wire:
        wire.writer.write_eof()
        assert await wire.rest() == b""
    assert door.rejections == [TlsRejection.OTHER]


@pytest.mark.promise("c10")
async def test_there_is_no_ticket_to_resume_with(door: Door, tmp_path: Path) -> None:
    """OpenSSL sends one (there is no call against it) of a session that is kept nowhere."""
    leaf = door.pki.client()
    context = door.client_context(leaf)
    wire = await door.open(context)
    await wire.ask(GET)
    session = wire.tls.session
    await wire.close()

    def again() -> bool:
        address = ("127.0.0.1", door.gateway.port)
        with (
            socket.create_connection(address) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(GET)
            assert tls.recv(1000).startswith(b"HTTP/1.1 200")
            return bool(tls.session_reused)

    assert session is not None
    assert not await asyncio.to_thread(again)
    shown = [scope["extensions"]["host_agent"]["peer"] for scope in door.probe.scopes]
    assert [peer.fingerprint for peer in shown] == [leaf.fingerprint] * 2
    # Nor does a session outlive the authority whose certificate began it.
    door.gateway.swap_context(door.server_context(make_pki(tmp_path / "other")))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(again)
    assert door.rejections == [TlsRejection.UNKNOWN_CA]
    assert len(door.probe.scopes) == 2


@pytest.mark.promise("c14")
@pytest.mark.parametrize("make", HOSTILE_SHAPES.values(), ids=HOSTILE_SHAPES.keys())
async def test_no_hostile_certificate_becomes_an_identity(
    tmp_path: Path, make: Callable[[Pki], Leaf]
) -> None:
    async with api(tmp_path / "agent") as agent, Door(tmp_path / "pki", agent.app) as door:
        context = door.client_context(make(door.pki))
        try:
            wire = await door.open(context)
            reply = await wire.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
            assert door.rejections == [TlsRejection.BAD_CERTIFICATE]
        else:
            assert (reply.status, reply.code) == (403, "identity:invalid")
            assert agent.refusals() == [("identity:invalid", None, None)]
            await wire.close()


async def test_a_shape_is_judged_once_a_connection(door: Door) -> None:
    wire = await door.open(door.client_context(door.pki.client(ca=None, usages=None)))
    for _ in range(2):
        await wire.ask(GET)
    await wire.close()
    first, second = (scope["extensions"]["host_agent"]["peer"] for scope in door.probe.scopes)
    assert isinstance(first, InvalidIdentityError)
    assert first is second


# -- contexts --------------------------------------------------------------------------------------


async def test_a_new_context_serves_from_the_next_handshake_on(door: Door, tmp_path: Path) -> None:
    other = make_pki(tmp_path / "other")
    theirs = door.client_context(other.client("librarian"))
    async with door.dial() as idle, door.dial(door.pki.client(file_name="busy")) as busy:
        assert (await idle.ask(GET)).status == 200
        busy.send(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
        door.probe.entered.clear()
        await asyncio.wait_for(door.probe.entered.wait(), PATIENCE)
        door.gateway.swap_context(door.server_context(other))
        assert await idle.rest() == b""
        door.probe.release.set()
        reply = await busy.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await busy.rest() == b""
    await refused(door, door.client_context(door.pki.client(file_name="late")))
    assert door.rejections == [TlsRejection.UNKNOWN_CA]
    wire = await door.open(theirs)
    assert (await wire.ask(GET)).status == 200
    await wire.close()


@pytest.mark.promise("c12")
def test_a_context_names_every_file_that_is_wrong(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    server, other = pki.server(), pki.server(file_name="other")
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ConfigurationError) as caught:
        server_context(server.certificate_path, other.key_path, empty)
    assert len(caught.value.faults) == 2
    assert "key values mismatch" in caught.value.faults[0]
    with pytest.raises(ConfigurationError) as caught:
        server_context(tmp_path / "none", server.key_path, tmp_path / "none")
    assert "no such file" in caught.value.faults[1]


def test_an_encrypted_key_is_a_fault_and_no_question_on_the_terminal(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    server = pki.server()
    key = tmp_path / "encrypted.key"
    key.write_bytes(
        server.credential.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError):
        server_context(server.certificate_path, key, pki.ca_path)


def test_every_cause_has_a_name() -> None:
    assert HandshakeRefusedError("http request").rejection is TlsRejection.PLAIN_HTTP
    assert HandshakeRefusedError("no shared cipher").rejection is TlsRejection.OTHER
    assert HandshakeRefusedError.of_certificate(10, 0).rejection is TlsRejection.EXPIRED
    assert HandshakeRefusedError.of_certificate(9999, 0).rejection is TlsRejection.BAD_CERTIFICATE


@pytest.mark.promise("c31")
async def test_the_log_says_why_a_certificate_was_refused_and_is_not_flooded(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is refused in the handshake gets an alert only; the administrator looks here."""
    bare = door.pki.client("librarian", authority_key_identifier=False)
    server = door.pki.server(file_name="other")
    for leaf in (bare, bare, server, bare):
        await refused(door, door.client_context(leaf))
    said = [one.getMessage() for one in caplog.records if "in the handshake" in one.getMessage()]
    assert said == [
        "a client from 127.0.0.1 was refused in the handshake: Missing Authority Key Identifier",
        "a client from 127.0.0.1 was refused in the handshake: unsuitable certificate purpose",
    ]
    assert door.rejections == [TlsRejection.BAD_CERTIFICATE] * 4
    async with door.dial(door.pki.client("gardener")) as wire:
        assert (await wire.ask(GET)).status == 200
