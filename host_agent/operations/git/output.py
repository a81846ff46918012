"""What `wrappers/git` prints, as values. Strict: output of another form is no answer.

File names, commit messages and names in them come from the repository: data, never believed.
Lines end with a newline only: a carriage return or another separator in a message is part of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidOutputError
from host_agent.operations.catalogue import Inspection, Output, Preview, PreviewAccuracy
from host_agent.text import HASH_PREFIX

_SHORT = 7
_MAX_COMMITS = 1000  # where the wrapper stops counting
_COMMIT = r"[0-9a-f]{40}"
_IDENTITY = r"[0-9]+:[0-9]+:[0-9]+"
_HEAD_REF = r"detached|refs/heads/[A-Za-z0-9][A-Za-z0-9._/+-]*"


def _refuse(what: str) -> NoReturn:
    message = f"git's {what} is not in the form that is understood here."
    raise InvalidOutputError(message)


def _lines(output: Output) -> list[str]:
    return output.stdout.split("\n")[:-1] if output.stdout.endswith("\n") else _rest(output)


def _rest(output: Output) -> list[str]:
    if output.stdout:
        _refuse("output, which does not end with a newline,")
    return []


# -- file names ------------------------------------------------------------------------------------

_ESCAPES: Mapping[str, str] = dict(zip("abtnvfr", "\a\b\t\n\v\f\r", strict=True))
_ESCAPE = re.compile(r'\\(?:([abtnvfr"\\])|([0-3][0-7]{2}))')


def unquote(name: str) -> str:
    """Return a file name as it is, from git's C-style quoting of an unusual one."""
    if not name.startswith('"'):
        return name
    if len(name) < 2 or not name.endswith('"'):
        _refuse("quoting of a file name")
    inner = name[1:-1]
    if "\\" in _ESCAPE.sub("", inner):
        _refuse("quoting of a file name")
    return _ESCAPE.sub(_unescape, inner)


def _unescape(match: re.Match[str]) -> str:
    if match[2] is not None:
        return chr(int(match[2], 8))
    return _ESCAPES.get(match[1], match[1])


# -- status ----------------------------------------------------------------------------------------

_CHANGED = re.compile(
    r"1 (?P<state>[A-Z.]{2}) [NS][A-Z.]{3} (?:[0-7]{6} ){3}(?:[0-9a-f]{40} ){2}(?P<path>.+)",
    re.DOTALL,
)
_UNMERGED = re.compile(
    r"u (?P<state>[A-Z.]{2}) [NS][A-Z.]{3} (?:[0-7]{6} ){4}(?:[0-9a-f]{40} ){3}(?P<path>.+)",
    re.DOTALL,
)
_UNTRACKED = re.compile(r"\? (?P<path>.+)", re.DOTALL)
_AHEAD_BEHIND = re.compile(r"\+([0-9]+) -([0-9]+)")


def parse_status(output: Output) -> JsonValue:
    """Return `{branch, changes, untracked}` from `git status --porcelain=v2 --branch`.

    A change has its path and its two letters, of the index and of the working tree
    (git-status(1), "Changed Tracked Entries"). `branch.name` is None where HEAD is detached.

    Raises:
        InvalidOutputError: a line is none of these.
    """
    headers: dict[str, str] = {}
    changes: list[dict[str, JsonValue]] = []
    untracked: list[str] = []
    for line in _lines(output):
        if line.startswith("# "):
            name, _, value = line[2:].partition(" ")
            headers[name] = value
        elif found := _CHANGED.fullmatch(line):
            changes.append(_change(found, is_unmerged=False))
        elif found := _UNMERGED.fullmatch(line):
            changes.append(_change(found, is_unmerged=True))
        elif found := _UNTRACKED.fullmatch(line):
            untracked.append(unquote(found["path"]))
        else:
            _refuse("status")
    return {"branch": _branch(headers), "changes": changes, "untracked": untracked}


def _change(found: re.Match[str], *, is_unmerged: bool) -> dict[str, JsonValue]:
    state = found["state"]
    return {
        "path": unquote(found["path"]),
        "index": state[0],
        "working_tree": state[1],
        "unmerged": is_unmerged,
    }


def _branch(headers: Mapping[str, str]) -> dict[str, JsonValue]:
    if "branch.oid" not in headers or "branch.head" not in headers:
        _refuse("status")
    commit, name = headers["branch.oid"], headers["branch.head"]
    distance = _AHEAD_BEHIND.fullmatch(headers.get("branch.ab", ""))
    return {
        "commit": None if commit == "(initial)" else commit,
        "name": None if name == "(detached)" else name,
        "upstream": headers.get("branch.upstream"),
        "ahead": int(distance[1]) if distance else None,
        "behind": int(distance[2]) if distance else None,
    }


