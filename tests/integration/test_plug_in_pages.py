"""What the pages for programs that ask print is done as they say, against a simulated host."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from host_agent.client.bundle import Bundle
from tests.support.pages import REPOSITORY
from tests.support.patience import PATIENCE
from tests.support.registries import cached
from tests.support.simulated import Simulated
from tests.support.walkthrough import blocks, in_order, steps

HOW_TO = REPOSITORY / "docs/how-to"
# 2.19 is made for Python 3.11 to 3.13, 2.20 for 3.12 to 3.14.
ANSIBLE_PARTS = (
    "ansible-core==2.20.10" if sys.version_info >= (3, 12) else "ansible-core==2.19.14",
)
Done = subprocess.CompletedProcess[str]


def block(page: str, name: str) -> str:
    """Return the text of the block of that name on a page."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    return next(found.text for found in blocks(text) if found.name == name)


def run(command: list[str], environ: Mapping[str, str], directory: Path) -> Done:
    return subprocess.run(
        command,
        cwd=directory,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def head_of_app(simulated: Simulated, directory: Path) -> str:
    """Return the commit that the host's repository is at."""
    command = ["host-agent", "call", "git.status", "repository=/srv/app", "--json"]
    done = run(command, simulated.environment("watcher"), directory)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["outcome"]["data"]["branch"]["commit"])


# -- a step of a workflow


def bundle_of(simulated: Simulated, name: str) -> str:
    settings = simulated.identities[name]
    return (
        Bundle(
            host="web-1",
            cn=name,
            urls=(settings["url"],),
            certificate=Path(settings["cert"]).read_text(),
            private_key=Path(settings["key"]).read_text(),
            ca=Path(settings["ca"]).read_text(),
        )
        .encode()
        .decode()
    )


