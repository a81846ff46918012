"""The hook put into a host's settings and taken out; and whether the host really calls it."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from host_agent.errors import ConfigurationError
from host_agent.hooks.hook import mark_path
from host_agent.integration import files, json_text
from host_agent.integration.files import FileEdit, RecordedFile
from host_agent.integration.hosts.host import AgentHost
from host_agent.integration.json_text import JsonTextError
from host_agent.integration.settings_file import OwnFile, SettingsFile, decoded
from host_agent.integration.toml_text import TomlTextError


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReadiness:
    """Whether the host calls the hook before each command.

    - `is_installed`: the host's settings have it as this program writes it, and it can be run.
    - `is_trusted`: whether a person has said that it may run; None where the host does not ask.
    - `called_at`: when the host last called it since it was put there; None where it has not.
    - `obstacles`: what keeps the host from calling it, or from heeding it, in sentences.
    - `next_step`: what is left for a person to do; None where nothing is.
    """

    is_installed: bool
    is_trusted: bool | None
    called_at: datetime | None
    obstacles: tuple[str, ...]
    next_step: str | None

    @property
    def is_ready(self) -> bool:
        """Return whether it is proved: installed, not held up, trusted, and called."""
        held_up = bool(self.obstacles) or self.is_trusted is False
        return self.is_installed and not held_up and self.called_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsPlan:
    """What is to be done, and what is then to be recorded."""

    host: AgentHost
    edits: Sequence[FileEdit]
    recorded: Mapping[Path, RecordedFile]

    @property
    def is_needed(self) -> bool:
        """Return whether a file changes."""
        return any(edit.is_needed for edit in self.edits)


def record_path(name: str) -> Path:
    """Return where it is recorded what was edited for a host."""
    return Path(mark_path(name)).with_suffix(".json")


def plan_put(host: AgentHost, *, has_server: bool) -> SettingsPlan:
    """Return how the hook, and the MCP server too, come into the settings of `host`.

    Raises:
        ConfigurationError: a file cannot be read, or has a form that cannot be edited.
    """
    recorded = files.read_record(record_path(host.name))
    edits, kept = [], dict(recorded)
    for one in _chosen(host, has_server=has_server, recorded=recorded):
        current, base = _base(one, recorded.get(one.path))
        text = one.empty if base is None else decoded(one.path, base)
        with _told(one.path):
            after = one.put(text).encode()
            _check(one, text, decoded(one.path, after))
        edits.append(FileEdit(path=one.path, before=current, after=after))
        if current is None or after != base:
            kept[one.path] = RecordedFile(
                path=one.path,
                before=base,
                after_sha256=files.digest(after),
                directories=_missing(one.path) or _directories(recorded.get(one.path)),
            )
    return SettingsPlan(host=host, edits=edits, recorded=kept)


def plan_take(host: AgentHost) -> SettingsPlan:
    """Return how everything of ours goes out of the settings of `host`.

    A file that is as we left it becomes what it was, byte by byte. From one that was changed since,
    our part is cut.

    Raises:
        ConfigurationError: a file cannot be read, or has a form that cannot be edited.
    """
    recorded = files.read_record(record_path(host.name))
    edits = []
    for one in reversed(_chosen(host, has_server=True, recorded=recorded)):
        current, base = _base(one, recorded.get(one.path))
        edits.append(FileEdit(path=one.path, before=current, after=base))
    return SettingsPlan(host=host, edits=edits, recorded={})


def carry_out(plan: SettingsPlan) -> None:
    """Do what is planned; what is recorded is written first.

    Raises:
        ConfigurationError: a file was changed meanwhile or cannot be written; all is as it was.
    """
    record = record_path(plan.host.name)
    before = files.read_record(record)
    try:
        if plan.recorded:
            files.write_record(record, list(plan.recorded.values()))
        files.apply(plan.edits)
        mark = Path(mark_path(plan.host.name))
        if plan.recorded:
            if plan.is_needed or not mark.exists():
                mark.touch(mode=0o600)
                os.utime(mark, (0, 0))
        else:
            files.write_record(record, [])
            mark.unlink(missing_ok=True)
            files.prune([path for one in before.values() for path in one.directories])
    except ConfigurationError:
        files.write_record(record, list(before.values()))
        raise
    except OSError as error:
        raise ConfigurationError([f"{error.filename}: {error.strerror}."]) from None


def readiness(host: AgentHost) -> HookReadiness:
    """Return whether the host calls the hook.

    Raises:
        ConfigurationError: its settings cannot be read.
    """
    state = host.state()
    is_current = state.command == host.command()
    is_there = is_current and os.access(host.program, os.X_OK)
    called_at = _called_at(host.name) if is_there else None
    obstacles = list(state.obstacles) if state.command is not None else []
    if state.command is not None and not is_current:
        obstacles.append("The settings have another command than this program would write.")
    elif state.command is not None and not is_there:
        obstacles.append(f"{host.program} cannot be run.")
    found = HookReadiness(
        is_installed=is_there,
        is_trusted=state.is_trusted,
        called_at=called_at,
        obstacles=tuple(obstacles),
        next_step=None,
    )
    if found.is_ready:
        return found
    step = host.next_step if is_there else f"Run `host-agent integrate {host.name}`."
    return HookReadiness(
        is_installed=found.is_installed,
        is_trusted=found.is_trusted,
        called_at=found.called_at,
        obstacles=found.obstacles,
        next_step=step,
    )


def _called_at(name: str) -> datetime | None:
    """Return the time of the mark; it is 0 from the edit on until the host calls."""
    try:
        seconds = Path(mark_path(name)).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _chosen(
    host: AgentHost, *, has_server: bool, recorded: Mapping[Path, RecordedFile]
) -> list[SettingsFile]:
    """Return the files, each once; those of the server where asked for, or put there before."""
    chosen = {one.path: one for one in host.hook_files()}
    for one in host.server_files():
        if has_server or _has_server(one, chosen.get(one.path), recorded.get(one.path)):
            chosen[one.path] = one
    return list(chosen.values())


def _has_server(one: SettingsFile, hook: SettingsFile | None, known: RecordedFile | None) -> bool:
    """Return whether the server is in a file that we have edited."""
    current = files.content_of(one.path)
    if known is None or current is None:
        return False
    text, before = decoded(one.path, current), _text_before(one.path, known)
    with _told(one.path):
        return one.take(text, before) != (text if hook is None else hook.take(text, before))


def _text_before(path: Path, known: RecordedFile) -> str:
    return "" if known.before is None else decoded(path, known.before)


def _base(one: SettingsFile, known: RecordedFile | None) -> tuple[bytes | None, bytes | None]:
    """Return the file as it is, and as it would be without us."""
    current = files.content_of(one.path)
    if current is None:
        return None, None
    if known is not None and files.digest(current) == known.after_sha256:
        return current, known.before
    before = None if known is None else _text_before(one.path, known)
    with _told(one.path):
        text = one.take(decoded(one.path, current), before)
    is_new = known is not None and known.before is None
    is_bare = not text.strip() or "".join(text.split()) == "{}"
    if is_bare and (is_new or isinstance(one, OwnFile)):
        return current, None
    return current, text.encode()


def _check(one: SettingsFile, text: str, after: str) -> None:
    """Raise where our part could not be taken out of `after` again, or `text` was strict JSON once.

    Raises:
        ConfigurationError: so it is.
    """
    again = one.take(after, text)
    is_same = again == text or _meaning(one.path, again) == _meaning(one.path, text)
    if not is_same or (_is_strict(text) and not _is_strict(after)):
        fault = f"{one.path}: has a form that cannot be edited safely. Nothing was written."
        raise ConfigurationError([fault])


def _meaning(path: Path, text: str) -> object:
    if path.suffix == ".json":
        return json_text.parse(text).value()
    return tomllib.loads(text.removeprefix("\ufeff")) if path.suffix == ".toml" else text


def _is_strict(text: str) -> bool:
    try:
        json.loads(text.removeprefix("\ufeff"))
    except ValueError:
        return False
    return True


def _missing(path: Path) -> tuple[Path, ...]:
    return tuple(one for one in path.parents if not one.exists())


def _directories(known: RecordedFile | None) -> tuple[Path, ...]:
    return () if known is None else known.directories


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Let text that cannot be edited be a fault of the configuration."""
    try:
        yield
    except (JsonTextError, TomlTextError) as error:
        raise ConfigurationError([f"{path}: {error}. Nothing was written."]) from None
