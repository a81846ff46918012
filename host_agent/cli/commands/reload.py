"""`host-agent reload`: the running agent reads its configuration anew; here is what came of it.

What ExecReload= of the unit runs, so that `systemctl reload` fails where the reload is rejected.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from host_agent.agent.reload import ANSWER_SECONDS, RUNTIME_DIRECTORY, SOCKET_NAME, ask_reload
from host_agent.cli import journal
from host_agent.errors import EX_CONFIG, EX_OK

_A_DAY = 86_400


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `reload` to the command line."""
    parser = subparsers.add_parser(
        "reload",
        help="have the running agent read its configuration anew",
        description="Has the running agent read its configuration anew and waits for the verdict:"
        " ends with 0 where the new one serves, with 78 where it is rejected and the old one goes"
        " on serving, with 69 where no agent answers. For root, or the agent's user.",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("RUNTIME_DIRECTORY") or RUNTIME_DIRECTORY),
        help=f"where the agent's socket `{SOCKET_NAME}` is; default: $RUNTIME_DIRECTORY, else"
        f" {RUNTIME_DIRECTORY}",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        default=ANSWER_SECONDS,
        help=f"how long to wait for the verdict; default: {ANSWER_SECONDS:.0f}",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reload and return a sysexits status.

    Raises:
        ConnectionFailedError: no agent answers.
        InvalidAnswerError: something else does.
    """
    faults, serves = ask_reload(args.directory, seconds=args.timeout)
    if not faults:
        sys.stdout.write(f"The new configuration {serves}\n")
        return EX_OK
    for fault in faults:
        journal.say(f"rejected: {fault}")
    journal.say(f"The old configuration goes on, {serves}", logging.WARNING)
    return EX_CONFIG


def _seconds(text: str) -> float:
    """Return the seconds that `text` spells.

    Raises:
        argparse.ArgumentTypeError: it is no number from 1 to a day.
    """
    if text.isascii() and text.isdigit() and 0 < len(text) < 6 and 1 <= int(text) <= _A_DAY:
        return float(text)
    message = f"a whole number of seconds, 1 to {_A_DAY}"
    raise argparse.ArgumentTypeError(message)
