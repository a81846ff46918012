"""`host-agent uninstall`: takes off what `install` put there; what is somebody's stays."""

import argparse
import sys

from host_agent.cli.commands.install import (
    add_options,
    failed,
    is_root,
    make_work,
    tell,
    undisturbed,
)
from host_agent.errors import EX_NOPERM, EX_OK
from host_agent.host.install.removal import Removal
from host_agent.host.install.transaction import StepFailedError, alone, carry_out
from host_agent.host.install.values import InstallationError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `uninstall` to the command line."""
    parser = subparsers.add_parser(
        "uninstall",
        help="take the agent off this host; state and configuration stay",
        description="Stops the service and removes what `install` put there, as root: the sudoers"
        " fragment first, then wrappers, unit and the rest. What an administrator changed stays,"
        " and so do state, audit log, configuration, authority and the user. When a step fails,"
        " everything is put back as it was. Ends with 1 then, with 77 for who is not root.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Uninstall and return a sysexits status.

    Raises:
        UsageError: the root is no directory.
        ConfigurationError: the record of the installation is damaged.
    """
    if not is_root():
        return EX_NOPERM
    work, journal = make_work(args)
    removal = Removal(work)
    try:
        with undisturbed(), alone(work.root):
            if not removal.prepare():
                sys.stdout.write("There is nothing to do: no installation is recorded here.\n")
                return EX_OK
            carry_out(removal.steps(), journal)
    except (StepFailedError, InstallationError) as error:
        return failed(error)
    tell(removal.report, is_dry=args.dry_run)
    return EX_OK
