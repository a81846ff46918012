"""`.git` makes git open nothing outside the working tree, and no filter is dropped in silence.

Each attack shows first that git alone, with the flags of the wrapper's kind, would do it.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import PolicyDeniedError
from tests.support.git_wrapper import WRAPPER, inspect, is_root, operation, run, run_wrapper
from tests.support.repositories import ENVIRONMENT, Checkout, make_checkout, run_git

SECRET = "machine git.example.org login ann password Tr0ub4dor"
READS = (("status",), ("diff",), ("diff", "release/1.0"), ("state",), ("log", "5"))
CHANGES: tuple[tuple[str, dict[str, JsonValue]], ...] = (
    ("git.fetch", {"remote": "origin"}),
    ("git.pull", {"remote": "origin", "branch": "main"}),
    ("git.switch", {"branch": "release/1.0"}),
    ("git.reset", {"ref": "main"}),
)


@pytest.fixture
def app(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def read(app: Checkout, verb: tuple[str, ...]) -> tuple[int, str]:
    output = run_wrapper(verb[0], str(app.path), *verb[1:])
    return output.exit_code, output.stdout + output.stderr


def change(app: Checkout, name: str, params: dict[str, JsonValue]) -> tuple[int, str]:
    output = run(operation(name, repository=str(app.path), **params))
    return output.exit_code, output.stdout + output.stderr


def assert_works(app: Checkout) -> None:
    """Say that every verb is carried out: the twin of each refusal."""
    for verb in READS:
        code, said = read(app, verb)
        assert code == 0, (verb, said)
    app.push_elsewhere("incoming.txt")
    for name, params in CHANGES:
        code, said = change(app, name, params)
        assert code == 0, (name, said)


def assert_refused(app: Checkout, words: str) -> None:
    """Say that no verb does anything, each refuses with `words`, and nothing moved."""
    before = app.snapshot()
    for verb in READS:
        code, said = read(app, verb)
        assert code == 78, (verb, said)
        assert words in said
    for name, params in CHANGES:
        with pytest.raises(PolicyDeniedError, match=words):
            inspect(operation(name, repository=str(app.path), **params))
    assert app.snapshot() == before


# -- the index -------------------------------------------------------------------------------------


def plant(app: Checkout, name: bytes) -> None:
    """Put a name into the index that git would never write: as a stranger's tool does."""
    blob = app.git("hash-object", "-w", "README")
    stand_in = b"#" * len(name)
    app.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{stand_in.decode()}")
    index = app.path / ".git" / "index"
    content = index.read_bytes()
    listed, planted = (len(name).to_bytes(2) + one + b"\0" for one in (stand_in, name))
    assert content.count(listed) == 1
    content = content.replace(listed, planted)[:-20]
    index.write_bytes(content + hashlib.sha1(content, usedforsecurity=False).digest())


def test_an_index_that_names_a_file_elsewhere_is_not_read(app: Checkout) -> None:
    (app.path.parent / "netrc").write_text(f"{SECRET}\n")
    plant(app, b"../netrc")
    assert SECRET in app.git("diff", "--no-ext-diff", "--no-textconv")  # git alone does
    assert_refused(app, "its .git/index names a file outside of the working tree")


@pytest.mark.parametrize(
    "name",
    [
        *(b"/etc/hostname", b"a/../../netrc", b"..", b".", b"a/./b", b"a//b", b"a/", b"a/.."),
        *(b".git/config", b"a/.git/config", b".GIT/config", b".gIt", b"a\\.git\\config"),
        *(b"git~1/config", b"GIT~1", b".git /config", b".git./config", b".git . ./x"),
        *(b".git::$INDEX_ALLOCATION/config", b".git:x"),
        *(b".g\xe2\x80\x8cit/config", b"\xef\xbb\xbf.git/config", b".gi\xe2\x81\xaft/config"),
    ],
)
def test_no_form_of_such_a_name_is_read(app: Checkout, name: bytes) -> None:
    plant(app, name)
    code, said = read(app, ("diff",))
    assert code == 78
    assert "its .git/index" in said


def test_names_that_only_look_alike_are_worked_on(app: Checkout) -> None:
    for name in (
        *(".gitignore", ".github/x", ".gitx/y", "a..b", "...", "..a/b", "a.git/x", "git~2"),
        *("a b/c d", "\u00e9t\u00e9", "x\u200cy", "a\\b", "-x", "x:y", ".gitmodules.d/z"),
    ):
        app.write(name, "text\n")
        app.git("add", "--", name)
    app.git("commit", "-q", "-m", "names")
    app.git("push", "-q", "origin", "main")
    assert_works(app)


