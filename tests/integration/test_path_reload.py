"""A reload serves the new configuration whole, or the old one: under load, whatever is broken."""

import asyncio
import os
import random
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.support.certificates import make_pki
from tests.support.patience import PATIENCE
from tests.support.site import RULES, Site, make_site
from tests.support.visit import Gate, Visit, problem, visited


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
async def visit(site: Site) -> AsyncIterator[Visit]:
    async with visited(site) as visit:
        yield visit


def write(site: Site, text: str | bytes) -> None:
    """Put other bytes where the configuration is, as an editor does."""
    fresh = site.config_path.with_suffix(".new")
    fresh.write_bytes(text.encode() if isinstance(text, str) else text)
    fresh.chmod(0o600)
    fresh.rename(site.config_path)


async def serial(visit: Visit) -> int:
    """Return the serial number of the certificate that is served now."""
    port = int(visit.url.rpartition(":")[2])
    pem = await asyncio.to_thread(_served, visit, port)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def _served(visit: Visit, port: int) -> str:
    context = visit.site.context(visit.site.client("watcher"))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")


# -- certificates ---------------------------------------------------------------------------------


async def test_monitors_are_answered_before_and_after_a_reload(visit: Visit) -> None:
    """On one connection: a reload touches nothing of the plain listener."""
    async with httpx.AsyncClient(base_url=visit.agent.metrics_address) as monitor:
        first = await monitor.get("/metrics")
        assert await visit.agent.reload()
        second = await monitor.get("/metrics")
        head = await monitor.head("/ready")
    assert [first.status_code, second.status_code, head.status_code] == [200, 200, 200]
    streams = {one.extensions["network_stream"] for one in (first, second, head)}
    assert len(streams) == 1


@pytest.mark.promise("c12")
async def test_a_new_pair_serves_after_the_reload(visit: Visit) -> None:
    fresh = visit.site.pki.server(file_name="fresh")
    before = await serial(visit)
    visit.site.server = fresh
    visit.site.configure()
    assert await visit.agent.reload()
    assert await serial(visit) == fresh.serial != before
    assert (await visit.status()).status_code == 200


@pytest.mark.promise("c12")
@pytest.mark.parametrize("how", ["other key", "expired", "no certificate", "empty", "missing"])
async def test_a_bad_pair_is_not_served_and_the_old_one_is(visit: Visit, how: str) -> None:
    site, before = visit.site, await serial(visit)
    now = site.pki.now
    site.pki.now = now - timedelta(days=2 if how == "expired" else 0)
    bad = site.pki.server(file_name="bad", days=1)
    site.pki.now = now
    match how:
        case "other key":
            bad.key_path.write_bytes(site.server.key_pem)
        case "no certificate":
            bad.certificate_path.write_text("nonsense\n")
        case "empty":
            bad.certificate_path.write_text("")
        case "missing":
            bad.certificate_path.unlink()
    old, site.server = site.server, bad
    site.configure()
    assert not await visit.agent.reload()
    assert await serial(visit) == before
    assert (await visit.status()).status_code == 200
    ready = await visit.who("alice").get("/ready")
    assert ready.status_code == 200  # the old one serves well
    assert "server." in ready.json()["configuration"]
    rejected = visit.site.records()
    assert [record["faults"] for record in rejected if record["event"] == "config.rejected"]
    assert b"host_agent_config_reload_ok 0.0" in await visit.agent.scrape()
    site.server = old
    site.configure()
    assert await visit.agent.reload()
    assert (await visit.who("alice").get("/ready")).json()["configuration"] == "ok"
    assert b"host_agent_config_reload_ok 1.0" in await visit.agent.scrape()


@pytest.mark.promise("c12")
async def test_another_client_ca_ends_the_connections_of_the_old_one(visit: Visit) -> None:
    assert (await visit.status()).status_code == 200
    other = make_pki(visit.site.directory / "other")
    text = visit.site.config_path.read_text()
    text = text.replace(str(visit.site.pki.ca_path), str(other.ca_path))
    write(visit.site, text.replace(str(visit.site.pki.crl_path), str(other.crl_path)))
    assert await visit.agent.reload()
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        await visit.status()
    leaf = other.client("deployer")
    assert (await visit.who("deployer", leaf).get("/health")).status_code == 200


