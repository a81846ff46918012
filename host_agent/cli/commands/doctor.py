"""`host-agent doctor`: proves each part of an installed agent, with a remedy where one is not."""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from host_agent.agent.build_channels import make_channels
from host_agent.cli import service_user
from host_agent.cli.terminal import render
from host_agent.config import Config
from host_agent.errors import EX_FAILED, EX_OK
from host_agent.execution.runner import ToolRunner
from host_agent.host.doctor.checks import examine
from host_agent.host.doctor.values import Check, CheckState, is_well
from host_agent.host.install import layout
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Output
from host_agent.sudoers.audit import audit_host
from host_agent.sudoers.values import AuditReport

_TOOL_SECONDS = 60.0
"""A start of the whole service on a busy host is the longest of what is run."""
_STYLES = {CheckState.OK: "green", CheckState.WARNING: "yellow", CheckState.PROBLEM: "bold red"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor` to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="prove each part of an installed agent",
        description="Proves each part of an installed agent: configuration, a start as the agent's"
        " user, permissions, certificates, clock, store, audit log, disk, tools, root's lists, what"
        " sudo and groups grant, every wrapper through sudo, every channel, the service, and"
        " whether what serves is what lies on disk. Changes nothing. Ends with 1 where there"
        " is a problem; warnings do not count. Run it as root, to whom nothing is hidden.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(layout.CONFIGURATION),
        help=f"default: {layout.CONFIGURATION}",
    )
    parser.add_argument(
        "--user",
        help=service_user.OPTION_HELP,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine the agent and return 0 where there is no problem, else 1.

    Raises:
        UsageError: `--user` is no user of this host.
    """
    user, uid = service_user.service_user(args.user, args.config)
    tools = ToolRunner(timeout_seconds=_TOOL_SECONDS)

    def run_tool(tool: str, *arguments: str) -> Output:
        return asyncio.run(tools.run(tool, *arguments))

    now = datetime.now(UTC)

    def granted(config: Config) -> AuditReport:
        return asyncio.run(audit_host(tools, config, CATALOGUE, user=user, now=now))

    examined = examine(
        args.config,
        user=user,
        uid=uid,
        tools=run_tool,
        now=now,
        channels=make_channels,
        granted=granted,
    )
    checks = list(examined)
    if args.json:
        table = {"ok": is_well(checks), "checks": [check.as_json() for check in checks]}
        sys.stdout.write(render.json_text(table) + "\n")
    else:
        _draw(checks)
    return EX_OK if is_well(checks) else EX_FAILED


def _rows(checks: Sequence[Check]) -> Iterator[tuple[str, str, str]]:
    for check in checks:
        sentence = f"{render.visible(check.name)}: {render.visible(check.sentence)}"
        yield check.state.value, _STYLES[check.state], sentence
        if check.remedy:
            yield "", "", render.visible(check.remedy)


def _draw(checks: Sequence[Check]) -> None:
    console = render.console()
    console.print(render.hanging(_rows(checks)))
    problems = sum(check.state is CheckState.PROBLEM for check in checks)
    warnings = sum(check.state is CheckState.WARNING for check in checks)
    all_of_it, unwise = render.counted(len(checks), "check"), render.counted(warnings, "warning")
    console.print()
    if problems:
        console.print(f"{all_of_it}: {render.counted(problems, 'problem')}, {unwise}.")
    else:
        console.print(f"{all_of_it}: all is well, {unwise}.")