# -- log and diff ----------------------------------------------------------------------------------

_LOG_FIELDS = ("commit", "author", "email", "date", "subject")


def parse_log(output: Output) -> JsonValue:
    """Return `{commits}`, newest first, from records of five labelled lines and an empty one.

    No field can hold a newline: names and addresses are one header line of a commit, and git makes
    one line of a subject.

    Raises:
        InvalidOutputError: a record is not of this form.
    """
    lines = _lines(output)
    size = len(_LOG_FIELDS) + 1
    if len(lines) % size:
        _refuse("log")
    return {"commits": [_record(lines[at : at + size]) for at in range(0, len(lines), size)]}


def _record(lines: list[str]) -> dict[str, JsonValue]:
    if lines[-1] or not re.fullmatch(rf"commit {_COMMIT}", lines[0]):
        _refuse("log")
    record: dict[str, JsonValue] = {}
    for name, line in zip(_LOG_FIELDS, lines, strict=False):
        if not line.startswith(f"{name} "):
            _refuse("log")
        record[name] = line.removeprefix(f"{name} ")
    return record


_NUMSTAT = re.compile(r"(?:([0-9]+)\t([0-9]+)|-\t-)\t(.+)", re.DOTALL)


def parse_diff(output: Output) -> JsonValue:
    """Return `{files}` with the lines added and removed in each (None: binary).

    They stand before the patch, which is standard output's and is not repeated.

    Raises:
        InvalidOutputError: a line before the patch is not of this form.
    """
    files: dict[str, JsonValue] = {}  # a file in conflict comes twice, the second time with numbers
    for line in output.stdout.split("\n"):
        if not line:
            break
        found = _NUMSTAT.fullmatch(line)
        if found is None:
            _refuse("diff")
        added, removed = (None if found[side] is None else int(found[side]) for side in (1, 2))
        path = unquote(found[3])
        files[path] = {"path": path, "added": added, "removed": removed}
    return {"files": list(files.values())}


# -- the wrapper's own facts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadState:
    """What the wrapper's `state` tells: HEAD, its ref or `detached`, and uncommitted changes."""

    head: str
    head_ref: str
    is_dirty: bool


