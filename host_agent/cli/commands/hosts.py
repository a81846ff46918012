"""`host-agent hosts`: the hosts that `login` has stored, and which one is the default."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import JsonValue

from host_agent.cli.connection_settings import ClientFile, client_path
from host_agent.cli.contexts import Contexts
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK

SOON = timedelta(days=14)
"""A certificate that ends within this time is marked."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `hosts` to the command line."""
    parser = subparsers.add_parser("hosts", help="the hosts that you have logged in to")
    commands = parser.add_subparsers(
        title="commands", dest="verb", metavar="COMMAND", required=True
    )
    listed = commands.add_parser(
        "list",
        help="list them, with who you are there and until when",
        description="List the hosts of ~/.config/host-agent/client.toml. Asks none of them.",
    )
    listed.add_argument("--json", action="store_true", help="print JSON")
    listed.set_defaults(run=run_list)
    default = commands.add_parser("default", help="choose the one that is meant without --host")
    default.add_argument("name", metavar="NAME", help="a host that `hosts list` lists")
    default.set_defaults(run=run_default)


def run_list(args: argparse.Namespace) -> int:
    """List the hosts and return the exit status."""
    found = Contexts(path=client_path(Path.home())).read()
    rows = [_row(found, name) for name in found.hosts]
    if args.json:
        print(render.json_text({"hosts": rows}))
        return EX_OK
    if not rows:
        render.warn("there is none; `host-agent login BUNDLE` adds one.")
        return EX_OK
    shown = [
        (
            render.visible(str(row["name"])),
            "*" if row["is_default"] else "",
            render.visible(str(row["cn"] or "?")),
            render.visible(str(row["url"] or "?")),
            _until(row["not_after"]),
        )
        for row in rows
    ]
    render.console().print(render.table(("name", "default", "you are", "url", "until"), shown))
    return EX_OK


def run_default(args: argparse.Namespace) -> int:
    """Choose the default and return the exit status."""
    contexts = Contexts(path=client_path(Path.home()))
    with contexts.alone():
        contexts.set_default(args.name)
    print(f"{render.visible(args.name)} is the host that is meant where you name none")
    return EX_OK


def _row(found: ClientFile, name: str) -> dict[str, JsonValue]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    table = found.of_host(name)
    row: dict[str, JsonValue] = {
        "name": name,
        "is_default": found.implied_quietly() == name,
        "host": found.hosts[name].get("host"),
        "url": table.get("url"),
        "cn": None,
        "not_after": None,
    }
    try:
        certificate = x509.load_pem_x509_certificate(Path(table["cert"]).read_bytes())
    except (KeyError, OSError, ValueError):
        return row
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    row["cn"] = str(names[0].value) if names else None
    row["not_after"] = f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    return row


def _until(not_after: JsonValue) -> str:
    if not isinstance(not_after, str):
        return "its certificate cannot be read"
    left = datetime.fromisoformat(not_after) - datetime.now(UTC)
    mark = " expired" if left <= timedelta() else " soon" if left <= SOON else ""
    return f"{not_after[:10]}{mark}"
