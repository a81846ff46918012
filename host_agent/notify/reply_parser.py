"""What a person's message says. Pure; nothing here knows who sent it.

`CONFIRM <code>`, `DENY <code> [2h] [reason]`, `ENROL <code>`; an answer to a prompt may leave the
code out of a denial. `30m`, `2h` and `1d` say for how long nobody wants to be asked again, `not
before 18:00` until when, in UTC as prompts tell times. Verbs and codes may be in any case, codes
with spaces and dashes. Only ASCII is read: what merely looks like it stands for nothing. A bare
"yes" says nothing either.
"""

import re
from dataclasses import dataclass, field
from datetime import time, timedelta
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
    """No. `code` is None where it was left out: then it has to answer a prompt.

    `wait` is for how long, or until which time of the day in UTC, nobody wants to be asked again.
    """

    code: str | None = None
    reason: str | None = None
    wait: timedelta | time | None = None


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
        code, more = None, rest
    wait, words = _waited(more)
    return Denial(code=code, reason=_reason(words), wait=wait)


_SPAN = re.compile(r"([1-9][0-9]{0,3}) ?(m|min|h|d)(?![\w-])", re.ASCII | re.IGNORECASE)
_TIME = re.compile(
    r"(?:not before|until) ([01]?[0-9]|2[0-3]):([0-5][0-9])(?: ?(?:z|utc))?"
    r"(?![\w:+-]|\.[0-9]| ?[ap]\.?m\b| ?(?:utc|gmt)? ?[+-][0-9])",
    re.ASCII | re.IGNORECASE,
)
"""A time in UTC; one with another offset, or of half a day, stands for none."""
_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


def _waited(text: str) -> tuple[timedelta | time | None, str]:
    """Return how long to wait, where a text begins with that, and the rest."""
    bare = text.lstrip(_END)
    if (found := _SPAN.match(bare)) is not None:
        return timedelta(**{_UNITS[found[2].lower()]: int(found[1])}), bare[found.end() :]
    if (found := _TIME.match(bare)) is not None:
        return time(int(found[1]), int(found[2])), bare[found.end() :]
    return None, text


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

    People type a code in one piece or in even ones, and older codes may have no digit. The digit of
    a time that stands first makes no code of the words behind it.
    """
    bare = typed.strip(" -")
    if len({len(piece) for piece in re.split("[ -]+", bare)}) == 1:
        return True
    return any(map(str.isdigit, bare)) and _SPAN.match(bare) is None


def _reason(text: str) -> str | None:
    """Return a reason that can be stored: bounded, without NUL and halves of characters."""
    whole = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    return whole.strip(_END)[:MAX_REASON].rstrip() or None