@dataclass(frozen=True, slots=True)
class _RepositoryFacts:
    """Lines of the form `name value`; some names may come more than once."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, output: Output) -> "_RepositoryFacts":
        if output.truncated:
            _refuse("inspection, which is cut,")
        pairs = []
        for line in _lines(output):
            name, space, value = line.partition(" ")
            if not space:
                _refuse("inspection")
            pairs.append((name, value))
        return cls(tuple(pairs))

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def one(self, name: str, form: str) -> str:
        values = self.all(name)
        if len(values) != 1 or re.fullmatch(form, values[0], re.DOTALL) is None:
            _refuse("inspection")
        return values[0]

    def count(self, name: str) -> int:
        return int(self.one(f"{name}_count", r"[0-9]{1,9}"))

    def identity(self) -> dict[str, JsonValue]:
        return {name: self.one(name, _IDENTITY) for name in ("repository", "git_directory")}

    def state(self) -> HeadState:
        return HeadState(
            head=self.one("head", _COMMIT),
            head_ref=self.one("head_ref", _HEAD_REF),
            is_dirty=self.one("dirty", "yes|no") == "yes",
        )

    def target(self) -> str:
        return self.one("target", _COMMIT)


def parse_state(output: Output) -> HeadState:
    """Return what the wrapper's `state` printed.

    Raises:
        InvalidOutputError: it printed something else.
    """
    return _RepositoryFacts.of(output).state()


def _precondition(facts: _RepositoryFacts) -> dict[str, JsonValue]:
    state = facts.state()
    return {
        **facts.identity(),
        "head": state.head,
        "head_ref": state.head_ref,
        "dirty": state.is_dirty,
        "target": facts.target(),
    }


def _place(head_ref: str) -> str:
    return "HEAD (detached)" if head_ref == "detached" else head_ref.removeprefix("refs/heads/")


def _listed(facts: _RepositoryFacts, *names: str) -> tuple[tuple[str, ...], int]:
    """Return the lines that were shown, and how many were not."""
    shown = tuple(_readable(line) for name in names for line in facts.all(name))
    return shown, sum(facts.count(name) for name in names) - len(shown)


def _many(count: int, one: str, *, bound: bool = False) -> str:
    """Return `3 commits`, `one commit`; `no commit`."""
    if count < 2 and not bound:
        return f"{'one' if count else 'no'} {one}"
    return f"{count}{' or more' if bound else ''} {one}s"


def _readable(line: str) -> str:
    """Return a status line as its two letters and the path; any other line as it is."""
    found = _CHANGED.fullmatch(line) or _UNMERGED.fullmatch(line)
    return line if found is None else f"{found['state']} {found['path']}"


def parse_fetch_inspection(output: Output, *, remote: str) -> Inspection:
    """Return what `fetch` is bound to: the repository and where the remote is.

    What the remote has now is not asked: that is what the fetch itself does.
    """
    facts = _RepositoryFacts.of(output)
    url = facts.one("remote_url", r".+")
    summary = "Only what is known of the remote's branches changes, no file and no own branch."
    return Inspection(
        precondition={**facts.identity(), "remote_url": url},
        preview=Preview(
            accuracy=PreviewAccuracy.ESTIMATE,
            summary=summary,
            details=(f"{remote} is {url}",),
            undo="none needed",
        ),
    )


def parse_pull_inspection(output: Output, *, remote: str, branch: str) -> Inspection:
    """Return what `pull` is bound to, and the commits that would come, where they are here."""
    facts = _RepositoryFacts.of(output)
    precondition = _precondition(facts)
    url = facts.one("remote_url", r".+")
    head, target = str(precondition["head"]), facts.target()
    is_known = bool(facts.all("commit_count"))
    notes = ["Uncommitted changes: git keeps them."] if precondition["dirty"] else []
    commits, left_out = _listed(facts, "commit") if is_known else ((), 0)
    if head == target:
        summary = f"Nothing: {branch} is at {target[:_SHORT]}, as it is on {remote}."
    elif is_known:
        come = facts.count("commit")
        summary = f"{_many(come, 'commit').capitalize()} {'come' if come > 1 else 'comes'}."
    else:
        summary = (
            f"Goes from {head[:_SHORT]} to {target[:_SHORT]}; the commits are not here yet and"
            " cannot be listed."
        )
        notes.append(f"{remote} is {url}")
    return Inspection(
        precondition={**precondition, "remote_url": url},
        preview=Preview(
            accuracy=PreviewAccuracy.EXACT if is_known else PreviewAccuracy.ESTIMATE,
            summary=summary,
            details=(*notes, *commits),
            left_out=left_out,
            undo=f"reset to {head[:_SHORT]}",
        ),
        is_done_already=head == target,
    )


def parse_switch_inspection(output: Output, *, branch: str) -> Inspection:
    """Return what `switch` is bound to, and the files that differ between the two branches."""
    facts = _RepositoryFacts.of(output)
    precondition = _precondition(facts)
    origin = _place(str(precondition["head_ref"]))
    notes = []
    if precondition["dirty"]:
        notes.append("Uncommitted changes are carried along, or git refuses.")
    files, left_out = _listed(facts, "file")
    many = facts.count("file")
    change = f"{_many(many, 'file').capitalize()} change{'' if many > 1 else 's'}"
    summary = f"{change}; it goes to {facts.target()[:_SHORT]}."
    return Inspection(
        precondition=precondition,
        preview=Preview(
            accuracy=PreviewAccuracy.EXACT,
            summary=summary,
            details=(*notes, *files),
            left_out=left_out,
            undo=f"switch to {origin}",
        ),
        is_done_already=precondition["head_ref"] == f"refs/heads/{branch}",
    )


def parse_reset_inspection(output: Output) -> Inspection:
    """Return what `reset` is bound to, the uncommitted changes included, and what is lost."""
    facts = _RepositoryFacts.of(output)
    precondition = _precondition(facts)
    changes = facts.one("changes", r"none|[0-9a-f]{64}")
    lost, left = facts.count("file"), facts.count("commit")
    head, branch = str(precondition["head"])[:_SHORT], _place(str(precondition["head_ref"]))
    commits = _many(left, "commit", bound=left >= _MAX_COMMITS)
    summary = (
        f"Lost for good: {_many(lost, 'uncommitted change')}; {commits}"
        f" leave{'s' if left < 2 else ''} {branch}, which goes to {facts.target()[:_SHORT]}."
    )
    shown, left_out = _listed(facts, "file", "commit")
    return Inspection(
        precondition={
            **precondition,
            "changes": changes if changes == "none" else f"{HASH_PREFIX}{changes}",
        },
        preview=Preview(
            accuracy=PreviewAccuracy.ESTIMATE,
            summary=summary,
            details=("Untracked files stay, unless the commit has one in their place.", *shown),
            left_out=left_out,
            undo=f"reset to {head}{', without those changes' if lost else ''}",
        ),
    )
