"""Whether a text that is not one simple command names a privileged program anywhere.

The text is not understood. It is searched as it stands, and once more as the shell might put it
together: without quotes, backslashes, continued lines and empty expansions, escapes of `$'...'`
decoded, letters that look like ASCII ones taken for these.
"""

import re
from collections.abc import Sequence
from posixpath import basename, isabs, join, normpath

from host_agent.hooks.programs.git import repository_of

ELEVATORS = ("sudo", "sudoedit", "doas", "pkexec", "run0", "su", "runuser")
"""Programs that run others as another user."""

PROGRAMS = {
    "systemctl": "systemctl",
    "zfs": "zfs",
    "zpool": "zpool",
    "pct": "pct",
    "apt-get": "apt",
    "aptitude": "apt",
    "apt": "apt",
    "service": "systemctl",
}
"""Privileged programs, and the modules of `programs` that know them. `git` is one in listed
repositories."""

_AMBIGUOUS = frozenset(["service", "su"])
"""Words of plain English, or of programs: they count in a text with what follows them only."""

_NAMES = "|".join(
    re.escape(name) for name in sorted({*ELEVATORS, *PROGRAMS} - _AMBIGUOUS, key=len, reverse=True)
)
_NOT_AFTER = r"(?![\w/=-]|\.\w)"
_VARIABLE = r"(?!pct\s*=\s)"
"""A percentage in a program's text; pct itself has no use for such a word."""

_MENTION = re.compile(rf"(?<![\w.-]){_VARIABLE}({_NAMES}){_NOT_AFTER}", re.ASCII)
_SU = re.compile(r"(?:^|[;&|(`/]|\s)(su)\s+(?:-|root\b|\w+\s+-c\b)", re.ASCII)
_SERVICE = re.compile(
    r"(?<![\w.-])(service)\s+[\w@.:-]+\s+(?:re)?(?:start|stop|load|status|force-reload)\b", re.ASCII
)
_GIT = re.compile(rf"(?<![\w.-])(git){_NOT_AFTER}", re.ASCII)
_MOVES = re.compile(
    r"(?<![\w.-])(?:cd|pushd|-C|GIT_DIR|GIT_WORK_TREE|--git-dir|--work-tree)(?![\w-])"
)
_PATHS = re.compile(r"[\w./~+@-]+", re.ASCII)
_ANSI_QUOTED = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|.)", re.DOTALL
)
_EMPTY = re.compile(r"\$[@*0-9]|\$\{[@*0-9]?\}|\$\{[A-Za-z_]\w*:?-?\}|\"\$[A-Za-z_]\w*\"", re.ASCII)
_LOOKALIKES = str.maketrans(
    "\u0430\u0441\u0501\u0435\u0261\u04bb\u0456\u0131\u03b9\u0458\u04cf\u043c\u0578\u043e\u03bf"
    "\u0440\u03c1\u051b\u0433\u0455\u0442\u03c4\u057d\u03c5\u0475\u03bd\u0445\u0443\u1d22\ua731",
    "acdeghiiijlmnooppqrsttuuvvxyzs",
)
"""Letters of other scripts, and what they look like in a program's name."""

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def mentioned(text: str, directory: str, repositories: Sequence[str]) -> str | None:
    """Return the privileged program that `text`, run in `directory`, names; None for none."""
    for form in _forms(text):
        for pattern in (_MENTION, _SERVICE, _SU):
            found = pattern.search(form)
            if found is not None:
                return found[1]
        if repositories and _GIT.search(form) and _is_listed(form, directory, repositories):
            return "git"
    return None


def folded(text: str) -> str:
    """Return `text` with letters that look like ASCII ones as these, and nothing invisible."""
    if text.isascii():
        return text
    import unicodedata

    plain = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text))
    return "".join(x for x in plain if not unicodedata.combining(x)).translate(_LOOKALIKES)


def _forms(text: str) -> list[str]:
    plain = folded(text)
    forms = [plain]
    decoded = _ANSI_QUOTED.sub(_decoded, plain) if "$'" in plain else plain
    joined = _EMPTY.sub("", decoded.replace("\\\n", ""))
    for sign in "'\"\\":
        joined = joined.replace(sign, "")
    if joined != plain:
        forms.append(joined)
    return forms


def _decoded(found: "re.Match[str]") -> str:
    return _ESCAPE.sub(_escaped, found[1])


def _escaped(found: "re.Match[str]") -> str:
    sign = found[1]
    if sign[0] in "xuU" and len(sign) > 1:
        number = int(sign[1:], 16)
        return chr(number) if number < 0x110000 else ""
    return chr(int(sign, 8)) if sign.isdigit() and sign[0] < "8" else sign


def _is_listed(text: str, directory: str, repositories: Sequence[str]) -> bool:
    """Return whether a git command in `text` may be about a listed repository.

    It is where the shell stands in one, where the text has a path into one, and where it changes
    the directory and has the last part of a repository's path.
    """
    if repository_of(normpath(directory), repositories) is not None:
        return True
    words = _PATHS.findall(text)
    ends = {basename(path) for path in repositories} if _MOVES.search(text) else set()
    for word in words:
        place = normpath(word if isabs(word) else join(directory, word))
        if repository_of(place, repositories) is not None or basename(word.rstrip("/")) in ends:
            return True
    return False
