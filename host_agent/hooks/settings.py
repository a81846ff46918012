"""The hook's own small file, `hook.toml`: what is listed, and what a shell may do by itself."""

import os
from typing import Any, NamedTuple

MAX_FILE_BYTES = 65536
KEYS = {
    "repositories": "absolute paths; git in them goes through the agent",
    "reads": "`allow` or `deny`: commands that only look, as no other user",
    "user_units": "`allow` or `deny`: `systemctl --user`",
}
"""The keys of the file, and what they say."""


class HookSettings(NamedTuple):
    """What the hook goes by; without a file, these defaults."""

    repositories: tuple[str, ...] = ()
    allows_reads: bool = True
    allows_user_units: bool = True


class HookSettingsError(Exception):
    """The file is there and cannot be used; the message says why."""


def settings_path(environment: "os._Environ[str] | dict[str, str]") -> str:
    """Return where the file is: `$XDG_CONFIG_HOME` or `~/.config`, in `host-agent`."""
    above = environment.get("XDG_CONFIG_HOME", "")
    if not above.startswith("/"):
        above = os.path.join(os.path.expanduser("~"), ".config")  # noqa: PTH111, PTH118
    return os.path.join(above, "host-agent", "hook.toml")  # noqa: PTH118


def load_settings(path: str) -> HookSettings:
    """Return what the file says; the defaults where there is none.

    Raises:
        HookSettingsError: it cannot be read, or says what is not known.
    """
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            content = stream.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return HookSettings()
    except OSError as error:
        message = f"{path}: {error.strerror}."
        raise HookSettingsError(message) from None
    if len(content) > MAX_FILE_BYTES:
        message = f"{path}: longer than {MAX_FILE_BYTES} bytes."
        raise HookSettingsError(message)
    import tomllib

    try:
        return _settings(tomllib.loads(content.decode()))
    except (ValueError, TypeError) as error:
        message = f"{path}: {error}"
        raise HookSettingsError(message) from None


def _settings(said: dict[str, Any]) -> HookSettings:
    for key in said:
        if key not in KEYS:
            message = f"{key!a} is no key; there are {', '.join(KEYS)}."
            raise ValueError(message)
    repositories = said.get("repositories", [])
    if not isinstance(repositories, list) or not all(map(_is_path, repositories)):
        message = "repositories is a list of absolute paths."
        raise ValueError(message)
    return HookSettings(
        repositories=tuple(map(_normal, repositories)),
        allows_reads=_allows(said, "reads"),
        allows_user_units=_allows(said, "user_units"),
    )


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and _normal(value) != "/"


def _normal(path: str) -> str:
    return "/" + os.path.normpath(path).lstrip("/")


def _allows(said: dict[str, Any], key: str) -> bool:
    value = said.get(key, "allow")
    if value not in ("allow", "deny"):
        message = f"{key} is `allow` or `deny`."
        raise ValueError(message)
    return bool(value == "allow")
