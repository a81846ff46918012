"""A replaced authority takes back what the old one let in: requests, consents, grants, streams."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.name import _ASN1Type

from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.patience import PATIENCE
from tests.support.site import Site, make_site
from tests.support.visit import Visit, visited


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
async def visit(site: Site) -> AsyncIterator[Visit]:
    async with visited(site) as visit:
        yield visit


async def trust(visit: Visit, *pkis: Pki) -> None:
    """Reload with these authorities and their lists, all in one file each."""
    folder = visit.site.directory
    (folder / "authorities.pem").write_bytes(b"".join(pki.ca_pem for pki in pkis))
    (folder / "lists.pem").write_bytes(b"".join(pki.crl_pem for pki in pkis))
    trusts = f'client_ca = "{folder / "authorities.pem"}"\ncrl = "{folder / "lists.pem"}"'
    visit.site.configure(trusts=trusts)
    assert await visit.agent.reload(), visit.site.records()[-1]


async def decide(
    visit: Visit, held: dict[str, Any], by: str, leaf: Leaf | None = None, **more: object
) -> httpx.Response:
    body = {"decision": "approve", "digest": held["digest"], **more}
    url = f"/requests/{held['request_id']}/decision"
    return await visit.who(by, leaf).post(url, json=body)


async def ask(visit: Visit, leaf: Leaf, operation: str, **params: object) -> httpx.Response:
    body = {"operation": operation, "params": params, "reason": "needed"}
    return await visit.who("deployer", leaf).post("/host/op", json=body)


def last(site: Site, event: str) -> dict[str, Any]:
    return [record for record in site.records() if record["event"] == event][-1]


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_h4_a_consent_of_the_old_authority_makes_no_quorum(
    visit: Visit, is_replaced: bool
) -> None:
    old, new = visit.site.pki, make_pki(visit.site.directory / "new", name="another CA")
    deployer, erin = new.client("deployer"), new.client("erin")
    await trust(visit, old, new)
    answer = await ask(visit, deployer, "git.reset", **visit.site.status(), ref="main")
    assert answer.status_code == 202, answer.text
    held = answer.json()
    assert (await decide(visit, held, "alice")).status_code == 200
    if is_replaced:
        await trust(visit, new)
    before = visit.world()
    await decide(visit, held, "erin", erin)
    await visit.settle()
    state = (await visit.who("erin", erin).get(f"/requests/{held['request_id']}")).json()["state"]
    assert (state == "succeeded") is not is_replaced
    assert ("operation.started" in visit.site.events()) is not is_replaced
    if is_replaced:
        assert before[0] == visit.world()[0]


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_h4_requests_grants_and_streams_of_the_old_authority_end(
    visit: Visit, is_replaced: bool
) -> None:
    old, new = visit.site.pki, make_pki(visit.site.directory / "new", name="another CA")
    deployer = new.client("deployer")
    await trust(visit, old, new)
    pull = visit.site.pull()
    held = (await ask(visit, deployer, "git.pull", **pull)).json()
    granted = await decide(visit, held, "alice", grant={"count": 5})
    assert granted.status_code == 200, granted.text
    await visit.settle()
    mine = (await visit.ask("git.switch", {**visit.site.status(), "branch": "topic"})).json()
    stream = visit.who("alice").stream("GET", "/events")
    async with stream as answer:
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(":")
        await trust(visit, *([new] if is_replaced else [old, new]))
        if is_replaced:
            async with asyncio.timeout(PATIENCE):
                async for _ in lines:
                    pass  # to its end
    alice = new.client("alice")
    seen = (await visit.who("alice", alice).get(f"/requests/{mine['request_id']}")).json()
    assert seen["state"] == ("cancelled" if is_replaced else "pending")
    visit.site.repository.push_elsewhere("later.txt")
    again = await ask(visit, deployer, "git.pull", **pull)
    assert again.status_code == (202 if is_replaced else 200)
    if is_replaced:
        assert last(visit.site, "grant.revoked")["by"] == "host-agent"
        assert last(visit.site, "request.cancelled")["code"] == "identity:invalid"
    else:
        assert "grant.revoked" not in visit.site.events()


@pytest.mark.promise("c11")
async def test_a_list_in_another_string_type_serves_and_nobody_is_locked_out(
    visit: Visit,
) -> None:
    """The list's issuer is the CA's name, written anew in another type; it serves and bites."""
    pki = visit.site.pki
    robot, deployer = pki.client("robot"), visit.site.client("deployer")
    written_anew = x509.Name(
        [
            x509.NameAttribute(one.oid, str(one.value), _ASN1Type.PrintableString)
            for one in pki.ca_certificate.subject
        ]
    )
    assert written_anew.public_bytes() != pki.ca_certificate.subject.public_bytes()
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(robot.serial)
        .revocation_date(pki.now)
        .build()
    )
    crl = x509.CertificateRevocationListBuilder(
        written_anew, pki.now, pki.ca_certificate.not_valid_after_utc, [], [entry]
    ).add_extension(x509.CRLNumber(9), critical=False)
    signed = crl.sign(pki.ca.private_key, hashes.SHA256())
    pki.crl_path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    await visit.agent.watch.look()
    assert (await visit.who("deployer", deployer).get("/requests")).status_code == 200
    assert (await visit.who("robot", robot).get("/requests")).status_code == 403


async def test_a_list_that_forgets_an_authority_is_not_taken(visit: Visit) -> None:
    old, new = visit.site.pki, make_pki(visit.site.directory / "new", name="another CA")
    await trust(visit, old, new)
    deployer = new.client("deployer")
    assert (await visit.who("deployer", deployer).get("/requests")).status_code == 200
    lists = visit.site.directory / "lists.pem"
    lists.write_bytes(old.make_crl(number=9))
    await visit.agent.watch.look()
    assert "it holds no list of" in last(visit.site, "config.rejected")["faults"][0]
    assert (await visit.who("deployer", deployer).get("/requests")).status_code == 200
    lists.write_bytes(old.make_crl(number=9) + new.make_crl(number=9))
    await visit.agent.watch.look()
    assert (await visit.status()).status_code == 200
