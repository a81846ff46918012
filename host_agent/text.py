r"""Foreign text in our own lines, and the grammar of what those lines name. Pure.

There is one form of escape, `\u{hex}`, for the log, for prompts and for terminals, and an escape
that is seen was always made here. Names and parameters are shown in ASCII alone, so that a letter
that looks like another cannot pass for it.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Final

ID: Final = "[0-9A-Za-z_-]{1,64}"
"""The ids of requests and grants. Those that are made here are hexadecimal (UUIDs)."""
SHOWN_ID: Final = 8
"""How many characters of an id people see and may type."""
SHA256: Final = "[0-9a-f]{64}"
HASH_PREFIX: Final = "sha256:"
DIGEST: Final = f"{HASH_PREFIX}{SHA256}"
"""A digest or a hash as it is written everywhere: the algorithm, and lower hexadecimal."""

MARKS_IN_A_ROW = 2
"""More combining marks on one letter would draw over the lines around it."""

_BARE = re.compile(r"[A-Za-z0-9._/@:+,=-]+")
_LIKE_JSON = re.compile(r"true|false|null|-?[0-9]+")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_SPACE_AFTER_SPACE = re.compile(r"(?<= ) ")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
"""General categories (UAX 44) that are no letters, marks, numbers or signs: control and format
characters, surrogates, private and unassigned code points, and all spaces but the one of ASCII."""
_BLANK = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)).union(
    range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)
)
"""Letters and marks that are drawn as nothing (Default_Ignorable_Code_Point of UAX 44, and the
empty braille pattern)."""
_QUOTES = re.compile(
    '["\u02ba\u02dd\u02ee\u05f4\u201c-\u201f\u2033\u2036\u275d\u275e\u301d-\u301f\uff02]'
)
"""The double quote, and what looks like one."""


def sha256_digest(data: bytes) -> str:
    """Return the hash of `data` in the form of `DIGEST`."""
    return f"{HASH_PREFIX}{hashlib.sha256(data).hexdigest()}"


def is_hidden(character: str) -> bool:
    """Return whether a person could not see `character`, or it could steer a terminal."""
    if character == " ":
        return False
    return unicodedata.category(character) in _HIDDEN or ord(character) in _BLANK


def visible(
    text: str, *, is_escaped: bool = False, also: Callable[[str], bool] = lambda _character: False
) -> str:
    r"""Return `text` on one line, with everything hidden in it, and `also` that, as `\u{hex}`.

    The backslash of a `\u{` that was in the text already becomes `\u{5c}`, so an escape in the
    result is always one that was made here, and the text before can be told from it exactly. Of a
    text that `is_escaped`, having come through here before, the escapes are kept.
    """
    if text.isascii() and text.isprintable() and (is_escaped or "\\u{" not in text):
        return text
    return "".join(_pieces(text, is_escaped=is_escaped, also=also))


def _pieces(text: str, *, is_escaped: bool, also: Callable[[str], bool]) -> Iterator[str]:
    marks = 0
    for index, character in enumerate(text):
        if " " <= character <= "~":
            marks = 0
            begins_escape = character == "\\" and text.startswith("u{", index + 1)
            yield _escape(character) if begins_escape and not is_escaped else character
            continue
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        is_shown = marks <= MARKS_IN_A_ROW and not is_hidden(character) and not also(character)
        yield character if is_shown else _escape(character)


def _escape(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"


def _escaped(match: re.Match[str]) -> str:
    return _escape(match[0])


def free(text: str) -> str:
    """Return a text of somebody's own words on one line, letters of all scripts kept.

    Of several spaces in a row only the first is kept as it is: padding must not push a part of the
    text to where a screen begins its next line.
    """
    return _SPACE_AFTER_SPACE.sub(_escaped, visible(text))


def plain(text: str) -> str:
    """Return a text on one line with everything beyond printable ASCII escaped."""
    return _SPACE_AFTER_SPACE.sub(_escaped, _NOT_ASCII.sub(_escaped, visible(text)))


def name(text: str) -> str:
    """Return a name: bare where it is a plain word, else in quotes."""
    is_bare = _BARE.fullmatch(text) and not _LIKE_JSON.fullmatch(text)
    return text if is_bare else _quoted(text)


def value(item: object) -> str:
    """Return a parameter's value, as JSON has them, on one line, two values never alike.

    A plain word stands as it is, all other strings in quotes; the rest is as in JSON.

    Raises:
        TypeError: JSON has no such value.
    """
    return name(item) if isinstance(item, str) else _nested(item)


def _nested(item: object) -> str:
    if isinstance(item, str):
        return _quoted(item)
    if item is None or isinstance(item, bool):
        return {None: "null", True: "true", False: "false"}[item]
    if isinstance(item, int):
        return str(item)
    if isinstance(item, Mapping):
        members = (f"{_quoted(key)}: {_nested(member)}" for key, member in item.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(item, list | tuple):
        return "[" + ", ".join(map(_nested, item)) + "]"
    message = f"no value of JSON: {type(item).__name__}"
    raise TypeError(message)


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
