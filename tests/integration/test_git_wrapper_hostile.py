"""Hostile repositories: what they would run does not run, and nothing moves.

Every configuration key that can make git start a program, or read another configuration, points at
a canary, for every verb of the wrapper. `test_canaries_are_alive` shows that the canaries would
sing: git alone, and git with hardening flags only, does run some of them.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import PolicyDeniedError
from host_agent.operations.catalogue import Output
from tests.support.git_wrapper import (
    WRAPPER,
    inspect,
    is_root,
    operation,
    run,
    run_wrapper,
)
from tests.support.repositories import ENVIRONMENT, Checkout, make_checkout, run_git

ATTRIBUTES = "* filter=x diff=x merge=x\n"
DRIVERS = "* diff=x merge=x\n"
"""What no change is refused for: git passes over a driver that no configuration names."""
NOBODY = 65534


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A hostile checkout: the file that its programs would make, and the program."""

    app: Checkout
    canary: Path
    program: Path
    verbs: tuple[tuple[str, ...], ...]

    def spring(self) -> list[tuple[str, Output]]:
        """Run every verb of the wrapper, each with arguments that would be carried out."""
        return [(verb[0], run_wrapper(*verb)) for verb in self.verbs]


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return make_trap(tmp_path)


@pytest.fixture(scope="module")
def standing_trap(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    return make_trap(tmp_path_factory.mktemp("standing"))


@pytest.fixture
def refused(standing_trap: Trap) -> Iterator[Trap]:
    """A trap for tests in which only the configuration changes, and nothing else may."""
    config = standing_trap.app.path / ".git" / "config"
    kept = config.read_bytes()
    yield standing_trap
    config.write_bytes(kept)
    standing_trap.canary.unlink(missing_ok=True)


def make_trap(tmp_path: Path) -> Trap:
    app = make_checkout(tmp_path)
    app.push_elsewhere("incoming.txt")
    canary, program = tmp_path / "canary", tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {canary}\nexit 1\n')
    program.chmod(0o755)
    path, head = str(app.path), app.head
    verbs: list[tuple[str, ...]] = []
    changes: list[tuple[str, dict[str, JsonValue]]] = [
        ("git.fetch", {"remote": "origin"}),
        ("git.pull", {"remote": "origin", "branch": "main"}),
        ("git.switch", {"branch": "release/1.0"}),
        ("git.reset", {"ref": "main"}),
    ]
    for name, params in changes:
        asked = operation(name, repository=path, **params)
        assert asked.spec.inspect is not None
        verbs.append(asked.spec.inspect(asked.params).arguments)
        verbs.append(asked.spec.invoke(asked.params, inspect(asked).precondition).arguments)
    verbs += [("status", path), ("log", path, "5"), ("log", path, "5", head), ("state", path)]
    verbs += [("diff", path), ("diff", path, "release/1.0")]
    (app.path / ".git" / "info" / "attributes").write_text(ATTRIBUTES)
    # A file that git must look into, and clean, to know whether it has changed.
    file = app.path / "file.txt"
    file.write_text(file.read_text())
    return Trap(app=app, canary=canary, program=program, verbs=tuple(verbs))


RUNS = [
    "core.fsmonitor",
    "core.hooksPath=DIRECTORY",
    "core.sshCommand",
    "core.gitProxy",
    "core.pager",
    "core.editor",
    "core.askPass",
    "core.alternateRefsCommand",
    "core.attributesFile",
    "core.excludesFile",
    "core.worktree=/",
    "core.bare=true",
    "core.bare",
    "core.repositoryFormatVersion=99",
    "diff.external",
    "diff.x.command",
    "diff.x.textconv",
    "filter.x.clean",
    "filter.x.smudge",
    "filter.x.process",
    "filter.x.required=true",
    "merge.x.driver",
    "merge.tool",
    "mergetool.x.cmd",
    "difftool.x.cmd",
    "credential.helper",
    "credential.https://example.org.helper",
    "gpg.program",
    "gpg.ssh.defaultKeyCommand",
    "log.showSignature=true",
    "merge.verifySignatures=true",
    "remote.origin.uploadpack",
    "remote.origin.receivepack",
    "remote.origin.vcs=ext",
    "remote.origin.proxy",
    "remote.origin.promisor=true",
    "remote.origin.partialCloneFilter=blob:none",
    "remote.origin.mirror=fetch",
    "remote.other.url=ext::PROGRAM",
    "remote.other.uploadpack",
    "url.ext::PROGRAM .insteadOf=/",
    "url.ext::PROGRAM .pushInsteadOf=/",
    "sequence.editor",
    "pager.status",
    "pager.log",
    "alias.status=!PROGRAM",
    "trailer.x.command",
    "trailer.x.cmd",
    "include.path=INCLUDED",
    "includeIf.gitdir:/.path=INCLUDED",
    "extensions.partialClone=origin",
    "extensions.objectFormat=sha256",
    "extensions.refStorage=reftable",
    "submodule.x.update=!PROGRAM",
    "submodule.recurse=true",
    "fetch.recurseSubmodules=true",
    "uploadpack.packObjectsHook",
    "gc.recentObjectsHook",
    "http.proxy=http://127.0.0.1:1",
    "http.sslVerify=false",
    "protocol.ext.allow=always",
    "protocol.allow=always",
    "init.templateDir",
    "interactive.diffFilter",
    "guitool.x.cmd",
    "man.x.cmd",
    "web.browser",
    "browser.x.cmd",
    "sendemail.tocmd",
    "instaweb.httpd",
    "lfs.customtransfer.x.path",
    "unheard.of=1",
]


@pytest.mark.promise("c22")
@pytest.mark.parametrize("setting", RUNS)
def test_hostile_configuration_key_is_refused(refused: Trap, tmp_path: Path, setting: str) -> None:
    key, _, value = setting.partition("=")
    included = tmp_path / "included"
    included.write_text(f"[core]\n\tfsmonitor = {refused.program}\n")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-index-change", "reference-transaction", "post-merge", "post-checkout"):
        shutil.copy(refused.program, hooks / hook)
    value = value.replace("DIRECTORY", str(hooks)).replace("INCLUDED", str(included))
    if "=" not in setting and key != "core.bare":
        value = str(refused.program)
    key = key.replace("PROGRAM", str(refused.program))
    if setting == "core.bare":  # no value: true
        with (refused.app.path / ".git" / "config").open("a") as file:
            file.write("[core]\n\tbare\n")
    else:
        refused.app.configure(key, value.replace("PROGRAM", str(refused.program)))
    before = refused.app.snapshot()
    for verb, output in refused.spring():
        assert output.exit_code == 78, (verb, output.stderr)
        assert output.stdout == ""
        name = key.partition(".")[0].lower()
        assert f"unsupported configuration key: {name}." in output.stderr, verb
    assert not refused.canary.exists(), refused.canary.read_text()
    assert refused.app.snapshot() == before


@pytest.mark.promise("c22")
@pytest.mark.parametrize(
    "url",
    [
        "ext::PROGRAM",
        "ext::sh -c PROGRAM% >&2",
        "fd::17",
        "testgit::/x",
        "git://example.org/x",
        "http://example.org/x",
        "ftp://example.org/x",
        "-oProxyCommand=PROGRAM",
        "ssh://-oProxyCommand=PROGRAM/x",
        "ssh://git@-oProxyCommand=PROGRAM/x",
        "-x@host:path",
        "host:-x",
        "git@host:--upload-pack=PROGRAM",
        "../origin.git",
        "./origin.git",
        "origin.git",
        "~/origin.git",
        "https://example.org/a\tb",
        "/srv/a\nb",
        "",
    ],
)
def test_hostile_remote_url_is_refused(refused: Trap, url: str) -> None:
    url = url.replace("PROGRAM", str(refused.program))
    refused.app.configure("remote.origin.url", url)
    before = refused.app.snapshot()
    for verb, output in refused.spring():
        assert output.exit_code == 78, (verb, output.stderr)
        assert "remote.origin.url" in output.stderr
    assert not refused.canary.exists()
    assert refused.app.snapshot() == before


@pytest.mark.promise("c22")
@pytest.mark.parametrize(
    "refspec",
    [
        "+refs/*:refs/*",
        "+refs/heads/*:refs/heads/*",
        "refs/heads/main:refs/heads/main",
        "+refs/heads/*:refs/remotes/other/*",
        "+refs/heads/*:refs/remotes/origin",
        "refs/heads/*",
        "^refs/heads/main",
        "+refs/heads/main:HEAD",
    ],
)
def test_fetch_outside_the_remotes_own_refs_is_refused(refused: Trap, refspec: str) -> None:
    refused.app.configure("remote.origin.fetch", refspec)
    before = refused.app.snapshot()
    for verb, output in refused.spring():
        assert output.exit_code == 78, (verb, output.stderr)
    assert refused.app.snapshot() == before


@pytest.mark.promise("c22")
@pytest.mark.parametrize(
    "text",
    [
        "[CORE]\n\tFSMonitor = PROGRAM\n",
        '[filter "x"] clean = PROGRAM\n',
        "[filter.x]\n\tclean = PROGRAM\n",
        "[core]\n\tfsmonitor = \\\nPROGRAM\n",
        '[filter "a\\"b"]\n\tclean = PROGRAM\n',
        '[core] ; comment\n\tfsmonitor="PROGRAM" # more\n',
        "[core]\n\tbare\n",
        '[url "ext::PROGRAM"]\n\tinsteadOf = /\n',
        "[core\n",
        "fsmonitor = PROGRAM\n",
        "\0\n",
        '[remote ""]\n\tuploadpack = PROGRAM\n',
        "[remote]\n\turl = ext::PROGRAM\n",
    ],
)
def test_no_way_of_writing_hides_a_key(refused: Trap, text: str) -> None:
    config = refused.app.path / ".git" / "config"
    with config.open("a") as file:
        file.write(text.replace("PROGRAM", str(refused.program)))
    before = refused.app.snapshot()
    for verb, output in refused.spring():
        assert output.exit_code == 78, (verb, output.stderr)
    assert not refused.canary.exists()
    assert refused.app.snapshot() == before


@pytest.mark.promise("c22")
def test_worktree_configuration_is_held_to_the_same_list(trap: Trap) -> None:
    trap.app.configure("extensions.worktreeConfig", "true")
    worktree = trap.app.path / ".git" / "config.worktree"
    worktree.write_text("[core]\n\tsparseCheckout = false\n")
    assert run_wrapper("status", str(trap.app.path)).exit_code == 0
    worktree.write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
    before = trap.app.snapshot()
    for verb, output in trap.spring():
        assert output.exit_code == 78, (verb, output.stderr)
    assert not trap.canary.exists()
    assert trap.app.snapshot() == before


@pytest.mark.promise("c22")
def test_hostile_key_is_a_policy_refusal_that_names_it(trap: Trap) -> None:
    trap.app.configure("core.fsmonitor", str(trap.program))
    asked = operation("git.status", repository=str(trap.app.path))
    error = asked.spec.failure(asked.params, run(asked))
    assert isinstance(error, PolicyDeniedError)
    assert "core.fsmonitor" in error.detail


FLAGS = (
    *("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "diff.external="),
    *("-c", "protocol.ext.allow=never", "-c", "credential.helper=", "--no-pager"),
)


@pytest.mark.promise("c23")
@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("filter.x.clean", ("diff",)),
        ("filter.x.smudge", ("reset", "--hard", "release/1.0")),
        ("filter.x.process", ("diff",)),
        ("diff.x.command", ("diff", "main~1")),
        ("diff.x.textconv", ("show",)),
        ("remote.origin.uploadpack", ("fetch",)),
    ],
)
def test_flags_alone_would_run_what_the_wrapper_refuses(
    trap: Trap, key: str, command: tuple[str, ...]
) -> None:
    trap.app.configure(key, str(trap.program))
    for verb, output in trap.spring():
        assert output.exit_code == 78, (verb, output.stderr)
    assert not trap.canary.exists()
    subprocess.run(
        ["/usr/bin/git", *FLAGS, *command],
        cwd=trap.app.path,
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert trap.canary.exists(), "the canary is dead: this test shows nothing"


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("core.fsmonitor", ("status",)),
        ("diff.external", ("diff", "main~1")),
        ("remote.origin.uploadpack", ("ls-remote",)),
        ("filter.x.clean", ("diff",)),
    ],
)
def test_canaries_are_alive(trap: Trap, key: str, command: tuple[str, ...]) -> None:
    trap.app.configure(key, str(trap.program))
    subprocess.run(
        ["/usr/bin/git", *command],
        cwd=trap.app.path,
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert trap.canary.exists()


# -- what a repository has beside its configuration ------------------------------------------------

HOOKS = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "proc-receive",
    "post-receive",
    "post-update",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
    "post-rewrite",
    "fsmonitor-watchman",
    "post-index-change",
]


