"""`wrappers/git` unmodified on real repositories: each operation once for real, and refused."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import HostFailedError, HostNotFoundError, PolicyDeniedError
from host_agent.operations.catalogue import Output, PreviewAccuracy
from tests.support.git_wrapper import WRAPPER, inspect, operation, probe, run, run_wrapper
from tests.support.patience import PATIENCE
from tests.support.repositories import Checkout, make_checkout, run_git


@pytest.fixture
def app(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def data_of(name: str, output: Output, **params: JsonValue) -> Mapping[str, JsonValue]:
    asked = operation(name, **params)
    assert output.exit_code == 0, output.stderr
    assert asked.spec.parse is not None
    data = asked.spec.parse(asked.params, output)
    assert isinstance(data, dict)
    return data


# -- reads -----------------------------------------------------------------------------------------


def test_status_tells_branch_changes_and_untracked_files(app: Checkout) -> None:
    app.write("file.txt", "changed\n")
    app.write('new "file"\t.txt', "new\n")
    app.push_elsewhere()
    before = app.snapshot()
    path = str(app.path)
    output = run(operation("git.status", repository=path))
    data = data_of("git.status", output, repository=path)
    assert data["branch"] == {
        "commit": app.head,
        "name": "main",
        "upstream": "origin/main",
        "ahead": 0,
        "behind": 0,
    }
    assert data["changes"] == [
        {"path": "file.txt", "index": ".", "working_tree": "M", "unmerged": False}
    ]
    assert data["untracked"] == ['new "file"\t.txt']
    assert app.snapshot() == before
    assert output.stderr == ""


def test_status_of_a_conflict_is_parsed(app: Checkout) -> None:
    app.git("switch", "-q", "release/1.0")
    app.commit("file.txt", "theirs\n")
    app.git("switch", "-q", "main")
    app.commit("file.txt", "ours\n")
    with pytest.raises(subprocess.CalledProcessError):
        app.git("merge", "-q", "release/1.0")
    path = str(app.path)
    data = data_of("git.status", run(operation("git.status", repository=path)), repository=path)
    assert {"path": "file.txt", "index": "U", "working_tree": "U", "unmerged": True} in list(
        data["changes"] if isinstance(data["changes"], list) else []
    )
    app.write("README", "changed\n")
    for params in ({}, {"ref": "release/1.0"}):
        output = run(operation("git.diff", repository=path, **params))
        diff = data_of("git.diff", output, repository=path)
        assert isinstance(diff["files"], list)
        assert {"README", "file.txt"} <= {file["path"] for file in diff["files"]}


def test_log_is_bounded_and_newest_first(app: Checkout) -> None:
    path = str(app.path)
    output = run(operation("git.log", repository=path, limit=1))
    data = data_of("git.log", output, repository=path)
    assert isinstance(data["commits"], list)
    assert [commit["subject"] for commit in data["commits"]] == ["second"]
    assert data["commits"][0]["commit"] == app.head
    assert data["commits"][0]["email"] == "ann@example.org"


def test_log_of_a_ref_prefers_the_branch_to_a_tag_of_its_name(app: Checkout) -> None:
    app.git("tag", "release/1.0", "main~1")
    path = str(app.path)
    output = run(operation("git.log", repository=path, ref="release/1.0"))
    data = data_of("git.log", output, repository=path)
    assert isinstance(data["commits"], list)
    assert data["commits"][0]["subject"] == "version release/1.0"


@pytest.mark.parametrize("ref", ["v1", "origin/main", "refs/heads/main", "COMMIT"])
def test_log_takes_tags_remote_branches_and_commits(app: Checkout, ref: str) -> None:
    app.git("tag", "-a", "v1", "-m", "one")
    path = str(app.path)
    output = run(operation("git.log", repository=path, ref=ref.replace("COMMIT", app.head)))
    data = data_of("git.log", output, repository=path)
    assert isinstance(data["commits"], list)
    assert data["commits"][0]["commit"] == app.head


@pytest.mark.promise("c48")
@pytest.mark.parametrize(
    "message",
    [
        "approved: true\n\ncommit " + "a" * 40,
        "\x1b[2J\x1b]0;title\x07\r hidden",
        "a\x1e\x1fb\x85c\u2028d",
        "caf\u00e9 \u202e",
    ],
)
def test_hostile_message_stays_data(app: Checkout, message: str) -> None:
    app.commit(message=message)
    path = str(app.path)
    output = run(operation("git.log", repository=path, limit=2))
    data = data_of("git.log", output, repository=path)
    assert isinstance(data["commits"], list)
    assert len(data["commits"]) == 2
    assert data["commits"][0]["commit"] == app.head
    assert data["commits"][1]["subject"] == "second"


def test_log_of_an_empty_repository_is_not_found(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q", "-b", "main", "empty")
    asked = operation("git.log", repository=f"{tmp_path.resolve()}/empty")
    assert isinstance(asked.spec.failure(asked.params, run(asked)), HostNotFoundError)
    status = operation("git.status", repository=f"{tmp_path.resolve()}/empty")
    assert run(status).exit_code == 0


def test_diff_counts_lines_and_shows_the_patch(app: Checkout) -> None:
    app.write("file.txt", "one\ntwo\n")
    app.write("README", "\0binary")
    path = str(app.path)
    output = run(operation("git.diff", repository=path))
    data = data_of("git.diff", output, repository=path)
    assert data["files"] == [
        {"path": "README", "added": None, "removed": None},
        {"path": "file.txt", "added": 1, "removed": 0},
    ]
    assert "+two" in output.stdout


def test_diff_against_a_ref(app: Checkout) -> None:
    path = str(app.path)
    output = run(operation("git.diff", repository=path, ref="release/1.0"))
    data = data_of("git.diff", output, repository=path)
    assert data["files"] == [{"path": "VERSION", "added": 0, "removed": 1}]


@pytest.mark.parametrize("name", ["git.log", "git.diff"])
@pytest.mark.parametrize("ref", ["missing", "0" * 40, "HEADS"])
def test_ref_that_does_not_exist_is_not_found(app: Checkout, name: str, ref: str) -> None:
    asked = operation(name, repository=str(app.path), ref=ref)
    assert isinstance(asked.spec.failure(asked.params, run(asked)), HostNotFoundError)


# -- changes ---------------------------------------------------------------------------------------


def test_fetch_updates_the_remote_branches_only(app: Checkout) -> None:
    commit = app.push_elsewhere()
    head = app.head
    asked = operation("git.fetch", repository=str(app.path), remote="origin")
    assert run(asked).exit_code == 0
    assert app.git("rev-parse", "origin/main") == commit
    assert app.head == head
    assert not list((app.path / ".git").glob("host-agent*"))


@pytest.mark.parametrize("key", ["fetch", "remote.origin"])
def test_a_fetch_prunes_no_tags(app: Checkout, key: str) -> None:
    app.git("tag", "mine")
    app.configure(f"{key}.prune", "true")
    app.configure(f"{key}.pruneTags", "true")
    app.git("push", "-q", "origin", ":release/1.0")  # a branch that the remote has no more
    app.git("update-ref", "refs/remotes/origin/release/1.0", "HEAD")
    asked = operation("git.fetch", repository=str(app.path), remote="origin")
    assert run(asked).exit_code == 0
    assert app.git("tag") == "mine"
    assert app.git("branch", "-r") == "  origin/main"
    pull = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    assert run(pull).exit_code == 0
    assert app.git("tag") == "mine"


def test_pull_fast_forwards_to_the_commit_of_the_remote(app: Checkout) -> None:
    commit = app.push_elsewhere("new.txt")
    asked = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    found = inspect(asked)
    assert found.precondition["target"] == commit
    assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
    assert not probe(asked, found.precondition)
    output = run(asked, found.precondition)
    assert output.exit_code == 0, output.stderr
    assert app.head == commit
    assert app.branch == "main"
    assert app.git("rev-parse", "origin/main") == commit
    assert app.git("status", "--porcelain") == ""
    assert probe(asked, found.precondition)
    assert (app.path / "new.txt").stat().st_mode & 0o777 == 0o644
    assert not list((app.path / ".git").glob("host-agent*"))


def test_pull_previews_the_commits_that_are_here(app: Checkout) -> None:
    app.push_elsewhere(message="one")
    app.push_elsewhere("b.txt", message="two")
    app.git("fetch", "-q")
    found = inspect(operation("git.pull", repository=str(app.path), remote="origin", branch="main"))
    assert found.preview.accuracy is PreviewAccuracy.EXACT
    assert [line.split()[-1] for line in found.preview.details] == ["two", "one"]


def test_pull_of_nothing_new_succeeds_and_moves_nothing(app: Checkout) -> None:
    asked = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    found = inspect(asked)
    assert found.preview.summary.startswith("Nothing")
    before = app.head
    assert run(asked, found.precondition).exit_code == 0
    assert app.head == before


def test_pull_carries_local_changes_but_never_overwrites_them(app: Checkout) -> None:
    app.push_elsewhere("file.txt", "theirs\n")
    app.write("file.txt", "mine\n")
    asked = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    found = inspect(asked)
    assert found.precondition["dirty"] is True
    head = app.head
    output = run(asked, found.precondition)
    assert isinstance(asked.spec.failure(asked.params, output), HostFailedError)
    assert app.head == head
    assert (app.path / "file.txt").read_text() == "mine\n"
    assert not (app.path / ".git" / "index.lock").exists()


def test_pull_never_overwrites_an_ignored_file(app: Checkout) -> None:
    app.push_elsewhere("local.conf", "theirs\n")
    (app.path / ".git" / "info" / "exclude").write_text("local.conf\n")
    app.write("local.conf", "mine\n")
    asked = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    assert run(asked).exit_code == 1
    assert (app.path / "local.conf").read_text() == "mine\n"


def test_pull_that_is_no_fast_forward_is_refused_when_asked(app: Checkout) -> None:
    app.push_elsewhere()
    app.git("fetch", "-q")
    app.commit("local.txt")
    before = app.snapshot()
    with pytest.raises(HostFailedError, match="fast-forward"):
        inspect(operation("git.pull", repository=str(app.path), remote="origin", branch="main"))
    assert app.snapshot() == before


def test_pull_into_another_branch_is_refused_when_asked(app: Checkout) -> None:
    app.git("switch", "-q", "release/1.0")
    before = app.snapshot()
    with pytest.raises(HostFailedError, match="another branch"):
        inspect(operation("git.pull", repository=str(app.path), remote="origin", branch="main"))
    assert app.snapshot() == before


def test_switch_checks_out_the_branch(app: Checkout) -> None:
    asked = operation("git.switch", repository=str(app.path), branch="release/1.0")
    found = inspect(asked)
    assert found.preview.details == ("A\tVERSION",)
    assert run(asked, found.precondition).exit_code == 0
    assert app.branch == "release/1.0"
    assert (app.path / "VERSION").exists()
    assert probe(asked, found.precondition)


def test_switch_from_a_detached_head(app: Checkout) -> None:
    app.git("switch", "-q", "--detach", "main~1")
    asked = operation("git.switch", repository=str(app.path), branch="main")
    found = inspect(asked)
    assert found.precondition["head_ref"] == "detached"
    assert run(asked, found.precondition).exit_code == 0
    assert app.branch == "main"


@pytest.mark.parametrize("branch", ["missing", "origin/main", "README", "v1"])
def test_switch_takes_local_branches_only(app: Checkout, branch: str) -> None:
    app.git("tag", "v1")
    app.git("push", "-q", "origin", "main:missing")
    app.git("fetch", "-q")
    before = app.snapshot()
    with pytest.raises(HostNotFoundError):
        inspect(operation("git.switch", repository=str(app.path), branch=branch))
    assert app.snapshot() == before


def test_switch_never_discards_local_changes(app: Checkout) -> None:
    app.write("VERSION", "mine\n")
    asked = operation("git.switch", repository=str(app.path), branch="release/1.0")
    assert run(asked).exit_code == 1
    assert (app.path / "VERSION").read_text() == "mine\n"
    assert app.branch == "main"


def test_reset_sets_branch_and_files_and_tells_before_what_is_lost(app: Checkout) -> None:
    target = app.git("rev-parse", "origin/main")
    app.commit("file.txt", "two\n", "local work")
    app.write("file.txt", "dirty\n")
    app.write("untracked", "stays\n")
    asked = operation("git.reset", repository=str(app.path), ref="origin/main")
    found = inspect(asked)
    assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
    assert ".M file.txt" in found.preview.details
    assert any(line.endswith("local work") for line in found.preview.details)
    output = run(asked, found.precondition)
    assert output.exit_code == 0, output.stderr
    assert app.head == target
    assert app.branch == "main"
    assert (app.path / "file.txt").read_text() == "one\n"
    assert (app.path / "untracked").exists()
    assert probe(asked, found.precondition)


@pytest.mark.parametrize("ref", ["missing", "f" * 40])
def test_reset_to_nothing_is_not_found(app: Checkout, ref: str) -> None:
    before = app.snapshot()
    with pytest.raises(HostNotFoundError):
        inspect(operation("git.reset", repository=str(app.path), ref=ref))
    assert app.snapshot() == before


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("git.fetch", {"remote": "upstream"}),
        ("git.pull", {"remote": "upstream", "branch": "main"}),
        ("git.pull", {"remote": "origin", "branch": "missing"}),
    ],
)
def test_remote_or_branch_that_does_not_exist_is_not_found(
    app: Checkout, name: str, params: dict[str, JsonValue]
) -> None:
    # A directory of the remote's name must not be taken for it.
    run_git(app.path, "init", "-q", "--bare", "upstream")
    before = app.snapshot()
    with pytest.raises(HostNotFoundError):
        inspect(operation(name, repository=str(app.path), **params))
    assert app.snapshot() == before


def test_remote_that_cannot_be_reached_is_a_failure(app: Checkout) -> None:
    app.origin.rename(app.origin.with_name("gone.git"))
    with pytest.raises(HostFailedError):
        inspect(operation("git.pull", repository=str(app.path), remote="origin", branch="main"))


# -- places ----------------------------------------------------------------------------------------


def test_place_without_a_repository_is_not_found(tmp_path: Path) -> None:
    place = tmp_path.resolve()
    (place / "file").write_text("")
    (place / "empty" / ".git").mkdir(parents=True)
    for path in ("missing", "file", "empty", "."):
        name = str(place / path)
        assert run_wrapper("status", name).exit_code == 66, name


@pytest.mark.promise("c24")
def test_bare_repository_is_not_found(app: Checkout) -> None:
    assert run_wrapper("status", str(app.origin)).exit_code == 66


@pytest.mark.promise("c24")
def test_path_through_a_symlink_is_denied(app: Checkout, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(app.path)
    (tmp_path / "parent").symlink_to(app.path.parent)
    for path in (tmp_path / "link", tmp_path / "parent" / "app"):
        asked = operation("git.status", repository=str(path))
        assert isinstance(asked.spec.failure(asked.params, run(asked)), PolicyDeniedError)


# -- arguments and environment ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["status"],
        ["status", "PATH", "extra"],
        ["log", "PATH"],
        ["log", "PATH", "0"],
        ["log", "PATH", "1001"],
        ["log", "PATH", "01"],
        ["log", "PATH", "5\n"],
        ["gc", "PATH"],
        ["config", "PATH"],
        ["--exec-path", "PATH"],
        ["status/0", "PATH"],
        ["pull", "PATH", "1:2:3,1:2:3", "main", "origin", "main", "main"],
        ["reset", "PATH", "1:2,3:4", "a" * 40, "detached", "none", "main", "a" * 40],
    ],
)
def test_other_argument_lists_are_refused(app: Checkout, arguments: list[str]) -> None:
    before = app.snapshot()
    given = [argument.replace("PATH", str(app.path)) for argument in arguments]
    assert run_wrapper(*given).exit_code == 64
    assert app.snapshot() == before


@pytest.mark.promise("c20", "c21")
@pytest.mark.parametrize(
    "value",
    [
        "a[$(touch CANARY)]",
        "$(touch CANARY)",
        "`touch CANARY`",
        "x;touch CANARY",
        "x\ntouch CANARY",
        "--upload-pack=touch CANARY",
        "--output=CANARY",
        "-oProxyCommand=touch CANARY",
        "*",
        "~",
        "{a,b}",
        "",
        "\u202e",
    ],
)
def test_wrapper_takes_nothing_that_a_shell_or_git_would_run(
    app: Checkout, tmp_path: Path, value: str
) -> None:
    canary = tmp_path / "canary"
    hostile = value.replace("CANARY", str(canary))
    path, commit, hold = str(app.path), app.head, "1:2:3,1:2:3"
    before = app.snapshot()
    for arguments in (
        (hostile, path),
        ("status", hostile),
        ("log", path, hostile),
        ("log", path, "1", hostile),
        ("diff", path, hostile),
        ("inspect-fetch", path, hostile),
        ("inspect-pull", path, hostile, "main"),
        ("inspect-pull", path, "origin", hostile),
        ("inspect-switch", path, hostile),
        ("inspect-reset", path, hostile),
        ("fetch", path, hostile, "origin"),
        ("pull", path, hold, hostile, "origin", "main", commit),
        ("pull", path, hold, commit, "origin", "main", hostile),
        ("switch", path, hold, commit, hostile, "main", commit),
        ("reset", path, hold, commit, "refs/heads/main", hostile, "main", commit),
    ):
        assert run_wrapper(*arguments).exit_code == 64, arguments
    assert not canary.exists()
    assert app.snapshot() == before


@pytest.mark.promise("c34")
def test_environment_reaches_neither_the_wrapper_nor_git(app: Checkout, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    (tmp_path / "git").symlink_to(program)
    (tmp_path / ".gitconfig").write_text(f"[core]\n\tfsmonitor = {program}\n")
    app.write("file.txt", "changed\n")
    environment = {
        "BASH_ENV": str(program),
        "ENV": str(program),
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "IFS": "a",
        "CDPATH": str(tmp_path),
        "POSIXLY_CORRECT": "1",
        "BASH_COMPAT": "3.1",
        "FUNCNEST": "1",
        "GIT_DIR": str(app.origin),
        "GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(program),
        "GIT_EXTERNAL_DIFF": str(program),
        "GIT_EXEC_PATH": str(tmp_path),
        "GIT_SSH_COMMAND": str(program),
        "GIT_TRACE": str(canary),
        "GIT_PAGER": str(program),
        "LD_LIBRARY_PATH": str(tmp_path),
        "verb": "gc",
        "remote": "x",
        "ref": "missing",
        "hold": "x",
        "fence": "config",
        "url": "x",
    }
    for verb in ("status", "diff"):
        output = run_wrapper(verb, str(app.path), environment=environment)
        assert output.exit_code == 0, output.stderr
        assert "file.txt" in output.stdout
    assert (app.path / ".git" / "config").exists()
    assert not canary.exists()


@pytest.mark.promise("c34")
def test_exported_function_is_not_run(app: Checkout, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    environment = {"BASH_FUNC_printf%%": f"() {{ touch {canary}; }}"}
    output = run_wrapper("status", str(app.path), environment=environment)
    assert output.exit_code == 64
    assert not canary.exists()


@pytest.mark.promise("c36")
def test_termination_ends_git_and_takes_its_lock_away(app: Checkout, tmp_path: Path) -> None:
    """SIGTERM while git waits for the remote: the child is gone with the wrapper."""
    asked = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    app.push_elsewhere()
    found = inspect(asked)
    # A remote that never answers: its HEAD is a FIFO, which upload-pack opens and waits for.
    (app.origin / "HEAD").unlink()
    os.mkfifo(app.origin / "HEAD")
    arguments = asked.spec.invoke(asked.params, found.precondition).arguments
    process = subprocess.Popen(
        [str(WRAPPER), *arguments],
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    # The pipe ends when the last process that holds it has ended.
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert app.branch == "main"
    assert not (app.path / ".git" / "index.lock").exists()
