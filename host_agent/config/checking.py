"""What a merged table means, or every fault of it at once, each by its dotted key.

Values are judged by the models, then what only shows between tables, then against this host. The
later two read the raw tables, so that one fault does not hide another.
"""

import difflib
import json
import os
import pwd
import re
import socket
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from host_agent.config.channels.declaration import FileMark
from host_agent.config.models import (
    DEFAULT_STORE_URL,
    DEFAULT_WRAPPER_DIR,
    SQLITE_PREFIX,
    Config,
    RunnerKind,
)
from host_agent.config.people import channel_files, people_faults, plugin_fault, secret_files
from host_agent.errors import ConfigurationError
from host_agent.identity.registry import Role
from host_agent.operations import CATALOGUE

Table: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str | int, ...]
Origins: TypeAlias = dict[Key, str]

_KEPT_NAME = re.compile(r"[A-Za-z0-9_+-]+\.[a-z0-9]+", re.ASCII)
"""What root's wrapper takes for the name of an audit log."""

_WORDS = (
    ("Input should be a valid ", "must be a "),
    ("a integer", "an integer"),
    ("a tuple", "an array"),
    ("a array", "an array"),
    ("must be a dictionary or instance of ", "must be a table, "),
    ("Input should be greater than or equal to", "must be at least"),
    ("Input should be less than or equal to", "must be at most"),
    ("Input should", "must"),
)
"""pydantic's wording and ours, in the order in which they are replaced."""


def dotted(key: Sequence[str | int]) -> str:
    """Return `key` as faults write it: `rules[2].operations`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if part.replace("-", "_").isidentifier() else json.dumps(part[:64])
            text += f".{shown}" if text else shown
    return text


def build(
    table: Table,
    base: Path,
    uid: int,
    files: tuple[Path, ...],
    origins: Origins,
    *,
    is_for_this_host: bool = True,
) -> Config:
    """Return the checked configuration, or raise every fault of every layer at once."""
    found: dict[Key, str] = dict(_values_json_cannot_hold(table, ()))
    config: Config | None = None
    text = json.dumps(_without({"store": {}, "audit": {}, **table}, frozenset(found), ()))
    try:
        config = Config.model_validate_json(text, context=_context(base))
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            found.setdefault(*_explain(fault))
    missing = _host_faults(table, base, uid) if is_for_this_host else ()
    for key, message in (*_contradictions(table), *missing):
        found.setdefault(key, message)
    if found or config is None:
        faults = [_line(key, message, origins, table) for key, message in found.items()]
        raise ConfigurationError(faults)
    config._files = files  # noqa: SLF001 - what no file says, set once here
    config._host = socket.gethostname()  # noqa: SLF001
    return config


def _context(base: Path) -> dict[str, object]:
    """Return what single values are checked against, beside themselves."""
    return {"base": base, "adapters_programs": CATALOGUE.programs}


def _without(value: object, bad: frozenset[Key], at: Key) -> object:
    """Return `value` as JSON can write it: what is at a `bad` key is null."""
    if at in bad:
        return None
    if isinstance(value, dict):
        return {key: _without(item, bad, (*at, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, bad, (*at, index)) for index, item in enumerate(value)]
    return value


def _line(key: Key, message: str, origins: Origins, table: Table) -> str:
    """Return one fault: its key, what is wrong, and where: which of many entries, in which file."""
    file = next(
        (origins[key[:end]] for end in range(len(key), 0, -1) if key[:end] in origins), None
    )
    places = [place for place in (_entry(key, table), file and f"in {file}") if place]
    return f"{dotted(key)}: {message}" + (f" ({', '.join(places)})" if places else "")


_NAMED_BY: Mapping[str, tuple[str, str]] = {
    "rules": ("rule", "name"),
    "identities": ("identity", "cn"),
    "approvers": ("approver", "owner"),
    "bridges": ("bridge", "cn"),
}
"""What an entry of each array is called, and the key that names it to a person."""
_NAME_LENGTH = 60


def _entry(key: Key, table: Table) -> str | None:
    """Return the name of the entry that `key` leads into, where it has one and is not its fault."""
    if len(key) < 3 or key[0] not in _NAMED_BY or not isinstance(key[1], int):
        return None
    kind, naming = _NAMED_BY[str(key[0])]
    entries = table.get(str(key[0]))
    entry = entries[key[1]] if isinstance(entries, list) and key[1] < len(entries) else None
    name = _text(entry.get(naming)) if isinstance(entry, dict) and key[2] != naming else None
    if not name or not name.isprintable():
        return None
    return f"{kind} {json.dumps(name[:_NAME_LENGTH], ensure_ascii=False)}"


def _values_json_cannot_hold(value: object, at: Key) -> Iterator[tuple[Key, str]]:
    """Find what TOML can say and no key takes: dates, NaN, endless integers, control characters."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values_json_cannot_hold(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values_json_cannot_hold(item, (*at, index))
    elif isinstance(value, str):
        if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in value):
            yield at, "holds a control character"
    elif isinstance(value, float):
        if not isfinite(value):
            yield at, "must be a finite number"
    elif isinstance(value, int):
        if not -(2**53) < value < 2**53:
            yield at, "is beyond 2**53"
    else:
        yield at, "must not be a date or time"


