"""`host-agent grants`: what may run without asking again, and how to end that."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from host_agent.cli import connection_settings, names
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK

if TYPE_CHECKING:
    from host_agent.client import GrantView

_COLUMNS = ("grant", "is", "caller", "operation", "resource", "with", "uses", "given by")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `grants` and its verbs to the command line."""
    parser = subparsers.add_parser(
        "grants",
        help="list and revoke bounded grants",
        description="Bounded grants: consents that stand for further runs, given with"
        " `host-agent requests approve --for` or `--count`. For approvers and admins.",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="list the grants of the last 30 days, newest first")
    listing.add_argument("--live", action="store_true", help="only those that can still be used")
    names.finish(listing, _list)
    revoke = verbs.add_parser("revoke", help="end a grant; no further run by it begins")
    revoke.add_argument("id", type=names.name, metavar="ID", help="its id, or a unique prefix")
    names.finish(revoke, _revoke)


def _list(args: argparse.Namespace) -> int:
    from host_agent.client.administration import grants

    with connection_settings.connect(args) as client:
        found = [grant for grant in client.administer(grants()) if grant.is_live or not args.live]
    if args.json:
        print(render.json_text({"grants": [grant.body for grant in found]}))
        return EX_OK
    if not found:
        render.warn("No grants.")
        return EX_OK
    now = datetime.now(UTC)
    render.console().print(render.table(_COLUMNS, (_row(grant, now) for grant in found)))
    return EX_OK


def _row(grant: "GrantView", now: datetime) -> tuple[str, ...]:
    params = ", ".join(
        f"{render.visible(name, limit=64)}={render.value_text(value, limit=80)}"
        for name, value in grant.params.items()
    )
    left = "" if grant.uses_left is None else f", {grant.uses_left} left"
    return (
        render.visible(grant.grant_id, limit=64),
        _standing(grant, now),
        render.visible(grant.caller, limit=64),
        render.visible(grant.operation, limit=64),
        render.visible(grant.resource, limit=256),
        params or "-",
        f"{grant.used} used{left}",
        ", ".join(render.visible(owner, limit=64) for owner in grant.given_by[:20]) or "-",
    )


def _standing(grant: "GrantView", now: datetime) -> str:
    if grant.revoked_at is not None:
        return "revoked"
    if not grant.is_live:
        return "over"
    left = max(0.0, (grant.expires_at - now).total_seconds())
    return f"live for {render.duration_text(left)}"


def _revoke(args: argparse.Namespace) -> int:
    from host_agent.client.administration import revoke

    with connection_settings.connect(args) as client:
        grant = client.administer(revoke(args.id))
    if args.json:
        print(render.json_text(grant.body))
        return EX_OK
    print(f"{render.visible(grant.grant_id, limit=64)} is revoked; no further run by it begins.")
    return EX_OK
