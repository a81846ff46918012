"""What an exit status and the words of zfs mean: one error of the tree for each."""

from collections.abc import Mapping

from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import Output

_FAILURES: Mapping[int, tuple[type[HostAgentError], str]] = {
    64: (InvalidParameterError, "The wrapper does not accept the form of a parameter"),
    65: (InvalidOutputError, "What zfs answers is not understood here"),
    66: (HostNotFoundError, "What was asked for does not exist"),
    69: (AdapterUnavailableError, "zfs cannot be used on this host"),
    75: (TargetChangedError, "The dataset has changed since it was asked for; nothing was done"),
    77: (ProtectedError, "This is protected on the host"),
    124: (HostTimedOutError, "zfs was ended at the limit of its wrapper"),
    126: (AdapterUnavailableError, "zfs cannot be started on this host"),
    127: (AdapterUnavailableError, "zfs or a tool of its wrapper is missing on this host"),
    137: (HostTimedOutError, "zfs was killed at the limit of its wrapper"),
    143: (HostTimedOutError, "zfs was ended before it was done"),
}
# Words of libzfs and zfs(8), in the C locale. No name that the grammar lets through has a space.
_WORDS: tuple[tuple[str, type[HostAgentError], str], ...] = (
    ("no such tag on this dataset", HostNotFoundError, "The snapshot has no hold of that tag."),
    ("tag already exists", HostFailedError, "The snapshot has a hold of that tag already."),
    ("already exists", HostFailedError, "A snapshot of that name exists already."),
    ("does not exist", HostNotFoundError, "The dataset or snapshot does not exist."),
    ("could not find any snapshots", HostNotFoundError, "The snapshot does not exist."),
    ("no such pool", HostNotFoundError, "The pool does not exist on this host."),
    ("it's being held", HostBusyError, "The snapshot is held; its holds must be released first."),
    ("is busy", HostBusyError, "The dataset is busy: it is mounted and in use, or it is held."),
    ("dependent clones", HostFailedError, "It has clones, which are never destroyed with it."),
    ("snapshot is cloned", HostFailedError, "It has clones, which are never destroyed with it."),
    ("has children", HostFailedError, "It has children; without `recursive` it must have none."),
    ("more recent", HostFailedError, "Only the newest snapshot may be rolled back to."),
    ("invalid property", InvalidParameterError, "zfs on this host has no property of that name."),
    ("out of space", HostFailedError, "The pool has no space left."),
    ("permission denied", HostFailedError, "zfs says that the permission is missing."),
    ("failed to initialize ZFS", AdapterUnavailableError, "ZFS does not run on this host."),
    ("zfs-fuse daemon is running", AdapterUnavailableError, "ZFS does not run on this host."),
    ("modules are not loaded", AdapterUnavailableError, "ZFS does not run on this host."),
    ("modules cannot be", AdapterUnavailableError, "ZFS does not run on this host."),
)


def failure(_params: object, output: Output) -> HostAgentError:
    """Return the error for an exit status other than 0: the wrapper's own, or zfs's failure.

    Of standard error only the wrapper's own last sentence gets into the detail, in printable ASCII.
    """
    cause = f": {output.said}." if output.said else "."
    known = _FAILURES.get(output.shell_status)
    if known is not None:
        error, sentence = known
        return error(f"{sentence}{cause}")
    for words, error, sentence in _WORDS:
        if words in output.stderr:
            return error(sentence)
    message = f"zfs ended with exit status {output.exit_code}; see its standard error"
    return HostFailedError(f"{message}{cause}")
