"""Who keeps the audit log: root, so that the agent can only append, or the agent itself."""

from collections.abc import Iterator
from pathlib import Path

from host_agent.audit import sealing
from host_agent.config import Config, RunnerKind
from host_agent.host.doctor.values import Check, ok, problem, warning

_NAME = "audit log, append-only"
_RESTART = "systemctl restart host-agent.service: a start has a file that has it begun"


def keeping_checks(config: Config) -> Iterator[Check]:
    """Yield whether what was written to the audit log is out of the agent's own reach."""
    if not config.audit.append_only:
        if config.execution.runner is RunnerKind.SUDO:
            sentence = (
                f"{config.audit.path} belongs to the agent: whoever takes its user could change"
                " what is written there. The chain would tell."
            )
            remedy = "let root keep it, [audit] append_only: docs/how-to/keep-the-log.md"
            yield warning(_NAME, sentence, remedy)
        return
    yield _attribute_check(config.audit.path)
    yield from _finished_checks(config.audit.path)


def _attribute_check(path: Path) -> Check:
    has_attributes = True
    try:
        is_set = sealing.is_append_only(path)
    except FileNotFoundError:
        remedy = "start the agent: systemctl start host-agent.service"
        return warning(_NAME, f"There is no {path} yet.", remedy)
    except PermissionError:
        return warning(_NAME, f"{path} cannot be read by this user.", "run the doctor as root")
    except OSError:  # a file system without attributes
        is_set = has_attributes = False
    if is_set:
        return ok(_NAME, f"{path} can be appended to, and nothing else.")
    sentence = (
        f"{path} has no append-only attribute: whoever takes the agent's user could change lines of"
        " the live file. Finished files they could not."
    )
    if not sealing.can_be_set():
        sentence = f"{sentence} {sealing.CHATTR} is not installed, so root's wrapper could not."
        return problem(_NAME, sentence, f"apt-get install e2fsprogs; then {_RESTART}")
    if has_attributes:
        return warning(_NAME, sentence, _RESTART)
    remedy = "keep the log on a file system that has it (ext4, xfs, btrfs): chattr(1)"
    return warning(_NAME, sentence, remedy)


def _finished_checks(path: Path) -> Iterator[Check]:
    """Yield finished files that others than root could change; root's wrapper makes them so."""
    name = "audit log, finished files"
    try:
        files = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
        status = {file: file.lstat() for file in files}
    except OSError as error:
        yield warning(name, f"{path.parent} cannot be read: {error.strerror}.", "run it as root")
        return
    loose = [file.name for file, one in status.items() if one.st_uid != 0 or one.st_mode & 0o022]
    if loose:
        sentence = f"Others than root may change {len(loose)} of {len(files)}, first {loose[0]}."
        yield problem(name, sentence, "chown root and chmod go-w them: docs/how-to/keep-the-log.md")
    elif files:
        yield ok(name, f"All {len(files)} are root's, and nobody else may write them.")
