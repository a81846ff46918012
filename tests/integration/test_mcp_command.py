"""`host-agent mcp` as a command: which host it serves, and how it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.errors import EX_CONFIG, EX_OK, EX_USAGE
from tests.support.certificates import make_pki
from tests.support.mcp_client import Bare
from tests.support.patience import PATIENCE
from tests.support.site import make_site
from tests.support.visit import Visit, visited

WORDS = (sys.executable, "-m", "host_agent", "mcp", "--wait", "0")


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    async with visited(make_site(tmp_path / "site")) as visit:
        yield visit


def environment(home: Path) -> dict[str, str]:
    """Return an environment of a person whose home is `home`, without settings of this one's."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HOST_AGENT_")}
    return {**kept, "HOME": str(home)}


def write_hosts(home: Path, visit: Visit) -> None:
    """Write two hosts: one that nobody answers for, the default, and this one."""
    leaf = visit.site.client("deployer")
    files = f'cert = "{leaf.certificate_path}"\nkey = "{leaf.key_path}"\n'
    files += f'ca = "{visit.site.pki.ca_path}"\n'
    path = home / ".config" / "host-agent" / "client.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f'default_host = "gone"\n[hosts.gone]\nurl = "https://localhost:1"\n{files}'
        f'[hosts.here]\nurl = "{visit.url}"\n{files}'
    )


async def test_it_serves_the_host_that_is_named(visit: Visit, tmp_path: Path) -> None:
    write_hosts(tmp_path / "home", visit)
    around = environment(tmp_path / "home")
    async with Bare.started([*WORDS, "--host", "here"], around) as named:
        assert (await named.call("git_status", visit.site.status()))["state"] == "succeeded"
    async with Bare.started(WORDS, around) as default:
        told = await default.call("git_status", visit.site.status())
    assert told["code"] == "mcp:unreachable"
    assert visit.site.events().count("operation.started") == 1


async def test_it_ends_well_where_its_input_ends(visit: Visit, tmp_path: Path) -> None:
    write_hosts(tmp_path / "home", visit)
    async with Bare.started([*WORDS, "--host", "here"], environment(tmp_path / "home")) as server:
        await server.call("git_pull", visit.site.pull())
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert await server.process.wait() == EX_OK


async def test_an_interrupt_ends_it_at_once_though_its_input_is_open(
    visit: Visit, tmp_path: Path
) -> None:
    write_hosts(tmp_path / "home", visit)
    async with Bare.started([*WORDS, "--host", "here"], environment(tmp_path / "home")) as server:
        held = await server.call("git_pull", visit.site.pull())
        server.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            assert await server.process.wait() == -signal.SIGINT
    assert (await visit.look(held)).json()["state"] == "pending"


@pytest.mark.parametrize("wait", ["51", "-1", "1.5", "x", "", "0x1"])
def test_a_wait_is_whole_seconds_that_a_client_has_the_patience_for(
    wait: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mcp", f"--wait={wait}"]) == EX_USAGE
    assert "0 to 50" in capsys.readouterr().err


def test_an_unknown_host_is_a_fault_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["mcp", "--host", "nowhere"]) == EX_CONFIG
    assert "nowhere" in capsys.readouterr().err


def test_without_the_extra_it_says_which_one_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pki = make_pki(tmp_path)
    leaf = pki.client("deployer")
    for name in [name for name in sys.modules if name.startswith("host_agent.mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    files = ["--cert", leaf.certificate_path, "--key", leaf.key_path, "--ca", pki.ca_path]
    assert main(["mcp", "--url", "https://localhost:1", *map(str, files)]) == EX_CONFIG
    said = capsys.readouterr()
    assert "with the extra mcp" in said.err
    assert said.out == ""