def step(simulated: Simulated, directory: Path, name: str = "deployer") -> Done:
    """Run the step as a runner does where `shell: bash` is said."""
    workflow = block("github-actions.md", "pull.yml")
    assert "shell: bash\n" in workflow
    _, _, script = workflow.partition("run: |\n")
    (directory / "step.sh").write_text(textwrap.dedent(script))
    environ = {
        "PATH": simulated.environment()["PATH"],
        "HOME": "/nonexistent",
        "TMPDIR": str(directory),
        "BUNDLE": bundle_of(simulated, name),
        "GITHUB_SHA": "0" * 40,
        "GITHUB_RUN_ID": "7",
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"]
    done = run(command, environ, directory)
    assert [path.name for path in directory.iterdir()] == ["step.sh"]
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    return done


def test_a_step_waits_for_the_yes_and_leaves_no_key_behind(tmp_path: Path) -> None:
    with Simulated("--approve") as simulated:
        before = head_of_app(simulated, tmp_path)
        done = step(simulated, tmp_path)
        assert done.returncode == 0, done.stderr
        after = head_of_app(simulated, tmp_path)
        assert after != before
        again = step(simulated, tmp_path)
        assert again.returncode == 0, again.stderr
        assert "unchanged" in again.stderr
        assert head_of_app(simulated, tmp_path) == after


def test_a_step_that_is_denied_or_refused_is_red_and_nothing_moves(tmp_path: Path) -> None:
    with Simulated("--deny", "freeze until noon") as simulated:
        before = head_of_app(simulated, tmp_path)
        denied = step(simulated, tmp_path)
        assert denied.returncode == 77
        assert "freeze until noon" in denied.stderr
        refused = step(simulated, tmp_path, "watcher")
        assert refused.returncode == 77
        assert "policy:read-only" in refused.stderr
        assert head_of_app(simulated, tmp_path) == before


def test_a_step_that_nobody_decides_about_is_red_too(tmp_path: Path) -> None:
    with Simulated("--expire") as simulated:
        before = head_of_app(simulated, tmp_path)
        assert step(simulated, tmp_path).returncode == 75
        assert head_of_app(simulated, tmp_path) == before


# -- a task


@pytest.fixture(scope="module")
def ansible() -> Path:
    pip = ["venv/bin/python", "-m", "pip", "install", "--quiet", *ANSIBLE_PARTS]
    place = cached("ansible", ANSIBLE_PARTS, [[sys.executable, "-m", "venv", "venv"], pip])
    return place / "venv/bin/python"  # its scripts know the directory that they came into


def played(ansible: Path, simulated: Simulated, directory: Path, name: str, *more: str) -> Done:
    (directory / name).write_text(block("ansible.md", name))
    environ = {
        **simulated.environment(),
        "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
        "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
    }
    command = [str(ansible), "-m", "ansible", "playbook", name, *more]
    return run(command, environ, directory)


def recap(done: Done) -> dict[str, int]:
    (line,) = re.findall(r"^localhost +: (.*)$", done.stdout, re.MULTILINE)
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


@pytest.mark.slow
def test_a_task_is_changed_once_and_a_check_changes_nothing(ansible: Path, tmp_path: Path) -> None:
    with Simulated("--approve") as simulated:
        before = head_of_app(simulated, tmp_path)
        checked = played(ansible, simulated, tmp_path, "pull.yml", "--check")
        assert checked.returncode == 0, checked.stdout
        assert recap(checked)["changed"] == 1
        assert head_of_app(simulated, tmp_path) == before
        done = played(ansible, simulated, tmp_path, "pull.yml")
        assert done.returncode == 0, done.stdout
        assert recap(done)["changed"] == 1
        after = head_of_app(simulated, tmp_path)
        assert after != before
        for more in ((), ("--check",)):
            again = played(ansible, simulated, tmp_path, "pull.yml", *more)
            assert again.returncode == 0, again.stdout
            assert (recap(again)["ok"], recap(again)["changed"]) == (1, 0)
        assert head_of_app(simulated, tmp_path) == after


@pytest.mark.slow
def test_a_task_that_is_denied_fails_and_nothing_moves(ansible: Path, tmp_path: Path) -> None:
    with Simulated("--deny", "freeze until noon") as simulated:
        before = head_of_app(simulated, tmp_path)
        done = played(ansible, simulated, tmp_path, "pull.yml")
        assert done.returncode != 0
        assert (recap(done)["failed"], recap(done)["changed"]) == (1, 0)
        assert '"rc": 77' in done.stdout
        assert "freeze until noon" in done.stdout
        assert head_of_app(simulated, tmp_path) == before


@pytest.mark.slow
def test_a_task_that_reads_is_ok_and_shows_what_it_read(ansible: Path, tmp_path: Path) -> None:
    with Simulated() as simulated:
        done = played(ansible, simulated, tmp_path, "status.yml")
        assert done.returncode == 0, done.stdout
        assert (recap(done)["ok"], recap(done)["changed"]) == (2, 0)
        assert "web.service" in done.stdout


# -- curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_each_line_of_curl_is_answered_as_the_page_says(tmp_path: Path) -> None:
    page = (HOW_TO / "curl.md").read_text(encoding="utf-8")
    consoles = [found for found in blocks(page) if found.language == "console"]
    lines = [one for found in consoles for one in steps(found)]
    assert len(lines) > 6
    script = block("curl.md", "function")
    for at, line in enumerate(lines):
        script += f"{{ {line.command}\n}} >{at}.out 2>{at}.err\necho $? >{at}.status\n"
    with Simulated() as simulated:
        ended = run(["bash", "-c", script], simulated.environment(), tmp_path)
    assert ended.returncode == 0, ended.stderr
    for at, line in enumerate(lines):
        printed = (tmp_path / f"{at}.out").read_text()
        assert in_order(line.output, printed), (line, printed, (tmp_path / f"{at}.err").read_text())
        status = int((tmp_path / f"{at}.status").read_text())
        assert status == (22 if "invalid-parameter" in line.output else 0), line


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_sends_nothing_without_a_certificate(tmp_path: Path) -> None:
    script = f"{block('curl.md', 'function')}agent /whoami"
    with Simulated() as simulated:
        environ = simulated.environment()
        assert run(["bash", "-c", script], environ, tmp_path).returncode == 0
        del environ["HOST_AGENT_CERT"]
        refused = run(["bash", "-c", script], environ, tmp_path)
    assert refused.returncode != 0
    assert "HOST_AGENT_CERT" in refused.stderr
    assert refused.stdout == ""
