"""Repositories in memory: commits, branches and remotes, of which one is a commit ahead."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from host_agent.simulation.stand_in import MISSING, die, hashed, number, require_same, unknown


@dataclass(frozen=True, slots=True)
class SimulatedCommit:
    """A commit with one parent, or none."""

    id: str
    subject: str
    parent: str | None = None


@dataclass(slots=True)
class SimulatedRepository:
    """A working tree with its branches, and the branches that each remote has."""

    path: str
    branch: str = "main"
    commits: dict[str, SimulatedCommit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    remotes: dict[str, dict[str, str]] = field(default_factory=dict)
    tracking: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def commit(self, subject: str, parent: str | None = None) -> str:
        """Add a commit, and return its id."""
        made = hashed(f"{self.path} {parent} {subject}")[:40]
        self.commits[made] = SimulatedCommit(made, subject, parent)
        return made

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.branches[self.branch]

    @property
    def hold(self) -> str:
        """The ids of directory and `.git`, as the wrapper tells them."""
        return ",".join(f"64:{number(self.path + part, 7)}:1790000000" for part in ("", "/.git"))

    def resolve(self, ref: str) -> str:
        """Return the commit that a branch, a remote branch or 40 digits name."""
        found = self.branches.get(ref) or self.tracking.get(ref)
        if found is None and ref in self.commits:
            found = ref
        if found is None:
            die(MISSING, "there is no such branch, tag or commit")
        return found

    def history(self, commit: str | None) -> Iterator[SimulatedCommit]:
        """Yield a commit and those before it."""
        while commit is not None:
            yield self.commits[commit]
            commit = self.commits[commit].parent

    def between(self, old: str, new: str) -> list[SimulatedCommit]:
        """Return the commits that `new` has and `old` has not, newest first."""
        known = {commit.id for commit in self.history(old)}
        return [commit for commit in self.history(new) if commit.id not in known]

    @property
    def changes(self) -> str:
        """The hash of what is not committed, or `none`."""
        return hashed(" ".join(self.changed)) if self.changed else "none"


def _made(path: str, remotes: Iterable[str], branches: Iterable[str]) -> SimulatedRepository:
    made = SimulatedRepository(path)
    first = made.commit("first")
    second = made.commit("second", first)
    made.branches = {"main": second, **dict.fromkeys(branches, first)}
    made.branches["main"] = second
    ahead = made.commit("third, on the remote", second)
    for remote in remotes:
        made.remotes[remote] = {**made.branches, "main": ahead}
        made.tracking |= {f"{remote}/{branch}": at for branch, at in made.branches.items()}
    return made


class SimulatedGit:
    """What stands in for `wrappers/git`."""

    def __init__(self) -> None:
        self._repositories: dict[str, SimulatedRepository] = {}
        self.add("/srv/app", ["origin"], ["topic"])
        self.add("/srv/site", ["origin"], [])
        self._repositories["/srv/site"].changed.append("index.html")

    def add(self, path: str, remotes: Iterable[str], branches: Iterable[str]) -> None:
        """Add a repository, where it is missing."""
        if path not in self._repositories:
            self._repositories[path] = _made(path, remotes, branches)

    def answer(self, _verb: str, arguments: tuple[str, ...]) -> str:
        """Return what the wrapper prints; its first argument is the verb."""
        verb, path, *rest = arguments
        if path not in self._repositories:
            die(MISSING, "there is no repository")
        repository = self._repositories[path]
        if verb.startswith("inspect-") or verb == "state":
            facts = _inspected(repository, verb.removeprefix("inspect-"), rest)
            return "".join(f"{name} {value}\n" for name, value in facts)
        match verb, rest:
            case "status", []:
                return _status(repository)
            case "log", [limit, *ref]:
                return _log(repository, int(limit), *ref)
            case "diff", _:
                files = "".join(f"1\t0\t{name}\n" for name in repository.changed)
                return f"{files}\n" if files else ""
            case _:
                return _change(repository, verb, rest)


def _status(repository: SimulatedRepository) -> str:
    lines = [f"# branch.oid {repository.head}", f"# branch.head {repository.branch}"]
    for remote in repository.remotes:
        upstream = repository.tracking.get(f"{remote}/{repository.branch}")
        if upstream is not None:
            ahead = len(repository.between(upstream, repository.head))
            behind = len(repository.between(repository.head, upstream))
            lines.append(f"# branch.upstream {remote}/{repository.branch}")
            lines.append(f"# branch.ab +{ahead} -{behind}")
            break
    blob = "0" * 40
    lines += [f"1 .M N... 100644 100644 100644 {blob} {blob} {name}" for name in repository.changed]
    return "\n".join([*lines, ""])


def _log(repository: SimulatedRepository, limit: int, ref: str = "") -> str:
    start = repository.resolve(ref) if ref else repository.head
    return "".join(
        f"commit {commit.id}\nauthor Ada\nemail ada@example.org\n"
        f"date 2026-11-20T22:00:00+00:00\nsubject {commit.subject}\n\n"
        for commit in list(repository.history(start))[:limit]
    )


def _remote(repository: SimulatedRepository, remote: str) -> dict[str, str]:
    if remote not in repository.remotes:
        die(MISSING, "there is no such remote")
    return repository.remotes[remote]


def _wanted(repository: SimulatedRepository, remote: str, branch: str) -> str:
    found = _remote(repository, remote).get(branch)
    if found is None:
        die(MISSING, "the remote has no such branch")
    if branch != repository.branch:
        die(1, "another branch is checked out")
    return found


def _inspected(
    repository: SimulatedRepository, verb: str, rest: list[str]
) -> Iterator[tuple[str, object]]:
    directory, _, git_directory = repository.hold.partition(",")
    if verb != "state":
        yield "repository", directory
        yield "git_directory", git_directory
    if verb != "fetch":
        yield "head", repository.head
        yield "head_ref", f"refs/heads/{repository.branch}"
        yield "dirty", "yes" if repository.changed else "no"
    if verb in ("fetch", "pull"):
        _remote(repository, rest[0])
        yield "remote_url", f"https://git.example.org{repository.path}.git"
    match verb, rest:
        case "pull", [remote, branch]:
            target = _wanted(repository, remote, branch)
            yield "target", target
            yield from _lines("commit", repository.between(repository.head, target))
        case "switch", [branch]:
            if branch not in repository.branches:
                die(MISSING, "there is no such branch")
            target = repository.branches[branch]
            yield "target", target
            yield from _lines("file", ["M README.md"] if target != repository.head else [])
        case "reset", [ref]:
            target = repository.resolve(ref)
            yield "target", target
            yield "changes", repository.changes
            yield from _lines("file", repository.changed)
            yield from _lines("commit", repository.between(target, repository.head))


def _lines(name: str, items: Iterable[SimulatedCommit | str]) -> Iterator[tuple[str, object]]:
    shown = [
        f"{item.id[:7]} {item.subject}" if isinstance(item, SimulatedCommit) else item
        for item in items
    ]
    yield f"{name}_count", len(shown)
    yield from ((name, line) for line in shown)


def _change(repository: SimulatedRepository, verb: str, rest: list[str]) -> str:
    hold, *rest = rest
    require_same(hold, repository.hold)
    if verb == "fetch":
        for branch, at in _remote(repository, rest[0]).items():
            repository.tracking[f"{rest[0]}/{branch}"] = at
        return ""
    require_same(rest[0], repository.head)
    match verb, rest:
        case "pull", [_, remote, branch, target]:
            require_same(target, _wanted(repository, remote, branch))
            repository.branches[branch] = repository.tracking[f"{remote}/{branch}"] = target
        case "switch", [_, head_ref, branch, target]:
            require_same(head_ref, f"refs/heads/{repository.branch}")
            require_same(target, repository.branches[branch])
            repository.branch = branch
        case "reset", [_, head_ref, changes, ref, target]:
            require_same(head_ref, f"refs/heads/{repository.branch}")
            require_same(changes, repository.changes)
            require_same(target, repository.resolve(ref))
            repository.branches[repository.branch] = target
            repository.changed.clear()
        case _:
            raise unknown()
    return ""
