"""`host-agent serve`: the agent in the foreground, as systemd runs it."""

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from host_agent.agent.reload import ReloadSocket
from host_agent.agent.systemd import Notifier
from host_agent.cli import journal
from host_agent.clock import SystemClock
from host_agent.errors import (
    EX_CONFIG,
    EX_OK,
    EX_SOFTWARE,
    EX_UNAVAILABLE,
    ConfigurationError,
    HostAgentError,
)
from host_agent.host.install import layout

if TYPE_CHECKING:
    from host_agent.agent.agent import Agent

DEFAULT_CONFIG = Path(layout.CONFIGURATION)
STATUS_SECONDS = 1.0
"""How often the service manager is told how the agent is, where that has changed."""
_ENDING = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("host_agent")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve` to the command line."""
    parser = subparsers.add_parser("serve", help="run the agent in the foreground")
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="do what a start does before it opens anything: import all of the service, read the"
        " configuration and every file that it names, as this user; say what fails, and end",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, or only check; return a sysexits status.

    Whatever ends it is in the log: nobody is at hand to ask what happened.
    """
    journal.log_as_json()
    _raise_descriptor_limit()
    try:
        return _check(args.config) if args.check else asyncio.run(_serve(args.config))
    except ConfigurationError as error:
        for fault in error.faults:
            journal.say(fault)
        journal.say("not started; `host-agent config check` shows the same.")
        return EX_CONFIG
    except HostAgentError as error:
        journal.say(error.detail)
        return EX_UNAVAILABLE
    except Exception as error:  # noqa: BLE001 - told to the log, with where it came from
        journal.tell_defect(_log, error)
        return EX_CONFIG if isinstance(error, ImportError) else EX_SOFTWARE


def _check(config_path: Path) -> int:
    # Not at the head of this module: what is missing is to be told in the words of `run`.
    import_module("host_agent.agent.agent")
    prepared = import_module("host_agent.agent.prepared")
    prepared.import_everything()
    prepared.require_places(prepared.prepare(config_path, SystemClock()).config)
    return EX_OK


def _raise_descriptor_limit() -> None:
    """Use all descriptors that this process may have: the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config_path: Path) -> int:
    agent_class: type[Agent] = import_module("host_agent.agent.agent").Agent
    notifier = Notifier.from_environment(os.environ)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(journal.loop_fault_handler(_log))
    stop = asyncio.Event()
    hangup = asyncio.Event()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    async with agent_class(config_path) as agent:
        # What the start has made stays: without this, the collector looks through all of it again
        # every few thousand requests, and everybody waits for it (40 ms).
        gc.freeze()
        told = _Told(agent, notifier)
        async with ReloadSocket(_runtime_directory(), told.reload):
            notifier.ready(agent.standing)
            _log.info("serving on %s", agent.address)
            keeping = [
                asyncio.create_task(told.reload_on(hangup)),
                asyncio.create_task(told.keep_status()),
            ]
            await stop.wait()
            notifier.stopping("ending: no new requests, running operations may end")
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        _log.info("stopping: no new requests, running operations may end")
    for number in (*_ENDING, signal.SIGHUP):  # told again while it ends, it ends well all the same
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    return EX_OK


def _runtime_directory() -> Path | None:
    """Return the directory that systemd made for the service; None elsewhere."""
    said = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(said) if said.startswith("/") else None


class _Told:
    """Keeps the service manager told: of each reload, and of how the agent is."""

    def __init__(self, agent: "Agent", notifier: Notifier) -> None:
        self._agent = agent
        self._notifier = notifier
        self._reloading = asyncio.Lock()
        self._status = agent.standing

    async def reload(self) -> tuple[list[str], str]:
        """Reload once; return the faults and what serves."""
        async with self._reloading:
            self._notifier.reloading()
            await self._agent.reload()
            self._status = self._agent.standing
            self._notifier.ready(self._status)
            return list(self._agent.reload_faults), self._agent.serves

    async def reload_on(self, hangup: asyncio.Event) -> None:
        """Reload at each SIGHUP, until cancelled."""
        while True:
            await hangup.wait()
            hangup.clear()
            await self.reload()

    async def keep_status(self) -> None:
        """Tell how the agent is whenever that changes, until cancelled."""
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            standing = self._agent.standing
            if standing != self._status and not self._reloading.locked():
                self._status = standing
                self._notifier.status(standing)
