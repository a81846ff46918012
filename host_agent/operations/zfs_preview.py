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
    if member.is_deferred:
        facts.append("marked for deferred destroy")
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
        details=(f"Holds now: {facts.count('userrefs')}", *_deferred(facts)),
    )


def _deferred(facts: Facts) -> tuple[str, ...]:
    if facts.one("deferred", "on|off") == "off":
        return ()
    return ("Marked for deferred destroy: it goes with its last hold, or the last of its clones.",)


def preview_release(facts: Facts, snapshot: str, tag: str) -> Preview:
    """Return what a release does; one that would destroy the snapshot is no release."""
    left = facts.count("userrefs") - 1
    after = f"{left} holds are left then"
    if left == 0:
        is_cloned = facts.one("deferred", "on|off") == "on"
        after = "only its clones keep it then" if is_cloned else "it can be destroyed then"
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary=f"Takes the hold {tag} off {snapshot}: {after}.",
        details=(f"Holds now: {left + 1}", *_deferred(facts)),
    )


def preview_destroy(
    facts: Facts, dataset: str, *, is_recursive: bool, released: str | None = None
) -> Preview:
    """Return what a destroy takes away: exact where zfs itself said what it would do.

    `released` is the tag of the last hold, which is taken off to let a deferred destroy happen.
    """
    along = facts.all("along")
    count, held, reclaimed = facts.count("members"), facts.count("held"), facts.optional("reclaim")
    summary = f"Destroys {dataset}"
    if is_recursive and "@" in dataset:
        summary += f", and below it every snapshot of that name: {count} snapshots"
    elif is_recursive:
        summary += f" and everything below it: {count} datasets and snapshots"
    if released is not None:
        summary += f" by taking off its last hold, {released}"
    if along:
        shown = ", ".join(along[:3]) + (f" and {len(along) - 3} more" if len(along) > 3 else "")
        summary += f"; with the last of its clones goes {shown}"
    if reclaimed is not None:
        summary += f"; {size(reclaimed)} come free"
    details = [*_listed(facts, "What is destroyed")]
    if facts.one("is_last", "yes|no") == "yes" and released is None:
        details.append(
            "It is held once, and marked for deferred destroy: ask with `release`, the hold's tag."
        )
    elif held and released is None:
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
