"""`host-agent install`: users, directories, wrappers, sudoers and units, or nothing at all."""

import argparse
import asyncio
import contextlib
import os
import pwd
import re
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from host_agent.cli.terminal import render
from host_agent.errors import EX_FAILED, EX_NOPERM, EX_OK, UsageError
from host_agent.execution.runner import ToolRunner
from host_agent.host.doctor.starting import start_checks, try_start
from host_agent.host.doctor.values import CheckState
from host_agent.host.install import layout
from host_agent.host.install.accounts import FileAccounts, HostAccounts
from host_agent.host.install.first import APPROVER, CALLER, First
from host_agent.host.install.journal import Journal
from host_agent.host.install.plan import Work
from host_agent.host.install.program import check_program, own_program
from host_agent.host.install.source import read_source
from host_agent.host.install.steps import Installation
from host_agent.host.install.transaction import StepFailedError, alone, carry_out
from host_agent.host.install.tree import Tree
from host_agent.host.install.values import FileKind, InstallationError, InstallReport
from host_agent.operations.catalogue import Output

_TOOL_SECONDS = 120.0
_PROGRAM = re.compile(r"/\S+", re.ASCII)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `install` to the command line."""
    parser = subparsers.add_parser(
        "install",
        help="put the agent onto this host, or bring it up to date",
        description="Makes user, directories, wrappers, root's lists that they obey, the"
        " sudoers fragment and the unit, as root. Doing it again changes nothing; what an"
        " administrator changed is kept, and the new version put beside it. When a step fails,"
        " everything is put back as it was. Ends with 1 then, with 78 where the configuration or"
        " the place of this program is at fault, with 77 for who is not root.",
    )
    parser.add_argument(
        "--bootstrap",
        action="store_true",
        help="also make a first authority, certificates and configuration, where there are none",
    )
    _add_first(parser)
    parser.add_argument(
        "--program",
        type=_program,
        metavar="PATH",
        help="the program that the service starts; default: the one that runs this",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def _add_first(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "for --bootstrap",
        "Each may be given several times. Every person and program gets a bundle, one file for"
        " `host-agent login`. A program is an owner of its own: nobody approves for their own"
        " owner, and a person approves for their agents.",
    )
    for option, metavar, meaning in (
        ("--name", "DNS", "a name by which callers reach this host"),
        ("--address", "IP", "an address at which they do; default: all, without --name loopback"),
        ("--caller", "CN", f"a program that asks; default: {CALLER}"),
        ("--approver", "OWNER", f"a person who approves; default: {APPROVER}"),
    ):
        group.add_argument(option, metavar=metavar, action="append", default=[], help=meaning)


def _first(args: argparse.Namespace) -> First | None:
    """Return what a bootstrap is asked for; None where there is to be none.

    Raises:
        UsageError: a name cannot be used, or there is one without `--bootstrap`.
    """
    given = [name for name in ("name", "address", "caller", "approver") if getattr(args, name)]
    if not args.bootstrap:
        if given:
            message = f"--{given[0]} is for --bootstrap."
            raise UsageError(message)
        return None
    try:
        return First(
            names=tuple(args.name),
            addresses=tuple(args.address),
            callers=tuple(args.caller),
            approvers=tuple(args.approver),
        )
    except ValueError as error:
        sentence = str(error)
        raise UsageError(f"{sentence[:1].upper()}{sentence[1:]}.") from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `install` and `uninstall` both take."""
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done; change nothing"
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        default=Path("/"),
        help="work on the host whose files are below DIR, as for an image; default: this host",
    )