def without_filter(trap: Trap) -> None:
    (trap.app.path / ".git" / "info" / "attributes").write_text(DRIVERS)


def plant_hooks(trap: Trap) -> None:
    for directory in (trap.app.path / ".git" / "hooks", trap.app.origin / "hooks"):
        directory.mkdir(exist_ok=True)
        for hook in HOOKS:
            shutil.copy(trap.program, directory / hook)


@pytest.mark.promise("c25")
def test_hooks_of_the_repository_and_of_its_remote_do_not_run(trap: Trap) -> None:
    without_filter(trap)
    plant_hooks(trap)
    path = str(trap.app.path)
    for verb in ("status", "diff", "state"):
        assert run_wrapper(verb, path).exit_code == 0
    changes: list[tuple[str, dict[str, JsonValue]]] = [
        ("git.fetch", {"remote": "origin"}),
        ("git.pull", {"remote": "origin", "branch": "main"}),
        ("git.switch", {"branch": "release/1.0"}),
        ("git.reset", {"ref": "main"}),
    ]
    for name, params in changes:
        output = run(operation(name, repository=path, **params))
        assert output.exit_code == 0, (name, output.stderr)
    assert not trap.canary.exists(), trap.canary.read_text()


@pytest.mark.promise("c25")
def test_configuration_of_the_remote_repository_does_not_run(trap: Trap) -> None:
    without_filter(trap)
    for key in ("core.fsmonitor", "uploadpack.packObjectsHook", "core.alternateRefsCommand"):
        run_git(trap.app.origin, "config", key, str(trap.program))
    path = str(trap.app.path)
    output = run(operation("git.pull", repository=path, remote="origin", branch="main"))
    assert output.exit_code == 0, output.stderr
    assert not trap.canary.exists(), trap.canary.read_text()


