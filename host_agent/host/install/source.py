"""The files that came with the package: wrappers, unit, sysusers, tmpfiles, logrotate."""

import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import host_agent
from host_agent.errors import ConfigurationError
from host_agent.host.install import layout
from host_agent.host.install.rendering import unit
from host_agent.host.install.values import WantedFile
from host_agent.identity.files import read_plain

_WRAPPER = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_WRAPPER_MODE = 0o755
_PLAIN_MODE = 0o644
_SERVICE_FILES = {
    layout.UNIT: "host-agent.service",
    layout.TRIAL: layout.TRIAL_NAME,
    **layout.RENEWING,
    layout.SYSUSERS: "host-agent.sysusers",
    layout.TMPFILES: "host-agent.tmpfiles",
    layout.LOGROTATE: "host-agent.logrotate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedFiles:
    """What was read: wrappers by name, and the service's files by the path where they go."""

    wrappers: Mapping[str, bytes]
    service: Mapping[str, bytes]

    def wrapper_files(self) -> tuple[WantedFile, ...]:
        """Return the wrappers as they are installed."""
        return tuple(
            WantedFile(
                path=f"{layout.WRAPPER_DIR}/{name}",
                content=content,
                mode=_WRAPPER_MODE,
            )
            for name, content in sorted(self.wrappers.items())
        )

    def service_file(self, path: str, program: str) -> WantedFile:
        """Return the file that goes to `path`; the unit starts `program`."""
        content = self.service[path]
        if path == layout.UNIT or layout.RENEWING.get(path, "").endswith(".service"):
            content = unit(content, program)
        return WantedFile(path=path, content=content, mode=_PLAIN_MODE)


def read_source(directory: Path | None = None) -> ShippedFiles:
    """Return the files that came with this package, or those in `directory`.

    They lie in the environment's `share`; an editable installation uses the checkout's.

    Raises:
        ConfigurationError: they are not there.
    """
    checkout = Path(host_agent.__file__).parents[1]
    shared = Path(sysconfig.get_path("data")) / "share" / "host-agent"
    place = directory or (checkout if (checkout / "pyproject.toml").is_file() else shared)
    try:
        wrappers = {
            entry.name: read_plain(entry)
            for entry in (place / "wrappers").iterdir()
            if _WRAPPER.fullmatch(entry.name) and not entry.is_dir()  # a checkout's parts
        }
        service = {
            path: read_plain(place / "systemd" / name) for path, name in _SERVICE_FILES.items()
        }
    except (OSError, ValueError) as error:
        fault = f"{place}: the files that come with this package are not whole ({error})"
        raise ConfigurationError([fault]) from error
    return ShippedFiles(wrappers=wrappers, service=service)
