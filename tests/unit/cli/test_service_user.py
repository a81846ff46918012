"""The user that a configuration is judged for: the installation's, else one's own."""

import os
import pwd
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.cli.service_user import service_user
from host_agent.errors import UsageError
from host_agent.host.install import layout
from tests.support.certificates import make_pki
from tests.support.configurations import MINIMAL, write

SOMEBODY = "daemon"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of an installation whose agent runs as `daemon`."""
    place = tmp_path / "installed"
    place.mkdir()
    monkeypatch.setattr(layout, "CONFIGURATION_DIR", str(place))
    monkeypatch.setattr(layout, "USER", SOMEBODY)
    return place


def test_an_installed_configuration_is_that_of_the_installed_user(
    installed: Path, tmp_path: Path
) -> None:
    uid = pwd.getpwnam(SOMEBODY).pw_uid
    assert service_user(None, installed / "config.toml") == (SOMEBODY, uid)
    link = tmp_path / "link.toml"
    link.symlink_to(installed / "config.toml")
    assert service_user(None, link) == (SOMEBODY, uid)
    # A trial of one's own beside it is one's own.
    assert service_user(None, tmp_path / "config.toml")[1] == os.geteuid()


def test_a_named_user_counts_and_has_to_exist(installed: Path) -> None:
    assert service_user("root", installed / "config.toml") == ("root", 0)
    with pytest.raises(UsageError):
        service_user("no-such-user", installed / "config.toml")


def test_without_the_user_of_an_installation_it_is_oneself(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "USER", "no-such-user")
    assert service_user(None, installed / "config.toml")[1] == os.geteuid()


@pytest.mark.root
def test_root_finds_a_healthy_host_good_without_naming_the_user(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(installed, MINIMAL)
    server = make_pki(installed / "pki").server()
    os.chown(server.key_path, pwd.getpwnam(SOMEBODY).pw_uid, 0)
    assert main(["config", "check", "--config", str(path)]) == 0, capsys.readouterr().err
    assert main(["config", "check", "--config", str(path), "--user", "root"]) == 78
    assert "neither root nor the agent's user" in capsys.readouterr().err