def make_submodule(trap: Trap, name: str) -> Path:
    """Commit a repository as a submodule, with a `.gitmodules` that makes the most of it.

    The colleague then pushes another commit of the submodule, for a pull to bring.
    """
    app, place, elsewhere = trap.app.path, trap.app.path / name, trap.app.elsewhere
    run_git(app, "pull", "-q", "--ff-only", "origin", "main")
    shutil.copytree(make_checkout(app.parent, "module").path, place)
    commit = run_git(place, "rev-parse", "HEAD")
    run_git(app, "update-index", "--add", "--cacheinfo", f"160000,{commit},{name}")
    (app / ".gitmodules").write_text(
        f'[submodule "{name}"]\n\tpath = {name}\n\turl = ext::{trap.program}\n'
        "\tfetchRecurseSubmodules = true\n\tignore = none\n"
    )
    run_git(app, "add", ".gitmodules")
    run_git(app, "commit", "-q", "-m", "submodule")
    run_git(app, "push", "-q", "origin", "main")
    run_git(elsewhere, "pull", "-q", "--ff-only", "origin", "main")
    older = run_git(place, "rev-parse", "HEAD~1")
    run_git(elsewhere, "update-index", "--cacheinfo", f"160000,{older},{name}")
    run_git(elsewhere, "commit", "-q", "-m", "other submodule")
    run_git(elsewhere, "push", "-q", "origin", "main")
    run_git(app, "config", f"submodule.{name}.url", "https://example.org/sub")
    run_git(app, "config", f"submodule.{name}.active", "true")
    return place


