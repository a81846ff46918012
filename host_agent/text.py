r"""Foreign text inside our own lines: on one line, everything hidden in it written visibly. Pure.

There is one form of escape, `\u{hex}`, and an escape that is seen was always made here. Names and
parameters are shown in ASCII alone, so that a letter that looks like another cannot pass for it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping

from host_agent.audit.record import escaped, visible
from host_agent.canonical import JsonValue

MARKS_IN_A_ROW = 2
"""More combining marks on one letter would draw over the lines around it."""

_BARE = re.compile(r"[A-Za-z0-9._/@:+,=-]+")
_LIKE_JSON = re.compile(r"true|false|null|-?[0-9]+")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_SPACE_AFTER_SPACE = re.compile(r"(?<= ) ")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
_EMPTY_BRAILLE = "\u2800"
_QUOTES = re.compile(
    '["\u02ba\u02dd\u02ee\u05f4\u201c-\u201f\u2033\u2036\u275d\u275e\u301d-\u301f\uff02]'
)
"""The double quote, and what looks like one."""


def free(text: str) -> str:
    """Return a text of somebody's own words on one line, letters of all scripts kept.

    Of several spaces in a row only the first is kept as it is: padding must not push a part of the
    text to where a screen begins its next line.
    """
    shown = visible(text)
    if not shown.isascii():
        shown = "".join(_letters(shown))
    return _SPACE_AFTER_SPACE.sub(escaped, shown)


def _letters(text: str) -> Iterator[str]:
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        is_unseen = (category in _UNSEEN and character != " ") or character == _EMPTY_BRAILLE
        is_too_much = is_unseen or marks > MARKS_IN_A_ROW
        yield f"\\u{{{ord(character):x}}}" if is_too_much else character


def plain(text: str) -> str:
    """Return a text on one line with everything beyond printable ASCII escaped."""
    return _SPACE_AFTER_SPACE.sub(escaped, _NOT_ASCII.sub(escaped, visible(text)))


def name(text: str) -> str:
    """Return a name: bare where it is a plain word, else in quotes."""
    is_bare = _BARE.fullmatch(text) and not _LIKE_JSON.fullmatch(text)
    return text if is_bare else _quoted(text)


def value(item: JsonValue) -> str:
    """Return a parameter's value on one line, two values never alike.

    A plain word stands as it is, all other strings in quotes; the rest is as in JSON.
    """
    return name(item) if isinstance(item, str) else _nested(item)


def _nested(item: JsonValue) -> str:
    if isinstance(item, str):
        return _quoted(item)
    if item is None or isinstance(item, bool):
        return {None: "null", True: "true", False: "false"}[item]
    if isinstance(item, int):
        return str(item)
    if isinstance(item, Mapping):
        members = (f"{_quoted(key)}: {_nested(member)}" for key, member in item.items())
        return "{" + ", ".join(members) + "}"
    return "[" + ", ".join(map(_nested, item)) + "]"


def _quoted(text: str) -> str:
    return '"' + plain(text).replace('"', "\\u{22}") + '"'


def cut(text: str, room: int, *, shown: Callable[[str], str] = free) -> str:
    """Return `text` in quotes, as `shown` shows it, in at most `room` characters.

    A double quote in it, or what looks like one, becomes a single one, so that nothing in it seems
    to stand behind it.
    What does not fit is told behind the closing quote, where no text can forge it. At least the
    quotes and that remark are returned.
    """
    if len(text) + 2 <= room:
        whole = f'"{_without_quotes(shown(text))}"'
        if len(whole) <= room:
            return whole
    low, high = 0, max(min(len(text) - 1, room), 0)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_cut_at(text, middle, shown)) <= room:
            low = middle
        else:
            high = middle - 1
    return _cut_at(text, low, shown)


def _cut_at(text: str, length: int, shown: Callable[[str], str]) -> str:
    inside = _without_quotes(shown(text[:length]))
    return f'"{inside}" ... cut, {len(text) - length} characters'


def _without_quotes(shown: str) -> str:
    return _QUOTES.sub("'", shown)
