"""What a change of a dataset would do, in words for the person who decides.

Names come from the host: data, shown, never believed.
"""

from collections.abc import Iterator

from host_agent.operations.catalogue import Preview, PreviewAccuracy
from host_agent.operations.zfs_output import Facts, Member

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """Return a number of bytes in words: `45056 bytes`, and from 10 KiB on `(44 KiB)` behind."""
    unit, rounded = 0, count
    while rounded >= 10 * 1024 and unit < len(_UNITS) - 1:
        unit, rounded = unit + 1, rounded // 1024
    return f"{count} bytes" if not unit else f"{count} bytes ({rounded} {_UNITS[unit]})"


def _described(member: Member) -> str:
    facts = [member.kind]
    if member.used is not None:
        facts.append(size(member.used))
    if member.holds:
        facts.append(f"{member.holds} holds" if member.holds > 1 else "1 hold")
    if member.origin is not None:
        facts.append(f"a clone of {member.origin}")
    return f"  {member.name}: {', '.join(facts)}"


def _listed(facts: Facts, label: str) -> Iterator[str]:
    members, count = facts.members(), facts.count("members")
    yield f"{label} ({count}):"
    yield from (_described(member) for member in members)
    if count > len(members):
        yield f"  and {count - len(members)} more"


def preview_snapshot(facts: Facts, snapshot: str) -> Preview:
    """Return what taking `snapshot` does."""
    count = facts.count("members")
    if count == 1:
        return Preview(accuracy=PreviewAccuracy.EXACT, summary=f"Takes the snapshot {snapshot}.")
    name = snapshot.partition("@")[2]
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary=f"Takes {count} snapshots called {name} at one moment: the dataset and all below.",
        details=tuple(_listed(facts, "Datasets")),
    )


def preview_hold(facts: Facts, snapshot: str, tag: str) -> Preview:
    """Return what a hold does."""
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary=f"Holds {snapshot} with the tag {tag}: it cannot be destroyed until released.",
        details=(f"Holds now: {facts.count('userrefs')}",),
    )


def preview_release(facts: Facts, snapshot: str, tag: str) -> Preview:
    """Return what a release does; the last one lets the snapshot be destroyed."""
    left = facts.count("userrefs") - 1
    after = "it can be destroyed then" if left == 0 else f"{left} holds are left then"
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary=f"Takes the hold {tag} off {snapshot}: {after}.",
        details=(f"Holds now: {left + 1}",),
    )


def preview_destroy(facts: Facts, dataset: str, *, is_recursive: bool) -> Preview:
    """Return what a destroy takes away: exact where zfs itself said what it would do."""
    count, held, reclaimed = facts.count("members"), facts.count("held"), facts.optional("reclaim")
    summary = f"Destroys {dataset}"
    if is_recursive and "@" in dataset:
        summary += f", and below it every snapshot of that name: {count} snapshots"
    elif is_recursive:
        summary += f" and everything below it: {count} datasets and snapshots"
    if reclaimed is not None:
        summary += f"; {size(reclaimed)} come free"
    details = [*_listed(facts, "What is destroyed")]
    if held:
        details.append(f"{held} of these are held: zfs refuses until the holds are released.")
    return Preview(
        accuracy=PreviewAccuracy.ESTIMATE if reclaimed is None else PreviewAccuracy.EXACT,
        summary=f"{summary}.",
        details=tuple(details),
    )


def preview_rollback(facts: Facts, snapshot: str) -> Preview:
    """Return what a rollback loses: what was written since, which goes on until it runs."""
    written = facts.optional("written")
    loss = "what was written since" + ("" if written is None else f", {size(written)},")
    now, then = facts.count("referenced"), facts.count("snapshot_referenced")
    return Preview(
        accuracy=PreviewAccuracy.ESTIMATE,
        summary=f"Sets {snapshot.partition('@')[0]} back to {snapshot}: {loss} is lost.",
        details=(f"Refers to {size(now)} now, to {size(then)} then.", "No snapshot is lost."),
    )
