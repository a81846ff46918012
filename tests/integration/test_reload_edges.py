"""A start and a reload on the edge: links, keys of unknown kinds, an audit log that is full."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from host_agent.audit.record import Event
from host_agent.config import load
from host_agent.errors import AuditUnavailableError
from host_agent.host import preflight
from tests.support.site import IDENTITIES, Site, make_site
from tests.support.visit import visited


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


def by_link(path: Path) -> None:
    """Put the file elsewhere and a link in its place, as tools that renew certificates do."""
    archived = path.with_name(f"archived-{path.name}")
    path.rename(archived)
    path.symlink_to(archived)


async def test_the_servers_certificate_and_key_may_be_links(site: Site) -> None:
    by_link(site.server.certificate_path)
    by_link(site.server.key_path)
    async with visited(site) as visit:
        assert (await visit.status()).status_code == 200
        assert await visit.agent.reload()
        assert (await visit.status()).status_code == 200


async def test_a_reload_that_meets_a_defect_is_rejected_and_not_the_last(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_config: object) -> None:
        raise LookupError

    async with visited(site) as visit:
        with monkeypatch.context() as patched:
            patched.setattr("host_agent.agent.prepared.make_runner", broken)
            assert not await visit.agent.reload()
        assert "defect" in site.records()[-1]["faults"][0]
        assert await visit.agent.reload()


async def test_a_configuration_that_cannot_be_written_down_does_not_serve(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with visited(site) as visit:
        append = visit.agent.context.audit.append

        async def full(event: Event, **fields: object) -> int:
            if event is Event.CONFIG_LOADED:
                raise AuditUnavailableError("No room.")
            return await append(event, **fields)

        monkeypatch.setattr(visit.agent.context.audit, "append", full)
        site.configure(identities=IDENTITIES.replace('cn = "watcher"', 'cn = "spectator"'))
        assert not await visit.agent.reload()
        # What is said is what is so: the old one serves.
        assert (await visit.status(by="watcher")).status_code == 200


@pytest.mark.parametrize("file", ["server.certificate", "server.client_ca"])
def test_a_certificate_that_cannot_be_used_is_a_fault_whatever_is_in_it(
    site: Site, file: str
) -> None:
    config = load(site.config_path)
    path = getattr(config.server, file.partition(".")[2])
    der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")  # prime256v1
    assert curve in der
    damaged = der.replace(curve, curve[:-1] + b"\x7f")
    path.write_text(ssl.DER_cert_to_PEM_cert(damaged))
    now = site.pki.now
    said = [*preflight.check_files(config, now), *preflight.warnings(config, uid=0, now=now)]
    assert any(line.startswith(file) for line in said)
