"""What the agent sends, against servers that misbehave: bounded, refused, and said in our words."""

import asyncio
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import certifi
import pytest

from host_agent.notify.channel import ChannelError
from host_agent.notify.outbound import MAX_RETRY_AFTER_SECONDS, Outbound, retry_after
from host_agent.requests.notification import Failure
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.patience import PATIENCE
from tests.support.webhook_receiver import Receiver

NOW = datetime(2026, 11, 20, 21, 0, 0, tzinfo=UTC)
SHORT_SECONDS = 0.4
"""A deadline for exchanges that never end."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def server_tls(leaf: Leaf) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate_path, leaf.key_path)
    return context


async def post(outbound: Outbound, body: bytes = b"{}") -> int:
    try:
        answer = await outbound.post(body, headers={"Content-Type": "application/json"})
        return answer.status
    finally:
        await outbound.close()


async def refused(outbound: Outbound) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        await post(outbound)
    assert "/hook" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


# -- good ones -------------------------------------------------------------------------------------


async def test_a_message_arrives_with_its_headers(receiver: Receiver) -> None:
    assert await post(Outbound(receiver.url), b"body") == 200
    (got,) = receiver.received
    assert (got.method, got.path, got.body) == ("POST", "/hook", "body")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["user-agent"].startswith("host-agent/")


@pytest.mark.parametrize("mode", ["202", "204"])
async def test_any_success_is_a_success(receiver: Receiver, mode: str) -> None:
    receiver.mode = mode
    assert await post(Outbound(receiver.url)) == int(mode)


async def test_a_server_certificate_is_verified_by_name(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    with Receiver(tls=server_tls(pki.server())) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert await post(Outbound(url, ca_file=pki.ca_path)) == 200
        assert receiver.received[0].headers["host"] == f"localhost:{receiver.port}"
        reached = await Outbound(url, ca_file=pki.ca_path).reach()
        assert reached == f"localhost:{receiver.port} answers over TLSv1.3 with a good certificate"


async def test_ipv6_loopback_by_its_literal() -> None:
    with Receiver(host="::1") as receiver:
        assert await post(Outbound(receiver.url)) == 200
        assert receiver.received[0].headers["host"] == f"[::1]:{receiver.port}"


async def test_a_question_without_a_body(receiver: Receiver) -> None:
    outbound = Outbound(receiver.url)
    answer = await outbound.get(headers={}, path="/v1/health")
    await outbound.close()
    assert (answer.status, answer.body) == (200, b"taken")
    assert answer.headers["content-length"] == "5"
    assert [(got.method, got.path) for got in receiver.received] == [("GET", "/v1/health")]


async def test_reaching_without_tls(receiver: Receiver) -> None:
    reached = await Outbound(receiver.url).reach()
    assert reached == f"127.0.0.1:{receiver.port} takes connections, without TLS"
    assert not receiver.received


async def test_connections_are_used_again_and_made_again(receiver: Receiver) -> None:
    outbound = Outbound(receiver.url)
    for _ in range(3):
        await outbound.post(b"", headers={})
    await outbound.close()
    await outbound.close()
    assert await post(outbound) == 200
    assert len(receiver.received) == 4


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.promise("c44")
async def test_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await refused(Outbound(f"http://127.0.0.1:{port}/hook"))
    assert (error.failure, error.is_final) == (Failure.UNREACHABLE, False)


@pytest.mark.promise("c44")
async def test_hangs(receiver: Receiver) -> None:
    receiver.mode = "hang"
    error = await refused(Outbound(receiver.url, deadline_seconds=SHORT_SECONDS))
    assert (error.failure, error.is_final) == (Failure.TIMED_OUT, False)


@pytest.mark.promise("c44")
async def test_accepts_and_says_nothing_in_tls(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/hook"
        error = await refused(
            Outbound(url, ca_file=make_pki(tmp_path).ca_path, deadline_seconds=SHORT_SECONDS)
        )
    assert error.failure is Failure.TIMED_OUT


@pytest.mark.promise("c44")
@pytest.mark.parametrize("mode", ["500", "502", "503"])
async def test_500(receiver: Receiver, mode: str) -> None:
    receiver.mode = mode
    error = await refused(Outbound(receiver.url))
    assert (error.failure, error.is_final) == (Failure.REFUSED, False)


@pytest.mark.promise("c44")
@pytest.mark.parametrize("mode", ["redirect", "redirect-home"])
async def test_redirects_to_metadata_are_not_followed(receiver: Receiver, mode: str) -> None:
    receiver.mode = mode
    error = await refused(Outbound(receiver.url))
    assert (error.failure, error.is_final) == (Failure.REFUSED, False)
    assert "169.254" not in str(error)
    assert len(receiver.received) == 1


@pytest.mark.promise("c44")
@pytest.mark.parametrize("mode", ["drop", "garbage"])
async def test_breaks_off(receiver: Receiver, mode: str) -> None:
    receiver.mode = mode
    error = await refused(Outbound(receiver.url))
    assert error.failure in {Failure.UNREACHABLE, Failure.BAD_ANSWER}
    assert not error.is_final


@pytest.mark.promise("c44")
@pytest.mark.parametrize("mode", ["big", "endless"])
async def test_oversized_answer_is_cut_off(receiver: Receiver, mode: str) -> None:
    receiver.mode = mode
    outbound = Outbound(receiver.url)
    error = await refused(outbound)
    assert (error.failure, error.is_final) == (Failure.BAD_ANSWER, False)
    receiver.mode = "ok"
    assert await post(outbound) == 200


@pytest.mark.promise("c44")
@pytest.mark.parametrize("mode", ["slow", "slow-head"])
async def test_slow_reply_ends_at_the_deadline(receiver: Receiver, mode: str) -> None:
    receiver.mode = mode
    started = time.monotonic()
    error = await refused(Outbound(receiver.url, deadline_seconds=SHORT_SECONDS))
    assert error.failure is Failure.TIMED_OUT
    assert time.monotonic() - started < PATIENCE


@pytest.mark.promise("c44")
@pytest.mark.parametrize(
    ("mode", "is_final"),
    [("400", True), ("401", True), ("403", True), ("404", True), ("410", True), ("413", True),
     ("408", False), ("409", False), ("425", False)],
)  # fmt: skip
async def test_refusals_that_last_and_that_do_not(
    receiver: Receiver, mode: str, is_final: bool
) -> None:
    receiver.mode = mode
    error = await refused(Outbound(receiver.url))
    assert (error.failure, error.is_final) == (Failure.REFUSED, is_final)


@pytest.mark.promise("c44")
async def test_rate_limit_is_honoured(receiver: Receiver) -> None:
    receiver.mode = "rate-limited"
    error = await refused(Outbound(receiver.url))
    assert error.failure is Failure.RATE_LIMITED
    assert (error.retry_after_seconds, error.is_final) == (7.0, False)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.mark.promise("c44")
async def test_bad_tls_of_another_authority(tmp_path: Path) -> None:
    pki, foreign = make_pki(tmp_path / "ours"), make_pki(tmp_path / "foreign")
    await refused_in_tls(server_tls(foreign.server()), pki)


@pytest.mark.promise("c44")
async def test_bad_tls_of_another_name(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    await refused_in_tls(server_tls(pki.server(names=("other.example",))), pki)


@pytest.mark.promise("c44")
async def test_bad_tls_expired(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "old", now=datetime.now(UTC).replace(microsecond=0) - timedelta(200))
    await refused_in_tls(server_tls(pki.server(days=90)), pki)


@pytest.mark.promise("c44")
async def test_bad_tls_too_old_a_protocol(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    context = server_tls(pki.server())
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    await refused_in_tls(context, pki, words="fails in TLS")


async def refused_in_tls(tls: ssl.SSLContext, pki: Pki, *, words: str = "certificate of") -> None:
    with Receiver(tls=tls) as receiver:
        error = await refused(Outbound(receiver.url, ca_file=pki.ca_path))
        assert (error.failure, error.is_final) == (Failure.UNREACHABLE, False)
        assert words in str(error)
        with pytest.raises(ChannelError, match=words):
            await Outbound(receiver.url, ca_file=pki.ca_path).reach()
        assert not receiver.received


@pytest.mark.promise("c44")
async def test_bad_tls_of_no_public_authority(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    with Receiver(tls=server_tls(pki.server())) as receiver:
        error = await refused(Outbound(receiver.url))
        assert "certificate of" in str(error)
        assert not receiver.received


async def test_the_environment_names_no_authority_and_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    pki = make_pki(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await post(Outbound(receiver.url)) == 200
    with Receiver(tls=server_tls(pki.server())) as secure:
        await refused(Outbound(secure.url))
        assert not secure.received


def authorities(folder: Path, *, file: Path | None = None) -> ssl.DefaultVerifyPaths:
    """Return where a system keeps its authorities: a file of them, or else a folder."""
    return ssl.DefaultVerifyPaths(
        cafile="",
        capath="",
        openssl_cafile_env="SSL_CERT_FILE",
        openssl_cafile=str(file or folder / "no-such-file"),
        openssl_capath_env="SSL_CERT_DIR",
        openssl_capath=str(folder),
    )


@pytest.mark.parametrize("is_file", [True, False])
async def test_the_systems_authorities_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    pki, folder = make_pki(tmp_path / "pki"), tmp_path / "authorities"
    folder.mkdir()
    shutil.copy(pki.ca_path, folder / "authority.pem")
    if not is_file:
        subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    paths = authorities(folder, file=folder / "authority.pem" if is_file else None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    with Receiver(tls=server_tls(pki.server())) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert await post(Outbound(url)) == 200
    foreign = make_pki(tmp_path / "foreign")
    with Receiver(tls=server_tls(foreign.server())) as receiver:
        error = await refused(Outbound(receiver.url.replace("127.0.0.1", "localhost")))
        assert "certificate of" in str(error)
        assert not receiver.received


@pytest.mark.parametrize("exists", [True, False])
async def test_a_system_without_authorities_believes_the_packaged_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    pki, folder = make_pki(tmp_path / "pki"), tmp_path / "authorities"
    if exists:
        folder.mkdir()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: authorities(folder))
    with Receiver(tls=server_tls(pki.server())) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert "certificate of" in str(await refused(Outbound(url)))
        assert not receiver.received
        monkeypatch.setattr(certifi, "where", lambda: str(pki.ca_path))
        assert await post(Outbound(url)) == 200


@pytest.mark.promise("c44")
async def test_tls_spoken_to_a_plain_port(tmp_path: Path, receiver: Receiver) -> None:
    url = receiver.url.replace("http:", "https:")
    error = await refused(Outbound(url, ca_file=make_pki(tmp_path).ca_path))
    assert error.failure is Failure.UNREACHABLE
    assert not receiver.received


async def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no certificate")
    for file in (tmp_path / "missing", tmp_path / "empty"):
        error = await refused(Outbound("https://127.0.0.1:1/hook", ca_file=file))
        assert error.failure is Failure.NOT_CONFIGURED


# -- names -----------------------------------------------------------------------------------------


def names(*addresses: str) -> "Resolver":
    return Resolver([list(addresses)])


class Resolver:
    """Answers with one list of addresses after the other, the last one for ever."""

    def __init__(self, answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return found


@pytest.mark.promise("c44")
async def test_dns_fails() -> None:
    error = await refused(Outbound("https://chat.example/hook", resolve=names()))
    assert (error.failure, error.is_final) == (Failure.UNREACHABLE, False)
    assert "cannot be resolved" in str(error)


@pytest.mark.promise("c44")
async def test_dns_hangs() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> Sequence[str]:
        release.wait(PATIENCE)
        return []

    try:
        outbound = Outbound("https://chat.example/hook", resolve=hang, deadline_seconds=0.2)
        failures = [(await refused(outbound)).failure for _ in range(6)]
        assert failures[0] is Failure.TIMED_OUT
    finally:
        release.set()


@pytest.mark.promise("c44")
@pytest.mark.parametrize(
    "found",
    [
        ["169.254.169.254"],
        ["93.184.215.14", "169.254.169.254"],
        ["fd00:ec2::254"],
        ["::ffff:169.254.169.254"],
        ["127.0.0.1"],
        ["::1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["fe80::1%2"],
    ],
)
async def test_a_name_that_leads_to_metadata_or_here_is_refused(
    found: list[str], receiver: Receiver
) -> None:
    url = f"https://chat.example:{receiver.port}/hook"
    error = await refused(Outbound(url, resolve=names(*found)))
    assert error.failure is Failure.REFUSED
    assert "Nothing is sent" in str(error)
    assert not receiver.received


@pytest.mark.promise("c44")
async def test_rebinding_cannot_help(tmp_path: Path) -> None:
    """The address that was looked at is the one that is connected to, with one question asked."""
    pki = make_pki(tmp_path)
    with Receiver(tls=server_tls(pki.server())) as receiver:
        resolve = Resolver([["127.0.0.1"], ["169.254.169.254"]])
        url = f"https://localhost:{receiver.port}/hook"
        outbound = Outbound(url, ca_file=pki.ca_path, resolve=resolve)
        assert await post(outbound) == 200
        assert resolve.asked == [("localhost", receiver.port)]
        error = await refused(outbound)
        assert error.failure is Failure.REFUSED
        assert len(receiver.received) == 1


async def test_the_next_address_is_tried() -> None:
    with Receiver() as receiver:
        resolve = names("127.0.0.2", "127.0.0.1")
        assert await post(Outbound(receiver.url, resolve=resolve)) == 200


async def test_odd_numerals_are_names_and_lead_nowhere() -> None:
    with Receiver() as receiver:
        for host in ("2130706433", "0x7f.1", "127.1", "0177.0.0.1"):
            error = await refused(Outbound(f"https://{host}:{receiver.port}/hook"))
            assert error.failure in {Failure.REFUSED, Failure.UNREACHABLE}
        assert not receiver.received


# -- Retry-After -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        ("86400", MAX_RETRY_AFTER_SECONDS),
        ("999999999", MAX_RETRY_AFTER_SECONDS),
        ("9" * 400, None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0661", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=1), usegmt=True), MAX_RETRY_AFTER_SECONDS),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=NOW) == seconds


# -- nothing leaks, nothing is loaded --------------------------------------------------------------


async def test_neither_path_nor_header_is_logged(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        outbound = Outbound(receiver.url.replace("/hook", "/secret-path"))
        await outbound.post(b"secret-body", headers={"Authorization": "Bearer secret-token"})
        await outbound.close()
        outbound = Outbound(receiver.url)
        with pytest.raises(ChannelError) as caught:
            await outbound.post(b"", headers={"Authorization": "Bearer secret-\n-token"})
        await outbound.close()
    assert caught.value.failure is Failure.NOT_CONFIGURED
    assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text


def test_an_agent_without_channels_loads_no_client() -> None:
    modules = "outbound, signing, webhook, ntfy, apprise"
    code = (
        f"from host_agent.notify import {modules}; import sys; "
        "print([name for name in ('httpx', 'httpcore', 'anyio', 'apprise') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert ran.stdout.strip() == "[]"


async def test_cancelling_leaves_nothing_behind(receiver: Receiver) -> None:
    receiver.mode = "hang"
    outbound = Outbound(receiver.url)
    task = asyncio.create_task(outbound.post(b"", headers={}))
    await asyncio.to_thread(receiver.next)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    receiver.mode = "ok"
    assert await post(outbound) == 200
