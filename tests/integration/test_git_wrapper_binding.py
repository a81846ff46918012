"""What was approved is what runs: another repository, HEAD, branch or commit by then is refused."""

import ctypes
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import TargetChangedError
from host_agent.operations.catalogue import Operation, Output
from tests.support.git_wrapper import inspect, operation, run, run_wrapper
from tests.support.patience import PATIENCE
from tests.support.repositories import Checkout, make_checkout, run_git

CHANGES: tuple[tuple[str, dict[str, JsonValue]], ...] = (
    ("git.fetch", {"remote": "origin"}),
    ("git.pull", {"remote": "origin", "branch": "main"}),
    ("git.switch", {"branch": "release/1.0"}),
    ("git.reset", {"ref": "release/1.0"}),
)
MOVING = CHANGES[1:]
"""Those that move HEAD; a fetch does not care where HEAD is."""


@pytest.fixture
def app(tmp_path: Path) -> Checkout:
    checkout = make_checkout(tmp_path)
    checkout.push_elsewhere("incoming.txt")
    return checkout


def ask(app: Checkout, name: str, params: dict[str, JsonValue]) -> Operation:
    return operation(name, repository=str(app.path), **params)


def assert_changed(asked: Operation, output: Output) -> None:
    assert output.exit_code == 75, output.stderr
    assert isinstance(asked.spec.failure(asked.params, output), TargetChangedError)


# -- C27: what the approval assumed ----------------------------------------------------------------


@pytest.mark.promise("c27")
@pytest.mark.parametrize(("name", "params"), MOVING)
@pytest.mark.parametrize(
    "move",
    [
        lambda app: app.commit("local.txt"),
        lambda app: app.git("switch", "-q", "-c", "same-commit"),
        lambda app: app.git("switch", "-q", "--detach"),
        lambda app: app.git("reset", "-q", "--hard", "HEAD~1"),
    ],
    ids=["commit", "other branch", "detached", "moved back"],
)
def test_head_that_moved_since_is_refused(
    app: Checkout, name: str, params: dict[str, JsonValue], move: Callable[[Checkout], object]
) -> None:
    asked = ask(app, name, params)
    precondition = inspect(asked).precondition
    move(app)
    before = app.snapshot()
    assert_changed(asked, run(asked, precondition))
    assert app.snapshot() == before


@pytest.mark.promise("c27")
def test_remote_branch_that_moved_since_is_refused(app: Checkout) -> None:
    asked = ask(app, *CHANGES[1])
    precondition = inspect(asked).precondition
    app.push_elsewhere("later.txt")
    before = app.snapshot()
    assert_changed(asked, run(asked, precondition))
    assert app.snapshot() == before
    # Asked again, it is bound to what the remote has now.
    assert run(asked).exit_code == 0
    assert (app.path / "later.txt").exists()


@pytest.mark.promise("c27")
def test_remote_branch_that_was_rewound_is_refused(app: Checkout) -> None:
    asked = ask(app, *CHANGES[1])
    precondition = inspect(asked).precondition
    run_git(app.elsewhere, "push", "-q", "-f", "origin", "main~1:main")
    before = app.snapshot()
    assert_changed(asked, run(asked, precondition))
    assert app.snapshot() == before


@pytest.mark.promise("c27")
@pytest.mark.parametrize(("name", "params"), CHANGES[2:])
@pytest.mark.parametrize("is_gone", [False, True])
def test_local_branch_that_moved_since_is_refused(
    app: Checkout, name: str, params: dict[str, JsonValue], is_gone: bool
) -> None:
    asked = ask(app, name, params)
    precondition = inspect(asked).precondition
    if is_gone:
        app.git("branch", "-q", "-D", "release/1.0")
        app.git("update-ref", "-d", "refs/remotes/origin/release/1.0")
    else:
        app.git("branch", "-q", "-f", "release/1.0", "main")
    before = app.snapshot()
    assert_changed(asked, run(asked, precondition))
    assert app.snapshot() == before


@pytest.mark.promise("c27")
@pytest.mark.parametrize(
    "edit",
    [
        lambda app: app.write("file.txt", "other\n"),
        lambda app: app.write("README", "more\n"),
        lambda app: app.git("add", "file.txt"),
        lambda app: app.git("checkout", "-q", "--", "file.txt"),
        lambda app: (app.path / "file.txt").chmod(0o755),
    ],
    ids=["other content", "other file", "staged", "reverted", "mode"],
)
def test_reset_loses_only_the_changes_that_were_shown(
    app: Checkout, edit: Callable[[Checkout], object]
) -> None:
    app.write("file.txt", "mine\n")
    asked = ask(app, *CHANGES[3])
    precondition = inspect(asked).precondition
    edit(app)
    before = app.snapshot()
    assert_changed(asked, run(asked, precondition))
    assert app.snapshot() == before


