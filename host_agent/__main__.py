"""The `host-agent` command: picks the module of the noun, runs it, ends with a sysexits status.

Only the module that is asked for is imported, so that a command starts quickly and help needs none.
A hook needs not even the parser.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import host_agent

if TYPE_CHECKING:
    import argparse

    from host_agent.cli.parser import Parser

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended."""

NOUNS: Mapping[str, str] = {
    "serve": "run the agent in the foreground",
    "reload": "have the running agent read its configuration anew",
    "config": "check the configuration",
    "pki": "a small CA: issue, revoke and judge certificates",
    "login": "store a bundle, so that `--host NAME` reaches that host",
    "hosts": "the hosts that you have logged in to",
    "logout": "remove a host and its keys from here",
    "call": "ask for one operation",
    "operations": "list what this certificate may ask for",
    "requests": "see, approve, deny and cancel requests",
    "approver": "list approvers and enrol them over a channel",
    "grants": "list and revoke bounded grants",
    "identities": "end the hold-off of an identity",
    "mcp": "serve MCP over standard input and output, as a client of one host",
    "simulate": "an agent without a host, to test programs against",
    "audit": "verify and read the audit log",
    "sudoers": "render and audit what sudo grants",
    "root": "render and show what root's wrappers go by",
    "doctor": "prove each part of an installed agent",
    "install": "put the agent onto this host, or bring it up to date",
    "uninstall": "take the agent off this host; state and configuration stay",
    "hook": "answer an agent host that is about to run a command",
    "integrate": "have an agent host call the hook before each command",
    "completion": "print the completion script of a shell",
    "manual": "print the manual page, for man(1)",
}
"""The commands in the order of help, each a module of `cli.commands`, and what they do."""


def build_parser(*nouns: str) -> "Parser":
    """Return the parser: the commands `nouns` whole, the others by name for the help."""
    from host_agent.cli.parser import Parser

    parser = Parser(
        prog="host-agent",
        description="Typed, approved and audited privileged operations on a host.",
        epilog="Exit status: 0 done; 1 the operation failed, or a checker found something;"
        " 64 usage; 65 bad data; 69 no connection or not available; 70 internal; 75 try again"
        " later; 77 refused; 78 configuration; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=host_agent.__version__)
    commands = parser.add_subparsers(
        title="commands", dest="noun", metavar="COMMAND", required=True
    )
    for noun, meaning in NOUNS.items():
        if noun in nouns:
            importlib.import_module(f"host_agent.cli.commands.{noun}").add_parser(commands)
        else:
            commands.add_parser(noun, help=meaning)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (else the process's) and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    match given:
        case ["hook", str(host)] if not host.startswith("-"):
            # It runs before each command of an agent: it imports little, and never raises.
            from host_agent.hooks.hook import main as answer

            return answer(host)
    for stream in (sys.stdout, sys.stderr):
        # A terminal's encoding may lack a character; that must not end the command.
        getattr(stream, "reconfigure", _ignore)(errors="backslashreplace")
    from argparse import Namespace

    args = Namespace()
    try:
        status = _run(given, args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more; let the interpreter's own flush at exit go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the outermost edge: no traceback reaches a person
        from host_agent.cli import exit_status

        return exit_status.end(error, as_json=bool(getattr(args, "json", False)))
    return status


def _run(given: Sequence[str], args: "argparse.Namespace") -> int:
    """Parse into `args` and run; return the exit status, 0 after help and version."""
    from host_agent.errors import EX_USAGE

    parser = build_parser(*given[:1])
    try:
        parser.parse_args(given, args)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EX_USAGE
    return int(args.run(args))


def _ignore(**_options: str) -> None:
    """Stand in for `reconfigure` on a stream that a test put in place."""


if __name__ == "__main__":
    sys.exit(main())
