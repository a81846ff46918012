"""What is put into a host's settings, and taken out of them again, whatever else they hold."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from host_agent.errors import ConfigurationError
from host_agent.hooks.wording import SERVER
from host_agent.integration import json_text, toml_text
from host_agent.integration.json_text import JsonTextError, Plain


class SettingsFile(Protocol):
    """One file of a host, and our part of it."""

    @property
    def path(self) -> Path:
        """Return where it is."""

    @property
    def empty(self) -> str:
        """Return a file of this form with nothing in it."""

    def put(self, text: str) -> str:
        """Return `text`, which has nothing of ours, with our part."""

    def take(self, text: str, before: str | None) -> str:
        """Return `text` without our part.

        `before` is the file as it was before we came, where that was recorded: what is empty now
        and was not there then goes too.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonItem:
    """An item of an array that is ours where `is_ours` is true of it."""

    path: Path
    where: Sequence[str]
    item: Plain
    is_ours: Callable[[Plain], bool]
    empty: str = "{}\n"

    def put(self, text: str) -> str:
        """Return `text` with the item as the last."""
        return json_text.append(text, self.where, self.item)

    def take(self, text: str, before: str | None) -> str:
        """Return `text` without the items that are ours."""
        return _pruned(json_text.cut(text, self.where, self.is_ours), self.where, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonListEntry:
    """A name in a list that is there already; where there is no list, nothing is done."""

    path: Path
    where: Sequence[str]
    name: str
    empty: str = "{}\n"

    def put(self, text: str) -> str:
        """Return `text` with the name as the last, if there is such a list without it."""
        found = json_text.parse(text).at(*self.where)
        if found is None or found.kind != "array" or self.name in _list(found.value()):
            return text
        return json_text.append(text, self.where, self.name)

    def take(self, text: str, before: str | None) -> str:
        """Return `text` without the name, unless it was there before."""
        if before is None or self.name in _list(_value(before, self.where)):
            return text
        return json_text.cut(text, self.where, lambda value: value == self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonMember:
    """A member of an object; one that a person wrote there is left as it is."""

    path: Path
    where: Sequence[str]
    value: Plain
    empty: str = "{}\n"

    def put(self, text: str) -> str:
        """Return `text` with the member, unless it is there."""
        if json_text.parse(text).at(*self.where) is not None:
            return text
        return json_text.put(text, self.where, self.value)

    def take(self, text: str, before: str | None) -> str:
        """Return `text` without the member, unless it was there before or nobody knows."""
        if before is None or _value(before, self.where) is not None:
            return text
        return _pruned(json_text.drop(text, self.where), self.where[:-1], before)


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlTable:
    """A table of our own; one that a person wrote is left as it is."""

    path: Path
    header: str
    values: Mapping[str, str | Sequence[str]]
    empty: str = ""

    def put(self, text: str) -> str:
        """Return `text` with the table at its end, unless there is one of that name."""
        if toml_text.table(text, self.header) is not None:
            return text
        return toml_text.with_table(text, self.header, self.values)

    def take(self, text: str, before: str | None) -> str:  # noqa: ARG002 - it has a mark
        """Return `text` without our table."""
        return toml_text.without_table(text, self.header)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFile:
    """A file that is ours as a whole."""

    path: Path
    content: str
    empty: str = ""

    def put(self, text: str) -> str:  # noqa: ARG002 - whatever was there
        """Return the file."""
        return self.content

    def take(self, text: str, before: str | None) -> str:
        """Return nothing, unless there was something before."""
        return before or "" if text == self.content else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Several parts of ours in one file."""

    path: Path
    parts: Sequence[SettingsFile]

    @property
    def empty(self) -> str:
        """Return a file of this form with nothing in it."""
        return self.parts[0].empty

    def put(self, text: str) -> str:
        """Return `text` with every part."""
        for part in self.parts:
            text = part.put(text)
        return text

    def take(self, text: str, before: str | None) -> str:
        """Return `text` without the parts, the last first."""
        for part in reversed(self.parts):
            text = part.take(text, before)
        return text


def mcp_server(program: str) -> dict[str, Plain]:
    """Return the MCP server of this program, as hosts' settings have it."""
    return {"command": program, "args": ["mcp"]}


def mcp_path(*above: str) -> tuple[str, ...]:
    """Return where the MCP server is among a host's servers."""
    return (*above, SERVER)


def decoded(path: Path, content: bytes) -> str:
    """Return a file's text.

    Raises:
        ConfigurationError: it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigurationError([f"{path}: is not UTF-8."]) from None


def read_json(path: Path, content: bytes | None) -> Plain:
    """Return what a host's JSON says; None where there is no file.

    Raises:
        ConfigurationError: it is not JSON.
    """
    if content is None:
        return None
    try:
        return json_text.parse(decoded(path, content)).value()
    except JsonTextError as error:
        raise ConfigurationError([f"{path}: {error}."]) from None


def inside(value: Plain, *path: str) -> Plain:
    """Return what is at the end of a path of names; None where there is nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _value(text: str, where: Sequence[str]) -> Plain:
    return inside(json_text.parse(text or "{}").value(), *where)


def _list(value: Plain) -> list[Plain]:
    return value if isinstance(value, list) else []


def _pruned(text: str, where: Sequence[str], before: str | None) -> str:
    """Return `text` without what is empty at `where` and above, and was not there before."""
    for length in range(len(where), 0, -1):
        path = where[:length]
        is_empty = _value(text, path) in ([], {})
        if before is None or not is_empty or _value(before, path) is not None:
            break
        text = json_text.drop(text, path)
    return text


def as_text(value: Plain) -> str:
    """Return JSON as our own files have it."""
    return json.dumps(value, indent=2) + "\n"
