"""The command `doctor` on a configuration in a directory: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest

from host_agent.__main__ import main
from tests.support.certificates import make_pki
from tests.support.configurations import MINIMAL, write


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "pki").mkdir(mode=0o700)
    make_pki(tmp_path / "pki").server()
    return write(tmp_path, f'{MINIMAL}\n[metrics]\nbind = "127.0.0.1:1"\n')


def test_a_configuration_with_faults_is_all_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, f"{MINIMAL}\n[serve]\n")

    assert main(["doctor", "--config", str(path)]) == 1

    told = capsys.readouterr().out
    assert "configuration: serve: is not a known key; did you mean server?." in told
    assert "1 check: 1 problem, 0 warnings." in told


def test_nobody_listens_and_it_says_so_with_a_remedy(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--config", str(config)]) == 1

    told = capsys.readouterr().out
    assert "listening agent: Nothing answers on 127.0.0.1:1: Connection refused." in told
    assert "systemctl status" in told


def test_a_script_gets_one_object(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--config", str(config), "--json"]) == 1

    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    for check in told["checks"]:
        assert check.keys() == {"name", "state", "sentence", "remedy"}
        assert check["state"] in ("ok", "warning", "problem")
        assert (check["remedy"] is None) == (check["state"] == "ok")


def test_a_user_that_is_none_is_a_usage_error(config: Path) -> None:
    assert main(["doctor", "--config", str(config), "--user", "no-such-user"]) == 64
