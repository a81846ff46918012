"""`host-agent identities`: let an identity go that was held off."""

import argparse

from host_agent.cli import connection_settings, names
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `identities` and its verb to the command line."""
    parser = subparsers.add_parser(
        "identities",
        help="end the hold-off of an identity",
        description="Identities that are held off for too many denied or expired requests, or for"
        " trying what was denied another way. For admins.",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    release = verbs.add_parser(
        "release",
        help="forget what came to nothing of an identity so far",
        description="Forget the denied and expired requests of an identity up to now: its hold-off"
        " ends, and what was denied may be asked for in another way again.",
    )
    release.add_argument("cn", type=names.name, metavar="CN", help="its exact common name")
    names.finish(release, _release)


def _release(args: argparse.Namespace) -> int:
    from host_agent.client.administration import release

    with connection_settings.connect(args) as client:
        answer = client.administer(release(args.cn))
    if args.json:
        print(render.json_text(answer.body))
    else:
        print(f"{render.visible(args.cn)} is released.")
    return EX_OK
