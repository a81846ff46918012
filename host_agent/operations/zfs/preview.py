"""What a change of a dataset would do, in words for the person who decides.

Names come from the host: data, shown, never believed.
"""

from host_agent.operations.catalogue import Preview, PreviewAccuracy
from host_agent.operations.zfs.output import DatasetFacts, Member

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SHOWN_ALONG = 3


def size(count: int) -> str:
    """Return a number of bytes in one unit, rounded down: `112 KiB`, `1.4 GiB`."""
    unit = min(max(count.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    tenths = count * 10 >> 10 * unit
    whole, rest = divmod(tenths, 10)
    shown = f"{whole}.{rest}" if unit and rest and whole < 10 else f"{whole}"
    return f"{shown} {_UNITS[unit]}"


def _described(member: Member) -> str:
    facts = [member.name]
    if member.kind == "volume":
        facts.append("volume")
    if member.used:
        facts.append(size(member.used))
    if member.holds:
        facts.append(f"{member.holds} holds" if member.holds > 1 else "1 hold")
    if member.is_deferred:
        facts.append("marked for deferred destroy")
    if member.origin is not None:
        facts.append(f"a clone of {member.origin}")
    return ", ".join(facts)


def _left_out(facts: DatasetFacts) -> int:
    return facts.count("members") - len(facts.members())


def preview_snapshot(facts: DatasetFacts) -> Preview:
    """Return what taking snapshots does."""
    count = facts.count("members")
    taken = "Takes one snapshot" if count == 1 else f"Takes {count} snapshots at one moment"
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary=f"{taken}; nothing is lost.",
        details=() if count == 1 else tuple(member.name for member in facts.members()),
        left_out=_left_out(facts) if count > 1 else 0,
        undo="destroy them" if count > 1 else "destroy it",
    )


def preview_hold(facts: DatasetFacts) -> Preview:
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary="It cannot be destroyed until it is released.",
        details=(f"Holds now: {facts.count('userrefs')}", *_deferred(facts)),
        undo="release it",
    )


def _deferred(facts: DatasetFacts) -> tuple[str, ...]:
    if facts.one("deferred", "on|off") == "off":
        return ()
    return ("Marked for deferred destroy: it goes with its last hold, or the last of its clones.",)


def preview_release(facts: DatasetFacts) -> Preview:
    """Return what a release does; one that would destroy the snapshot is no release."""
    left = facts.count("userrefs") - 1
    after = f"{left} holds are left then" if left > 1 else "One hold is left then"
    if left == 0:
        is_cloned = facts.one("deferred", "on|off") == "on"
        after = "Only its clones keep it then" if is_cloned else "It can be destroyed then"
    return Preview(
        accuracy=PreviewAccuracy.EXACT,
        summary=f"{after}.",
        details=(f"Holds now: {left + 1}", *_deferred(facts)),
        undo="hold it again",
    )


def preview_destroy(
    facts: DatasetFacts, dataset: str, *, is_recursive: bool, released: str | None = None
) -> Preview:
    """Return what a destroy takes away: exact where zfs itself said what it would do.

    `released` is the tag of the last hold, which is taken off to let a deferred destroy happen.
    """
    along, members = facts.all("along"), facts.members()
    count, held, reclaimed = facts.count("members"), facts.count("held"), facts.optional("reclaim")
    notes = []
    if released is not None:
        notes.append(f"Its last hold, {released}, is taken off: that destroys it.")
    if along:
        more = f" and {len(along) - _SHOWN_ALONG} more" if len(along) > _SHOWN_ALONG else ""
        shown = ", ".join(along[:_SHOWN_ALONG]) + more
        notes.append(f"With the last of its clones goes {shown}.")
    if facts.one("is_last", "yes|no") == "yes" and released is None:
        notes.append(
            "It is held once, and marked for deferred destroy: ask with `release`, the hold's tag."
        )
    elif held and released is None:
        notes.append(f"{held} of these are held: zfs refuses until the holds are released.")
    is_listed = count > 1 or bool(notes) or _is_remarkable(members)
    return Preview(
        accuracy=PreviewAccuracy.ESTIMATE if reclaimed is None else PreviewAccuracy.EXACT,
        summary=f"Lost for good: {_lost(facts, dataset, is_recursive=is_recursive)}.",
        details=(*notes, *(map(_described, members) if is_listed else ())),
        left_out=_left_out(facts) if is_listed else 0,
        undo="none",
    )


def _is_remarkable(members: tuple[Member, ...]) -> bool:
    return any(
        member.kind == "volume" or member.holds or member.is_deferred or member.origin is not None
        for member in members
    )


def _lost(facts: DatasetFacts, dataset: str, *, is_recursive: bool) -> str:
    """Return how much is lost in how many: a dataset's own size has all below it in it."""
    count, members = facts.count("members"), facts.members()
    known = facts.optional("reclaim")
    at_least = ""
    if known is None and is_recursive and "@" in dataset:
        known = sum(member.used or 0 for member in members)
        at_least = "at least "  # what they share comes free as well
    elif known is None:
        known = next((member.used for member in members if member.name == dataset), None)
    if known is None:
        return f"{count} of unknown size"
    return f"{at_least}{size(known)}" + (f" in {count}" if count > 1 else "")


def preview_rollback(facts: DatasetFacts) -> Preview:
    """Return what a rollback loses: what was written since, which goes on until it runs."""
    written = facts.optional("written")
    loss = "what was written since" + ("" if written is None else f", {size(written)}")
    now, then = facts.count("referenced"), facts.count("snapshot_referenced")
    return Preview(
        accuracy=PreviewAccuracy.ESTIMATE,
        summary=f"Lost for good: {loss}.",
        details=(f"Refers to {size(now)} now, to {size(then)} then.", "No snapshot is lost."),
        undo="none",
    )
