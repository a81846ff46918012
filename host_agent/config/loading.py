"""The one reader of configuration files: bounded, never through a symlink, all faults at once.

A fault is one line that begins with the dotted key it is about (`rules[2].operations: ...`), or
with the file where the text itself cannot be read. Nothing is used from a file with a fault.
"""

import errno
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host_agent.config.checking import Key, Origins, Table, build, dotted
from host_agent.config.models import Config
from host_agent.config.permissions import configuration_fault
from host_agent.errors import ConfigurationError

CONFIGURATION_LIMIT_BYTES = 1_048_576
"""The most that one configuration file may hold."""

MAX_FILES = 200
"""The most files that `conf.d` may hold."""

MAX_DEPTH = 10
"""Levels of tables and arrays. The deepest key, an array in `[[git.repositories]]`, has four."""


def load(path: Path, *, uid: int | None = None, is_for_this_host: bool = True) -> Config:
    """Return the configuration at `path`, with `conf.d/*.toml` beside it merged in name order.

    Tables merge, arrays of tables append, and a key that two files give is a fault. Files named in
    it must exist, and users too; their modes are `check_permissions`'s matter, except that a
    configuration file which others may write, or that is a symlink, is not read at all. `uid` is
    the agent's user, where it is not this process's. Of a configuration that is for another host,
    as in an image, no file or user is asked for here.

    Raises:
        ConfigurationError: with every fault.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a symlink
    faults: list[str] = []
    merged: Table = {}
    origins: Origins = {}
    uid = os.geteuid() if uid is None else uid
    files = _files(path, faults)
    for file in files:
        table = _read_table(file, uid, faults)
        if table is not None:
            _merge(merged, table, (), _shown(file, path.parent), origins, faults)
    if faults:
        raise ConfigurationError(faults)
    return build(
        merged,
        path.parent,
        uid,
        files,
        origins if len(files) > 1 else {},
        is_for_this_host=is_for_this_host,
    )


def parse(table: Mapping[str, Any], *, base: Path) -> Config:
    """Return the configuration that `table` (as TOML parses) means, relative paths under `base`.

    The same checks as `load`, without its files.

    Raises:
        ConfigurationError: with every fault.
    """
    return build(dict(table), base, os.geteuid(), (), {})


def _shown(file: Path, base: Path) -> str:
    return str(file.relative_to(base))


def _files(path: Path, faults: list[str]) -> tuple[Path, ...]:
    """Return the main file and those of `conf.d`, in the order in which they are merged."""
    folder = path.parent / "conf.d"
    try:
        extra = sorted(
            entry
            for entry in folder.iterdir()
            if entry.name.endswith(".toml") and not entry.name.startswith(".")
        )
    except FileNotFoundError:
        return (path,)
    except OSError as error:
        faults.append(f"{folder}: cannot be read ({error.strerror})")
        return (path,)
    if len(extra) > MAX_FILES:
        faults.append(f"{folder}: holds more than {MAX_FILES} files")
        return (path,)
    return (path, *extra)


def _read_table(file: Path, uid: int, faults: list[str]) -> Table | None:
    try:
        text = _read(file, uid).decode("utf-8")
        table = tomllib.loads(text)
        _check_depth(table)
    except OSError as error:
        cause = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        faults.append(f"{file}: cannot be read ({cause})")
    except UnicodeDecodeError as error:
        faults.append(f"{file}: is not UTF-8 (byte {error.start})")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{file}: is not TOML: {error}")
    except RecursionError:
        faults.append(f"{file}: is not TOML that can be read: nested too deep")
    except ValueError as error:
        faults.append(f"{file}: {error}")
    else:
        return table
    return None


def _check_depth(table: Table) -> None:
    """Refuse tables nested deeper than any key is. Not recursive: a dotted key may be endless."""
    level: list[dict[str, Any] | list[Any]] = [table]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
    if level:
        message = f"is nested deeper than {MAX_DEPTH} levels"
        raise ValueError(message)


def _read(file: Path, uid: int) -> bytes:
    """Return the bytes of a regular file of trusted owner and mode, at most the limit.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no regular file, too large, or not to be trusted.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(file, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            message = "is not a regular file"
            raise ValueError(message)
        if fault := configuration_fault(status, uid):
            raise ValueError(fault)
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(CONFIGURATION_LIMIT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > CONFIGURATION_LIMIT_BYTES:
        message = f"is larger than {CONFIGURATION_LIMIT_BYTES} bytes"
        raise ValueError(message)
    return data


def _merge(
    target: Table, table: Table, at: Key, file: str, origins: Origins, faults: list[str]
) -> None:
    """Merge `table` of `file` into `target`; what both give is a fault."""
    for key, value in table.items():
        where = (*at, key)
        if key not in target:
            target[key] = value if not isinstance(value, dict) else {}
            _note(value, where, file, origins)
            if isinstance(value, dict):
                _merge(target[key], value, where, file, origins, faults)
        elif isinstance(value, dict) and isinstance(target[key], dict):
            _merge(target[key], value, where, file, origins, faults)
        elif _is_array_of_tables(value) and _is_array_of_tables(target[key]):
            for offset in range(len(value)):
                origins[(*where, len(target[key]) + offset)] = file
            target[key] = [*target[key], *value]
        else:
            first = origins.get(where, "another file")
            faults.append(f"{dotted(where)}: is given twice, in {first} and in {file}")


def _note(value: object, where: Key, file: str, origins: Origins) -> None:
    origins[where] = file
    if _is_array_of_tables(value) and isinstance(value, list):
        for index in range(len(value)):
            origins[(*where, index)] = file


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
