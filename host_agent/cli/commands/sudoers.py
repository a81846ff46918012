"""`host-agent sudoers`: the fragment that the agent needs, and what sudo really grants."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from host_agent.cli.service_user import service_user
from host_agent.cli.terminal import render
from host_agent.config import Config, RunnerKind, load
from host_agent.config.models import DEFAULT_WRAPPER_DIR
from host_agent.errors import EX_FAILED, EX_OK, UsageError
from host_agent.execution.runner import ToolRunner
from host_agent.host.install import layout
from host_agent.operations import CATALOGUE
from host_agent.sudoers.audit import Auditor, audit_host
from host_agent.sudoers.host import LiveHost
from host_agent.sudoers.reading import DiskSource
from host_agent.sudoers.render import SERVICE_USER, audience, grants
from host_agent.sudoers.render import render as fragment
from host_agent.sudoers.values import AuditReport, Severity

DEFAULT_CONFIG = Path(layout.CONFIGURATION)
_STYLES = {Severity.CRITICAL: "bold red", Severity.HIGH: "red", Severity.MEDIUM: "yellow"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sudoers render` and `sudoers check` to the command line."""
    parser = subparsers.add_parser("sudoers", help="render and audit what sudo grants")
    commands = parser.add_subparsers(
        title="commands", dest="verb", metavar="COMMAND", required=True
    )
    shown = commands.add_parser(
        "render",
        help="print the fragment that the configured operations need",
        description="Prints the exact sudoers fragment that the configured operations need.",
    )
    _add_config(shown, f"default: {DEFAULT_CONFIG}")
    _add_user(shown)
    shown.set_defaults(run=run_render)
    check = commands.add_parser(
        "check",
        help="say what sudo really grants, risks first",
        description="Says what sudo really grants to the agent's user and to the identities' unix"
        " users, worst first. Ends with 1 where something is not known to be safe, or could not be"
        " read: run it as root.",
    )
    _add_config(check, f"default: {DEFAULT_CONFIG}, where it exists")
    _add_user(check)
    check.add_argument(
        "--file",
        type=Path,
        help="look at this file as if it were the only one; then the user need not exist",
    )
    check.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    check.set_defaults(run=run_check)


def _add_config(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--config", type=Path, help=meaning)


def _add_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", default=SERVICE_USER, help=f"the agent's user; default: {SERVICE_USER}"
    )


def run_render(args: argparse.Namespace) -> int:
    """Print the fragment and return a sysexits status.

    Raises:
        ConfigurationError: the configuration has faults.
    """
    path = args.config or DEFAULT_CONFIG
    config = load(path, uid=service_user(None, path)[1])
    sys.stdout.write(fragment(grants(config, CATALOGUE), args.user))
    if config.execution.runner is RunnerKind.DIRECT:
        render.warn("this configuration uses the runner `direct`, which does not ask sudo.")
    return EX_OK


def run_check(args: argparse.Namespace) -> int:
    """Audit sudoers and return 0 where nothing was found and everything could be read, else 1.

    Raises:
        ConfigurationError: the configuration that was named has faults.
        UsageError: the user does not exist, and no file was named.
    """
    if args.file is None and LiveHost().subject(args.user).uid is None:
        message = f"There is no user {args.user} on this host; --user takes the agent's user."
        raise UsageError(render.visible(message))
    config, now, tool = _configuration(args.config), datetime.now(UTC), ToolRunner()
    if args.file is None:
        found = asyncio.run(audit_host(tool, config, CATALOGUE, user=args.user, now=now))
    else:
        found = asyncio.run(_tried(tool, config, args.user, str(args.file.absolute()), now))
    if args.json:
        sys.stdout.write(render.json_text(found.as_json()) + "\n")
    else:
        _draw(found)
    return EX_FAILED if found.findings else EX_OK


async def _tried(
    tool: ToolRunner, config: Config | None, user: str, file: str, now: datetime
) -> AuditReport:
    """Return what `file` would give away, were it all that sudo reads."""
    wrapper_dir = DEFAULT_WRAPPER_DIR if config is None else str(config.execution.wrapper_dir)
    who = audience(config, CATALOGUE, user=user, wrapper_dir=wrapper_dir)
    auditor = Auditor(tool=tool, host=LiveHost(), audience=who)
    return await auditor.audit(DiskSource(is_trial=True), file, now=now, is_installed=False)


def _configuration(path: Path | None) -> Config | None:
    """Return the configuration; None where the usual one does not exist and none was named."""
    if path is None and not DEFAULT_CONFIG.exists():
        return None
    given = path or DEFAULT_CONFIG
    return load(given, uid=service_user(None, given)[1])


def _draw(found: AuditReport) -> None:
    console = render.console()
    for finding in found.findings:
        where = f"{finding.origin.file}:{finding.origin.line}"
        console.print(
            f"{finding.severity.value}  {render.visible(where)}  {finding.rule}",
            style=_STYLES.get(finding.severity, ""),
        )
        console.print(f"  {render.visible(finding.reason)}")
        console.print(f"  {render.visible(finding.remedy)}")
    if found.findings:
        console.print()
    console.print(_sentence(found))


def _sentence(found: AuditReport) -> str:
    if not found.scan_ok:
        return "Not everything could be read: what sudo grants is not known."
    if not found.findings:
        return "sudo grants nothing that is not known to be safe."
    return f"{len(found.findings)} entries are not known to be safe."
