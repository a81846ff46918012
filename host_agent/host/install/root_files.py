"""Root's own files that are made from the configuration: what the wrappers and sudo go by.

`install` puts them there with everything else; `root render` brings them, and nothing but them, up
to date after a change of configuration.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from host_agent.audit import sealing
from host_agent.config import Config, RunnerKind
from host_agent.errors import AdapterUnavailableError
from host_agent.host.install import layout, rendering
from host_agent.host.install.datasets import datasets_of
from host_agent.host.install.plan import Work
from host_agent.host.install.root_list import allowed_list, differences
from host_agent.host.install.values import FileKind, InstallReport, WantedDirectory, WantedFile
from host_agent.operations import CATALOGUE
from host_agent.operations.exec.adapter import commands_file
from host_agent.operations.exec.section import ExecSection
from host_agent.sudoers.render import grants
from host_agent.sudoers.render import render as sudoers_fragment

_RENDERED_MODE = 0o644
_SUDOERS_MODE = 0o440
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that is not what the configuration means. `lines` as a diff has them."""

    path: str
    lines: tuple[str, ...]
    is_kept: bool
    """An administrator changed it: the new version goes beside it."""


class RootFiles:
    """The files of one configuration, put in their places through `work`.

    `is_shown`: root has seen how the list of what is allowed differs; it is replaced then, even
    where somebody changed it by hand.
    """

    def __init__(
        self, work: Work, config: Config, report: InstallReport, *, is_shown: bool = False
    ) -> None:
        self._work = work
        self._config = config
        self._report = report
        self._is_shown = is_shown

    def steps(self) -> tuple[tuple[str, Callable[[], None]], ...]:
        """Return what puts each file there, by the name that a person is told when it fails."""
        return (
            ("the list of what is allowed", self.put_allowed),
            ("the list of what is protected", self.put_protected),
            ("the list of commands", self.put_commands),
            ("the place of the audit log", self.put_audit),
            ("the sudoers fragment", self.put_sudoers),
        )

    def differences(self) -> Iterator[Difference]:
        """Yield what `steps` would change of the files."""
        for path, wanted in self._wanted().items():
            found = self._work.tree.find(path)
            before = b"" if found is None else self._work.tree.read(path)
            after = b"" if wanted is None else wanted.content
            if wanted is None and path not in self._work.manifest.files:
                continue
            if lines := tuple(differences(before, after)):
                is_kept = (
                    path != layout.ALLOWED
                    and found is not None
                    and found.digest != self._work.manifest.files.get(path)
                )
                yield Difference(path=path, lines=lines, is_kept=is_kept)

    def _wanted(self) -> dict[str, WantedFile | None]:
        return {
            layout.ALLOWED: self._allowed(),
            layout.PROTECTED: self._protected(),
            layout.COMMANDS: self._commands(),
            layout.AUDIT: self._audit(),
            layout.SUDOERS: self._sudoers(),
        }

    # -- what should be there ---------------------------------------------------------------------

    def _allowed(self) -> WantedFile:
        content = allowed_list(self._config)
        return WantedFile(path=layout.ALLOWED, content=content, mode=_RENDERED_MODE)

    def _protected(self) -> WantedFile:
        datasets = own_datasets(self._work, self._config)
        content = rendering.protected_list(self._config, datasets)
        return WantedFile(path=layout.PROTECTED, content=content, mode=_RENDERED_MODE)

    def _commands(self) -> WantedFile | None:
        section = self._config.section(ExecSection)
        if section is None:
            return None
        content = commands_file(section).encode("ascii")
        return WantedFile(path=layout.COMMANDS, content=content, mode=_RENDERED_MODE)

    def _audit(self) -> WantedFile | None:
        if not self._config.audit.append_only:
            return None
        content = rendering.audit_keeping(self._config)
        return WantedFile(path=layout.AUDIT, content=content, mode=_RENDERED_MODE)

    def _sudoers(self) -> WantedFile | None:
        if self._config.execution.runner is RunnerKind.DIRECT:
            return None
        text = sudoers_fragment(grants(self._config, CATALOGUE), layout.USER)
        return WantedFile(
            path=layout.SUDOERS,
            content=text.encode("ascii"),
            mode=_SUDOERS_MODE,
            check=self._visudo,
        )

    # -- putting it there -------------------------------------------------------------------------

    def put_allowed(self) -> None:
        put = self._work.replace if self._is_shown else self._work.file
        put(self._allowed(), self._report)

    def put_protected(self) -> None:
        self._work.file(self._protected(), self._report)

    def put_commands(self) -> None:
        """Put the list of commands there, or take it away where none are configured."""
        self._put_or_forget(layout.COMMANDS, self._commands())

    def put_audit(self) -> None:
        """Put the place of the append-only audit log there, and make it."""
        wanted = self._audit()
        if wanted is not None:
            place = str(self._config.audit.path.parent)
            directory = WantedDirectory(path=place, mode=0o750, group=layout.USER)
            self._work.directory(directory, self._report)
            if self._work.is_this_host and not sealing.can_be_set():
                self._report.advice.append(
                    "The audit log can be changed by whoever takes the agent's user, for want of"
                    f" {sealing.CHATTR}: apt-get install e2fsprogs, then restart the service"
                )
        self._put_or_forget(layout.AUDIT, wanted)

    def put_sudoers(self) -> None:
        """Put the sudoers fragment there, once visudo has passed on it; or take it away."""
        wanted = self._sudoers()
        if wanted is None:
            what = f"{layout.SUDOERS}: the runner `direct` does not ask sudo"
            self._report.add(FileKind.SKIPPED, what)
        self._put_or_forget(layout.SUDOERS, wanted)

    def _put_or_forget(self, path: str, wanted: WantedFile | None) -> None:
        if wanted is not None:
            self._work.file(wanted, self._report)
            return
        self._work.forget_made(path, self._report)

    def _visudo(self, path: str) -> None:
        try:
            self._work.run("visudo", "-cqf", path)
        except AdapterUnavailableError as error:
            try:  # a host with sudo-rs alone
                self._work.run("visudo-rs", "-cqf", path)
            except AdapterUnavailableError:
                raise error from None


def own_datasets(work: Work, config: Config) -> tuple[str, ...]:
    """Return the datasets that the agent's own files lie on; none known below another root."""
    if not work.is_this_host:
        return ()
    paths = rendering.own_paths(config)
    return datasets_of(paths, _MOUNTS.read_text(encoding="utf-8", errors="replace"))
