"""What a person's message says. Pure; nothing here knows who sent it.

`CONFIRM <code>`, `DENY <code> [reason]`, `ENROL <code>`; an answer to a prompt may leave the code
out of a denial. Verbs and codes may be in any case, codes with spaces and dashes. Only ASCII is
read: what merely looks like it stands for nothing. A bare "yes" says nothing either.
"""

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from host_agent.requests.codes import ALPHABET, LENGTH

MAX_CHARACTERS = 1_000
"""A longer message approves nothing: its end may take back how it begins."""
MAX_REASON = 300

_LETTERS = frozenset(ALPHABET + ALPHABET.lower())
_VERB = re.compile(r"\s*([A-Za-z]{1,16})(?!\w)[\s:,.]*")
_END = "- \t\r\n.:,;!"
"""Characters that may follow a code, and that are skipped before a reason."""
_TAKEN = frozenset({"CONFIRM", "ENROL", "ENROLL"})
_MEANT = frozenset(
    {"APPROVE", "APPROVED", "REJECT", "YES", "NO", "OK", "OKAY", "CANCEL", "STOP", "HELP"}
)
"""Words that seem to be for us, and are no answer."""

APPROVES = frozenset(
    {
        "\N{THUMBS UP SIGN}",
        "\N{OK HAND SIGN}",
        "\N{WHITE HEAVY CHECK MARK}",
        "\N{HEAVY CHECK MARK}",
    }
)
"""Reactions that mean yes; a yes needs its code, so the answer says how to give it."""
DENIES = frozenset(
    {
        "\N{THUMBS DOWN SIGN}",
        "\N{CROSS MARK}",
        "\N{HEAVY MULTIPLICATION X}",
        "\N{NO ENTRY}",
        "\N{NO ENTRY SIGN}",
        "\N{OCTAGONAL SIGN}",
    }
)
"""Reactions that mean no."""
_MODIFIERS = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")
"""The colours of skin and of the emoji itself."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Yes, with a code."""

    code: str


@dataclass(frozen=True, slots=True)
class Denial:
    """No. `code` is None where it was left out: then it has to answer a prompt."""

    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Enrol:
    """The sender holds an enrolment code."""

    code: str


@dataclass(frozen=True, slots=True)
class ApproveReaction:
    """A reaction that means yes."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """It is meant for us, and is no answer: the sender is told why, and how to give one."""

    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Chatter:
    """It is not for us."""


Words: TypeAlias = Confirm | Denial | Enrol | ApproveReaction | Unclear | Chatter


def read(text: str) -> Words:
    """Return what a message says."""
    found = _VERB.match(text[:MAX_CHARACTERS])
    if found is None:
        return Chatter()
    verb, rest = found[1].upper(), text[found.end() : MAX_CHARACTERS]
    if verb == "DENY":
        return _denial(rest)
    if verb in _TAKEN:
        code, more = _split(rest)
        if code is None:
            return Unclear("no code stands behind that word")
        if more.strip(_END) or len(text) > MAX_CHARACTERS:
            return Unclear("more stands behind the code; a yes is the whole message")
        return Confirm(code) if verb == "CONFIRM" else Enrol(code)
    return Unclear("that word alone decides nothing") if verb in _MEANT else Chatter()


def read_reaction(emoji: str) -> Words:
    """Return what a reaction to a prompt says: no, a try at yes, or nothing."""
    bare = _MODIFIERS.sub("", emoji[:MAX_CHARACTERS])
    if bare in DENIES:
        return Denial()
    return ApproveReaction() if bare in APPROVES else Chatter()


def _denial(rest: str) -> Denial:
    """Return a denial; words that merely have a code's length are its reason."""
    code, more = _split(rest)
    if code is None or not _is_likely_code(rest[: len(rest) - len(more)]):
        return Denial(reason=_reason(rest))
    return Denial(code=code, reason=_reason(more))


def _split(text: str) -> tuple[str | None, str]:
    """Return the code that `text` begins with, normalised, and what follows; None if there is none.

    The code ends at a space, a dash, a mark or the end, never within a word.
    """
    code = ""
    for position, character in enumerate(text):
        if len(code) == LENGTH:
            return (code, text[position:]) if character in _END else (None, text)
        if character in _LETTERS:
            code += character.upper()
        elif character not in " -":
            return None, text
    return (code, "") if len(code) == LENGTH else (None, text)


def _is_likely_code(typed: str) -> bool:
    """Return whether text in the form of a code is one rather than the first words of a reason.

    People type a code in one piece or in even ones, and older codes may have no digit.
    """
    pieces = re.split("[ -]+", typed.strip(" -"))
    return len({len(piece) for piece in pieces}) == 1 or any(map(str.isdigit, typed))


def _reason(text: str) -> str | None:
    """Return a reason that can be stored: bounded, without NUL and halves of characters."""
    whole = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    return whole.strip(_END)[:MAX_REASON].rstrip() or None
