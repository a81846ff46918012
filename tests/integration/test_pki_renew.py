"""A client's certificate renews itself: agent, authority and client for real, and each attack."""

import base64
import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization

from host_agent.__main__ import main
from host_agent.cli import renewing
from host_agent.cli.connection_settings import ConnectionSettings
from host_agent.client import Client
from host_agent.client.connection import client_context
from host_agent.errors import CertificateRefusedError, ConfigurationError, ProblemError
from host_agent.identity import files
from host_agent.pki import authority
from host_agent.pki.door import load_certificates
from host_agent.pki.mailbox import MAX_WAITING
from host_agent.pki.profiles import Usage
from host_agent.pki.profiles import subject as name_of
from host_agent.pki.renewal import prove
from host_agent.pki.replacement import PairPlace
from host_agent.pki.request import new_key, new_request, read_request
from host_agent.pki.signing import sign
from tests.support.certificates import wall_clock
from tests.support.patience import PATIENCE
from tests.support.site import Served, Site, make_site
from tests.unit.pki.test_signing import GREEDY, content, key_of, made_by

NOW = wall_clock()
DAY = timedelta(days=1)
BEGAN = NOW - 61 * DAY
NAMES = (
    *("story", "apart", "picks", "revoked", "ended", "young", "pinned", "forger", "victim"),
    *("greedy", "racer", "full", "cut", "undone", "unlisted", "wrong", "many", "foreign", "crowd"),
)


@dataclass
class Ground:
    """An agent that takes renewals, the authority of its clients, and where both lay files."""

    served: Served
    ca: Path

    @property
    def site(self) -> Site:
        return self.served.site

    @property
    def inbox(self) -> Path:
        return self.site.directory / "state" / "renewals"

    @property
    def issued(self) -> Path:
        return self.site.directory / "issued"

    def settings(self, directory: Path, *, is_one_file: bool = False) -> ConnectionSettings:
        cert, key = directory / "own.crt", directory / "own.key"
        return ConnectionSettings(
            url=self.served.url,
            cert=key if is_one_file else cert,
            key=key,
            ca=self.site.pki.ca_path,
        )

    def place(
        self, directory: Path, cn: str, *, is_one_file: bool = False, days_ago: int = 61
    ) -> ConnectionSettings:
        """Issue a certificate to `cn`, and lay it where a client has it."""
        begin = NOW - days_ago * DAY
        authority.issue(self.ca, common_name=cn, usage=Usage.CLIENT, now=begin)
        directory.mkdir(exist_ok=True)
        settings = self.settings(directory, is_one_file=is_one_file)
        key, crt = ((self.ca / f"{cn}.{kind}").read_bytes() for kind in ("key", "crt"))
        settings.key.touch(0o600)
        settings.key.write_bytes(key + crt if is_one_file else key)
        if not is_one_file:
            settings.cert.write_bytes(crt)
        return settings

    def sign(self) -> int:
        where = ("--inbox", str(self.inbox), "--issued", str(self.issued))
        return main(["pki", "renewals", "--dir", str(self.ca), *where])

    def renew(self, settings: ConnectionSettings, *options: str) -> int:
        files_of = ("--cert", str(settings.cert), "--key", str(settings.key))
        where = ("--url", settings.url, "--ca", str(settings.ca))
        return main(["pki", "renew", *options, *where, *files_of])

    def records(self, event: str, cn: str) -> list[dict[str, Any]]:
        found = self.site.records()
        return [one for one in found if one["event"] == event and one.get("caller") == cn]

    def entry(self, cn: str) -> Path:
        der = load_certificates((self.ca / f"{cn}.crt").read_bytes())[0]
        hashed = der.fingerprint(hashes.SHA256()).hex()
        return self.inbox / f"{hashed}.json"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    site = make_site(tmp_path_factory.mktemp("renewing"))
    ca, issued = site.directory / "ca", site.directory / "issued"
    issued.mkdir()
    authority.init(ca, now=BEGAN - DAY)
    authority.sign_crl(ca, now=NOW)
    pinned = f'\nfingerprint = "sha256:{"0" * 64}"\n'
    (site.directory / "pinned").mkdir()
    one = authority.issue(ca, common_name="pinned", usage=Usage.CLIENT, now=BEGAN)
    pinned = pinned.replace("0" * 64, one.fingerprint.removeprefix("sha256:"))
    site.configure(
        trusts=f'client_ca = "{ca}/ca.crt"\ncrl = "{ca}/ca.crl"',
        identities="".join(
            f'[[identities]]\ncn = "{name}"\nowner = "o-{name}"\n'
            + (pinned if name == "pinned" else "")
            for name in NAMES
            if name != "unlisted"
        ),
        extra=f'[renewals]\nissued = "{issued}"\n',
    )
    with Served(site) as served:
        yield Ground(served, ca)