def arm(trap: Trap, place: Path) -> None:
    """Make the repository at `place` run the program whenever git looks into it."""
    run_git(place, "config", "core.fsmonitor", str(trap.program))
    run_git(place, "config", "filter.x.clean", str(trap.program))
    (place / ".git" / "info" / "attributes").write_text(ATTRIBUTES)
    for hook in HOOKS:
        shutil.copy(trap.program, place / ".git" / "hooks" / hook)
    (place / "file.txt").write_text("changed\n")


@pytest.mark.promise("c25")
def test_submodule_is_never_entered(trap: Trap) -> None:
    without_filter(trap)
    place = make_submodule(trap, "sub")
    arm(trap, place)
    path = str(trap.app.path)
    for verb in (("status", path), ("diff", path), ("diff", path, "release/1.0"), ("state", path)):
        output = run_wrapper(*verb)
        assert output.exit_code == 0, output.stderr
    for name, params in (
        ("git.fetch", {"remote": "origin"}),
        ("git.pull", {"remote": "origin", "branch": "main"}),
        ("git.reset", {"ref": "main"}),
        ("git.switch", {"branch": "release/1.0"}),
        ("git.switch", {"branch": "main"}),
        ("git.reset", {"ref": "release/1.0"}),
        ("git.reset", {"ref": "origin/main"}),
    ):
        output = run(operation(name, repository=path, **params))
        assert output.exit_code == 0, (name, output.stderr)
    assert not trap.canary.exists(), trap.canary.read_text()
    assert (place / "file.txt").read_text() == "changed\n"
    # git alone does look into it.
    run_git(trap.app.path, "switch", "-q", "main")
    subprocess.run(
        ["/usr/bin/git", "status"],
        cwd=trap.app.path,
        env=dict(ENVIRONMENT),
        capture_output=True,
        check=False,
    )
    assert trap.canary.exists(), "the canary is dead: this test shows nothing"