# -- broken configurations ------------------------------------------------------------------------


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda _text: "",
    "no TOML": lambda text: text + "[[rules\n",
    "half": lambda text: text[: len(text) // 2],
    "unknown key": lambda text: text + '\n[servre]\nbind = "127.0.0.1:1"\n',
    "unknown key of a rule": lambda text: text.replace("verdict", 'verdikt = "x"\nverdict', 1),
    "bad expression": lambda text: text.replace(
        'name = "looking', 'resources = ["("]\nname = "looking', 1
    ),
    "unknown operation": lambda text: text.replace("git.status", "git.statsu", 1),
    "unknown verdict": lambda text: text.replace('"allow"', '"maybe"', 1),
    "two of one name": lambda text: text + '[[identities]]\ncn = "deployer"\n',
    "file that is not there": lambda text: text.replace("/ca.crt", "/none.crt", 1),
    "another store": lambda text: text + '\n[store]\nurl = "sqlite:///state/other.db"\n',
    "another address": lambda text: text.replace("127.0.0.1:0", "127.0.0.1:1", 1),
}


@pytest.mark.promise("c42")
async def test_a_broken_configuration_changes_nothing_and_is_named(visit: Visit) -> None:
    held = await visit.held()
    good, snapshot = visit.site.config_path.read_text(), visit.agent.context.snapshot
    for how, broken in BROKEN.items():
        assert broken(good) != good
        write(visit.site, broken(good))
        before = visit.sequence
        assert not await visit.agent.reload(), how
        assert visit.agent.context.snapshot is snapshot
        (rejected,) = visit.since(before)
        assert (rejected["event"], bool(rejected["faults"])) == ("config.rejected", True), how
        assert (await visit.status()).status_code == 200
    await visit.decide(held)
    assert (await visit.ended(held))["state"] == "succeeded"


@pytest.mark.promise("c43")
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "open to all", "gone"])
async def test_a_file_that_is_none_is_not_loaded(visit: Visit, kind: str) -> None:
    path = visit.site.config_path
    aside = path.rename(path.with_suffix(".aside"))
    match kind:
        case "symlink":
            path.symlink_to(aside)
        case "fifo":
            os.mkfifo(path, 0o600)
        case "directory":
            path.mkdir()
        case "open to all":
            path.write_bytes(aside.read_bytes())
            path.chmod(0o666)
    assert not await visit.agent.reload()
    assert (await visit.status()).status_code == 200


@pytest.mark.promise("c42")
async def test_a_hundred_reloads_under_load_never_show_half_a_state(visit: Visit) -> None:
    """Reads run all the time; of two rule sets each answer belongs to one, and none is an error."""
    site, random_ = visit.site, random.Random(42)
    good = site.config_path.read_text()
    denying = good.replace(RULES, RULES.replace('verdict = "allow"', 'verdict = "deny"', 1))
    assert denying != good
    seen: set[object] = set()
    is_over = False

    async def load(by: str) -> None:
        while not is_over:
            try:
                answer = await visit.status(by=by)
            except httpx.TransportError:
                continue  # a reload closes idle connections: the next request has a new one
            code = problem(answer) if answer.status_code != 200 else 200
            seen.add(code)

    async with asyncio.TaskGroup() as group:
        for by in ("deployer", "watcher"):
            group.create_task(load(by))
        accepted = []
        for number in range(100):
            if number % 10 == 9:
                write(site, denying if number % 20 == 9 else good)
            elif number % 3 == 0:
                text = bytearray(good.encode())
                for _ in range(5):
                    text[random_.randrange(len(text))] = random_.randrange(256)
                text[0:0] = b"\xff"  # whatever else it hits, this is not UTF-8
                write(site, bytes(text))
            else:
                write(site, random_.choice(list(BROKEN.values()))(good))
            accepted.append(await visit.agent.reload())
        is_over = True
    assert [number for number, was in enumerate(accepted) if was] == list(range(9, 100, 10))
    assert seen <= {200, "policy:denied", "rate:limited"}
    assert {200, "policy:denied"} <= seen
    events = Counter(site.events())
    assert events["config.loaded"] == 11
    assert events["config.rejected"] == 90


@pytest.mark.promise("c42")
async def test_what_is_under_way_keeps_its_configuration(site: Site) -> None:
    with Gate(site, "status") as gate:
        async with visited(site) as visit:
            asking = asyncio.ensure_future(visit.status())
            await gate.reached()
            site.configure(rules="")
            assert await visit.agent.reload()
            gate.open()
            assert (await asking).status_code == 200
            assert problem(await visit.status()) == "policy:no-rule"


async def test_a_reload_gives_no_fresh_burst(site: Site) -> None:
    site.configure(extra="[limits]\nasks_per_second = 1\nask_burst = 1")
    async with visited(site) as visit:
        assert (await visit.status()).status_code == 200
        assert await visit.agent.reload()
        assert problem(await visit.status()) == "rate:limited"
