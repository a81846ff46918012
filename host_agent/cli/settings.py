"""Where the client commands find the agent: arguments, else environment, else `client.toml`.

Each of `url`, `cert`, `key` and `ca` is looked up on its own, in that order. The file's relative
paths are relative to the file. There is no setting that turns verification off.
"""

import argparse
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from host_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from host_agent.client import AsyncClient, Client

KEYS: Mapping[str, str] = {
    "url": "where the agent listens, https://HOST:PORT",
    "cert": "this client's certificate, PEM",
    "key": "the certificate's private key, PEM",
    "ca": "the CA that the agent's certificate must come from, PEM",
}
MAX_FILE_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach the agent, and as whom."""

    url: str
    cert: Path
    key: Path
    ca: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client command takes."""
    group = parser.add_argument_group(
        "the agent and this client",
        "Else HOST_AGENT_URL, HOST_AGENT_CERT, HOST_AGENT_KEY, HOST_AGENT_CA,"
        " else the same keys in ~/.config/host-agent/client.toml.",
    )
    for key, meaning in KEYS.items():
        group.add_argument(f"--{key}", metavar="URL" if key == "url" else "FILE", help=f"{meaning}")


def connect(args: argparse.Namespace) -> "Client":
    """Return a client for the settings of this command line; the caller closes it.

    Raises:
        ConfigurationError: a setting is missing, or a file cannot be used.
    """
    from host_agent.client import Client

    found = read(args, os.environ, Path.home())
    return Client(url=found.url, cert=found.cert, key=found.key, ca=found.ca)


def connect_async(args: argparse.Namespace) -> "AsyncClient":
    """Return the same client for asyncio; the caller closes it.

    Raises:
        ConfigurationError: a setting is missing, or a file cannot be used.
    """
    from host_agent.client import AsyncClient

    found = read(args, os.environ, Path.home())
    return AsyncClient(url=found.url, cert=found.cert, key=found.key, ca=found.ca)


def read(args: argparse.Namespace, environ: Mapping[str, str], home: Path) -> Settings:
    """Return the settings, each from the first place that has it.

    Raises:
        ConfigurationError: naming every setting that is missing, or the file's faults.
    """
    path = home / ".config" / "host-agent" / "client.toml"
    given = {key: getattr(args, key) or environ.get(f"HOST_AGENT_{key.upper()}") for key in KEYS}
    missing = [key for key, value in given.items() if not value]
    if missing:
        from_file = _from_file(path)
        given.update({key: from_file.get(key) for key in missing})
    faults = [
        f"{key}: not set; give --{key}, HOST_AGENT_{key.upper()}, or `{key}` in {path}."
        for key, value in given.items()
        if not value
    ]
    if faults:
        raise ConfigurationError(faults)
    values = {key: value for key, value in given.items() if value}
    return Settings(
        url=values["url"],
        cert=Path(values["cert"]).expanduser(),
        key=Path(values["key"]).expanduser(),
        ca=Path(values["ca"]).expanduser(),
    )


def _from_file(path: Path) -> dict[str, str]:
    """Return the file's keys, paths made absolute; nothing if there is no file."""
    try:
        table = tomllib.loads(_content(path).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}."]) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError([f"{path}: not TOML: {error}."]) from None
    faults = [f"{path}: unknown key `{key}`." for key in table if key not in KEYS]
    faults += [f"{path}: `{key}` is a string." for key in KEYS if _is_wrong(table.get(key))]
    if faults:
        raise ConfigurationError(faults)
    return {
        key: value if key == "url" else str(path.parent / Path(value).expanduser())
        for key, value in table.items()
    }


def _is_wrong(value: object) -> bool:
    return value is not None and not (isinstance(value, str) and value)


def _content(path: Path) -> bytes:
    # O_NONBLOCK: opening a FIFO must not hang before it is seen to be one.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError([f"{path}: not a regular file."])
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError([f"{path}: larger than {MAX_FILE_BYTES} bytes."])
    return content