@pytest.mark.promise("c25")
def test_submodule_with_a_command_as_update_is_refused(trap: Trap) -> None:
    trap.app.configure("submodule.sub.update", f"!{trap.program}")
    for verb, output in trap.spring():
        assert output.exit_code == 78, verb
    assert not trap.canary.exists()


@pytest.mark.promise("c25")
@pytest.mark.parametrize("mode", ["100644", "120000"], ids=["file", "symlink"])
@pytest.mark.parametrize("name", ["../../outside", "a/../../b", "-x"])
def test_gitmodules_with_a_bad_name_or_as_a_symlink_does_nothing(
    trap: Trap, tmp_path: Path, name: str, mode: str
) -> None:
    without_filter(trap)
    app, content = trap.app, tmp_path / "content"
    content.write_text(
        f'[submodule "{name}"]\n\tpath = {name}\n\turl = -u{trap.program}\n'
        f"\tupdate = !{trap.program}\n"
        if mode == "100644"
        else ".git/config"
    )
    blob = app.git("hash-object", "-w", str(content))
    tree = tmp_path / "tree"
    tree.write_text(f"{mode} blob {blob}\t.gitmodules\n")
    with tree.open() as lines:
        written = subprocess.check_output(
            ["/usr/bin/git", "mktree"], cwd=app.path, env=dict(ENVIRONMENT), stdin=lines, text=True
        )
    commit = app.git("commit-tree", "-m", "bad", "-p", "main", written.strip())
    app.git("branch", "evil", commit)
    head = app.head
    asked = operation("git.switch", repository=str(app.path), branch="evil")
    if mode == "120000":  # git itself lists no such tree
        with pytest.raises(PolicyDeniedError):
            run(asked)
        assert app.head == head
    else:
        output = run(asked)
        assert output.exit_code == 0, output.stderr
    assert run_wrapper("status", str(app.path)).exit_code == 0
    assert not trap.canary.exists()


@pytest.mark.promise("c24")
def test_repository_inside_the_working_tree_is_not_entered(trap: Trap) -> None:
    for name, bare in (("nested", ()), ("embedded", ("--bare",))):
        run_git(trap.app.path, "init", "-q", *bare, name)
        inner = trap.app.path / name
        run_git(inner, "config", "core.fsmonitor", str(trap.program))
        run_git(inner, "config", "core.worktree", str(trap.app.path))
    path = str(trap.app.path)
    output = run_wrapper("status", path)
    assert output.exit_code == 0, output.stderr
    assert "? nested/" in output.stdout
    assert run_wrapper("diff", path).exit_code == 0
    assert not trap.canary.exists()
    assert run_wrapper("status", f"{path}/embedded").exit_code == 66


def replace_by_file(app: Checkout) -> None:
    (app.path / ".git").rename(app.path.parent / "moved")
    (app.path / ".git").write_text(f"gitdir: {app.path.parent}/moved\n")


