"""`host-agent approver`: the people who approve over channels, and their enrolment."""

import argparse
from typing import TYPE_CHECKING

from host_agent.cli import connection_settings, names
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK

if TYPE_CHECKING:
    from host_agent.client import ApproverView, ContactView

_COLUMNS = ("owner", "roles", "channel", "is", "address")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `approver` and its verbs to the command line."""
    parser = subparsers.add_parser(
        "approver",
        help="list approvers and enrol them over a channel",
        description="The people of `[[approvers]]`: how each of them is reached, and the one-time"
        " codes by which they enrol. For admins.",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="list approvers and their channels")
    names.finish(listing, _list)
    enrol = verbs.add_parser(
        "enrol",
        help="make a one-time code by which an approver enrols",
        description="Make a one-time code, in place of an older one. The approver sends it to the"
        " agent over the channel, which proves whose address it comes from.",
    )
    enrol.add_argument("owner", type=names.name, metavar="OWNER", help="as in `[[approvers]]`")
    enrol.add_argument(
        "--channel",
        type=names.name,
        metavar="CHANNEL",
        required=True,
        help="where they enrol: one of theirs that proves an address",
    )
    names.finish(enrol, _enrol)


def _list(args: argparse.Namespace) -> int:
    from host_agent.client.administration import approvers

    with connection_settings.connect(args) as client:
        found = client.administer(approvers())
    if args.json:
        print(render.json_text({"approvers": [approver.body for approver in found]}))
        return EX_OK
    if not found:
        render.warn("No approvers are configured.")
        return EX_OK
    rows = (row for approver in found for row in _rows(approver))
    render.console().print(render.table(_COLUMNS, rows))
    return EX_OK


def _rows(approver: "ApproverView") -> list[tuple[str, ...]]:
    contacts: tuple[ContactView | None, ...] = approver.channels or (None,)
    return [(*_person(approver), *_contact(contact)) for contact in contacts]


def _person(approver: "ApproverView") -> tuple[str, str]:
    roles = ", ".join(render.visible(role, limit=16) for role in approver.roles[:4])
    return render.visible(approver.owner, limit=64), roles or "-"


def _contact(contact: "ContactView | None") -> tuple[str, str, str]:
    if contact is None:
        return "-", "-", "-"
    words = (contact.channel, contact.state, contact.address or "-")
    channel, state, address = (render.visible(word, limit=128) for word in words)
    return channel, state, address


def _enrol(args: argparse.Namespace) -> int:
    from host_agent.client.administration import enrol

    with connection_settings.connect(args) as client:
        offer = client.administer(enrol(args.owner, args.channel))
    if args.json:
        print(render.json_text(offer.body))
        return EX_OK
    owner = render.visible(offer.owner, limit=64)
    until = "" if offer.expires_at is None else f" until {offer.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    print(
        f"{owner} enrols by sending this over {args.channel}{until}, once:\n\n"
        f"    ENROL {render.visible(offer.code, limit=64)}\n\n"
        "Give it to nobody else: whoever sends it first is taken for them."
    )
    return EX_OK
