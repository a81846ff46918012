"""How `serve` ends and reloads as a process: what it says, with which priority and status."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from host_agent.agent.reload import SOCKET_NAME
from tests.support.patience import PATIENCE
from tests.support.site import ROOT, Served, Site, make_site

BROKEN = '[[rules]]\nname = "odd"\noperations = ["git.*"]\nverdict = "alow"\n'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


def run(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def serve(site: Site, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "host_agent", "serve", "--config", str(site.config_path), *more)
    return run(*command, environment=environment)


# -- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--check",)], ids=["start", "check"])
def test_a_package_of_another_version_is_named_with_its_traceback(
    site: Site, tmp_path: Path, how: tuple[str, ...]
) -> None:
    (tmp_path / "prometheus_client").mkdir()
    (tmp_path / "prometheus_client" / "__init__.py").write_text("# nothing of what is asked for\n")

    done = serve(site, *how, PYTHONPATH=str(tmp_path))

    assert done.returncode == 78  # starting again does not mend it
    line = json.loads(done.stderr)
    assert line["level"] == "critical"
    assert "cannot import name" in line["message"]
    assert "prometheus_client" in line["message"]
    assert "metrics.py:" in line["exception"]
    assert not site.store_path.exists()


def test_what_is_imported_late_is_looked_at_too(site: Site, tmp_path: Path) -> None:
    (tmp_path / "httpcore.py").write_text("raise ImportError('no such thing: x9')\n")

    done = serve(site, "--check", PYTHONPATH=str(tmp_path))

    assert (done.returncode, "x9" in done.stderr) == (78, True)


def test_the_check_opens_nothing_and_says_nothing_where_all_is_well(site: Site) -> None:
    done = serve(site, "--check")
    levels = {json.loads(line)["level"] for line in done.stderr.splitlines()}
    assert (done.returncode, done.stdout, levels - {"warning"}) == (0, "", set())
    assert not site.store_path.exists()


def test_the_check_finds_what_a_start_would(site: Site) -> None:
    site.pki.crl_path.write_bytes(b"no list")
    for done in (serve(site), serve(site, "--check")):
        assert done.returncode == 78
        assert "server.crl: " in done.stderr


def test_what_the_agent_imports_is_what_the_check_imports(site: Site) -> None:
    """Nothing that is missing shows only once the agent serves and is asked."""
    program = """
import asyncio, sys, json
from pathlib import Path
from importlib import import_module
import host_agent.cli.commands.serve
agent = import_module("host_agent.agent.agent")
import_module("host_agent.agent.prepared").import_everything()
before = {name.partition(".")[0] for name in sys.modules}
async def work():
    async with agent.Agent(Path(sys.argv[1])) as served:
        await served.ready()
        await served.scrape()
        await served.reload()
        await served.sudoers()
asyncio.run(work())
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))))
"""
    done = run("-c", program, site.config_path)
    assert json.loads(done.stdout) == [], done.stderr


# -- an end that nobody expected -------------------------------------------------------------------


def test_an_unexpected_end_is_in_the_log_without_the_text_of_the_exception(site: Site) -> None:
    program = """
import sys
from host_agent.agent import agent
from host_agent.__main__ import main
def broken(*_args, **_named):
    raise ValueError("hunter2 of a caller")