def replace_by_link(app: Checkout) -> None:
    (app.path / ".git").rename(app.path.parent / "moved")
    (app.path / ".git").symlink_to(app.path.parent / "moved")


def linked(name: str) -> Callable[[Checkout], None]:
    def link(app: Checkout) -> None:
        place = app.path / ".git" / name
        place.rename(app.path.parent / "moved")
        place.symlink_to(app.path.parent / "moved")

    return link


def borrowed(name: str) -> Callable[[Checkout], None]:
    def link(app: Checkout) -> None:
        place = app.path / ".git" / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(app.elsewhere / ".git" / name)

    return link


def common_directory(app: Checkout) -> None:
    (app.path / ".git" / "commondir").write_text(f"{app.elsewhere}/.git\n")


def alternates(app: Checkout) -> None:
    file = app.path / ".git" / "objects" / "info" / "alternates"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{app.elsewhere}/.git/objects\n")


@pytest.mark.promise("c24")
@pytest.mark.parametrize(
    "twist",
    [
        replace_by_file,
        replace_by_link,
        linked("config"),
        linked("objects"),
        linked("refs"),
        linked("HEAD"),
        borrowed("index"),
        borrowed("refs/heads"),
        borrowed("refs/remotes"),
        borrowed("refs/tags"),
        borrowed("objects/pack"),
        borrowed("logs"),
        common_directory,
        alternates,
    ],
    ids=[
        *("gitfile", "gitlink", "config", "objects", "refs", "HEAD", "index", "heads", "remotes"),
        *("tags", "pack", "logs", "commondir", "alternates"),
    ],
)
def test_git_directory_that_leads_elsewhere_is_refused(
    trap: Trap, twist: Callable[[Checkout], None]
) -> None:
    twist(trap.app)
    for verb, output in trap.spring():
        assert output.exit_code == 78, (verb, output.stderr)


@pytest.mark.promise("c27")
@pytest.mark.parametrize("is_link", [False, True], ids=["symbolic ref", "symbolic link"])
def test_branch_that_is_an_alias_is_refused(trap: Trap, *, is_link: bool) -> None:
    app = trap.app
    app.git("branch", "-q", "kept")
    main = app.path / ".git" / "refs" / "heads" / "main"
    main.unlink()
    if is_link:
        main.symlink_to("kept")
    else:
        main.write_text("ref: refs/heads/kept\n")
    for verb in (("inspect-reset", str(app.path), "release/1.0"), ("state", str(app.path))):
        output = run_wrapper(*verb)
        assert output.exit_code == 78, output.stderr


@pytest.mark.promise("c27")
def test_pull_moves_no_branch_that_a_remote_branch_is_an_alias_of(trap: Trap) -> None:
    without_filter(trap)
    app = trap.app
    app.git("branch", "-q", "kept")
    kept = app.git("rev-parse", "kept")
    app.push_elsewhere("incoming.txt")
    app.git("symbolic-ref", "refs/remotes/origin/main", "refs/heads/kept")
    output = run(operation("git.pull", repository=str(app.path), remote="origin", branch="main"))
    assert output.exit_code == 0, output.stderr
    assert (app.path / "incoming.txt").exists()
    assert app.git("rev-parse", "kept") == kept


def test_grafts_and_replacements_are_not_followed(trap: Trap) -> None:
    app = trap.app
    (app.path / ".git" / "info" / "grafts").write_text(f"{app.head}\n")
    app.git("replace", app.head, app.git("rev-parse", "release/1.0"))
    output = run_wrapper("log", str(app.path), "5")
    assert [line for line in output.stdout.split("\n") if line.startswith("subject")] == [
        "subject second",
        "subject first",
    ]
    assert output.stderr == ""


