"""What an exit status and the words of zfs mean: one error of the tree for each."""

from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    InvalidParameterError,
)
from host_agent.operations.catalogue import Output
from host_agent.operations.endings import (
    Words,
    by_status,
    by_words,
    tool_endings,
    unknown,
    wrapper_endings,
)

_ENDINGS = {
    **wrapper_endings("zfs", "The dataset"),
    **tool_endings("zfs"),
}
# Words of libzfs and zfs(8), in the C locale. No name that the grammar lets through has a space.
_WORDS: tuple[Words, ...] = (
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
    """Return the error for an exit status other than 0: the wrapper's own, or zfs's failure."""
    return by_status(output, _ENDINGS) or by_words(output, _WORDS) or unknown(output, "zfs")