agent.prepare = broken
sys.exit(main(["serve", "--config", sys.argv[1]]))
"""
    done = run("-c", program, site.config_path)
    assert done.returncode == 70
    line = json.loads(done.stderr)
    assert line["message"] == "the agent ends: a defect: ValueError"
    assert "agent.py:" in line["exception"]
    assert "hunter2" not in done.stderr


def test_lines_for_the_journal_carry_their_priority_and_others_none(site: Site) -> None:
    site.configure(rules=BROKEN)
    for is_journal in (True, False):
        with (site.directory / "journal").open("w+") as log:
            status = os.fstat(log.fileno())
            stream = f"{status.st_dev}:{status.st_ino if is_journal else 0}"
            subprocess.run(
                [sys.executable, "-m", "host_agent", "serve", "--config", site.config_path],
                stderr=log,
                env={**os.environ, "JOURNAL_STREAM": stream},
                check=False,
                cwd=ROOT,
            )
            log.seek(0)
            lines = log.read().splitlines()
        begin = "<3>host-agent: " if is_journal else "host-agent: "
        assert lines
        assert all(line.startswith(begin) for line in lines)


# -- reloads and their verdicts --------------------------------------------------------------------


@contextlib.contextmanager
def under_a_manager(site: Site) -> Iterator[tuple[Served, Path, socket.socket]]:
    """Yield an agent with a runtime directory and a service manager, which is the test."""
    directory = site.directory / "run"
    directory.mkdir(mode=0o700)
    name = site.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(name))
        manager.settimeout(PATIENCE)
        environment = {"RUNTIME_DIRECTORY": str(directory), "NOTIFY_SOCKET": str(name)}
        with Served(site, environment=environment) as served:
            yield served, directory, manager


def reload(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "host_agent", "reload", "--directory", directory, *more)


def told(manager: socket.socket) -> dict[str, str]:
    lines = manager.recv(4096).decode().split("\n")
    return dict(line.partition("=")[::2] for line in lines)


def test_a_reload_is_answered_and_shown(site: Site) -> None:
    with under_a_manager(site) as (_, directory, manager):
        first = told(manager)
        assert first["READY"] == "1"
        serves = first["STATUS"]
        assert serves.startswith("serves: ")

        site.configure(rules=BROKEN)
        done = reload(directory)
        assert done.returncode == 78
        assert "rules[0]" in done.stderr
        assert "verdict: must be" in done.stderr
        assert f"The old configuration goes on, {serves}" in done.stderr
        assert "RELOADING" in told(manager)
        status = told(manager)
        assert status["READY"] == "1"
        assert status["STATUS"].startswith(f"{serves}; last reload rejected: rules[0]")

        site.configure()
        done = reload(directory)
        assert (done.returncode, done.stdout) == (0, f"The new configuration {serves}\n")
        assert "RELOADING" in told(manager)
        assert told(manager)["STATUS"] == serves


def test_what_needs_a_restart_says_so(site: Site) -> None:
    with under_a_manager(site) as (_, directory, _manager):
        text = site.config_path.read_text()
        site.config_path.write_text(text.replace('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:1"', 1))
        done = reload(directory)
        assert done.returncode == 78
        assert "server.bind" in done.stderr
        assert "systemctl restart host-agent.service" in done.stderr


def test_reloads_at_once_are_each_answered_for_themselves(site: Site) -> None:
    with under_a_manager(site) as (served, directory, _), ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: reload(directory), range(6)))
        assert [one.returncode for one in done] == [0] * 6
        served.signal(signal.SIGHUP)
        site.configure(rules=BROKEN)
        done = list(pool.map(lambda _: reload(directory), range(3)))
        assert [one.returncode for one in done] == [78] * 3


def test_an_agent_that_is_gone_or_hangs_is_no_success(site: Site) -> None:
    with under_a_manager(site) as (served, directory, _):
        served.signal(signal.SIGSTOP)
        hanging = reload(directory, "--timeout", "1")
        assert (hanging.returncode, "did not say within 1 s" in hanging.stderr) == (69, True)
        served.signal(signal.SIGCONT)
        assert reload(directory).returncode == 0
        served.kill()
        assert (directory / SOCKET_NAME).exists()  # left behind
        gone = reload(directory)
        assert (gone.returncode, "Is it running?" in gone.stderr) == (69, True)
        served.start()  # and in nobody's way
        assert reload(directory).returncode == 0
    assert not (directory / SOCKET_NAME).exists()
    assert reload(directory).returncode == 69


@pytest.fixture
def entered() -> Iterator[Site]:
    """A site that others may enter: pytest's own are closed again by every other run of it."""
    with tempfile.TemporaryDirectory(prefix="host-agent-") as name:
        site = make_site(Path(name) / "site")
        for folder in (Path(name), site.directory):
            folder.chmod(0o711)
        yield site


def test_nobody_else_can_ask_for_a_reload(entered: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    site = entered
    with under_a_manager(site) as (_, directory, _manager):
        path = directory / SOCKET_NAME
        assert path.stat().st_mode & 0o777 == 0o600
        before = len(site.events())
        path.chmod(0o666)  # even so
        directory.chmod(0o711)
        program = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(sys.argv[1])
    try:
        asking.sendall(b"reload\\n")
        print(asking.recv(100))
    except ConnectionError:
        print(b"")
"""
        done = run("-c", program, path)
        assert done.stdout == "b''\n", done.stderr
        assert len(site.events()) == before
        assert reload(directory).returncode == 0
        assert len(site.events()) == before + 1


@pytest.mark.parametrize(
    "question", [b"", b"stop\n", b"reload", b"reload now\n", b"\xff" * 100_000]
)
def test_another_question_is_not_answered(site: Site, question: bytes) -> None:
    with under_a_manager(site) as (_, directory, _manager):
        before = site.events()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(directory / SOCKET_NAME))
            with contextlib.suppress(OSError):
                asking.sendall(question)
            asking.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert asking.recv(100) == b""
        assert site.events() == before
        assert reload(directory).returncode == 0


def test_a_list_that_is_not_used_shows_in_the_status(site: Site) -> None:
    with under_a_manager(site) as (_, _directory, manager):
        assert told(manager)["READY"] == "1"
        good = site.pki.crl_path.read_bytes()
        site.pki.crl_path.write_bytes(b"no list")
        assert "it is not a revocation list" in told(manager)["STATUS"]
        site.pki.crl_path.write_bytes(good)
        while "not a revocation list" in told(manager)["STATUS"]:
            pass
