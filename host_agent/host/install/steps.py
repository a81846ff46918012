"""The steps that put the agent onto a host, in their order. Doing them again changes nothing."""

from collections.abc import Callable, Mapping
from datetime import datetime

from host_agent.config import Config, load
from host_agent.errors import ConfigurationError
from host_agent.host.install import bootstrap, layout
from host_agent.host.install.first import First
from host_agent.host.install.foreign import refuse_foreign
from host_agent.host.install.manifest import Manifest, decode
from host_agent.host.install.plan import Work
from host_agent.host.install.root_files import RootFiles
from host_agent.host.install.source import ShippedFiles
from host_agent.host.install.transaction import InstallationStep
from host_agent.host.install.tree import Attributes
from host_agent.host.install.values import (
    FileKind,
    InstallationError,
    InstallReport,
    WantedDirectory,
)
from host_agent.operations.systemd.section import SystemdSection

DIRECTORIES = (
    WantedDirectory(path=layout.CONFIGURATION_DIR, mode=0o750, group=layout.USER),
    WantedDirectory(path=layout.PKI_DIR, mode=0o750, group=layout.USER),
    WantedDirectory(path=layout.SECRETS_DIR, mode=0o750, group=layout.USER),
    WantedDirectory(path=layout.STATE_DIR, mode=0o700, owner=layout.USER, group=layout.USER),
    WantedDirectory(path=layout.WRAPPER_DIR, mode=0o755),
)
_MANIFEST_MODE = 0o644

_ALWAYS_MADE: Mapping[Callable[[RootFiles], None], str] = {
    RootFiles.put_allowed: layout.ALLOWED,
    RootFiles.put_protected: layout.PROTECTED,
    RootFiles.put_sudoers: layout.SUDOERS,
}
"""What every configuration gives root, by the path where it goes."""


class Installation:
    """What one `install` does. `report` says what became of each thing."""

    def __init__(
        self, work: Work, source: ShippedFiles, program: str, *, first: First | None, now: datetime
    ) -> None:
        self._work = work
        self._source = source
        self._program = program
        self._first = first
        self._now = now
        self.report = InstallReport()
        self.is_new = False
        """Whether none was there before; known once it is prepared."""

    def prepare(self) -> None:
        """Read what is there already, before anything is changed.

        Raises:
            ConfigurationError: a configuration is there and has faults, or the record of the last
                installation is damaged.
            InstallationError: something lies where root's own files go that is not root's.
        """
        self.is_new = self._work.tree.find(layout.MANIFEST) is None
        self._work.manifest = read_manifest(self._work)
        refuse_foreign(self._work, self._source)
        read_configuration(self._work, is_early=True)

    def steps(self) -> tuple[InstallationStep, ...]:
        """Return the steps in the order in which they are done."""
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("the user and group", self._make_account),
            ("the directories", self._make_directories),
            ("the wrappers", self._put_wrappers),
            ("the first configuration", self._make_first),
            ("the list of what is allowed", self._root_file(RootFiles.put_allowed)),
            ("the list of what is protected", self._root_file(RootFiles.put_protected)),
            ("the list of commands", self._root_file(RootFiles.put_commands)),
            ("the place of the audit log", self._root_file(RootFiles.put_audit)),
            ("the sudoers fragment", self._root_file(RootFiles.put_sudoers)),
            ("the service", self._put_service),
            ("the record of the installation", self._put_manifest),
        )
        return tuple(InstallationStep(name=name, act=act) for name, act in parts)

    # -- the steps --------------------------------------------------------------------------------

    def _make_account(self) -> None:
        work = self._work
        work.file(self._source.service_file(layout.SYSUSERS, self._program), self.report)
        uid, gid = work.accounts.uid(layout.USER), work.accounts.gid(layout.USER)
        if uid == 0:
            message = f"the user {layout.USER} is uid 0; the agent must not be root"
            raise InstallationError(message)
        if uid is not None and gid is not None:
            return
        self.report.add(FileKind.MADE, f"the user and group {layout.USER}")
        if not work.is_dry:
            work.tree.note("the user and group", lambda: _remove_account(work, uid, gid))
            work.run("systemd-sysusers", *_rooted(work, "--root="), layout.SYSUSERS_NAME)

    def _make_directories(self) -> None:
        for directory in DIRECTORIES:
            self._work.directory(directory, self.report)

    def _put_wrappers(self) -> None:
        work = self._work
        wanted = self._source.wrapper_files()
        for file in wanted:
            work.file(file, self.report)
        lists = (layout.ALLOWED, layout.PROTECTED, layout.COMMANDS, layout.AUDIT)
        rendered = (*lists, layout.MANIFEST)
        kept = {*rendered, *(file.path for file in wanted)}
        for path in sorted(work.manifest.files):
            is_wrapper = path.startswith(f"{layout.WRAPPER_DIR}/")
            if is_wrapper and path not in kept and path.removesuffix(".new") not in kept:
                work.forget(path, self.report)

    def _make_first(self) -> None:
        if self._first is not None:
            known = read_configuration(self._work, is_early=True)
            bootstrap.make_first(self._work, self._first, known, now=self._now, report=self.report)

    def _root_file(self, put: Callable[[RootFiles], None]) -> Callable[[], None]:
        def act() -> None:
            config = read_configuration(self._work, is_early=self._work.is_dry)
            if config is not None:
                put(RootFiles(self._work, config, self.report))
            elif put in _ALWAYS_MADE:
                self._without_configuration(_ALWAYS_MADE[put])

        return act

    def _put_service(self) -> None:
        work = self._work
        if work.has_systemd and not work.is_dry:
            work.tree.note("systemd's view of the unit", lambda: _reload(work))
        for path in (layout.TMPFILES, layout.LOGROTATE):
            work.file(self._source.service_file(path, self._program), self.report)
        before = len(self.report.changes)
        for path in (layout.UNIT, *layout.RENEWING):
            work.file(self._source.service_file(path, self._program), self.report)
        if self._has_trial():
            work.file(self._source.service_file(layout.TRIAL, self._program), self.report)
        else:
            work.forget_made(layout.TRIAL, self.report)
        is_changed = any(change.is_change for change in self.report.changes[before:])
        if is_changed and work.has_systemd:
            self.report.add(FileKind.RAN, "systemctl daemon-reload")
            if not work.is_dry:
                _reload(work)

    def _has_trial(self) -> bool:
        """Return whether the configuration lists the unit that does nothing."""
        config = read_configuration(self._work, is_early=self._work.is_dry)
        if config is None:
            return self._first is not None
        systemd = config.section(SystemdSection)
        return systemd is not None and layout.TRIAL_PATTERN in systemd.units

    def _put_manifest(self) -> None:
        write_manifest(self._work)

    def _without_configuration(self, path: str) -> None:
        reason = (
            "is made from the configuration of this bootstrap"
            if self._first is not None
            else f"there is no {layout.CONFIGURATION} yet; write it and install again"
        )
        self.report.add(FileKind.SKIPPED, f"{path}: {reason}")


