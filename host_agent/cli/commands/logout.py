"""`host-agent logout`: a host and its keys are removed from this person's settings."""

import argparse
from pathlib import Path

from host_agent.cli.connection_settings import client_path
from host_agent.cli.contexts import Contexts
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `logout` to the command line."""
    parser = subparsers.add_parser(
        "logout",
        help="remove a host and its keys from here",
        description="Remove a host from ~/.config/host-agent/client.toml, with the key that `login`"
        " stored. The certificate stays valid: where the key may be known to others, have it"
        " revoked.",
    )
    parser.add_argument("name", metavar="NAME", help="a host that `hosts list` lists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Remove the host and return the exit status."""
    contexts = Contexts(path=client_path(Path.home()))
    with contexts.alone():
        contexts.remove(args.name)
    print(f"removed {render.visible(args.name)} and its keys from here")
    return EX_OK
