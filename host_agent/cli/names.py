"""What the commands about people, grants and identities have in common."""

import argparse
from collections.abc import Callable

from host_agent.cli import connection_settings


def name(text: str) -> str:
    """Return `text`, which could name an owner, an identity or a grant.

    Raises:
        argparse.ArgumentTypeError: it could not.
    """
    from host_agent.client.administration import is_name

    if is_name(text):
        return text
    message = "a name is 1 to 64 letters, digits and `._@+-`, a letter, digit or `_` first"
    raise argparse.ArgumentTypeError(message)


def finish(parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]) -> None:
    """Add what every client command takes, and what it runs."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    connection_settings.add_arguments(parser)
    parser.set_defaults(run=function)
