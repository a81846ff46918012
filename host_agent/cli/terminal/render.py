"""Text for people's terminals: nothing from a host or a caller reaches one unescaped.

What a person could not see is written as `host_agent.text` writes it everywhere; long text is cut,
with its size and hash told. rich is imported only where something is drawn, and its markup, emoji
and highlighting are off, so that data cannot style itself.
"""

import hashlib
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, TextIO, cast

from pydantic import JsonValue

from host_agent.text import visible as one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_OF_DOUBTFUL_WIDTH = frozenset((*range(0x1F3FB, 0x1F400), *range(0x3248, 0x3250)))
"""Emoji modifiers, and numbers in circles on squares. Like the spacing marks (category Mc) they
take more columns on a terminal than are counted where lines are laid out: a text of them would go
over the end of its line and push others off the screen."""
MIN_LABEL_WIDTH = 12
MIN_HANGING = 8

_BLANKS_AT_THE_END = re.compile(r" +(?=\n|\Z)")
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9._/@:+,=-]+")


def visible(text: str, *, limit: int | None = None) -> str:
    """Return `text` on one line as `host_agent.text` writes it, fit for a terminal's columns.

    `limit` bounds the characters shown; what is cut is told with its number and the SHA-256 of the
    whole.
    """
    shown = text if limit is None else text[:limit]
    escaped = one_line(shown, also=_has_doubtful_width)
    if len(shown) == len(text):
        return escaped
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{escaped} ... [{len(text) - len(shown)} more characters; sha256 of all: {digest}]"


def _has_doubtful_width(character: str) -> bool:
    return unicodedata.category(character) == "Mc" or ord(character) in _OF_DOUBTFUL_WIDTH


def visible_lines(text: str, *, max_lines: int | None = None, limit: int | None = None) -> str:
    """Return `text` escaped like `visible`, with its newlines and tabs kept.

    Past `max_lines` lines, a last one tells how many are left out.
    """
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    kept = lines if max_lines is None else lines[:max_lines]
    shown = ["\t".join(visible(part, limit=limit) for part in line.split("\t")) for line in kept]
    if len(kept) < len(lines):
        shown.append(f"... [{len(lines) - len(kept)} more lines; --json shows all]")
    return "\n".join(shown)


def value_text(value: JsonValue, *, limit: int | None = None) -> str:
    """Return a parameter's value: plain strings as they are, all else as JSON, escaped."""
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value) and not _looks_like_json(value):
        return visible(value, limit=limit)
    return visible(json.dumps(value, ensure_ascii=False), limit=limit)


def _looks_like_json(text: str) -> bool:
    return text in ("true", "false", "null") or text.lstrip("-").isdigit()


def json_text(value: object, *, indent: int | None = 2) -> str:
    """Return `value` as JSON in printable ASCII: fit for a script, harmless on a terminal."""
    text = json.dumps(value, ensure_ascii=True, indent=indent, allow_nan=False)
    return text.replace("\x7f", "\\u007f")


def span_text(seconds: float) -> str:
    """Return a time span in the one unit that matters, rounded down: `9 min`."""
    whole = max(int(seconds), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def duration_text(seconds: float) -> str:
    """Return a time span in the two units that matter."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, noun: str) -> str:
    """Return how many there are of something whose name takes an s: `1 check`, `2 checks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at `stream`."""
    return stream.isatty()


def console(stream: TextIO | None = None) -> "Console":
    """Return a rich console on `stream` (standard output) that takes data as data.

    Where nobody looks there is no colour, and no line is folded.
    """
    from rich.console import Console

    target = sys.stdout if stream is None else stream
    return Console(
        file=target if is_terminal(target) else cast("IO[str]", _Trimmed(target)),
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        width=None if is_terminal(target) else 100_000,
    )


class _Trimmed:
    """Writes to a stream that nobody looks at: no line ends in blanks there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_BLANKS_AT_THE_END.sub("", text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def table(columns: Sequence[str], rows: Iterable[Sequence["str | Text"]]) -> "Table":
    """Return a listing with a header; cells must be escaped already, the first never folds."""
    from rich.table import Table
    from rich.text import Text

    listing = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        listing.add_column(name.upper(), no_wrap=index == 0, overflow="fold")
    for row in rows:
        listing.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return listing


def fields(rows: Iterable[tuple[str, "str | Text"]]) -> "Table":
    """Return labels beside values; a folded or many-lined value stays in its own column.

    So no value can begin a line that looks like one of ours. Labels take at most a third of the
    terminal, so that they cannot crowd values out.
    """
    from rich.table import Table
    from rich.text import Text

    widest = max(MIN_LABEL_WIDTH, shutil.get_terminal_size().columns // 3)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold", style="bold", max_width=widest)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(label), Text(value) if isinstance(value, str) else value)
    return grid


def hanging(rows: Iterable[tuple[str, str, str]]) -> "Table":
    """Return short labels, each in its style, beside sentences that fold between words."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, min_width=MIN_HANGING)
    grid.add_column(overflow="fold")
    for label, style, sentence in rows:
        grid.add_row(Text(label, style=style), Text(sentence))
    return grid


def words(text: str, *, limit: int = 200) -> str:
    """Return somebody's own words in quotes that nothing in them can end."""
    return '"' + visible(text, limit=limit).replace('"', "'") + '"'


def warn(message: str) -> None:
    """Write one line to standard error; `message` must be escaped already."""
    sys.stderr.write(f"host-agent: {message}\n")
