"""One run of an installation: what it works on, and the few things that its steps do."""

from dataclasses import dataclass, field
from pathlib import Path

from host_agent.errors import HostAgentError
from host_agent.host.install import layout
from host_agent.host.install.accounts import Accounts
from host_agent.host.install.file_plan import Deed, decide, foreign, may_remove
from host_agent.host.install.manifest import Manifest
from host_agent.host.install.tree import Attributes, Tree
from host_agent.host.install.values import (
    FileChange,
    FileKind,
    Found,
    InstallationError,
    InstallReport,
    Tools,
    WantedDirectory,
    WantedFile,
)
from host_agent.operations.catalogue import Output

TAKE_AWAY = "nobody but root may have a file there: see what it is, take it away, install again"


@dataclass(slots=True, kw_only=True)
class Work:
    """What the steps work with. With `is_dry` they only say what they would do."""

    tree: Tree
    accounts: Accounts
    tools: Tools
    manifest: Manifest = field(default_factory=Manifest)
    is_dry: bool = False

    @property
    def root(self) -> Path:
        """Return the root that is installed into; `/` for this host."""
        return self.tree.root

    @property
    def is_this_host(self) -> bool:
        """Return whether the host that runs this is the one that is installed into."""
        return self.root == Path("/")

    @property
    def has_systemd(self) -> bool:
        """Return whether a systemd that can be told runs here (sd_booted(3))."""
        return self.is_this_host and Path("/run/systemd/system").is_dir()

    # -- one thing each ---------------------------------------------------------------------------

    def directory(self, wanted: WantedDirectory, report: InstallReport) -> None:
        """Make a directory, or give it its owner and mode.

        Raises:
            InstallationError: something else is there.
        """
        found = self.tree.find(wanted.path)
        if found is not None and not found.is_directory:
            message = f"{wanted.path} is there and is no directory"
            raise InstallationError(message)
        what = f"{wanted.path} ({wanted.owner}:{wanted.group} {wanted.mode:04o})"
        attributes = self._attributes(wanted)
        if found is None:
            report.add(FileKind.MADE, what)
            if not self.is_dry:
                made = self.tree.make_directory(wanted.path, self._needed(attributes, wanted))
                self._note_directories(made)
        elif attributes is None or attributes != _attributes(found):
            report.add(FileKind.ADJUSTED, what)
            if not self.is_dry:
                self.tree.adjust(wanted.path, self._needed(attributes, wanted))

    def file(self, wanted: WantedFile, report: InstallReport) -> None:
        """Put a file there, unless an administrator has their own; then beside it.

        What a package of this version has in its own place is not put there a second time.

        Raises:
            InstallationError: what is there is neither ours nor surely an administrator's.
        """
        deed = self._deed(wanted, self.manifest.files.get(wanted.path))
        if deed is Deed.BESIDE:
            self._refuse_foreign(wanted.path)
            self._put_beside(wanted, report)
            return
        self._clear_beside(wanted.path, report)
        if self._is_packaged(wanted):
            if wanted.path in self.manifest.files:
                self.forget(wanted.path, report)
            return
        self._do(deed, wanted, report)
        if not self.is_dry:
            self.manifest.files[wanted.path] = wanted.digest

    def replace(self, wanted: WantedFile, report: InstallReport) -> None:
        """Put a file there in the place of any other plain one, whoever wrote that.

        Raises:
            InstallationError: something else than a file is there.
        """
        found = self.tree.find(wanted.path)
        if found is not None and found.digest is None:
            message = f"{wanted.path} is there and is no plain file"
            raise InstallationError(message)
        self._clear_beside(wanted.path, report)
        self._do(self._deed(wanted, found.digest if found else None), wanted, report)
        if not self.is_dry:
            self.manifest.files[wanted.path] = wanted.digest

    def put_once(self, wanted: WantedFile, report: InstallReport) -> None:
        """Put a file there where nothing is: it is the administrator's from then on."""
        if self.tree.find(wanted.path) is None:
            self._do(Deed.CREATE, wanted, report)

    def forget(self, path: str, report: InstallReport) -> None:
        """Remove a file that was put there, unless an administrator changed it since."""
        if may_remove(self.tree.find(path), self.manifest.files[path]):
            report.add(FileKind.REMOVED, path)
            if not self.is_dry:
                self.tree.remove(path)
        elif self.tree.find(path) is not None:
            report.add(FileKind.KEPT, f"{path}: an administrator changed it")
        if not self.is_dry:
            del self.manifest.files[path]

    def forget_made(self, path: str, report: InstallReport) -> None:
        """Remove what was put at `path`, and beside it, as `forget` does; nothing is content."""
        for made in (path, layout.beside(path)):
            if made in self.manifest.files:
                self.forget(made, report)

    def run(self, tool: str, *arguments: str) -> Output:
        """Run a tool of the host that must succeed.

        Raises:
            InstallationError: it failed; the message has its first line.
            AdapterUnavailableError: it is not installed.
        """
        output = self.tools(tool, *arguments)
        if output.exit_code != 0 or output.timed_out:
            said = (output.stderr or output.stdout).strip().partition("\n")[0]
            message = f"{tool} failed: {said or f'exit status {output.exit_code}'}"
            raise InstallationError(message)
        return output

    def would_make(self, path: str) -> FileChange:
        """Return the line of something that is missing."""
        return FileChange(kind=FileKind.MADE, what=path)

    made = would_make

    # -- how --------------------------------------------------------------------------------------

    def _is_packaged(self, wanted: WantedFile) -> bool:
        path = layout.PACKAGED.get(wanted.path)
        found = None if path is None else self.tree.find(path)
        return found is not None and found.digest == wanted.digest

    def _deed(self, wanted: WantedFile, recorded: str | None) -> Deed:
        found = self.tree.find(wanted.path)
        wished = self._attributes(wanted)
        numbers = (-1, -1, -1) if wished is None else (wished.mode, wished.uid, wished.gid)
        return decide(wanted.digest, numbers, found, recorded)

    def _do(self, deed: Deed, wanted: WantedFile, report: InstallReport) -> None:
        what = f"{wanted.path} ({wanted.owner}:{wanted.group} {wanted.mode:04o})"
        match deed:
            case Deed.CREATE:
                report.add(FileKind.MADE, what)
            case Deed.REPLACE:
                report.add(FileKind.REPLACED, what)
            case Deed.ADJUST:
                report.add(FileKind.ADJUSTED, what)
            case Deed.LEAVE | Deed.BESIDE:
                return
        if self.is_dry:
            return
        attributes = self._needed(self._attributes(wanted), wanted)
        # Made anew to be adjusted too: who could write the old one may have it open still.
        self._make_parent(wanted.path)
        self.tree.write(wanted.path, wanted.content, attributes, wanted.check)

    def _refuse_foreign(self, path: str) -> None:
        found = self.tree.find(path)
        fault = None if found is None else self.foreign(found)
        if fault is not None:
            message = f"{path} {fault}; {TAKE_AWAY}"
            raise InstallationError(message)

    def foreign(self, found: Found) -> str | None:
        """Return why a file is not surely root's own, as the end of a sentence."""
        return foreign(found, uid=self._uid("root"), gid=self._gid("root"))

    def _make_parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if self.tree.find(parent) is None:
            attributes = Attributes(mode=0o755, uid=self._uid("root"), gid=self._gid("root"))
            self._note_directories(self.tree.make_directory(parent, attributes))

    def _put_beside(self, wanted: WantedFile, report: InstallReport) -> None:
        path = layout.beside(wanted.path)
        name = path.rpartition("/")[2]
        found = self.tree.find(path)
        is_same = found is not None and found.digest == wanted.digest
        is_foreign = found is not None and found.digest != self.manifest.files.get(path)
        told = f"{wanted.path}: an administrator changed it; "
        if is_foreign and not is_same:
            report.add(FileKind.KEPT, f"{told}so they did {name}, where this version would go")
            return
        report.add(
            FileKind.KEPT, f"{told}what this version would put there is {name}, to be compared"
        )
        if is_same:
            return
        # Never executable, so that nobody runs it by mistake.
        beside = WantedFile(path=path, content=wanted.content, mode=wanted.mode & 0o644)
        self._do(Deed.CREATE if found is None else Deed.REPLACE, beside, report)
        if not self.is_dry:
            self.manifest.files[path] = wanted.digest

    def _clear_beside(self, path: str, report: InstallReport) -> None:
        """Remove what an earlier run left beside a file that is in order again."""
        beside = layout.beside(path)
        recorded = self.manifest.files.get(beside)
        found = self.tree.find(beside) if recorded is not None else None
        if found is not None and found.digest == recorded:
            report.add(FileKind.REMOVED, beside)
            if not self.is_dry:
                self.tree.remove(beside)
        if not self.is_dry:
            self.manifest.files.pop(beside, None)

    def _attributes(self, wanted: WantedFile | WantedDirectory) -> Attributes | None:
        """Return owner and mode by number; None while the owner does not exist yet."""
        uid, gid = self.accounts.uid(wanted.owner), self.accounts.gid(wanted.group)
        if uid is None or gid is None:
            return None
        return Attributes(mode=wanted.mode, uid=uid, gid=gid)

    def _needed(
        self, attributes: Attributes | None, wanted: WantedFile | WantedDirectory
    ) -> Attributes:
        if attributes is None:
            message = (
                f"{wanted.path} cannot be given to {wanted.owner}:{wanted.group}: no such user"
            )
            raise InstallationError(message)
        return attributes

    def _note_directories(self, made: list[str]) -> None:
        known = self.manifest.directories
        known.extend(path for path in made if path not in known)

    def _uid(self, user: str) -> int:
        return self.accounts.uid(user) or 0

    def _gid(self, group: str) -> int:
        return self.accounts.gid(group) or 0


def _attributes(found: Found) -> Attributes:
    return Attributes(mode=found.mode, uid=found.uid, gid=found.gid)


def describe(error: BaseException) -> str:
    """Return why a step failed, as a fragment of a sentence."""
    if isinstance(error, HostAgentError):
        return error.detail.rstrip(".")
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}"
    return str(error).rstrip(".")
