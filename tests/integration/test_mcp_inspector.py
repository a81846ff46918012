"""The inspector that the protocol's authors publish gets on with `host-agent mcp`."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_client import command
from tests.support.patience import PATIENCE
from tests.support.registries import cached
from tests.support.site import Served, Site, make_site

pytestmark = pytest.mark.slow

NPM_PARTS = ("@modelcontextprotocol/inspector@2.12.0",)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site) as served:
        yield served


@pytest.fixture(scope="module")
def inspector() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM_PARTS]
    return cached("inspector", NPM_PARTS, [["npm", "init", "--yes"], install])


class Inspector:
    """The inspector's command line at a server of its own for each question."""

    def __init__(self, place: Path, site: Site, url: str) -> None:
        self._place = place
        self._words = ["node", str(place / "node_modules/.bin/mcp-inspector"), "--cli"]
        self._words += command(site, url)

    def ask(self, method: str, *more: str) -> dict[str, Any]:
        done = subprocess.run(
            [*self._words, "--method", method, *more],
            cwd=self._place,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) is not answer.get("isError", False), done.stderr
        return answer

    def call(self, tool: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        words = ["--tool-name", tool]
        for name, value in arguments.items():
            words += ["--tool-arg", f"{name}={value}"]
        return self.ask("tools/call", *words)


def test_the_inspector_lists_reads_holds_and_is_refused(
    inspector: Path, site: Site, served: Served
) -> None:
    before = site.repository.head
    asked = Inspector(inspector, site, served.url)

    listed = {tool["name"]: tool for tool in asked.ask("tools/list")["tools"]}
    assert listed["git_status"]["annotations"]["readOnlyHint"] is True

    read = asked.call("git_status", site.status())
    assert read["structuredContent"]["state"] == "succeeded"

    held = asked.call("git_pull", site.pull())
    assert not held.get("isError")
    assert held["structuredContent"]["state"] == "pending"
    again = asked.call("git_pull", site.pull())
    assert again["structuredContent"]["request_id"] == held["structuredContent"]["request_id"]

    refused = asked.call("git_status", {"repository": "/etc"})
    assert refused["isError"] is True
    assert refused["structuredContent"]["code"] == "policy:denied"
    assert site.repository.head == before
