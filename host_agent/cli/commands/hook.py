"""`host-agent hook`: the answer to an agent host that is about to run a command."""

import argparse

from host_agent.hooks.hook import main
from host_agent.hooks.hosts import NAMES


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `hook` to the command line."""
    parser = subparsers.add_parser(
        "hook",
        help="answer an agent host that is about to run a command",
        description="Read the event of an agent host from standard input and answer in its form:"
        " privileged commands are denied, with the operation to ask for instead. `integrate` has"
        " the host call it. Exit status 2 is a denial; its reason is on standard error.",
    )
    parser.add_argument("host", choices=NAMES, metavar="HOST", help=", ".join(NAMES))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer one event and return the exit status."""
    return main(args.host)
