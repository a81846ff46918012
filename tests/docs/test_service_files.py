"""The unit and the sudoers example are accepted by the programs that read them."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from host_agent.__main__ import build_parser
from host_agent.api import body
from host_agent.config.models import Execution, Server
from host_agent.host.install import layout
from host_agent.pki.mailbox import INBOX
from tests.support.reference_pages import REPOSITORY

UNIT = REPOSITORY / "systemd" / "host-agent.service"
SUDOERS = REPOSITORY / "sudoers" / "host-agent"
SERVICE_PAGE = REPOSITORY / "docs" / "how-to" / "run-as-a-service.md"
PERFORMANCE_PAGE = REPOSITORY / "docs" / "explanation" / "performance.md"

WITHOUT_SUDO = {
    *("NoNewPrivileges", "SystemCallFilter", "SystemCallArchitectures", "SystemCallLog"),
    *("RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    *("RestrictFileSystems", "MemoryDenyWriteExecute", "LockPersonality", "PrivateDevices"),
    *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectClock"),
    *("ProtectHostname", "DynamicUser"),
}
"""systemd.exec(5): each of these sets or implies NoNewPrivileges for a user that is not root."""


def service() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_no_setting_of_the_unit_takes_sudo_away() -> None:
    assert not WITHOUT_SUDO & service().keys()


def test_the_unit_waits_longer_than_the_agent_drains() -> None:
    assert int(service()["TimeoutStopSec"]) > 2 * 10
    assert service()["KillMode"] == "mixed"


def test_a_broken_configuration_is_not_tried_again_and_again() -> None:
    assert "78" in service()["RestartPreventExitStatus"].split()


_UNITS = {"M": 2**20, "G": 2**30}


def size(name: str) -> int:
    """Return a size of the unit, in bytes."""
    text = service()[name]
    return int(text[:-1]) * _UNITS[text[-1]]


def test_the_unit_leaves_the_agent_what_its_limits_admit_and_the_host_the_rest() -> None:
    """Idle, all connections, all large bodies (parsed they take five times more), all outputs."""
    figures = PERFORMANCE_PAGE.read_text()
    idle = int(_figure(figures, r"idle, resident memory +\| (\d+) MiB")) * 2**20
    thousand = int(_figure(figures, r"1,000 idle TLS connections.*?\| (\d+) MiB")) * 2**20
    limits = {
        name: model.model_fields[name].default
        for model, name in (
            (Server, "max_connections"),
            (Execution, "max_concurrent"),
            (Execution, "max_output_bytes"),
        )
    }
    connections = limits["max_connections"] * thousand // 1000
    bodies = body.LARGE_BODIES * 6 * body.MAX_BODY_BYTES
    outputs = limits["max_concurrent"] * 2 * 6 * limits["max_output_bytes"]
    needed = idle + connections + bodies + outputs
    assert needed < 450 * 2**20 < size("MemoryHigh") / 2
    assert size("MemoryHigh") < size("MemoryMax") <= 2 * 2**30
    assert size("MemorySwapMax") < size("MemoryMax")
    assert service()["OOMPolicy"] == "continue"
    assert service()["Restart"] == "on-failure"
    page = SERVICE_PAGE.read_text()
    for name in ("MemoryHigh", "MemoryMax", "MemorySwapMax"):
        assert f"`{name}={service()[name]}`" in page


def _figure(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return found[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    program = service()["ExecStart"].split()[0]
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(program, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, [])


OTHERS = sorted((REPOSITORY / "systemd").glob("host-agent-*.*"))


def test_the_units_that_renew_are_the_ones_that_are_installed() -> None:
    assert {path.name for path in OTHERS} == set(layout.RENEWING_NAMES)


@pytest.mark.parametrize(
    "unit", [path for path in OTHERS if path.suffix == ".service"], ids=lambda path: path.name
)
def test_what_they_run_is_a_command_on_the_authoritys_and_the_agents_own_files(unit: Path) -> None:
    (line,) = [one for one in unit.read_text().splitlines() if one.startswith("ExecStart=")]
    program, *words = line.removeprefix("ExecStart=").split()
    assert program == "/opt/host-agent/bin/host-agent"
    args = build_parser("pki").parse_args(words)
    assert args.run is not None
    places = {str(place) for place in vars(args).values() if isinstance(place, Path)}
    assert places <= {
        layout.AUTHORITY_DIR,
        f"{layout.PKI_DIR}/ca.crl",
        f"{layout.STATE_DIR}/{INBOX}",
        f"{layout.PKI_DIR}/issued",
    }
    assert not line.endswith(" ")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_every_line_of_those_too(tmp_path: Path) -> None:
    for unit in OTHERS:
        text = unit.read_text().replace("/opt/host-agent/bin/host-agent", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "host-agent" in line]
    assert (done.returncode, said) == (0, [])


VISUDO = shutil.which("visudo") or shutil.which("visudo", path="/usr/sbin:/sbin")


@pytest.mark.skipif(VISUDO is None, reason="needs visudo")
def test_visudo_accepts_the_sudoers_example(tmp_path: Path) -> None:
    fragment = tmp_path / "host-agent"
    fragment.write_bytes(SUDOERS.read_bytes())
    fragment.chmod(0o440)
    done = subprocess.run(
        [str(VISUDO), "-cf", fragment], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_sudoers_example_grants_exact_paths_only() -> None:
    lines = [line for line in SUDOERS.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(
            r"host-agent ALL=\([a-z]+\) NOPASSWD: /usr/local/lib/host-agent/[a-z-]+", line
        )
        wrapper = line.rpartition("/")[2]
        assert (REPOSITORY / "wrappers" / wrapper).is_file()
        assert wrapper != "git" or "(root)" not in line


def test_the_page_shows_a_line_of_the_example() -> None:
    page = SERVICE_PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in page if "NOPASSWD" in line]
    assert {line for line in page if "NOPASSWD" in line} <= set(SUDOERS.read_text().splitlines())