def test_an_index_that_cannot_be_read_is_refused(app: Checkout) -> None:
    (app.path / ".git" / "index").write_bytes(b"DIRC\0\0\0\2\0\0\0\1")
    assert_refused(app, "its .git/index cannot be read")


def test_a_directory_that_became_a_link_is_not_looked_through(app: Checkout) -> None:
    app.commit("a/secret", "public\n")
    secrets = app.path.parent / "secrets"
    secrets.mkdir()
    (secrets / "secret").write_text(f"{SECRET}\n")
    shutil.rmtree(app.path / "a")
    (app.path / "a").symlink_to(secrets)
    for flag in ("--no-assume-unchanged", "--assume-unchanged", "--skip-worktree"):
        app.git("update-index", flag, "a/secret")
        for verb in READS:
            code, said = read(app, verb)
            assert code == 0, said
            assert SECRET not in said


# -- links and other things that are no files ------------------------------------------------------


def pipe(place: Path) -> None:
    place.unlink(missing_ok=True)
    os.mkfifo(place)


def listening(place: Path) -> None:
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(place))


@pytest.mark.parametrize(
    "name",
    [
        *("packed-refs", "index", "shallow", "info/exclude", "info/attributes", "FETCH_HEAD"),
        *("refs/heads/main", "refs/tags/x", "logs/HEAD", "objects/info/commit-graph", "x"),
    ],
)
def test_a_pipe_in_place_of_a_file_holds_nothing_up(app: Checkout, name: str) -> None:
    place = app.path / ".git" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    pipe(place)
    code, said = read(app, ("status",))
    assert code == 78
    assert f"its .git/{name} is neither a file nor a directory" in said


@pytest.mark.parametrize(
    "name",
    [
        *("logs/refs/remotes/origin/main", "logs/HEAD", "logs/refs/heads/main", "FETCH_HEAD"),
        *("refs/remotes/origin/main", "objects/aa", "info/exclude", "info/sparse-checkout"),
        *("worktrees", "sharedindex.1", "ORIG_HEAD", "MERGE_HEAD", "rr-cache", "packed-refs"),
    ],
)
def test_a_link_however_deep_is_refused(app: Checkout, name: str) -> None:
    profile = app.path.parent / "profile"
    profile.write_text("umask 022\n")
    app.configure("user.name", f"x;touch {app.path.parent}/PWNED #")
    place = app.path / ".git" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_dir():
        place.unlink(missing_ok=True)
        place.symlink_to(profile)
    app.push_elsewhere()
    assert_refused(app, f"its .git/{name} is a symbolic link")
    assert run_wrapper("fetch", str(app.path), "1:1:1,1:1:1", "origin").exit_code == 78
    assert profile.read_text() == "umask 022\n"


def test_git_alone_writes_through_such_a_link(app: Checkout) -> None:
    profile = app.path.parent / "profile"
    profile.write_text("umask 022\n")
    log = app.path / ".git" / "logs" / "refs" / "remotes" / "origin" / "main"
    log.unlink()
    log.symlink_to(profile)
    app.push_elsewhere()
    app.git("fetch", "-q", "origin")
    assert len(profile.read_text().splitlines()) == 2


def test_a_socket_and_a_second_name_of_a_file_are_refused(app: Checkout) -> None:
    listening(app.path / ".git" / "info" / "exclude")
    assert_refused(app, "its .git/info/exclude is neither a file nor a directory")
    (app.path / ".git" / "info" / "exclude").unlink()
    profile = app.path.parent / "profile"
    profile.write_text("umask 022\n")
    (app.path / ".git" / "FETCH_HEAD").hardlink_to(profile)
    assert_refused(app, "its .git/FETCH_HEAD is a file of two names")
    assert profile.read_text() == "umask 022\n"


def test_a_name_that_is_no_word_is_told_without_its_signs(app: Checkout) -> None:
    (app.path / ".git" / "a\x1b[2J\n\u00e9").symlink_to("/etc/passwd")
    code, said = read(app, ("status",))
    assert code == 78
    assert "its .git/a?[2J??? is a symbolic link\n" in said


def hooks_by_link(app: Checkout) -> None:
    (app.path / ".git" / "hooks" / "pre-commit").symlink_to("../../scripts/pre-commit")


def modules(app: Checkout) -> None:
    place = app.path / ".git" / "modules" / "sub" / "hooks"
    place.mkdir(parents=True)
    (place / "post-merge").symlink_to("/etc/passwd")