# -- what is there already ------------------------------------------------------------------------


def read_manifest(work: Work) -> Manifest:
    """Return the record of the last installation, an empty one where there was none.

    Raises:
        ConfigurationError: it is damaged.
    """
    if work.tree.find(layout.MANIFEST) is None:
        return Manifest()
    return decode(work.tree.read(layout.MANIFEST), layout.MANIFEST)


def write_manifest(work: Work) -> None:
    """Write the record of the installation, where it is another now."""
    content = work.manifest.encode()
    found = work.tree.find(layout.MANIFEST)
    if work.is_dry or (found is not None and work.tree.read(layout.MANIFEST) == content):
        return
    uid, gid = work.accounts.uid("root") or 0, work.accounts.gid("root") or 0
    work.tree.write(layout.MANIFEST, content, Attributes(mode=_MANIFEST_MODE, uid=uid, gid=gid))


def read_configuration(work: Work, *, is_early: bool = False) -> Config | None:
    """Return the configuration that is there, or None.

    `is_early`: before directories and users are made, faults that they will mend do not count;
    where there are only such, None is returned. Below another root, whether the files and users
    that it names exist is not asked.

    Raises:
        ConfigurationError: its faults.
    """
    if work.tree.find(layout.CONFIGURATION) is None:
        return None
    try:
        config = load(
            work.tree.at(layout.CONFIGURATION),
            uid=work.accounts.uid(layout.USER) or 0,
            is_for_this_host=work.is_this_host,
        )
    except ConfigurationError as error:
        faults = [fault for fault in error.faults if not (is_early and _will_be_mended(fault))]
        if faults:
            raise ConfigurationError(faults) from error
        return None
    if str(config.execution.wrapper_dir) != layout.WRAPPER_DIR:
        fault = f"execution.wrapper_dir: the wrappers are installed in {layout.WRAPPER_DIR} only"
        raise ConfigurationError([fault])
    return config


def _will_be_mended(fault: str) -> bool:
    return fault.startswith("execution.wrapper_dir: ") and fault.endswith("is not a directory")


# -- tools ----------------------------------------------------------------------------------------


def _rooted(work: Work, option: str) -> tuple[str, ...]:
    if work.is_this_host:
        return ()
    return (f"{option}{work.root}",) if option.endswith("=") else (option, str(work.root))


def _remove_account(work: Work, uid: int | None, gid: int | None) -> None:
    """Take away the user and the group that were not there before."""
    prefix = _rooted(work, "--prefix")
    if uid is None and work.accounts.uid(layout.USER) is not None:
        work.run("userdel", *prefix, layout.USER)
    now = work.accounts.gid(layout.USER)
    if gid is None and now is not None:
        work.run("groupdel", *prefix, layout.USER)
    elif gid is not None and now is None:  # userdel takes an empty group of that name along
        work.run("groupadd", *prefix, "--system", "--gid", str(gid), layout.USER)


def _reload(work: Work) -> None:
    work.run("systemctl", "daemon-reload")