def serial(settings: ConnectionSettings) -> int:
    return PairPlace.of(settings.cert, settings.key).read().certificate.serial


def is_let_in(settings: ConnectionSettings) -> str:
    with Client(url=settings.url, cert=settings.cert, key=settings.key, ca=settings.ca) as client:
        return client.whoami().cn


@pytest.mark.parametrize(("cn", "is_one_file"), [("story", True), ("apart", False)])
def test_it_is_asked_for_signed_elsewhere_and_takes_the_old_ones_place(
    ground: Ground,
    tmp_path: Path,
    cn: str,
    is_one_file: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ground.place(tmp_path / "client", cn, is_one_file=is_one_file)
    before, old = content(tmp_path / "client"), serial(settings)
    assert ground.renew(settings) == 75
    assert "waits for the authority" in capsys.readouterr().out
    waiting = tmp_path / "client" / ".own.key.renewal"
    assert stat.S_IMODE(waiting.stat().st_mode) == 0o600
    assert ground.renew(settings) == 75
    (asked,) = ground.records("renewal.asked", cn)
    assert b"PRIVATE KEY" not in ground.entry(cn).read_bytes()
    assert {name: content(tmp_path / "client")[name] for name in before} == before

    ground.sign()
    assert ground.renew(settings) == 0
    assert f"{cn} is renewed" in capsys.readouterr().out
    assert serial(settings) != old
    assert {path.name for path in (tmp_path / "client").iterdir()} == set(before)
    assert stat.S_IMODE(settings.key.stat().st_mode) == 0o600
    assert is_let_in(settings) == cn
    (delivered,) = ground.records("renewal.delivered", cn)
    assert delivered["sha256"] == asked["sha256"]
    assert not ground.entry(cn).exists()
    kept = content(tmp_path / "client")
    assert ground.renew(settings) == 0
    assert "is not due before" in capsys.readouterr().out
    assert content(tmp_path / "client") == kept


def test_a_running_client_goes_on_with_the_new_one(ground: Ground, tmp_path: Path) -> None:
    settings = ground.place(tmp_path / "client", "picks")
    status = {"repository": str(ground.site.repository.path)}
    with Client(url=settings.url, cert=settings.cert, key=settings.key, ca=settings.ca) as client:
        client.submit("git.status", status)
        kept = settings.key.read_bytes()
        ground.renew(settings)
        ground.sign()
        assert ground.renew(settings) == 0
        fresh = settings.key.read_bytes()
        settings.key.write_bytes(kept)  # as between the two steps: they do not belong together
        client.submit("git.status", status)
        settings.key.write_bytes(fresh)
        client.submit("git.status", status)
    used = [one["fingerprint"] for one in ground.records("operation.started", "picks")]
    assert used[0] == used[1] != used[2]


def refused(ground: Ground, settings: ConnectionSettings, directory: Path) -> int:
    """Try to renew, and see that neither files nor inbox have moved but for the key that waits."""
    before, inbox = content(directory), sorted(ground.site.directory.glob("state/renewals/*"))
    status = ground.renew(settings)
    left = {name: data for name, data in content(directory).items() if name in before}
    assert left == before
    assert sorted(ground.site.directory.glob("state/renewals/*")) == inbox
    return status


def test_who_is_revoked_ended_unlisted_or_pinned_is_not_renewed(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    revoked = ground.place(tmp_path / "revoked", "revoked")
    authority.revoke(ground.ca, common_name="revoked", now=NOW)
    ended = ground.place(tmp_path / "ended", "ended", days_ago=91)
    unlisted = ground.place(tmp_path / "unlisted", "unlisted")
    pinned = ground.settings(tmp_path / "pinned")
    (tmp_path / "pinned").mkdir()
    for kind, path in (("crt", pinned.cert), ("key", pinned.key)):
        shutil.copy(ground.ca / f"pinned.{kind}", path)
    wait_until_revoked(revoked)
    for settings, directory, said in (
        (revoked, "revoked", "revoked"),
        (ended, "ended", "ended"),
        (unlisted, "unlisted", "identity:unknown"),
        (pinned, "pinned", "renewal:not-offered"),
    ):
        assert refused(ground, settings, tmp_path / directory) == 77, directory
        assert said in capsys.readouterr().err


def wait_until_revoked(settings: ConnectionSettings) -> None:
    """Wait until the agent has taken the list, which it looks at every second."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            is_let_in(settings)
        except (ProblemError, CertificateRefusedError):
            return
        time.sleep(0.05)
    raise AssertionError


def post(settings: ConnectionSettings, body: Mapping[str, str]) -> tuple[int, str]:
    context = client_context(cert=settings.cert, key=settings.key, ca=settings.ca)
    with httpx.Client(verify=context) as http:
        answer = http.post(f"{settings.url}/renewal", json=body)
    return answer.status_code, str(answer.json().get("code", answer.json().get("state")))


def asked(ground: Ground, cn: str, request: bytes, *, signer: str | None = None) -> dict[str, str]:
    der = load_certificates((ground.ca / f"{cn}.crt").read_bytes())[0].public_bytes(
        serialization.Encoding.DER
    )
    proof = prove(
        key_of(ground.ca, signer or cn),
        certificate_der=der,
        request_der=read_request(request).der,
    )
    return {"request": request.decode(), "proof": base64.b64encode(proof).decode()}


def test_no_renewal_is_taken_for_another_name_by_another_key_or_a_second_time(
    ground: Ground, tmp_path: Path
) -> None:
    forger = ground.place(tmp_path / "forger", "forger")
    victim = ground.place(tmp_path / "victim", "victim")
    own, other = new_request(new_key(), "forger"), new_request(new_key(), "victim")
    good = asked(ground, "forger", own)
    stolen = asked(ground, "victim", other)
    before = sorted(ground.site.directory.glob("state/renewals/*"))
    for body in (
        asked(ground, "forger", other),
        stolen,
        asked(ground, "forger", own, signer="victim"),
        {**good, "request": new_request(new_key(), "forger").decode()},
        {**good, "request": "none"},
        {**good, "proof": "?"},
        {**good, "proof": ""},
        {"request": own.decode()},
        {**good, "cn": "victim"},
        asked(ground, "forger", made_by(key_of(ground.ca, "forger"), name=name_of("forger"))),
    ):
        status, code = post(forger, body)
        assert (status, code.partition(":")[0]) == (400, "request"), body
    assert sorted(ground.site.directory.glob("state/renewals/*")) == before
    assert ground.records("renewal.asked", "forger") == []
    assert post(forger, good) == (200, "waiting")
    assert post(victim, stolen) == (200, "waiting")
    ground.sign()
    assert post(forger, good) == (200, "signed")


def test_a_mailbox_that_somebody_wrote_into_makes_no_certificate(
    ground: Ground, tmp_path: Path
) -> None:
    """Whoever has the agent's user can write the inbox: without the old key it is no use."""
    ground.place(tmp_path / "wrong", "wrong")
    entry = ground.entry("wrong")
    ground.inbox.mkdir(exist_ok=True)
    body = asked(ground, "wrong", new_request(new_key(), "wrong"), signer="pinned")
    crt = (ground.ca / "wrong.crt").read_text()
    entry.write_text(json.dumps({"version": 1, "certificate": crt, **body}))
    before = content(ground.ca)
    assert ground.sign() == 1
    assert {name for name in content(ground.ca) if name not in before} == set()
    body = asked(ground, "wrong", new_request(new_key(), "wrong"))
    entry.write_text(json.dumps({"version": 1, "certificate": crt, **body}))
    assert ground.sign() == 0


def test_what_it_asks_for_beside_the_key_is_not_in_it(ground: Ground, tmp_path: Path) -> None:
    settings = ground.place(tmp_path / "greedy", "greedy")
    body = asked(ground, "greedy", made_by(new_key(), name=name_of("greedy"), extensions=GREEDY))
    assert post(settings, body) == (200, "waiting")
    assert ground.sign() == 0
    old = load_certificates((ground.ca / "greedy.crt").read_bytes())[0]
    (new,) = load_certificates((ground.issued / f"{ground.entry('greedy').stem}.crt").read_bytes())
    assert {one.oid for one in new.extensions} == {one.oid for one in old.extensions}


def test_by_the_authoritys_clock_it_is_too_early_whatever_the_clients_says(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ground.place(tmp_path / "young", "young", days_ago=10)
    before = content(tmp_path / "young")
    step = renewing.attempt(settings, now=NOW)
    assert (step.status, step.is_final) == (0, False)
    assert renewing.attempt(settings, now=NOW + 60 * DAY).status == 75
    assert ground.sign() == 1
    assert "too early" in capsys.readouterr().err
    assert renewing.attempt(settings, now=NOW + 60 * DAY).status == 75
    assert {name: content(tmp_path / "young")[name] for name in before} == before
    ground.entry("young").unlink()


def test_of_two_that_renew_the_same_one_gets_it_and_the_other_keeps_the_old(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ground.place(tmp_path / "first", "racer")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = ground.settings(tmp_path / "second")
    assert ground.renew(second) == 75
    assert ground.renew(first) == 75  # comes later, and stands
    assert ground.sign() == 0
    kept = content(tmp_path / "second")
    assert ground.renew(second) == 77
    assert "renewal:conflict" in capsys.readouterr().err
    assert content(tmp_path / "second") == kept
    assert is_let_in(second) == "racer"
    assert ground.renew(first) == 0
    assert is_let_in(first) == "racer"


def full_for(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    create = files.create

    def until_full(path: Path, data: bytes, *, mode: int) -> None:
        if path.name.endswith(ending):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        create(path, data, mode=mode)

    monkeypatch.setattr(files, "create", until_full)


def test_a_disk_that_is_full_between_certificate_and_key_changes_nothing(
    ground: Ground,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ground.place(tmp_path / "full", "full")
    before = content(tmp_path / "full")
    with monkeypatch.context() as patched:
        full_for(patched, ".renewal")
        assert ground.renew(settings) == 78
        assert content(tmp_path / "full") == before
    assert ground.renew(settings) == 75
    assert ground.sign() == 0
    waiting = content(tmp_path / "full")
    for ending in (".crt.next", ".key.next"):
        with monkeypatch.context() as patched:
            full_for(patched, ending)
            assert ground.renew(settings) == 78
        assert content(tmp_path / "full") == waiting
        assert is_let_in(settings) == "full"
    assert "no space" in capsys.readouterr().err
    assert ground.renew(settings) == 0
    assert content(tmp_path / "full").keys() == before.keys()


def test_cut_off_between_the_two_renames_the_next_run_does_the_second(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ground.place(tmp_path / "cut", "cut")
    old = serial(settings)
    assert ground.renew(settings) == 75
    assert ground.sign() == 0

    class KilledError(BaseException):
        pass

    rename = PairPlace._rename

    def killed(self: PairPlace, source: Path, target: Path) -> None:
        if target == self.cert:
            raise KilledError
        rename(self, source, target)

    with monkeypatch.context() as patched:
        patched.setattr(PairPlace, "_rename", killed)
        with pytest.raises(KilledError):
            renewing.attempt(settings, now=NOW)
    with pytest.raises(ConfigurationError, match="is not the key"):
        serial(settings)
    assert ground.renew(settings) == 0
    assert serial(settings) != old
    assert is_let_in(settings) == "cut"
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"own.crt", "own.key"}


def test_where_the_second_rename_fails_the_old_pair_is_back(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ground.place(tmp_path / "undone", "undone")
    assert ground.renew(settings) == 75
    assert ground.sign() == 0
    before = content(tmp_path / "undone")
    rename = PairPlace._rename

    def failing(self: PairPlace, source: Path, target: Path) -> None:
        if target == self.cert:
            raise ConfigurationError([f"{target} cannot be replaced: input/output error"])
        rename(self, source, target)

    with monkeypatch.context() as patched:
        patched.setattr(PairPlace, "_rename", failing)
        assert ground.renew(settings) == 78
    assert content(tmp_path / "undone") == before
    assert is_let_in(settings) == "undone"
    assert ground.renew(settings) == 0


def test_a_new_certificate_that_is_not_let_in_leaves_the_old_one(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ground.place(tmp_path / "many", "many")
    assert ground.renew(settings) == 75
    assert ground.sign() == 0
    before = content(tmp_path / "many")
    (new,) = [one for one in authority.list_issued(ground.ca) if one.common_name == "many"][1:]
    authority.revoke(ground.ca, serial=new.serial, now=NOW)
    pem = (ground.issued / f"{ground.entry('many').stem}.crt").read_bytes()
    probe = tmp_path / "probe"
    probe.mkdir()
    place = PairPlace.of(settings.cert, settings.key)
    new_settings = ground.settings(probe)
    new_settings.cert.write_bytes(pem)
    key = place.next_key(place.read().certificate).key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    new_settings.key.write_bytes(key)
    wait_until_revoked(new_settings)
    capsys.readouterr()
    assert ground.renew(settings) == 77
    assert "does not let the new certificate in" in capsys.readouterr().err
    assert not renewing.attempt(settings, now=NOW).is_final
    assert content(tmp_path / "many") == before
    assert is_let_in(settings) == "many"


def test_what_another_authority_has_made_is_not_taken(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has the agent's user could hand out anything: the old pair stays."""
    settings = ground.place(tmp_path / "foreign", "foreign")
    assert ground.renew(settings) == 75
    other = tmp_path / "other"
    authority.init(other, name="another CA", now=NOW)
    pair = PairPlace.of(settings.cert, settings.key)
    waiting = pair.next_key(pair.read().certificate)
    request = read_request(waiting.request)
    sign(other, request, common_name="foreign", usage=Usage.CLIENT, now=NOW)
    place = ground.issued / f"{ground.entry('foreign').stem}.crt"
    shutil.copy(other / "foreign.crt", place)
    before = content(tmp_path / "foreign")
    assert ground.renew(settings) == 69
    assert "another authority" in capsys.readouterr().err
    assert content(tmp_path / "foreign") == before
    place.write_bytes(b"damaged")
    assert ground.renew(settings) == 75
    assert ground.sign() == 0
    assert ground.renew(settings) == 0


def test_where_too_many_wait_it_is_tried_again_and_nothing_is_recorded(
    ground: Ground, tmp_path: Path
) -> None:
    settings = ground.place(tmp_path / "crowd", "crowd")
    ground.inbox.mkdir(exist_ok=True)
    crowd = [ground.inbox / f"{number:064x}.json" for number in range(MAX_WAITING)]
    for path in crowd:
        path.touch()
    try:
        step = renewing.attempt(settings, now=NOW)
    finally:
        for path in crowd:
            path.unlink()
    assert (step.status, step.is_final) == (69, False)
    assert "Too many renewals wait" in step.sentence
    assert not ground.entry("crowd").exists()
    assert ground.records("renewal.asked", "crowd") == []
    assert ground.renew(settings) == 75
    assert ground.entry("crowd").exists()
    assert len(ground.records("renewal.asked", "crowd")) == 1


def test_a_host_that_takes_none_says_so(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    leaf = site.client("deployer")
    with Served(site) as served, site.http(served.url, "deployer") as http:
        answer = http.post("/renewal", json={"request": "x", "proof": "x"})
        assert (answer.status_code, answer.json()["code"]) == (404, "renewal:not-offered")
    assert not (site.directory / "state" / "renewals").exists()
    assert leaf
