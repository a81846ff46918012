"""`host-agent root`: root's own files, rendered from the configuration, and shown."""

import argparse
import sys
from pathlib import Path

from host_agent.cli.commands.install import (
    add_options,
    failed,
    is_root,
    make_work,
    tell,
    undisturbed,
)
from host_agent.cli.terminal import render
from host_agent.config import Config, load
from host_agent.errors import EX_FAILED, EX_NOPERM, EX_OK, ConfigurationError, UsageError
from host_agent.host.install import layout
from host_agent.host.install.foreign import refuse_foreign
from host_agent.host.install.root_files import Difference, RootFiles
from host_agent.host.install.root_list import RENDER, ListState, allowed_list, root_list_state
from host_agent.host.install.source import read_source
from host_agent.host.install.steps import read_configuration, read_manifest, write_manifest
from host_agent.host.install.transaction import InstallationStep, StepFailedError, alone, carry_out
from host_agent.host.install.values import InstallationError, InstallReport


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `root render` and `root show` to the command line."""
    parser = subparsers.add_parser("root", help="render and show what root's wrappers go by")
    commands = parser.add_subparsers(
        title="commands", dest="verb", metavar="COMMAND", required=True
    )
    rendering = commands.add_parser(
        "render",
        help="let root's own lists say what the configuration says now",
        description="Shows how root's lists of what is allowed, protected and registered, and the"
        " sudoers fragment, differ from what the configuration means, asks, and replaces them, as"
        " root. Until then the wrappers go by the old ones. What an administrator changed in the"
        " others than the list of what is allowed is kept, and the new version put beside it.",
    )
    rendering.add_argument("--yes", action="store_true", help="do not ask")
    add_options(rendering)
    rendering.set_defaults(run=run_render)
    show = commands.add_parser(
        "show",
        help="print the list that root's wrappers go by",
        description="Prints root's list of what is allowed, as it lies beside the wrappers. Ends"
        " with 1 where it is not what the configuration means, or is not there.",
    )
    show.add_argument(
        "--config",
        type=Path,
        default=Path(layout.CONFIGURATION),
        help=f"default: {layout.CONFIGURATION}",
    )
    show.add_argument(
        "--wanted", action="store_true", help="print the list that the configuration means instead"
    )
    show.set_defaults(run=run_show)


def run_show(args: argparse.Namespace) -> int:
    """Print the list and return a sysexits status.

    Raises:
        ConfigurationError: the configuration has faults.
    """
    config = load(args.config)
    if args.wanted:
        sys.stdout.write(allowed_list(config).decode("ascii"))
        return EX_OK
    found = root_list_state(config)
    if found.state is not ListState.MISSING and found.path.exists():
        sys.stdout.write(render.visible_lines(found.path.read_text(encoding="utf-8")))
    sentence = f"{found.sentence()[:1].upper()}{found.sentence()[1:]}"
    if found.state is ListState.RENDERED:
        return EX_OK
    if found.is_good:
        render.warn(f"{sentence}.")
        return EX_OK
    render.warn(f"{sentence}; {RENDER}.")
    return EX_FAILED


def run_render(args: argparse.Namespace) -> int:
    """Show the differences, ask, replace the files, and return a sysexits status.

    Raises:
        UsageError: nobody can be asked, and `--yes` was not given.
        ConfigurationError: the configuration has faults, or nothing is installed.
        AdapterUnavailableError: a tool that is needed is not installed.
    """
    if not is_root():
        return EX_NOPERM
    work, journal = make_work(args)
    try:
        with undisturbed(), alone(work.root):
            work.manifest = read_manifest(work)
            refuse_foreign(work, read_source())
            config = read_configuration(work)
            files = RootFiles(work, _needed(config), report := InstallReport(), is_shown=True)
            found = list(files.differences())
            sys.stdout.write("".join(map(_drawn, found)))
            if found and not (args.yes or args.dry_run or _is_agreed()):
                render.warn("Nothing was changed.")
                return EX_FAILED
            steps = [InstallationStep(name=name, act=act) for name, act in files.steps()]
            steps.append(
                InstallationStep(
                    name="the record of the installation", act=lambda: write_manifest(work)
                )
            )
            carry_out(steps, journal)
    except (StepFailedError, InstallationError) as error:
        return failed(error)
    tell(report, is_dry=args.dry_run)
    return EX_OK


def _needed(config: Config | None) -> Config:
    if config is None:
        fault = f"there is no {layout.CONFIGURATION} yet; write it, then: host-agent install"
        raise ConfigurationError([fault])
    return config


def _drawn(difference: Difference) -> str:
    kept = " (changed by an administrator, so it stays; this goes beside it)"
    lines = [f"{difference.path}{kept * difference.is_kept}", *difference.lines]
    return "".join(f"{render.visible(line)}\n" for line in lines)


def _is_agreed() -> bool:
    """Ask, and return whether the answer is yes.

    Raises:
        UsageError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        message = "Nobody can be asked here; look with --dry-run, then say --yes."
        raise UsageError(message)
    sys.stdout.write("Root goes by this from now on? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().casefold() in ("y", "yes")
