"""Where the client commands find the agent: options, a host of `client.toml`, or the environment.

Each of `url`, `cert`, `key` and `ca` comes from the first place that has it:

1. its option;
2. the host that `--host` names, a table `[hosts.NAME]` of `client.toml`;
3. its variable of the environment, or the host that `HOST_AGENT_HOST` names: giving both is a
   fault, because nobody could tell which host was meant;
4. `client.toml`: the host that `default_host` names, else the keys at its top, else its only host.

The file's relative paths are relative to the file. There is no setting that turns verification off.
"""

import argparse
import contextlib
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from host_agent.client import AsyncClient, Client

KEYS: Mapping[str, str] = {
    "url": "where the agent listens, https://HOST:PORT",
    "cert": "this client's certificate, PEM",
    "key": "the certificate's private key, PEM",
    "ca": "the CA that the agent's certificate must come from, PEM",
}
HOST_KEY = "host"
"""Of a table `[hosts.NAME]`: the name that the host has of itself, where `login` knew it."""

DEFAULT_KEY, HOSTS_KEY = "default_host", "hosts"
HOST_VARIABLE = "HOST_AGENT_HOST"
MAX_FILE_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to reach the agent, and as whom; `host` is the name of the one in `client.toml`."""

    url: str
    cert: Path
    key: Path
    ca: Path
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFile:
    """What `client.toml` says; paths are as they are written. An absent file says nothing."""

    path: Path
    text: str = ""
    flat: Mapping[str, str] = field(default_factory=dict)
    default_host: str | None = None
    hosts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def names(self) -> str:
        """Return the hosts' names for a sentence."""
        return ", ".join(self.hosts) or "none"

    def implied(self) -> str | None:
        """Return the host that is meant where nobody names one; None for the keys at the top.

        Raises:
            ConfigurationError: there are several, and none is the default.
        """
        if self.default_host is not None:
            return self.default_host
        if self.flat or not self.hosts:
            return None
        if len(self.hosts) == 1:
            return next(iter(self.hosts))
        fault = (
            f"{self.path}: which host? Name one by --host or {HOST_VARIABLE}, or for good by"
            f" `host-agent hosts default NAME`; there are: {self.names()}."
        )
        raise ConfigurationError([fault])

    def implied_quietly(self) -> str | None:
        """Return the same; None too where there are several and none is the default."""
        with contextlib.suppress(ConfigurationError):
            return self.implied()
        return None

    def of_host(self, name: str) -> dict[str, str]:
        """Return the settings of a host, paths made absolute.

        Raises:
            ConfigurationError: there is no host of that name.
        """
        if name not in self.hosts:
            fault = (
                f"host: there is no {name!a} in {self.path}; there are: {self.names()}."
                " `host-agent login BUNDLE` adds one."
            )
            raise ConfigurationError([fault])
        return self._placed(self.hosts[name])

    def meant(self) -> tuple[str | None, dict[str, str]]:
        """Return the host that is meant where nobody names one, and its settings.

        Raises:
            ConfigurationError: there are several, and none is the default.
        """
        name = self.implied()
        return name, self._placed(self.flat) if name is None else self.of_host(name)

    def _placed(self, table: Mapping[str, str]) -> dict[str, str]:
        return {
            key: value if key == "url" else str(self.path.parent / Path(value).expanduser())
            for key, value in table.items()
            if key in KEYS
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client command takes."""
    group = parser.add_argument_group(
        "the agent and this client",
        "Else HOST_AGENT_HOST, or HOST_AGENT_URL, HOST_AGENT_CERT, HOST_AGENT_KEY, HOST_AGENT_CA,"
        " else ~/.config/host-agent/client.toml, which `host-agent login` writes.",
    )
    group.add_argument("--host", metavar="NAME", help="which host, of those in `hosts list`")
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


def client_path(home: Path) -> Path:
    """Return where `client.toml` lies."""
    return home / ".config" / "host-agent" / "client.toml"


def read(args: argparse.Namespace, environ: Mapping[str, str], home: Path) -> ConnectionSettings:
    """Return the settings, each from the first place that has it.

    Raises:
        ConfigurationError: naming every setting that is missing, or the file's faults.
    """
    path = client_path(home)
    given = {key: getattr(args, key) for key in KEYS}
    name: str | None = args.host
    if not name:
        set_there = {key: environ.get(f"HOST_AGENT_{key.upper()}") for key in KEYS}
        name = _host_of(environ, set_there)
        if not name:
            given = {key: value or set_there[key] for key, value in given.items()}
    missing = [key for key, value in given.items() if not value]
    if name:
        found = read_file(path).of_host(name)
    elif missing:
        name, found = read_file(path).meant()
    else:
        found = {}
    given.update({key: found.get(key) for key in missing})
    faults = [
        f"{key}: not set; give --{key}, HOST_AGENT_{key.upper()}, or `{key}` in {path}."
        for key, value in given.items()
        if not value
    ]
    if len(faults) == len(KEYS):
        faults.append("Or take a bundle from the administrator: `host-agent login BUNDLE`.")
    if faults:
        raise ConfigurationError(faults)
    values = {key: value for key, value in given.items() if value}
    return ConnectionSettings(
        url=values["url"],
        cert=Path(values["cert"]).expanduser(),
        key=Path(values["key"]).expanduser(),
        ca=Path(values["ca"]).expanduser(),
        host=name,
    )


def _host_of(environ: Mapping[str, str], set_there: Mapping[str, str | None]) -> str | None:
    """Return the host that the environment names.

    Raises:
        ConfigurationError: it has settings of its own beside it.
    """
    name = environ.get(HOST_VARIABLE)
    both = [f"HOST_AGENT_{key.upper()}" for key, value in set_there.items() if value]
    if name and both:
        fault = (
            f"host: {HOST_VARIABLE} and {', '.join(both)} are both set, and may mean two hosts;"
            " unset one, or say --host."
        )
        raise ConfigurationError([fault])
    return name or None


# -- the file -------------------------------------------------------------------------------------


def read_file(path: Path) -> ClientFile:
    """Return what the file says.

    Raises:
        ConfigurationError: it cannot be read, or has faults.
    """
    try:
        text = _content(path).decode("utf-8")
        return parse(path, text)
    except FileNotFoundError:
        return ClientFile(path=path)
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}."]) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path}: not TOML: {error}."]) from None


def parse(path: Path, text: str) -> ClientFile:
    """Return what `text` would say as the file at `path`.

    Raises:
        ConfigurationError: with every fault.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise ConfigurationError([f"{path}: not TOML: {error}."]) from None
    faults = [f"{path}: {fault}" for fault in _faults(table)]
    if faults:
        raise ConfigurationError(faults)
    return ClientFile(
        path=path,
        text=text,
        flat={key: value for key, value in table.items() if key in KEYS},
        default_host=table.get(DEFAULT_KEY),
        hosts=table.get(HOSTS_KEY, {}),
    )


def _faults(table: Mapping[str, Any]) -> Iterator[str]:
    yield from _key_faults("", table, {*KEYS, DEFAULT_KEY}, {HOSTS_KEY})
    hosts = table.get(HOSTS_KEY, {})
    if not isinstance(hosts, dict) or not all(isinstance(host, dict) for host in hosts.values()):
        yield f"`{HOSTS_KEY}` is made of tables, [{HOSTS_KEY}.NAME]."
        return
    for name, host in hosts.items():
        yield from _key_faults(f"{HOSTS_KEY}.{name}.", host, {*KEYS, HOST_KEY}, set())
    default = table.get(DEFAULT_KEY)
    if isinstance(default, str) and default and default not in hosts:
        yield f"`{DEFAULT_KEY}` names {default!a}, and there is no such table below [hosts]."


def _key_faults(
    above: str, table: Mapping[str, Any], strings: set[str], others: set[str]
) -> Iterator[str]:
    yield from (f"unknown key `{above}{key}`." for key in table if key not in strings | others)
    for key in sorted(strings & table.keys()):
        if not (isinstance(table[key], str) and table[key]):
            yield f"`{above}{key}` is a string."


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
