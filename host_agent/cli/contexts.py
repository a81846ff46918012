"""The hosts in `client.toml`, written: added by `login`, removed by `logout`, one the default.

The file is the person's: what they wrote in it stays, comments too. It is edited as text, and what
comes of that is read again and compared before it takes the old one's place; where the person's
form cannot be edited so, nothing is changed. Keys lie beside it in `hosts/NAME/`, 0600.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from host_agent.cli.connection_settings import DEFAULT_KEY, HOSTS_KEY, ClientFile, parse, read_file
from host_agent.errors import ConfigurationError

IDENTITY, AUTHORITY = "identity.pem", "ca.pem"
"""The files of a host: the private key with its certificate in one, which is replaced in one step;
and the authority that the host's certificate must come from."""

_PRIVATE_FILE, _PRIVATE_DIRECTORY = 0o600, 0o700
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_TABLE = re.compile(r"\s*\[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The hosts of one person, whose `client.toml` is at `path`."""

    path: Path

    @property
    def directory(self) -> Path:
        """Return where the keys lie, a directory a host."""
        return self.path.parent / "hosts"

    def read(self) -> ClientFile:
        """Return what is there.

        Raises:
            ConfigurationError: the file cannot be read, or has faults.
        """
        return read_file(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands of this person from writing meanwhile.

        Raises:
            ConfigurationError: the directory cannot be used.
        """
        with told():
            self.path.parent.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            descriptor = os.open(self.path.parent / ".lock", _LOCK_FLAGS, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def put(self, name: str, *, url: str, host: str, identity: str, ca: str) -> None:
        """Add a host, or put it in the place of the one of that name.

        `host` is its own name, `identity` the private key and the certificate, `ca` the authority,
        both PEM.

        Raises:
            ConfigurationError: it cannot be written; the old one is still there.
        """
        found = self.read()
        own = f"{self.directory.name}/{name}"
        table = {
            "host": host,
            "url": url,
            "cert": f"{own}/{IDENTITY}",
            "key": f"{own}/{IDENTITY}",
            "ca": f"{own}/{AUTHORITY}",
        }
        is_first = not found.hosts and not found.flat
        wanted = replace(
            found,
            hosts={**found.hosts, name: table},
            default_host=name if is_first else found.default_host,
        )
        text = _without(found.text, name)
        text = _with_default(text, wanted.default_host)
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        fresh = self._checked(f"{text}{gap}[{_header(name)}]\n{lines}", wanted)
        with told():
            place = self.directory / name
            for directory in (self.directory, place):
                directory.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
            _write(place / AUTHORITY, ca)
            _write(place / IDENTITY, identity)
            _write(self.path, fresh)

    def set_default(self, name: str) -> None:
        """Let `name` be the host that is meant where nobody names one.

        Raises:
            ConfigurationError: there is no such host, or it cannot be written.
        """
        found = self.read()
        found.of_host(name)
        fresh = self._checked(_with_default(found.text, name), replace(found, default_host=name))
        with told():
            _write(self.path, fresh)

    def remove(self, name: str) -> None:
        """Remove a host, and the keys that `login` stored for it.

        Raises:
            ConfigurationError: there is no such host, or it cannot be written.
        """
        found = self.read()
        found.of_host(name)
        hosts = {key: table for key, table in found.hosts.items() if key != name}
        default = None if found.default_host == name else found.default_host
        text = _with_default(_without(found.text, name), default)
        fresh = self._checked(text, replace(found, hosts=hosts, default_host=default))
        with told():
            _write(self.path, fresh)
            place = self.directory / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)

    def _checked(self, text: str, wanted: ClientFile) -> str:
        """Return `text`, once it says what it should."""
        with suppress(ConfigurationError):
            if parse(self.path, text) == replace(wanted, text=text):
                return text
        fault = (
            f"{self.path}: it is written in a form that this command cannot change; write each host"
            f" as a table [{HOSTS_KEY}.NAME] with a line for each key."
        )
        raise ConfigurationError([fault])


_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def told() -> Iterator[None]:
    """Let a file that cannot be used be a fault of the configuration."""
    try:
        yield
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise ConfigurationError([f"{named}{error.strerror}."]) from None


def _header(name: str) -> str:
    return f"{HOSTS_KEY}.{name if _BARE.fullmatch(name) else json.dumps(name)}"


def _without(text: str, name: str) -> str:
    """Return `text` without the table of a host."""
    spellings = "|".join(re.escape(form) for form in (name, f'"{name}"', f"'{name}'"))
    header = re.compile(rf"\s*\[\s*{HOSTS_KEY}\s*\.\s*(?:{spellings})\s*\]\s*(?:#.*)?")
    kept: list[str] = []
    is_inside = False
    for line in text.splitlines(keepends=True):
        if _TABLE.match(line):
            is_inside = header.fullmatch(line.rstrip("\r\n")) is not None
        if not is_inside:
            kept.append(line)
    return "".join(kept)


def _with_default(text: str, name: str | None) -> str:
    """Return `text` with the line of the default host; it stands above every table."""
    lines = text.splitlines(keepends=True)
    top = next((at for at, line in enumerate(lines) if _TABLE.match(line)), len(lines))
    line = [] if name is None else [f"{DEFAULT_KEY} = {json.dumps(name)}\n"]
    own = re.compile(rf"\s*{DEFAULT_KEY}\s*=")
    at = next((at for at in range(top) if own.match(lines[at])), None)
    if at is None:
        return "".join([*line, *(["\n"] if line and lines else []), *lines])
    return "".join([*lines[:at], *line, *lines[at + 1 :]])


def _write(path: Path, text: str) -> None:
    """Put a file there in one step, for this person alone; a link stays one."""
    place = Path(os.path.realpath(path))
    fresh = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, _PRIVATE_FILE), "w", encoding="utf-8") as stream:  # noqa: PTH123
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(place)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
