"""What is measured on: a directory, a unix user, repositories, agents. Gone when the run is over.

Files lie on the file system of the temporary directory (TMPDIR): its syncs are the ones measured.
"""

import contextlib
import os
import pwd
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from host_agent.config import load
from host_agent.host.install.root_list import allowed_list, root_list_state
from tests.bench.exchange import Exchange, client_context
from tests.support.site import Served, Site, make_site

USER = "host-agent-bench"
CALLER = "deployer"
BRANCHES = 6000
"""Branches that a switch can be asked for: each ask is another wish, so each is stored anew."""
OPEN_FILES = 8192

RULES = """
[[rules]]
name = "looking is free"
operations = ["git.status"]
verdict = "allow"

[[rules]]
name = "switching needs a person"
operations = ["git.switch"]
verdict = "ask"
ttl_seconds = 86400

[[rules]]
name = "nobody reads the history"
operations = ["git.log"]
verdict = "deny"
"""
LIMITS = """
[limits]
asks_per_second = 1000000
ask_burst = 1000000

[approvals]
max_pending = 100000
max_pending_per_caller = 100000
"""


def identities(unix_user: str | None) -> str:
    """Return a caller, who acts as `unix_user`, and an approver."""
    user = "" if unix_user is None else f'unix_user = "{unix_user}"'
    return f"""
[[identities]]
cn = "{CALLER}"
owner = "bob"
{user}

[[identities]]
cn = "alice"
roles = ["approver"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A runner with its site, and the command line that it starts for each wrapper verb."""

    runner: str
    site: Site
    prefix: Sequence[str]

    @property
    def context(self) -> ssl.SSLContext:
        """Return the TLS side of the caller."""
        leaf = self.site.client(CALLER)
        return client_context(self.site.pki.ca_path, leaf.certificate_path, leaf.key_path)

    def argv(self, verb: str, *arguments: str) -> list[str]:
        """Return the command line that the agent runs for `verb`, for its bare run."""
        return [*self.prefix, verb, str(self.site.repository.path), *arguments]

    def served(self) -> Served:
        """Return the agent of this setting, not started."""
        return Served(self.site)

    def forget(self) -> None:
        """Begin with an empty state directory: no request, no audit record."""
        for file in self.site.store_path.parent.iterdir():
            file.unlink()

    def switch(self, number: int) -> dict[str, object]:
        """Return the parameters of the wish `number`."""
        return {"repository": str(self.site.repository.path), "branch": branch(number)}


def branch(number: int) -> str:
    """Return the name of a branch that exists."""
    return f"work/{number % BRANCHES}"


@contextlib.contextmanager
def callers(served: Served, context: ssl.SSLContext, count: int) -> Iterator[list[Exchange]]:
    """Connections of `count` callers, kept alive."""
    with contextlib.ExitStack() as exits:
        yield [exits.enter_context(Exchange(served.url, context)) for _ in range(count)]


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A temporary directory that every user may enter, and room for many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    with tempfile.TemporaryDirectory(prefix="host-agent-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


def why_no_sudo() -> str | None:
    """Return why the rows that need another unix user cannot be measured, or None."""
    if os.geteuid() != 0:
        return "needs root, to make a unix user and to be let through sudo"
    if shutil.which("sudo", path="/usr/bin") is None:
        return "needs sudo"
    return None


@contextlib.contextmanager
def unix_user() -> Iterator[pwd.struct_passwd]:
    """The user who owns the repository behind sudo; made where absent, and removed then."""
    is_ours = True
    try:
        pwd.getpwnam(USER)
        is_ours = False
    except KeyError:
        # A password that nothing matches: sshd takes a locked account for closed.
        options = ("--system", "--no-create-home", "--shell", "/bin/sh", "--password", "*")
        _quietly("useradd", *options, USER)
    try:
        yield pwd.getpwnam(USER)
    finally:
        if is_ours:
            _quietly("userdel", USER)


def setting(runner: str, place: Path, user: pwd.struct_passwd | None) -> Setting:
    """Make the site of `runner` in `place`, its repository with many branches and of `user`."""
    site = make_site(
        place,
        rules=RULES,
        identities=identities(None if user is None else user.pw_name),
        extra=LIMITS,
        execution=f'runner = "{runner}"',
    )
    site.configure(
        rules=RULES,
        identities=identities(None if user is None else user.pw_name),
        extra=LIMITS,
        execution=f'runner = "{runner}"',
        branches=["main", "topic", "work/[0-9]+"],
    )
    _make_branches(site)
    wrapper = str(place / "wrappers" / "git")
    if user is None:
        return Setting(runner=runner, site=site, prefix=(wrapper,))
    _quietly("chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(site.repository.path))
    render_root_list(site)
    prefix = ("/usr/bin/sudo", "-n", "-u", user.pw_name, "--", wrapper)
    return Setting(runner=runner, site=site, prefix=prefix)


def render_root_list(site: Site) -> None:
    """Write beside the wrappers what they do at all, as `host-agent root render` does."""
    listed = root_list_state(load(site.config_path))
    listed.path.write_bytes(allowed_list(load(site.config_path)))


def _make_branches(site: Site) -> None:
    repository = site.repository
    commit = repository.git("rev-parse", "topic")
    lines = "".join(f"create refs/heads/{branch(number)} {commit}\n" for number in range(BRANCHES))
    subprocess.run(
        ["/usr/bin/git", "-C", str(repository.path), "update-ref", "--stdin"],
        input=lines.encode(),
        check=True,
    )
    repository.git("pack-refs", "--all")


def _quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def in_memory(site: Site) -> Served:
    """Return an agent on `site` whose runner answers from memory."""
    return Served(site, python=sys.executable, program=("-m", "tests.bench.memory_agent"))
