"""Real repositories on disk for tests: a checkout, and the bare repository that is its `origin`.

Nothing of the machine's or the user's git configuration reaches them, and no hook runs.
"""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ann Author",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Carl Committer",
    "GIT_COMMITTER_EMAIL": "carl@example.org",
}


def run_git(directory: Path, *arguments: str) -> str:
    """Run git in `directory` and return its standard output without the last newline.

    Raises:
        subprocess.CalledProcessError: git failed; its standard error is in the exception.
    """
    done = subprocess.run(
        ["/usr/bin/git", "-c", "gc.auto=0", "-c", "core.hooksPath=/dev/null", *arguments],
        cwd=directory,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.removesuffix("\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A working copy at `path` on branch `main`, whose `origin` is the bare repository `origin`.

    `elsewhere` is a second checkout of the same origin: the colleague who pushes.
    """

    path: Path
    origin: Path
    elsewhere: Path

    def git(self, *arguments: str) -> str:
        """Run git in the checkout."""
        return run_git(self.path, *arguments)

    @property
    def head(self) -> str:
        """Return the commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    @property
    def branch(self) -> str:
        """Return the checked-out branch's short name, or `HEAD` where it is detached."""
        return self.git("rev-parse", "--abbrev-ref", "HEAD")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the working tree, without committing it."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def commit(self, name: str = "file.txt", text: str = "more\n", message: str = "more") -> str:
        """Commit one file in the checkout only; return the commit."""
        return _commit(self.path, name, text, message)

    def push_elsewhere(
        self,
        name: str = "file.txt",
        text: str = "from elsewhere\n",
        message: str = "from elsewhere",
        branch: str = "main",
    ) -> str:
        """Let the colleague push one more commit to `branch` of the origin; return the commit."""
        run_git(self.elsewhere, "fetch", "-q", "origin")
        run_git(self.elsewhere, "switch", "-q", "-C", branch, f"origin/{branch}")
        commit = _commit(self.elsewhere, name, text, message)
        run_git(self.elsewhere, "push", "-q", "origin", branch)
        return commit

    def configure(self, key: str, value: str) -> None:
        """Set a key of the repository's own configuration."""
        self.git("config", "--file", ".git/config", key, value)

    def snapshot(self) -> Mapping[str, str]:
        """Return what a refusal must not move: every file, HEAD, index, refs, the origin's refs.

        Read without git, so that a hostile repository has nothing to run. Objects and `FETCH_HEAD`
        are left out: they may come, and change nothing by themselves.
        """
        seen = _hashes(self.path) | _hashes(self.origin)
        own = (
            f"{self.path}/.git/objects/",
            f"{self.path}/.git/FETCH_HEAD",
            f"{self.origin}/objects/",
        )
        return {name: value for name, value in seen.items() if not name.startswith(own)}


def make_checkout(
    directory: Path, name: str = "app", branches: tuple[str, ...] = ("release/1.0",)
) -> Checkout:
    """Make `directory/name`, its origin and the colleague's checkout.

    `main` has two commits; each of `branches` has one more, on the origin and in the checkout.
    The checkout is on `main`, clean, and level with its origin. The path holds no symlink.
    """
    directory = directory.resolve()
    checkout = Checkout(
        path=directory / name,
        origin=directory / f"{name}-origin.git",
        elsewhere=directory / f"{name}-elsewhere",
    )
    run_git(directory, "init", "-q", "--bare", "-b", "main", str(checkout.origin))
    run_git(directory, "init", "-q", "-b", "main", str(checkout.path))
    checkout.git("remote", "add", "origin", str(checkout.origin))
    checkout.commit("README", "one\n", "first")
    checkout.commit("file.txt", "one\n", "second")
    for branch in branches:
        checkout.git("switch", "-q", "-c", branch, "main")
        checkout.commit("VERSION", f"{branch}\n", f"version {branch}")
        checkout.git("push", "-q", "-u", "origin", branch)
    checkout.git("switch", "-q", "main")
    checkout.git("push", "-q", "-u", "origin", "main")
    run_git(directory, "clone", "-q", str(checkout.origin), str(checkout.elsewhere))
    return checkout


def _commit(directory: Path, name: str, text: str, message: str) -> str:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    run_git(directory, "add", "--", name)
    run_git(directory, "commit", "-q", "--allow-empty", "-m", message)
    return run_git(directory, "rev-parse", "HEAD")


def _hashes(directory: Path) -> dict[str, str]:
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file() and not file.is_symlink()
    }