def packed(app: Checkout) -> None:
    app.git("pack-refs", "--all")
    app.git("repack", "-q", "-a", "-d")
    app.git("commit-graph", "write", "--reachable")
    app.git("multi-pack-index", "write")


def hard_linked_objects(app: Checkout) -> None:
    for place in list((app.path / ".git" / "objects").rglob("*")):
        if place.is_file():
            twin = app.path.parent / "twins" / place.name
            twin.parent.mkdir(exist_ok=True)
            twin.hardlink_to(place)


def left_behind(app: Checkout) -> None:
    (app.path / ".git" / "host-agent-12345").symlink_to(".")


def links_in_the_tree(app: Checkout) -> None:
    (app.path / "inside").symlink_to("README")
    (app.path / "outside").symlink_to("/etc/passwd")
    app.git("add", "inside", "outside")
    app.git("commit", "-q", "-m", "links")
    app.git("push", "-q", "origin", "main")


def sparse(app: Checkout) -> None:
    app.commit("kept/a", "a\n")
    app.commit("left/b", "b\n")
    app.git("push", "-q", "origin", "main")
    app.git("sparse-checkout", "set", "--cone", "kept")


def worktree(app: Checkout) -> None:
    app.git("worktree", "add", "-q", "--detach", str(app.path.parent / "second"), "main")


def plain_attributes(app: Checkout) -> None:
    app.commit(
        ".gitattributes",
        "* text=auto\n*.txt text eol=lf diff=words merge=union\n*.bin -filter -text\n"
        "*.raw !filter\n*.md filter\n*.none filter=lfs\n*.c merge=custom diff=cpp\n",
    )
    for name in ("a.txt", "a.bin", "a.raw", "a.md", "a.c"):
        app.commit(name, f"{name}\n")
    app.git("push", "-q", "origin", "main")


@pytest.mark.parametrize(
    "prepare",
    [
        *(hooks_by_link, modules, packed, hard_linked_objects, left_behind, links_in_the_tree),
        *(sparse, worktree, plain_attributes),
    ],
)
def test_what_a_repository_usually_has_is_worked_on(
    app: Checkout, prepare: Callable[[Checkout], None]
) -> None:
    prepare(app)
    assert_works(app)


# -- what is written there -------------------------------------------------------------------------


def test_no_log_of_references_is_begun(app: Checkout) -> None:
    logs = app.path / ".git" / "logs"
    shutil.rmtree(logs)
    app.configure("core.logAllRefUpdates", "always")
    assert_works(app)
    assert not [place for place in logs.rglob("*") if place.is_file()]


def test_what_is_fetched_is_not_writable_by_everybody(app: Checkout) -> None:
    app.configure("core.sharedRepository", "0666")
    app.push_elsewhere()
    before = set((app.path / ".git").rglob("*"))
    assert change(app, "git.fetch", {"remote": "origin"})[0] == 0
    came = set((app.path / ".git").rglob("*")) - before
    assert came
    assert not [place for place in came if place.stat().st_mode & 0o022]


def test_an_object_that_lies_under_a_foreign_hash_is_not_taken(app: Checkout) -> None:
    commit = app.push_elsewhere("incoming.txt", "what was approved\n")
    blob = run_git(app.elsewhere, "rev-parse", f"{commit}:incoming.txt")
    place = app.path / ".git" / "objects" / blob[:2] / blob[2:]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(zlib.compress(b"blob 18\0EVIL CONTENT------\n"[:26]))
    head = app.head
    code, said = change(app, "git.pull", {"remote": "origin", "branch": "main"})
    assert code not in (0, 75), said
    assert app.head == head
    assert not (app.path / "incoming.txt").exists()
    place.unlink()
    assert change(app, "git.pull", {"remote": "origin", "branch": "main"})[0] == 0
    assert (app.path / "incoming.txt").read_text() == "what was approved\n"


# -- filters ---------------------------------------------------------------------------------------