# -- C26: another directory at the path ------------------------------------------------------------


def replace_by_copy(app: Checkout) -> None:
    app.path.rename(app.path.with_name("away"))
    shutil.copytree(app.path.with_name("away"), app.path)


def replace_by_symlink(app: Checkout) -> None:
    app.path.rename(app.path.with_name("away"))
    app.path.symlink_to(app.path.with_name("away"))


def replace_git_directory(app: Checkout) -> None:
    (app.path / ".git").rename(app.path.with_name("moved"))
    shutil.copytree(app.path.with_name("moved"), app.path / ".git")


def replace_parent(app: Checkout) -> None:
    """The same tree, under another parent that stands at the old name."""
    parent = app.path.parent
    parent.rename(parent.with_name("old-parent"))
    parent.symlink_to(parent.with_name("old-parent"))


@pytest.fixture
def deep(tmp_path: Path) -> Checkout:
    (tmp_path / "parent").mkdir()
    checkout = make_checkout(tmp_path / "parent")
    checkout.push_elsewhere("incoming.txt")
    return checkout


@pytest.mark.promise("c26")
@pytest.mark.parametrize(("name", "params"), CHANGES)
@pytest.mark.parametrize(
    "swap", [replace_by_copy, replace_by_symlink, replace_git_directory, replace_parent]
)
def test_other_directory_at_the_path_is_refused(
    deep: Checkout,
    name: str,
    params: dict[str, JsonValue],
    swap: Callable[[Checkout], None],
) -> None:
    asked = ask(deep, name, params)
    precondition = inspect(asked).precondition
    swap(deep)
    before = deep.snapshot()
    assert_changed(asked, run(asked, precondition))
    assert deep.snapshot() == before


@pytest.mark.promise("c26")
@pytest.mark.parametrize(("name", "params"), CHANGES)
def test_repository_that_is_gone_is_not_found(
    app: Checkout, name: str, params: dict[str, JsonValue]
) -> None:
    asked = ask(app, name, params)
    precondition = inspect(asked).precondition
    app.path.rename(app.path.with_name("away"))
    assert run(asked, precondition).exit_code == 66


SWAPPER = """
import ctypes, os, random, signal, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
exchange = ctypes.CDLL(None, use_errno=True).renameat2
here, there = (os.fsencode(path) for path in sys.argv[1:])
print("ready", flush=True)
while not stop:
    for _ in range(2):  # always an even number: it ends as it began
        if exchange(-100, here, -100, there, 2):
            sys.exit(os.strerror(ctypes.get_errno()))
        time.sleep(random.random() / 1000)
"""


@contextmanager
def swapping(here: Path, there: Path) -> Iterator[subprocess.Popen[str]]:
    """Exchange two names again and again, at odd times, until the end."""
    with subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(here), str(there)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


@pytest.mark.promise("c26")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="needs renameat2")
@pytest.mark.parametrize("rounds", [300])
def test_symlink_that_is_swapped_in_all_the_time_has_no_effect(tmp_path: Path, rounds: int) -> None:
    """A link to another, hostile repository takes the place of the right one, again and again.

    A reset is the operation that would overwrite what it finds. It does so in the repository it was
    approved for, or it is refused.
    """
    app = make_checkout(tmp_path, "app")
    decoy = make_checkout(tmp_path, "decoy")
    canary = tmp_path / "canary"
    decoy.configure("core.fsmonitor", f"touch {canary}; false")
    decoy.configure("filter.x.clean", f"touch {canary}")
    (decoy.path / ".git" / "info" / "attributes").write_text("* filter=x\n")
    for name in ("README", "file.txt"):
        decoy.write(name, "precious\n")
    before = decoy.snapshot()
    asked = operation("git.reset", repository=str(app.path), ref="main")
    precondition = inspect(asked).precondition
    arguments = asked.spec.invoke(asked.params, precondition).arguments
    link = tmp_path / "link"
    link.symlink_to(decoy.path)
    seen: dict[int, int] = {}
    with swapping(app.path, link) as process:
        for _ in range(rounds):
            code = run_wrapper(*arguments).exit_code
            seen[code] = seen.get(code, 0) + 1
            # Stand still, so that what the round left behind can be looked at.
            process.send_signal(signal.SIGSTOP)
            right = link if app.path.is_symlink() else app.path
            # git takes its lock away by name; it may miss it when the name leads elsewhere then.
            (right / ".git" / "index.lock").unlink(missing_ok=True)
            process.send_signal(signal.SIGCONT)
    assert not canary.exists()
    assert decoy.snapshot() == before
    assert seen.keys() <= {0, 75, 128}, seen
    assert seen.get(75, 0) > 0, seen
    assert not list((app.path / ".git").glob("host-agent-*"))
