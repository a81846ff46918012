"""TOML as text: one table is put at the end under a mark, and taken out again."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

MARK = "# written by `host-agent integrate`; `host-agent integrate NAME --remove` takes it out"


class TomlTextError(Exception):
    """The text is not TOML; the message says where."""


def table(text: str, header: str) -> dict[str, Any] | None:
    """Return the table of a dotted header; None where there is none.

    Raises:
        TomlTextError: the text is not TOML.
    """
    try:
        found: Any = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise TomlTextError(str(error)) from None
    for name in header.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def with_table(text: str, header: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """Return `text` with a table at its end; `header` is what stands between the brackets."""
    newline = "\r\n" if "\r\n" in text else "\n"
    gap = newline if text else ""
    if text and not text.endswith("\n"):
        gap += newline
    lines = [MARK, f"[{header}]"]
    lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return text + gap + newline.join(lines) + newline


def without_table(text: str, header: str) -> str:
    """Return `text` without the table that `with_table` put there, and the blank line before it.

    The table goes up to the next line that is blank, a comment or a header.
    """
    lines = text.splitlines(keepends=True)
    begin = next((n for n, line in enumerate(lines) if line.strip() == MARK), None)
    if begin is None or lines[begin + 1 : begin + 2] == []:
        return text
    if lines[begin + 1].strip() != f"[{header}]":
        return text
    end = begin + 2
    while end < len(lines) and lines[end].strip() and lines[end].strip()[0] not in "[#":
        end += 1
    if begin and not lines[begin - 1].strip():
        begin -= 1
    return "".join([*lines[:begin], *lines[end:]])
