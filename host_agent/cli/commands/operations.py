"""`host-agent operations`: what this certificate may ask for."""

import argparse

from host_agent.cli import arguments, connection_settings
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `operations` to the command line."""
    parser = subparsers.add_parser(
        "operations",
        help="list what this certificate may ask for",
        description="List the operations that are not denied to this certificate, with their"
        " parameters (`?` marks optional ones) and what policy says: allow, ask, or depends (on"
        " the parameters).",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with rules and schemas")
    connection_settings.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue; return the exit status."""
    with connection_settings.connect(args) as client:
        found = client.operations()
    if args.json:
        print(render.json_text({"operations": [info.body for info in found]}))
        return EX_OK
    rows = (
        (
            render.visible(info.name, limit=64),
            render.visible(info.effect, limit=16),
            render.visible(info.verdict, limit=16),
            render.visible(arguments.describe(info.parameters), limit=400),
        )
        for info in found
    )
    render.console().print(render.table(("operation", "effect", "verdict", "parameters"), rows))
    return EX_OK
