"""What an installation put onto the host, with the hash of each file: root's own record of it.

It tells the next one what an administrator changed since, and `uninstall` what to remove.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from host_agent.errors import ConfigurationError
from host_agent.text import SHA256

_VERSION = 1
_PATH = re.compile(r"(?:/[A-Za-z0-9._+@-]+)+", re.ASCII)
_DIGEST = re.compile(SHA256)


@dataclass(slots=True, kw_only=True)
class Manifest:
    """Files by path with the SHA-256 that was put there, and directories that were made."""

    files: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the manifest as it is stored; equal manifests are equal bytes."""
        table = {
            "version": _VERSION,
            "files": dict(sorted(self.files.items())),
            "directories": sorted(self.directories),
        }
        return (json.dumps(table, indent=1) + "\n").encode("ascii")


def decode(data: bytes, where: str) -> Manifest:
    """Return the manifest in `data`, which was read from `where`.

    Raises:
        ConfigurationError: it is not one.
    """
    try:
        table = json.loads(data)
        version, files, directories = table["version"], table["files"], table["directories"]
        is_good = version == _VERSION and _are_files(files) and _are_paths(directories)
    except (ValueError, KeyError, TypeError):
        is_good = False
    if not is_good:
        fault = f"{where}: is not a record of an installation; remove it, and install again"
        raise ConfigurationError([fault])
    return Manifest(files=files, directories=directories)


def _are_files(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and _are_paths(list(value))
        and all(isinstance(item, str) and _DIGEST.fullmatch(item) for item in value.values())
    )


def _are_paths(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, str) and _is_path(item) for item in value
    )


def _is_path(text: str) -> bool:
    return _PATH.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))
