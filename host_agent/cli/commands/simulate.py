"""`host-agent simulate`: an agent without a host, for people who test their own agents."""

import argparse
import asyncio
import json
import logging
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from host_agent import __main__
from host_agent.errors import EX_OK, UsageError

if TYPE_CHECKING:
    from host_agent.simulation.script import ScriptedAnswer
    from host_agent.simulation.simulation import Simulation

_ENDING = (signal.SIGTERM, signal.SIGINT)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `simulate` to the command line."""
    parser = subparsers.add_parser(
        "simulate",
        help="an agent without a host, to test programs against",
        description="Serves an agent whose host is in memory, until it is interrupted."
        " Certificates, policy, queue and audit log are real; no process is started, no resource of"
        " this machine is touched, and nothing is left. Held requests are answered by a script;"
        " what it does not answer waits for you: approvers are in the same `client.toml`.",
    )
    default = parser.add_mutually_exclusive_group()
    default.add_argument("--approve", action="store_true", help="approve what is held")
    default.add_argument("--deny", metavar="WORDS", help="deny what is held, with these words")
    default.add_argument("--expire", action="store_true", help="let what is held expire")
    parser.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="PATTERN=ANSWER",
        help="another answer for some operations, repeatable, the first that fits counts:"
        " 'git.*=approve', 'zfs.destroy=deny:WORDS', 'pct.*=expire', 'apt.*=leave'",
    )
    parser.add_argument(
        "--after", default="0s", metavar="SPAN", help="answer after so long, as in 5s; default: 0s"
    )
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="answers from a TOML file, before those above"
    )
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="a TOML file with your own identities, rules and adapters' tables",
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="default: a free one")
    parser.add_argument("--json", action="store_true", help="say in JSON how to connect")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return a sysexits status.

    Raises:
        UsageError: an answer or a span is none.
        ConfigurationError: script or policy have a fault.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("host_agent").setLevel(logging.ERROR)
    return asyncio.run(_serve(args))


async def _serve(args: argparse.Namespace) -> int:
    from host_agent.simulation.script import Script
    from host_agent.simulation.simulation import Simulation

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    script = Script(tuple(_answers(args)))
    async with Simulation(script, policy=args.policy, port=args.port) as simulation:
        told = _as_json(simulation) if args.json else "\n".join(_how_to_connect(simulation))
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
        await stop.wait()
    return EX_OK


def _answers(args: argparse.Namespace) -> "Iterator[ScriptedAnswer]":
    from host_agent.simulation.script import (
        AnswerKind,
        ScriptedAnswer,
        delay_seconds,
        parse_answer,
        read_script,
    )

    try:
        after = delay_seconds(args.after)
    except ValueError as error:
        raise UsageError(f"--after {error}.") from error
    if args.script is not None:
        yield from read_script(args.script)
    yield from (parse_answer(text, after=after) for text in args.on)
    if args.approve:
        yield ScriptedAnswer(answer=AnswerKind.APPROVE, after=after)
    elif args.deny is not None:
        yield ScriptedAnswer(answer=AnswerKind.DENY, words=args.deny, after=after)
    elif args.expire:
        yield ScriptedAnswer(answer=AnswerKind.EXPIRE, after=after)


def _settings(simulation: "Simulation", name: str) -> dict[str, str]:
    return {
        "url": simulation.url,
        "cert": str(simulation.ground.certificate(name)),
        "key": str(simulation.ground.key(name)),
        "ca": str(simulation.ground.ca),
    }


def _names(simulation: "Simulation") -> list[str]:
    return [entry.cn for entry in simulation.ground.config.identities]


def _as_json(simulation: "Simulation") -> str:
    return json.dumps(
        {
            "simulation": True,
            "directory": str(simulation.ground.directory),
            "home": str(simulation.ground.home),
            "client_settings": str(simulation.client_settings),
            "identities": {name: _settings(simulation, name) for name in _names(simulation)},
        }
    )


def _how_to_connect(simulation: "Simulation") -> Iterator[str]:
    home = shlex.quote(str(simulation.ground.home))
    names = _names(simulation)
    yield "This is a simulation: its host is in memory, and nothing of this machine is behind it."
    yield f"It serves on {simulation.url}; end it with Ctrl-C, and nothing is left of it."
    yield f"Identities, each a host of client.toml: {', '.join(names)}"
    yield ""
    yield f"  HOME={home} host-agent operations"
    yield f"  HOME={home} host-agent requests list --host {names[-1]}"
    if "mcp" in __main__.NOUNS:
        yield f"  HOME={home} host-agent mcp"
    yield ""
    yield "Or, for any client:"
    for key, value in _settings(simulation, names[0]).items():
        yield f"  export HOST_AGENT_{key.upper()}={shlex.quote(value)}"


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536:
        return int(text)
    message = "a port, 0 to 65535; 0 is any free one"
    raise argparse.ArgumentTypeError(message)
