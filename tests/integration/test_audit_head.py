"""`audit head` and the signed checkpoint: a cut log is found only with a head kept elsewhere."""

from pathlib import Path

import pytest

from host_agent.__main__ import main
from tests.support.site import Served, Site, make_site


@pytest.fixture(name="site")
def served_site(tmp_path: Path) -> Site:
    site = make_site(tmp_path / "site")
    with Served(site) as served, site.http(served.url, "deployer") as http:
        for _ in range(3):
            body = {"operation": "git.status", "params": site.status()}
            assert http.post("/host/op", json=body).status_code == 200
    return site


def checkpoint(site: Site, path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["audit", "head", "--sign", "--config", str(site.config_path)]) == 0
    path.write_text(capsys.readouterr().out)
    return path


def verified(site: Site, *arguments: str) -> int:
    return main(["audit", "verify", str(site.audit_path), *arguments])


def test_the_head_is_the_newest_records_hash(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "head", "--config", str(site.config_path)]) == 0
    newest = site.records()[-1]
    assert capsys.readouterr().out == f"{newest['sequence']} {newest['hash']}\n"


@pytest.mark.promise("c7")
def test_a_cut_tail_is_found_with_a_signed_head_only(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = checkpoint(site, tmp_path / "kept", capsys)
    signer = str(site.server.certificate_path)
    assert verified(site, "--checkpoint", str(kept), "--signer", signer) == 0
    lines = site.audit_path.read_bytes().splitlines(keepends=True)
    site.audit_path.write_bytes(b"".join(lines[:-1]))
    assert verified(site) == 0
    assert verified(site, "--checkpoint", str(kept), "--signer", signer) == 1


def test_a_checkpoint_of_another_signer_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = checkpoint(site, tmp_path / "kept", capsys)
    stranger = str(site.client("deployer").certificate_path)
    assert verified(site, "--checkpoint", str(kept), "--signer", stranger) == 64
    assert verified(site, "--checkpoint", str(kept)) == 64