def run(args: argparse.Namespace) -> int:
    """Install and return a sysexits status.

    Raises:
        UsageError: the root is no directory.
        ConfigurationError: the configuration, or where the program lies, is at fault.
        AdapterUnavailableError: a tool that is needed is not installed.
    """
    first = _first(args)
    if not is_root():
        return EX_NOPERM
    work, journal = make_work(args)
    program = args.program or own_program(work.root)
    check_program(work.root, program)
    installation = Installation(work, read_source(), program, first=first, now=datetime.now(UTC))
    try:
        with undisturbed(), alone(work.root):
            installation.prepare()
            carry_out(installation.steps(), journal)
    except (StepFailedError, InstallationError) as error:
        return failed(error)
    tell(installation.report, is_dry=args.dry_run)
    if not args.dry_run:
        _advise(installation.report, work, is_new=installation.is_new)
        if work.root == Path("/"):
            return _try_start(work, program)
    return EX_OK


def _try_start(work: Work, program: str) -> int:
    """Say why the service could not start, if so, and return the status.

    The agent's user does what a start does before it opens anything.
    """
    uid = pwd.getpwnam(layout.USER).pw_uid
    start = try_start(Path(layout.CONFIGURATION), layout.USER, uid, work.tools, (program,))
    bad = [check for check in start_checks(start, ()) if check.state is CheckState.PROBLEM]
    for check in bad:
        render.warn(render.visible(f"The service cannot start. {check.sentence} {check.remedy}."))
    return EX_FAILED if bad else EX_OK


def is_root() -> bool:
    """Return whether this is root, and say so where it is not."""
    if os.geteuid() == 0:
        return True
    render.warn("only root can do this; `--dry-run` needs root too, to look at what is there.")
    return False


def make_work(args: argparse.Namespace) -> tuple[Work, Journal]:
    """Return what the steps work with, and the journal that undoes it.

    Raises:
        UsageError: the root is no directory.
    """
    root = Path(os.path.realpath(args.root))
    if not root.is_dir():
        message = f"{args.root} is not a directory."
        raise UsageError(message)
    journal = Journal()
    is_here = root == Path("/")
    tools = ToolRunner(timeout_seconds=_TOOL_SECONDS)

    def run_tool(tool: str, *arguments: str) -> Output:
        return asyncio.run(tools.run(tool, *arguments))

    work = Work(
        tree=Tree(root, journal),
        accounts=HostAccounts() if is_here else FileAccounts(root),
        tools=run_tool,
        is_dry=args.dry_run,
    )
    return work, journal


def failed(error: Exception) -> int:
    """Say why it failed and return the status."""
    sentence = str(error)
    shown = sentence[:1].upper() + sentence[1:]
    render.warn(render.visible(shown if shown.endswith(".") else f"{shown}."))
    return EX_FAILED


def tell(report: InstallReport, *, is_dry: bool) -> None:
    """Print what was done, one line each."""
    if is_dry and report.changes:
        sys.stdout.write("Nothing was changed. This would be done:\n")
    for change in report.changes:
        sys.stdout.write(f"{change.kind.value:<9} {render.visible(change.what)}\n")
    if report.is_unchanged:
        sys.stdout.write("There is nothing to do: everything is as it should be.\n")


def _advise(report: InstallReport, work: Work, *, is_new: bool) -> None:
    """Print what a person should do next."""
    lines = list(report.advice)
    if is_new:
        lines += [
            f"Look at {layout.CONFIGURATION}: host-agent config check",
            f"Start it: systemctl enable --now {layout.UNIT_NAME}",
            "Prove each part: host-agent doctor",
        ]
    elif work.has_systemd and any(change.kind is FileKind.REPLACED for change in report.changes):
        lines.append(
            f"What runs is the old version until: systemctl restart {layout.UNIT_NAME}. What waits"
            " for approval and was bound to a changed wrapper has to be asked for again."
        )
    lines += report.later
    if lines:
        sys.stdout.write("\nNext:\n" + "".join(f"- {line}\n" for line in lines))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, as of a terminal that closes, undo the work as an interrupt does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _program(text: str) -> str:
    if _PROGRAM.fullmatch(text) is None:
        message = f"{text!a} is not an absolute path without spaces"
        raise argparse.ArgumentTypeError(message)
    return text