def with_large_file(app: Checkout) -> None:
    """Set Git LFS up as `git lfs install` does: nothing of it is in `.git/config`."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    app.push_elsewhere(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    app.push_elsewhere("a.bin", pointer)
    app.git("pull", "-q", "origin", "main")
    app.write("a.bin", "real data")
    app.push_elsewhere("a.bin", pointer.replace("size 9", "size 10"))


def changes_of(app: Checkout) -> list[tuple[str, dict[str, JsonValue]]]:
    return [(name, params) for name, params in CHANGES if name != "git.fetch"]


def assert_filter_refused(app: Checkout, name: str = "lfs") -> None:
    before = app.snapshot()
    for operation_name, params in changes_of(app):
        with pytest.raises(PolicyDeniedError, match=f"needs the filter {name}, which is not run"):
            inspect(operation(operation_name, repository=str(app.path), **params))
    assert app.snapshot() == before
    for verb in READS:
        assert read(app, verb)[0] == 0
    assert change(app, "git.fetch", {"remote": "origin"})[0] == 0


def test_a_file_that_needs_a_filter_is_not_written_without_it(app: Checkout) -> None:
    with_large_file(app)
    assert_filter_refused(app)
    assert (app.path / "a.bin").read_text() == "real data"


def test_a_filter_that_only_the_target_names_is_found(app: Checkout) -> None:
    app.git("switch", "-q", "release/1.0")
    app.commit("deep/er/.gitattributes", "*.psd filter=git-crypt\n")
    app.commit("deep/er/x.psd", "secret\n")
    app.git("switch", "-q", "main")
    for name, params in (
        ("git.switch", {"branch": "release/1.0"}),
        ("git.reset", {"ref": "release/1.0"}),
    ):
        with pytest.raises(PolicyDeniedError, match="needs the filter git-crypt"):
            inspect(operation(name, repository=str(app.path), **params))
    asked = operation("git.reset", repository=str(app.path), ref="main")
    assert run(asked).exit_code == 0


def test_a_filter_that_comes_with_the_fetch_stops_the_pull(app: Checkout) -> None:
    app.push_elsewhere(".gitattributes", "*.bin filter=lfs\n")
    app.push_elsewhere("a.bin", "pointer\n")
    asked = operation("git.pull", repository=str(app.path), remote="origin", branch="main")
    held = inspect(asked).precondition  # the commits are not here yet
    before = app.snapshot()
    output = run(asked, held)
    assert output.exit_code == 78
    assert "needs the filter lfs" in output.stderr
    assert app.snapshot() == before


@pytest.mark.parametrize("place", [".git/info/attributes", ".gitattributes", "sub/.gitattributes"])
def test_a_filter_that_is_named_here_alone_counts(app: Checkout, place: str) -> None:
    app.commit("sub/a.bin", "data\n")
    app.git("push", "-q", "origin", "main")
    app.write(place, "*.bin filter=mine\n")
    app.git("branch", "-f", "release/1.0", "main")
    assert_filter_refused(app, "mine")
    app.write(place, "*.other filter=mine\n")
    assert_works(app)


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="needs root, for a mount namespace")
@pytest.mark.parametrize(
    ("files", "is_refused"),
    [
        ({".config/git/attributes": "*.txt filter=lfs\n"}, True),
        ({".gitconfig": "[core]\nattributesFile = ~/x\n", "x": "*.txt filter=lfs\n"}, True),
        ({".gitconfig": '[filter "lfs"]\nsmudge = touch /canary\nrequired\n'}, False),
        ({".gitconfig": "[core]\nfsmonitor = touch /canary\n[alias]\nx = !y\n"}, False),
        ({".gitconfig": "[core\n"}, True),
    ],
)
def test_attributes_of_the_user_count_and_nothing_of_theirs_runs(
    app: Checkout, files: dict[str, str], *, is_refused: bool
) -> None:
    asked = operation("git.switch", repository=str(app.path), branch="release/1.0")
    assert asked.spec.inspect is not None
    script = "mount -t tmpfs tmpfs /root\n" + "".join(
        f"mkdir -p /root/{Path(name).parent}; printf '%s' '{text}' >/root/{name}\n"
        for name, text in files.items()
    )
    done = subprocess.run(
        [
            *("/usr/bin/unshare", "--mount", "/bin/bash", "-euc", f'{script}exec "$@"', "x"),
            *(str(placed(app)), *asked.spec.inspect(asked.params).arguments),
        ],
        env=dict(ENVIRONMENT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (78 if is_refused else 0), done.stderr
    assert not Path("/canary").exists()


def placed(app: Checkout) -> Path:
    """Return a copy of the wrapper where /root, under which a checkout may lie, hides nothing."""
    copy = app.path.parent / "wrapper"
    shutil.copy(WRAPPER, copy)
    copy.chmod(0o755)
    return copy


def test_nothing_is_left_in_the_directory_for_temporary_files(app: Checkout) -> None:
    before = set(Path("/tmp").glob("host-agent-git.*"))
    assert_works(app)
    with_large_file(app)
    with pytest.raises(PolicyDeniedError):
        inspect(operation("git.switch", repository=str(app.path), branch="release/1.0"))
    assert set(Path("/tmp").glob("host-agent-git.*")) == before