def test_configuration_that_git_itself_writes_is_accepted(trap: Trap) -> None:
    app = trap.app
    for key, value in (
        ("user.name", "Zo\u00eb; $(id)"),
        ("user.email", "zoe@example.org"),
        ("core.autocrlf", "input"),
        ("core.sharedRepository", "0660"),
        ("pull.ff", "only"),
        ("branch.main.description", "two\nlines"),
        ("branch.main.rebase", "true"),
        ("remote.other.url", "git@example.org:team/app.git"),
        ("remote.other.fetch", "+refs/heads/*:refs/remotes/other/*"),
        ("remote.other.tagOpt", "--no-tags"),
        ("remote.token.url", "https://user:secret@example.org:8443/app.git"),
        ("remote.token.pushurl", "ssh://git@example.org:2222/app.git"),
        ("advice.detachedHead", "false"),
        ("core.repositoryFormatVersion", "1"),
        ("extensions.objectFormat", "sha1"),
    ):
        app.configure(key, value)
    output = run_wrapper("status", str(app.path))
    assert output.exit_code == 0, output.stderr


@pytest.mark.promise("c33")
def test_password_in_a_url_is_not_told(trap: Trap) -> None:
    trap.app.configure("remote.origin.url", "https://user:secret@example.org/app.git")
    found = inspect(operation("git.fetch", repository=str(trap.app.path), remote="origin"))
    assert found.precondition["remote_url"] == "https://example.org/app.git"
    assert "secret" not in str(found)


# -- owners ----------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(not is_root(), reason="needs root to become another user")


@pytest.fixture
def shared() -> Iterator[Checkout]:
    """A checkout under a directory that every user may enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        shutil.copy(WRAPPER, Path(directory) / "git")
        yield make_checkout(Path(directory))


def give(path: Path, uid: int, *, deep: bool = True) -> None:
    for each in (path, *(path.rglob("*") if deep else ())):
        shutil.chown(each, uid, uid)


def run_as(uid: int | None, app: Checkout, *arguments: str) -> Output:
    return run_wrapper(*arguments, wrapper=app.path.parent / "git", uid=uid)


@pytest.mark.promise("c24")
@pytest.mark.root
@needs_root
def test_user_works_on_an_own_repository(shared: Checkout) -> None:
    give(shared.path, NOBODY)
    give(shared.origin, NOBODY)
    path = str(shared.path)
    assert run_as(NOBODY, shared, "status", path).exit_code == 0
    output = run_as(NOBODY, shared, "inspect-pull", path, "origin", "main")
    assert output.exit_code == 0, output.stderr


@pytest.mark.promise("c24")
@pytest.mark.root
@needs_root
@pytest.mark.parametrize("uid", [None, NOBODY])
@pytest.mark.parametrize("part", ["all", "top", ".git", ".git/config"])
def test_repository_of_another_user_is_refused(
    shared: Checkout, uid: int | None, part: str
) -> None:
    mine, other = (0, 12345) if uid is None else (NOBODY, 0)
    give(shared.path, mine)
    match part:
        case "all":
            give(shared.path, other)
        case "top":
            give(shared.path, other, deep=False)
        case _:
            give(shared.path / part, other, deep=False)
    output = run_as(uid, shared, "status", str(shared.path))
    assert output.exit_code == (78 if part == ".git/config" else 77), output.stderr
    asked = operation("git.status", repository=str(shared.path))
    assert isinstance(asked.spec.failure(asked.params, output), PolicyDeniedError)


@pytest.mark.promise("c24")
@pytest.mark.root
@needs_root
def test_safe_directory_of_the_user_changes_nothing(shared: Checkout) -> None:
    give(shared.path, 12345)
    home = shared.path.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
    output = run_wrapper("status", str(shared.path), environment={"HOME": str(home)})
    assert output.exit_code == 77


@pytest.mark.promise("c24")
@pytest.mark.root
@needs_root
def test_directory_that_cannot_be_entered_is_refused(shared: Checkout) -> None:
    shared.path.chmod(0o700)
    assert run_as(NOBODY, shared, "status", str(shared.path)).exit_code == 77


@pytest.mark.root
@needs_root
def test_wrapper_never_runs_as_root_through_sudo(shared: Checkout) -> None:
    path = str(shared.path)
    assert run_wrapper("status", path).exit_code == 0
    for through in ({"SUDO_UID": "1000"}, {"SUDO_UID": ""}):
        output = run_wrapper("status", path, environment=through)
        assert (output.exit_code, output.stdout) == (77, "")
    for user in ("EUID", "UID"):  # bash would take it for who it is
        output = run_wrapper("status", path, environment={"SUDO_UID": "1000", user: "1000"})
        assert (output.exit_code, output.stdout) == (64, "")
