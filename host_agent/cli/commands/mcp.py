"""`host-agent mcp`: an MCP server for one agent program, over standard input and output."""

import argparse
import signal

from host_agent.cli import connection_settings
from host_agent.errors import EX_OK, ConfigurationError
from host_agent.mcp import LONGEST_WAIT_SECONDS, WAIT_SECONDS


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `mcp` to the command line."""
    parser = subparsers.add_parser(
        "mcp",
        help="serve MCP over standard input and output, as a client of one host",
        description="Serve the Model Context Protocol over standard input and output until they are"
        " closed: one tool for each operation that this certificate may ask for. It needs the extra"
        " mcp. It can do nothing that the certificate could not do over HTTPS, and approves"
        " nothing.",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_wait_seconds,
        default=WAIT_SECONDS,
        help="how long a call waits for a person before it says that it is held, 0 to"
        f" {LONGEST_WAIT_SECONDS} (default: {WAIT_SECONDS}); less than the program's own"
        " limit for a tool",
    )
    connection_settings.add_arguments(parser)
    parser.set_defaults(run=run)


def _wait_seconds(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 3 and int(text) <= LONGEST_WAIT_SECONDS:
        return int(text)
    message = f"a whole number of seconds, 0 to {LONGEST_WAIT_SECONDS}"
    raise argparse.ArgumentTypeError(message)


def run(args: argparse.Namespace) -> int:
    """Serve until the other side closes; return the exit status."""
    import asyncio

    client = connection_settings.connect_async(args)
    try:
        from host_agent.mcp.calls import ToolCalls
        from host_agent.mcp.server import HostServer
    except ModuleNotFoundError as error:
        fault = f"{error.name} is missing: install host-agent with the extra mcp."
        raise ConfigurationError([fault]) from None

    async def serve() -> None:
        async with client:
            await HostServer(client, ToolCalls(client, wait_seconds=args.wait)).run()

    # A thread waits for input and nothing wakes it. An end at once loses nothing: nothing is kept.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(serve())
    return EX_OK
