"""The steps that take the agent off a host: what was installed goes, what is somebody's stays.

State, audit log, configuration, authority and the user they belong to are kept.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath

from host_agent.host.install import layout
from host_agent.host.install.plan import Work
from host_agent.host.install.steps import read_manifest
from host_agent.host.install.transaction import InstallationStep
from host_agent.host.install.values import FileKind, InstallReport

KEPT = (
    *(layout.CONFIGURATION_DIR, layout.STATE_DIR, layout.LOG_DIR),
    *(layout.AUTHORITY_DIR, layout.BUNDLE_DIR),
)
_WANTS = f"/etc/systemd/system/multi-user.target.wants/{layout.UNIT_NAME}"


class Removal:
    """What one `uninstall` does. `report` says what became of each thing."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._kept: tuple[str, ...] = KEPT
        self.report = InstallReport()

    def prepare(self) -> bool:
        """Read what was installed, and return whether there is anything.

        Raises:
            ConfigurationError: the record of the installation is damaged.
        """
        self._work.manifest = read_manifest(self._work)
        self._kept = tuple(dict.fromkeys((*KEPT, *self._log_places())))
        return self._work.tree.find(layout.MANIFEST) is not None

    def _log_places(self) -> Iterator[str]:
        """Yield where root keeps the audit log, if it is another place than a bootstrap's."""
        if self._work.tree.find(layout.AUDIT) is not None:
            for line in self._work.tree.read(layout.AUDIT).decode(errors="replace").splitlines():
                key, _, value = line.partition(" ")
                if key == "path":
                    yield str(PurePosixPath(value).parent)

    def steps(self) -> tuple[InstallationStep, ...]:
        """Return the steps in the order in which they are done: the way in is closed first."""
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("stopping the service", self._stop),
            ("removing the sudoers fragment", lambda: self._remove(layout.SUDOERS)),
            ("removing the files", self._remove_files),
            ("removing the service", self._remove_service),
            ("removing the record of the installation", self._remove_manifest),
            ("removing the directories", self._remove_directories),
        )
        return tuple(InstallationStep(name=name, act=act) for name, act in parts)

    def _is_kept(self, path: str) -> bool:
        return any(PurePosixPath(path).is_relative_to(kept) for kept in self._kept)

    def _stop(self) -> None:
        work = self._work
        if not work.has_systemd:
            if work.tree.find(_WANTS) is not None:
                self._disable_below_root()
            return
        self._stop_trial()
        self._stop_timers()
        is_active = work.tools("systemctl", "is-active", "--quiet", layout.UNIT_NAME).exit_code == 0
        is_enabled = (
            work.tools("systemctl", "is-enabled", "--quiet", layout.UNIT_NAME).exit_code == 0
        )
        if not is_active and not is_enabled:
            return
        self.report.add(FileKind.RAN, f"systemctl disable --now {layout.UNIT_NAME}")
        if work.is_dry:
            return
        if is_active:
            work.tree.note("the running service", lambda: _tell(work, "start"))
        if is_enabled:
            work.tree.note("the enabled service", lambda: _tell(work, "enable"))
        _tell(work, "disable", "--now")

    def _stop_trial(self) -> None:
        work, name = self._work, layout.TRIAL_NAME
        is_ours = layout.TRIAL in work.manifest.files
        if is_ours and work.tools("systemctl", "is-active", "--quiet", name).exit_code == 0:
            self.report.add(FileKind.RAN, f"systemctl stop {name}")
            if not work.is_dry:
                work.tree.note("the unit to try", lambda: _start(work, name))
                work.run("systemctl", "stop", name)

    def _stop_timers(self) -> None:
        """Stop and disable the timers of ours; those of single users are theirs to disable."""
        work = self._work
        for path, name in layout.RENEWING.items():
            is_timer = name.endswith(".timer") and "@" not in name
            if not is_timer or path not in work.manifest.files:
                continue
            is_enabled = work.tools("systemctl", "is-enabled", "--quiet", name).exit_code == 0
            if is_enabled or work.tools("systemctl", "is-active", "--quiet", name).exit_code == 0:
                self.report.add(FileKind.RAN, f"systemctl disable --now {name}")
                if not work.is_dry:
                    work.tree.note("the timer", partial(_enable, work, name))
                    work.run("systemctl", "disable", "--now", name)

    def _disable_below_root(self) -> None:
        work = self._work
        self.report.add(FileKind.RAN, f"systemctl disable {layout.UNIT_NAME}")
        if not work.is_dry:
            root = f"--root={work.root}"
            work.tree.note("the enabled service", lambda: _tell(work, "enable", root))
            _tell(work, "disable", root)

    def _remove(self, path: str) -> None:
        for one in (path, layout.beside(path)):
            if one in self._work.manifest.files:
                self._work.forget(one, self.report)

    def _remove_files(self) -> None:
        service = {layout.UNIT, layout.beside(layout.UNIT)}
        for path in sorted(self._work.manifest.files.keys() - service):
            if path not in (layout.SUDOERS, layout.beside(layout.SUDOERS)):
                self._work.forget(path, self.report)

    def _remove_service(self) -> None:
        work = self._work
        if work.has_systemd and not work.is_dry:
            work.tree.note("systemd's view of the unit", lambda: _tell(work, "daemon-reload"))
        had_unit = layout.UNIT in work.manifest.files
        self._remove(layout.UNIT)
        if had_unit and work.has_systemd:
            self.report.add(FileKind.RAN, "systemctl daemon-reload")
            if not work.is_dry:
                _tell(work, "daemon-reload")

    def _remove_manifest(self) -> None:
        self.report.add(FileKind.REMOVED, layout.MANIFEST)
        if not self._work.is_dry:
            self._work.tree.remove(layout.MANIFEST)

    def _remove_directories(self) -> None:
        """Remove what was made and is empty, the deepest first; the rest is said to be kept."""
        work = self._work
        made = sorted(
            (path for path in work.manifest.directories if not self._is_kept(path)),
            key=lambda path: (-len(PurePosixPath(path).parts), path),
        )
        for path in made:
            found = work.tree.find(path)
            if found is None or not found.is_directory or any(work.tree.at(path).iterdir()):
                continue
            self.report.add(FileKind.REMOVED, path)
            if not work.is_dry:
                work.tree.remove_directory(path)
        for path in self._kept:
            if work.tree.find(path) is not None:
                self.report.add(FileKind.KEPT, path)
        if work.accounts.uid(layout.USER) is not None:
            self.report.add(FileKind.KEPT, f"the user and group {layout.USER}, to whom it belongs")


def _tell(work: Work, verb: str, *options: str) -> None:
    """Tell systemd something about the unit, or about all units."""
    subject = () if verb == "daemon-reload" else (layout.UNIT_NAME,)
    work.run("systemctl", *(option for option in options if option), verb, *subject)


def _enable(work: Work, name: str) -> None:
    work.run("systemctl", "enable", "--now", name)


def _start(work: Work, name: str) -> None:
    work.run("systemctl", "start", name)
