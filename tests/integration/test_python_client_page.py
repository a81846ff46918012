"""The programs of the page of the Python client run as they stand, against a simulated host."""

import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from host_agent.client import (
    Client,
    ProblemError,
    Ran,
    Recovery,
    RecoveryKind,
    RequestView,
)
from host_agent.client.connection import CONNECT_SECONDS
from host_agent.client.exchange import (
    ATTEMPTS,
    BACKOFF_SECONDS,
    LONGEST_POLL_SECONDS,
    RETRY_AFTER_LIMIT_SECONDS,
)
from host_agent.client.transport import (
    MAX_RESPONSE_BYTES,
    RUN_TIMEOUT_SECONDS,
    TIMEOUT_SECONDS,
)
from tests.support import answers as bodies
from tests.support.pages import REPOSITORY
from tests.support.patience import PATIENCE
from tests.support.simulated import Simulated
from tests.support.walkthrough import blocks

PAGE = (REPOSITORY / "docs/reference/python-client.md").read_text(encoding="utf-8")
PULL = {"repository": "/srv/app", "remote": "origin", "branch": "main"}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a directory with every program of the page."""
    for block in blocks(PAGE):
        if block.language == "python":
            (tmp_path / block.name).write_text(block.text)
    return tmp_path


def printed(programs: Path, name: str, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, name],
        cwd=programs,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def client_of(simulated: Simulated, name: str) -> Client:
    settings = simulated.identities[name]
    return Client(
        url=settings["url"],
        cert=Path(settings["cert"]),
        key=Path(settings["key"]),
        ca=Path(settings["ca"]),
    )


def test_an_ask_is_approved_and_the_next_one_has_nothing_to_do(programs: Path) -> None:
    with Simulated("--approve") as simulated:
        assert printed(programs, "ask.py", simulated.environment()) == "done\n"
        again = printed(programs, "ask.py", simulated.environment())
        assert again == "nothing to do; nobody was asked\n"


def test_an_ask_that_is_denied_says_so_and_nothing_has_moved(programs: Path) -> None:
    with Simulated("--deny", "not today") as simulated, client_of(simulated, "watcher") as watcher:
        before = watcher.submit("git.log", {"repository": "/srv/app", "ref": "main"})
        assert printed(programs, "ask.py", simulated.environment()).startswith("denied ")
        after = watcher.submit("git.log", {"repository": "/srv/app", "ref": "main"})
        assert isinstance(before, Ran)
        assert isinstance(after, Ran)
        assert before.outcome.data == after.outcome.data is not None


@pytest.fixture(scope="module")
def waiting() -> Iterator[Simulated]:
    """Return a simulation in which nobody answers."""
    with Simulated() as simulated:
        yield simulated


def test_what_may_be_asked_for_is_shown_and_tried_without_a_trace(
    programs: Path, waiting: Simulated
) -> None:
    told = printed(programs, "look.py", waiting.environment()).splitlines()
    assert told[0] == "as deployer"
    (pull,) = (line for line in told if line.startswith("ask git.pull {"))
    assert "'enum': ['/srv/app', '/srv/site']" in pull
    assert told[-2].endswith("tools for a model")
    assert told[-1].startswith("ask - ")
    with client_of(waiting, "deployer") as client:
        assert int(told[-2].split()[0]) == len(client.operations())
        assert client.requests().requests == ()


def test_what_waits_is_found_and_withdrawn_by_another_program(
    programs: Path, waiting: Simulated
) -> None:
    with client_of(waiting, "deployer") as client:
        client.submit("git.pull", PULL, reason="a test")
        told = printed(programs, "later.py", waiting.environment())
        assert told == "pending git.pull /srv/app\ncancelled\n"
        assert [one.state for one in client.requests().requests] == ["cancelled"]
        assert printed(programs, "later.py", waiting.environment()) == ""


def test_what_happens_is_told_while_it_happens(programs: Path, waiting: Simulated) -> None:
    with subprocess.Popen(
        [sys.executable, "watch.py"],
        cwd=programs,
        env=waiting.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            with client_of(waiting, "deployer") as client:
                client.submit("systemd.status", {"unit": "web.service"})
            sequence, name, operation = process.stdout.readline().split()
            assert sequence.isdecimal()
            assert name.startswith("operation.")
            assert operation == "systemd.status"
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE)
        finally:
            process.kill()


class Scripted:
    """A client that refuses with each of `recoveries` in turn, then has done it."""

    def __init__(self, *recoveries: Recovery | None) -> None:
        self._recoveries = list(recoveries)
        self.asked = 0
        self.followed: list[str] = []

    def submit(self, *_: object, **__: object) -> Ran:
        self.asked += 1
        if self._recoveries:
            raise ProblemError(
                code="x:y", status=403, detail="No.", recovery=self._recoveries.pop(0)
            )
        return Ran.parse(bodies.ran())

    def follow(self, request_id: str, timeout: float) -> None:
        assert timeout > 0
        self.followed.append(request_id)


def ask(programs: Path, client: object, operation: str, params: Mapping[str, str]) -> object:
    return runpy.run_path(str(programs / "recover.py"))["ask"](client, operation, params, "a test")


def test_a_refusal_that_waiting_mends_is_waited_for(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr("time.sleep", paused.append)
    kinds = RecoveryKind
    client = Scripted(
        Recovery(kind=kinds.ASK_AGAIN_AFTER, seconds=7),
        Recovery(kind=kinds.ASK_AGAIN_AFTER, seconds=0),
        Recovery(kind=kinds.WAIT_FOR, request_id="aa"),
        Recovery(kind=kinds.WAIT_FOR, equivalent_to="bb"),
    )
    assert isinstance(ask(programs, client, "git.pull", PULL), Ran)
    assert (client.asked, paused, client.followed) == (5, [7, 1], ["aa", "bb"])


@pytest.mark.parametrize(
    "recovery",
    [
        *(Recovery(kind=kind) for kind in RecoveryKind if kind is not RecoveryKind.WAIT_FOR),
        Recovery(kind=RecoveryKind.ASK_AGAIN_AFTER, seconds=86_400),
        None,
    ],
)
def test_any_other_refusal_is_asked_once(programs: Path, recovery: Recovery | None) -> None:
    client = Scripted(recovery)
    with pytest.raises(ProblemError):
        ask(programs, client, "git.pull", PULL)
    assert (client.asked, client.followed) == (1, [])


def test_the_same_program_meets_a_real_refusal_and_a_real_denial(programs: Path) -> None:
    with (
        Simulated("--deny", "not today") as simulated,
        client_of(simulated, "deployer") as client,
    ):
        with pytest.raises(ProblemError) as caught:
            ask(programs, client, "zfs.destroy", {"dataset": "no such form"})
        assert caught.value.recovery is not None
        assert caught.value.recovery.faults[0].pointer == "/params/dataset"
        denied = ask(programs, client, "git.pull", PULL)
        assert isinstance(denied, RequestView)
        assert denied.state == "denied"


def test_the_numbers_are_the_librarys() -> None:
    text = " ".join(PAGE.split())
    first, second = BACKOFF_SECONDS
    assert f"{ATTEMPTS} attempts in all, after {first} and {second} seconds" in text
    assert f"at most {RETRY_AFTER_LIMIT_SECONDS:.0f} seconds" in text
    assert f"0 to {LONGEST_POLL_SECONDS} whole seconds" in text
    assert f"`timeout_seconds` | {TIMEOUT_SECONDS:.0f} s" in text
    assert f"`run_timeout_seconds` | {RUN_TIMEOUT_SECONDS:.0f} s" in text
    assert f"`max_response_bytes` | {MAX_RESPONSE_BYTES // 1024**2} MiB" in text
    assert f"Connecting takes at most {CONNECT_SECONDS:.0f} seconds" in text


def test_every_method_of_the_client_is_on_the_page() -> None:
    methods = [name for name in vars(Client) if not name.startswith("_")]
    assert len(methods) > 10
    missing = [name for name in methods if f"`{name}" not in PAGE and f".{name}(" not in PAGE]
    assert missing == []
