"""`host-agent integrate`: the hook and the MCP server in the settings of an agent host."""

import argparse
import difflib
import importlib.util
import os
from pathlib import Path

from host_agent.cli.terminal import render
from host_agent.errors import EX_OK, UsageError
from host_agent.integration import integrate
from host_agent.integration.command import program
from host_agent.integration.files import FileEdit
from host_agent.integration.hosts import HOSTS, host_of
from host_agent.integration.hosts.host import AgentHost
from host_agent.integration.integrate import HookReadiness, SettingsPlan


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `integrate` to the command line."""
    parser = subparsers.add_parser(
        "integrate",
        help="have an agent host call the hook before each command",
        description="Put the hook into the settings of an agent host, for this person, and tell"
        " whether the host really calls it. What the settings hold besides stays as it is; with"
        " --remove they become what they were.",
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(HOSTS))
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="show what would be written")
    what.add_argument("--remove", action="store_true", help="take hook and MCP server out again")
    parser.add_argument("--mcp", action="store_true", help="register the MCP server too")
    parser.add_argument(
        "--directory", metavar="DIR", type=Path, help="the host's directory of settings"
    )
    parser.add_argument("--json", action="store_true", help="print what was done, and readiness")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Edit the settings and tell how they stand; return the exit status."""
    kind = host_of(args.name)
    if args.mcp and not _has_server():
        message = "The MCP server is missing: install host-agent with the extra mcp."
        raise UsageError(message)
    directory = args.directory or kind.default_directory(Path.home(), dict(os.environ))
    host = kind(directory.absolute(), program())
    if args.remove:
        plan = integrate.plan_take(host)
    else:
        plan = integrate.plan_put(host, has_server=args.mcp)
    if not args.dry_run:
        integrate.carry_out(plan)
    ready = integrate.readiness(host)
    if args.json:
        print(render.json_text(_as_json(plan, ready, is_done=not args.dry_run)))
        return EX_OK
    for edit in plan.edits:
        print(f"{edit.deed}: {render.visible(str(edit.path))}")
        if args.dry_run:
            _show(edit)
    if not args.remove:
        _tell(host, ready)
    return EX_OK


def _has_server() -> bool:
    return importlib.util.find_spec("mcp") is not None


def _show(edit: FileEdit) -> None:
    """Print the lines that change, and no others: settings may hold secrets."""
    before, after = (
        (content or b"").decode(errors="replace").splitlines()
        for content in (edit.before, edit.after)
    )
    for line in list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]:
        if not line.startswith("@@"):
            print(f"  {render.visible(line)}")


def _tell(host: AgentHost, ready: HookReadiness) -> None:
    if ready.is_ready and ready.called_at is not None:
        print(f"ready: {host.name} last called the hook at {ready.called_at:%Y-%m-%dT%H:%M:%SZ}")
        return
    print("not ready yet")
    for sentence in ready.obstacles:
        print(f"- {render.visible(sentence)}")
    if ready.is_trusted is False:
        print("- No person has trusted the hook as it is now.")
    if ready.called_at is None:
        print(f"- {host.name} has not called it yet.")
    if ready.next_step is not None:
        print(f"next: {render.visible(ready.next_step)}")


def _as_json(plan: SettingsPlan, ready: HookReadiness, *, is_done: bool) -> dict[str, object]:
    called_at = ready.called_at
    return {
        "host": plan.host.name,
        "done": is_done,
        "files": [{"path": str(edit.path), "deed": edit.deed} for edit in plan.edits],
        "readiness": {
            "ready": ready.is_ready,
            "installed": ready.is_installed,
            "trusted": ready.is_trusted,
            "called_at": None if called_at is None else f"{called_at:%Y-%m-%dT%H:%M:%SZ}",
            "obstacles": list(ready.obstacles),
            "next_step": ready.next_step,
        },
    }
