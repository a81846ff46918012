"""The doctor beside an agent that serves: what lies on disk against what the agent has."""

import json
import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.__main__ import main
from tests.support.patience import PATIENCE
from tests.support.site import RULES, Served, Site, make_site


class Bedside:
    """An agent on a site, and the doctor at it."""

    def __init__(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.site = site
        self._capsys = capsys
        self.configure()
        self.served = Served(site)

    def configure(self, rules: str = RULES, bind: str = "127.0.0.1:0") -> None:
        """Write the configuration, with a monitoring address that stays."""
        self.site.configure(rules=rules)
        text = self.site.config_path.read_text()
        text = text.replace(
            '[metrics]\nbind = "127.0.0.1:0"', f'[metrics]\nbind = "127.0.0.1:{self.port}"'
        )
        self.site.config_path.write_text(text.replace('bind = "127.0.0.1:0"', f'bind = "{bind}"'))

    def look(self) -> tuple[int, dict[str, dict[str, str]]]:
        """Return the doctor's exit status and its checks, the last of each name."""
        self._capsys.readouterr()
        status = main(["doctor", "--config", str(self.site.config_path), "--json"])
        checks = json.loads(self._capsys.readouterr().out)["checks"]
        return status, {check["name"]: check for check in checks}

    def reload(self) -> None:
        """Have it reload, and return when that is recorded."""
        before = len(self.site.events())
        self.served.signal(signal.SIGHUP)
        while not {"config.loaded", "config.rejected"} & set(self.site.events()[before:]):
            pass

    def plain(self, path: str) -> str:
        """Return what the monitoring listener says."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE
        ) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.plain("/metrics"), re.MULTILINE)
        assert found is not None
        return float(found[1])


@pytest.fixture
def bed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bedside]:
    made = Bedside(make_site(tmp_path / "site"), capsys)
    with made.served:
        yield made


def test_all_is_well_and_each_part_says_so(bed: Bedside) -> None:
    status, checks = bed.look()
    assert (status, [c for c in checks.values() if c["state"] == "problem"]) == (0, [])
    assert checks["start"]["state"] == "ok"
    assert checks["what serves"]["state"] == "ok"
    assert checks["revocation list"]["state"] == "ok"
    assert bed.metric("host_agent_crl_file_ok") == 1
    ready = json.loads(bed.plain("/ready"))
    assert "crl_file" not in ready
    assert ready["serving"]["crl_numbers"] == [1]


def test_a_list_that_cannot_be_used_is_a_problem_and_a_metric(bed: Bedside) -> None:
    list_path = bed.site.pki.crl_path
    good = list_path.read_bytes()
    list_path.write_bytes(b"no list")
    status, checks = bed.look()
    assert status == 1
    serving = checks["revocation list that serves"]
    assert serving["state"] == "problem"
    assert "list number 1 serves" in serving["sentence"]
    assert checks["revocation list"]["state"] == "problem"
    assert bed.metric("host_agent_crl_file_ok") == 0
    list_path.write_bytes(good)
    assert bed.look()[0] == 0
    assert bed.metric("host_agent_crl_file_ok") == 1


def test_a_newer_list_serves_within_the_look(bed: Bedside) -> None:
    bed.site.pki.revoke(bed.site.client("robot"))
    assert bed.look()[0] == 0
    assert json.loads(bed.plain("/ready"))["serving"]["crl_numbers"] == [2]


def test_an_older_list_is_not_what_serves(bed: Bedside) -> None:
    old = bed.site.pki.crl_path.read_bytes()
    bed.site.pki.revoke(bed.site.client("robot"))
    assert bed.look()[0] == 0
    bed.site.pki.crl_path.write_bytes(old)  # good for who looks at it alone
    status, checks = bed.look()
    assert status == 1
    assert "older than" in checks["revocation list that serves"]["sentence"]


def test_a_changed_configuration_is_not_what_serves_until_the_reload(bed: Bedside) -> None:
    bed.configure(rules=RULES.replace("fetching is free", "fetching is for all"))
    status, checks = bed.look()
    assert (status, checks["what serves"]["state"]) == (1, "problem")
    assert checks["what serves"]["remedy"] == "systemctl reload host-agent.service"
    bed.reload()
    assert bed.look()[0] == 0


def test_a_comment_changes_nothing(bed: Bedside) -> None:
    with bed.site.config_path.open("a") as file:
        file.write("\n# a word\n")
    assert bed.look()[0] == 0


def test_what_needs_a_restart_is_told_as_that(bed: Bedside) -> None:
    bed.configure(bind="127.0.0.1:1")
    bed.reload()
    status, checks = bed.look()
    assert status == 1
    assert "server.bind" in checks["readiness"]["sentence"]
    assert checks["readiness"]["remedy"] == "systemctl restart host-agent.service"
    bed.configure(rules=RULES.replace('"allow"', '"alow"'))
    bed.reload()
    assert json.loads(bed.plain("/ready")).get("restart_needed") is None


def test_a_certificate_that_was_put_there_and_does_not_serve_yet(bed: Bedside) -> None:
    fresh = bed.site.pki.server(file_name="fresh")
    bed.site.server.certificate_path.write_bytes(fresh.certificate_path.read_bytes())
    bed.site.server.key_path.write_bytes(fresh.key_path.read_bytes())
    status, checks = bed.look()
    assert (status, checks["what serves"]["state"]) == (1, "problem")
    assert "server's certificate" in checks["what serves"]["sentence"]
    bed.reload()
    assert bed.look()[0] == 0
