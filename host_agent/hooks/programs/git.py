"""Command lines of git in a repository that is listed."""

import re
from collections.abc import Callable, Sequence
from posixpath import isabs, join, normpath
from typing import NamedTuple

from host_agent.hooks.shell import names
from host_agent.hooks.translation import (
    READ,
    UNKNOWN,
    Suggestion,
    Translation,
    Value,
    options,
    parse,
)

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", re.ASCII)
_FLAGS = names("--no-pager -P -p --paginate --no-optional-locks --literal-pathspecs")
_REDIRECTS = ("--git-dir", "--work-tree", "-c", "--config-env", "--exec-path", "--namespace")
_LOOKS = names(
    "blame cat-file describe for-each-ref grep help ls-files ls-tree ls-remote merge-base"
    " name-rev rev-list rev-parse shortlog show show-ref status version whatchanged"
    " --version --help"
)
_NESTED = frozenset(["bisect", "filter-branch", "rebase", "submodule", "difftool", "mergetool"])
_BRANCH_LOOKS = options("-a --all -r --remotes -v -vv --list --show-current", "--contains --merged")
_LOG = options(
    "--oneline --stat --graph --all --decorate -p --no-merges --reverse", "-n --max-count"
)


class GitCall(NamedTuple):
    """One call of git: where, what, and whether an option leads it elsewhere or runs something."""

    directory: str
    words: tuple[str, ...]
    is_redirected: bool


def read_call(words: Sequence[str], directory: str) -> GitCall:
    """Return the call whose words after `git` are given, made in `directory`."""
    at = 0
    is_redirected = False
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        if word == "-C" and at + 1 < len(words):
            directory = normpath(join(directory, words[at + 1]))
            at += 1
        elif word.partition("=")[0] in _REDIRECTS:
            is_redirected = True
            at += 0 if "=" in word and word != "-c" else 1
        elif word in ("--version", "--help"):
            break
        elif word not in _FLAGS:
            is_redirected = True
        at += 1
    return GitCall(normpath(directory), tuple(words[at:]), is_redirected)


def runs_others(call: GitCall) -> bool:
    """Return whether the call may run a program that its words name."""
    return call.is_redirected or bool(call.words and call.words[0] in _NESTED)


def repository_of(directory: str, repositories: Sequence[str]) -> str | None:
    """Return the listed repository that `directory` is in, the deepest one."""
    if not isabs(directory):
        return None
    inside = [
        path for path in repositories if directory == path or directory.startswith(f"{path}/")
    ]
    return max(inside, key=len, default=None)


def translate(call: GitCall, repository: str) -> Translation:
    """Return what a call in a listed repository does."""
    if call.is_redirected:
        return UNKNOWN
    if not call.words:
        return READ
    verb, *words = call.words
    here: dict[str, Value] = {"repository": repository}
    if verb == "status":
        return READ._replace(suggestions=(Suggestion("git.status", here),))
    if verb in _LOOKS:
        return READ
    function = _VERBS.get(verb)
    return UNKNOWN if function is None else function(words, here)


def _log(words: Sequence[str], here: dict[str, Value]) -> Translation:
    if any(word.startswith("--output") for word in words):
        return UNKNOWN
    short = [f"-n{word[1:]}" if re.fullmatch(r"-[0-9]+", word) else word for word in words]
    parsed = parse(short, _LOG)
    if parsed is not None and not [word for word in parsed.operands if not _REF.fullmatch(word)]:
        limit = parsed.given.get("-n") or parsed.given.get("--max-count") or ""
        if limit.isascii() and limit.isdigit() and len(limit) < 4 and int(limit):
            here = here | {"limit": int(limit)}
    return READ._replace(suggestions=(Suggestion("git.log", here),))


def _diff(words: Sequence[str], here: dict[str, Value]) -> Translation:
    if any(word.startswith("--output") or word == "--ext-diff" for word in words):
        return UNKNOWN
    if len(words) == 1 and _REF.fullmatch(words[0]) and words[0] != "HEAD":
        here = here | {"ref": words[0]}
    return READ._replace(suggestions=(Suggestion("git.diff", here),))


def _fetch(words: Sequence[str], here: dict[str, Value]) -> Translation:
    parsed = parse(words, options("-p --prune -q --quiet -v --verbose"))
    if parsed is None or len(parsed.operands) > 1:
        return UNKNOWN
    return _filled("git.fetch", here, ("remote",), parsed.operands)


def _pull(words: Sequence[str], here: dict[str, Value]) -> Translation:
    parsed = parse(words, options("--ff-only -q --quiet -v --verbose"))
    if parsed is None or len(parsed.operands) > 2:
        return UNKNOWN
    return _filled("git.pull", here, ("remote", "branch"), parsed.operands)


def _switch(words: Sequence[str], here: dict[str, Value]) -> Translation:
    if len(words) != 1:
        return UNKNOWN
    return _filled("git.switch", here, ("branch",), words)


def _reset(words: Sequence[str], here: dict[str, Value]) -> Translation:
    parsed = parse(words, options("--hard -q --quiet"))
    if parsed is None or not parsed.has("--hard") or len(parsed.operands) > 1:
        return UNKNOWN
    return _filled("git.reset", here, ("ref",), [x for x in parsed.operands if x != "HEAD"])


def _branch(words: Sequence[str], _here: dict[str, Value]) -> Translation:
    parsed = parse(words, _BRANCH_LOOKS)
    return READ if parsed is not None and not parsed.operands else UNKNOWN


def _only(*allowed: str) -> Callable[[Sequence[str], dict[str, Value]], Translation]:
    def function(words: Sequence[str], _here: dict[str, Value]) -> Translation:
        return READ if not words or words[0] in allowed else UNKNOWN

    return function


def _filled(
    operation: str, here: dict[str, Value], names: Sequence[str], operands: Sequence[str]
) -> Translation:
    """Return the operation with the operands under these names; what has none is missing."""
    if not all(_REF.fullmatch(operand) and operand != "HEAD" for operand in operands):
        return UNKNOWN
    parameters = here | dict(zip(names, operands, strict=False))
    missing = tuple(names[len(operands) :])
    return Translation(suggestions=(Suggestion(operation, parameters, missing),))


_VERBS: dict[str, Callable[[Sequence[str], dict[str, Value]], Translation]] = {
    "log": _log,
    "diff": _diff,
    "fetch": _fetch,
    "pull": _pull,
    "switch": _switch,
    "checkout": _switch,
    "reset": _reset,
    "branch": _branch,
    "remote": _only("-v", "show", "get-url"),
    "tag": _only("-l", "--list"),
    "stash": lambda words, _here: READ if words[:1] in (["list"], ["show"]) else UNKNOWN,
    "config": lambda words, _here: (
        READ if words[:1] in (["--get"], ["--list"], ["-l"], ["list"], ["get"]) else UNKNOWN
    ),
    "reflog": _only("show"),
    "worktree": lambda words, _here: READ if words[:1] == ["list"] else UNKNOWN,
}
