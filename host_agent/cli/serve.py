"""`host-agent serve`: the agent in the foreground, as systemd runs it."""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from host_agent.agent import Agent
from host_agent.clock import rfc3339
from host_agent.errors import EX_CONFIG, EX_OK, EX_UNAVAILABLE, ConfigurationError, HostAgentError
from host_agent.service import Notifier

DEFAULT_CONFIG = Path("/etc/host-agent/config.toml")
_ENDING = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("host_agent")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve` to the command line."""
    parser = subparsers.add_parser("serve", help="run the agent in the foreground")
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return a sysexits status."""
    _log_as_json()
    _raise_descriptor_limit()
    try:
        return asyncio.run(_serve(args.config))
    except ConfigurationError as error:
        for fault in error.faults:
            sys.stderr.write(f"host-agent: {fault}\n")
        sys.stderr.write("host-agent: not started; `host-agent config check` shows the same.\n")
        return EX_CONFIG
    except HostAgentError as error:
        sys.stderr.write(f"host-agent: {error.detail}\n")
        return EX_UNAVAILABLE


def _raise_descriptor_limit() -> None:
    """Use all descriptors that this process may have: the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config_path: Path) -> int:
    notifier = Notifier.from_environment(os.environ)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    hangup = asyncio.Event()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    async with Agent(config_path) as agent:
        # What the start has made stays: without this, the collector looks through all of it again
        # every few thousand requests, and everybody waits for it (40 ms).
        gc.freeze()
        notifier.ready(f"serving on {agent.address}")
        _log.info("serving on %s", agent.address)
        reloading = asyncio.create_task(_reload_on(hangup, agent, notifier))
        await stop.wait()
        notifier.stopping()
        reloading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reloading
        _log.info("stopping: no new requests, running operations may end")
    for number in (*_ENDING, signal.SIGHUP):  # told again while it ends, it ends well all the same
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    return EX_OK


async def _reload_on(hangup: asyncio.Event, agent: Agent, notifier: Notifier) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        notifier.reloading()
        await agent.reload()
        notifier.ready(f"serving on {agent.address}")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, so that no text of a caller can make a second line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