def _explain(fault: Mapping[str, Any]) -> tuple[Key, str]:
    """Return key and sentence of one pydantic fault."""
    key: Key = tuple(fault["loc"])
    if fault["type"] == "missing":
        return key, "is required"
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(key[-1]), _known_keys(key[:-1]), n=1)
        return key, "is not a known key" + (f"; did you mean {near[0]}?" if near else "")
    message = str(fault["msg"]).removeprefix("Value error, ")
    for said, better in _WORDS:
        message = message.replace(said, better)
    return key, message


def _known_keys(key: Key) -> list[str]:
    """Return the keys of the table at `key`."""
    model: type[BaseModel] | None = Config
    for part in key:
        if isinstance(part, str) and model is not None:
            field = model.model_fields.get(part)
            model = None if field is None else table_of(field.annotation)
    return [] if model is None else list(model.model_fields)


def table_of(annotation: object) -> type[BaseModel] | None:
    """Return the model in an annotation such as `tuple[Rule, ...]` or `GitSection | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = getattr(annotation, "__args__", ())
    return next((found for part in arguments if (found := table_of(part))), None)


def _contradictions(table: Table) -> Iterator[tuple[Key, str]]:
    """Find what only shows between two tables. Works on raw values, beside other faults."""
    identities = _tables(table.get("identities"))
    rules = _tables(table.get("rules"))
    names = [_text(identity.get("cn")) for _, identity in identities]
    yield from _twice("identities", "cn", identities)
    yield from _twice("rules", "name", rules)
    for index, rule in rules:
        listed = rule.get("identities")
        for position, name in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(name, str) and name not in names:
                yield ("rules", index, "identities", position), "names no identity"
    yield from people_faults(table)
    yield from _append_only_faults(table)
    repositories = _tables(_table(table.get("git")).get("repositories"))
    yield from (
        (("git", *key), message) for key, message in _twice("repositories", "path", repositories)
    )


def _append_only_faults(table: Table) -> Iterator[tuple[Key, str]]:
    """Find why root could not keep the audit log, where it should."""
    audit = _table(table.get("audit"))
    if audit.get("append_only") is not True:
        return
    if _table(table.get("execution")).get("runner") == RunnerKind.DIRECT:
        yield ("audit", "append_only"), "needs runner `sudo`: root's wrapper begins each file"
    path = PurePosixPath(_text(audit.get("path")) or "state/audit.jsonl")
    url = _text(_table(table.get("store")).get("url")) or DEFAULT_STORE_URL
    store = PurePosixPath(url.removeprefix(SQLITE_PREFIX))
    if _KEPT_NAME.fullmatch(path.name) is None:
        yield ("audit", "path"), "has to end as in `audit.jsonl` where root keeps the log"
    if path.parent == store.parent:
        message = (
            "lies with the store, where the agent may write; root keeps a directory of its own"
        )
        yield ("audit", "path"), message


def _tables(value: object) -> list[tuple[int, Table]]:
    if not isinstance(value, list):
        return []
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)]


def _table(value: object) -> Table:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _twice(array: str, key: str, tables: list[tuple[int, Table]]) -> Iterator[tuple[Key, str]]:
    """Find values of `key` that an earlier table of the array has already."""
    seen: Counter[str] = Counter()
    for index, table in tables:
        value = _text(table.get(key))
        if value is None:
            continue
        if seen[value]:
            yield (array, index, key), "is the same as an earlier one"
        seen[value] += 1


def _host_faults(table: Table, base: Path, uid: int) -> Iterator[tuple[Key, str]]:
    """Find what this host does not have: files and users. Works on raw values, as above."""
    server = _table(table.get("server"))
    for key in ("certificate", "private_key", "client_ca", "crl"):
        file = _text(server.get(key))
        if file and (fault := _file_fault(base / file)):
            yield ("server", key), fault
    for key_of, file in (*secret_files(table), *channel_files(table, FileMark.PUBLIC)):
        if file and (fault := _file_fault(base / file)):
            yield key_of, fault
    plugin = _text(_table(table.get("approvals")).get("plugin"))
    if plugin and (fault := plugin_fault(plugin)):
        yield ("approvals", "plugin"), fault
    execution = _table(table.get("execution"))
    folder = _text(execution.get("wrapper_dir", DEFAULT_WRAPPER_DIR))
    if (
        folder
        and any(adapter.name in table for adapter in CATALOGUE.adapters)
        and not os.path.isdir(base / folder)  # noqa: PTH112 - NUL is False
    ):
        yield ("execution", "wrapper_dir"), f"{base / folder} is not a directory"
    is_direct = execution.get("runner") == RunnerKind.DIRECT
    for index, identity in _tables(table.get("identities")):
        # Who only decides runs nothing, and needs no user.
        roles = identity.get("roles", [Role.CALLER])
        may_be_without = is_direct or (isinstance(roles, list) and Role.CALLER not in roles)
        if fault := _user_fault(
            identity.get("unix_user"), uid, may_be_without=may_be_without, is_direct=is_direct
        ):
            yield ("identities", index, "unix_user"), fault


def _file_fault(file: Path) -> str | None:
    try:
        status = file.stat()
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"
    except ValueError:
        return "is no path"
    return None if stat.S_ISREG(status.st_mode) else f"{file} is not a regular file"


def _user_fault(
    user: object, agent_uid: int, *, may_be_without: bool, is_direct: bool
) -> str | None:
    if user is None:
        return None if may_be_without else "is required of a caller with runner sudo"
    if not isinstance(user, str):
        return None  # the model names it
    try:
        uid = pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return "is no user of this host"
    if uid == 0:
        return "is uid 0, which no identity may be"
    if is_direct:
        is_own = uid == agent_uid
        return None if is_own else f"is another user than the agent's own, and {_DIRECT_ONLY}"
    alike = _names_alike(user)
    return f"differs from the account {alike} by its case only, and {_CASELESS}" if alike else None


_DIRECT_ONLY = "runner direct runs as that one only"
_CASELESS = "to sudo the two are one name"


def _names_alike(user: str) -> str | None:
    """Return another account whose name is this one to sudo, which compares without case."""
    names = {"root", *(entry.pw_name for entry in pwd.getpwall())} - {user}
    return next((name for name in sorted(names) if name.lower() == user.lower()), None)
