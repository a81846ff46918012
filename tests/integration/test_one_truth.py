"""The door, `pki verify`, `config check` and `doctor` say the same of every shape of certificate.

The door is a whole agent that shapes are reloaded into; who comes does a real handshake and asks.
"""

import json
import shutil
import ssl
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from host_agent.__main__ import main
from host_agent.config import load
from host_agent.host.doctor.certificates import certificate_checks
from host_agent.host.doctor.values import CheckState
from tests.support.patience import PATIENCE
from tests.support.pki_shapes import RECIPES, SHAPES, Shape, by_openssl
from tests.support.site import Site, make_site
from tests.support.visit import Visit, visited

NO_CLIENTS = "none of its clients will get in"


def put(shape: Shape, site: Site, directory: Path) -> None:
    """Write a shape into a directory as the small CA would, and have the site believe it."""
    directory.mkdir()
    (directory / "ca.crt").write_bytes(shape.ca)
    (directory / "who.crt").write_bytes(shape.chain)
    (directory / "who.key").write_bytes(shape.key)
    (directory / "who.key").chmod(0o600)
    crl = ""
    if shape.crl is not None:
        (directory / "ca.crl").write_bytes(shape.crl)
        crl = f'crl = "{directory / "ca.crl"}"'
    site.configure(trusts=f'client_ca = "{directory / "ca.crt"}"\n{crl}')


async def the_door(visit: Visit, directory: Path) -> bool:
    """Return whether the client of `directory` is let in by a running agent."""
    if not await visit.agent.reload():
        return False
    context = ssl.create_default_context(cafile=str(visit.site.pki.ca_path))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that a weak one can be shown at all
    context.load_cert_chain(directory / "who.crt", directory / "who.key")
    try:
        async with httpx.AsyncClient(
            base_url=visit.url, verify=context, timeout=PATIENCE
        ) as client:
            answer = await client.get("/requests")
    except (httpx.TransportError, ssl.SSLError):
        return False
    assert answer.status_code in {200, 403}, answer.text
    return answer.status_code == 200


def pki_verify(directory: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Return whether `pki verify` would let the client in."""
    capsys.readouterr()
    crl = directory / "ca.crl"
    arguments = ["pki", "verify", str(directory / "who.crt"), "--json", "--ca"]
    listed = ["--crl", str(crl)] if crl.exists() else []
    status = main([*arguments, str(directory / "ca.crt"), *listed])
    said = json.loads(capsys.readouterr().out)
    assert said["let_in"] is (status == 0)
    assert (said["reason"] is None) is said["let_in"]
    return bool(said["let_in"])


def config_check(site: Site, capsys: pytest.CaptureFixture[str]) -> bool:
    """Return whether `config check` finds that some authority's clients can get in."""
    capsys.readouterr()
    main(["config", "check", "--config", str(site.config_path), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert all(fault.startswith("server.c") for fault in said["faults"]), said["faults"]
    return said["ok"] and not any(NO_CLIENTS in one for one in said["warnings"])


def doctor(site: Site) -> bool:
    """Return whether `doctor` has no problem with certificates."""
    checks = certificate_checks(load(site.config_path), datetime.now(UTC))
    return all(check.state is not CheckState.PROBLEM for check in checks)


async def disagreements(
    made: dict[str, Shape], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    site = make_site(tmp_path / "site")
    found: list[str] = []
    async with visited(site) as visit:
        for number, (name, shape) in enumerate(made.items()):
            directory = tmp_path / f"pki{number}"
            put(shape, site, directory)
            # What is wrong with one certificate cannot be seen from the configuration.
            is_good = shape.fault is None
            seen_there = shape.fault in {None, "certificate"}
            said = {
                "door": (await the_door(visit, directory), is_good),
                "pki verify": (pki_verify(directory, capsys), is_good),
                "config check": (config_check(site, capsys), seen_there),
                "doctor": (doctor(site), seen_there),
            }
            found += [
                f"{name}: {who} says {is_so}" for who, (is_so, so) in said.items() if is_so != so
            ]
    return found


async def test_the_door_and_every_check_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {name: make() for name, make in SHAPES.items()}
    assert await disagreements(made, tmp_path, capsys) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
async def test_they_agree_of_what_openssl_makes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {
        name: by_openssl(recipe, tmp_path / f"by-openssl-{number}")
        for number, (name, recipe) in enumerate(RECIPES.items())
    }
    assert await disagreements(made, tmp_path, capsys) == []
