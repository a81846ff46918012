"""Runs `wrappers/git` unmodified, as the runner would: no environment, `/` as directory."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from host_agent.canonical import JsonValue
from host_agent.operations.catalogue import Catalogue, Inspection, Invocation, Operation, Output
from host_agent.operations.git.adapter import ADAPTER

WRAPPER = Path(__file__).resolve().parents[2] / "wrappers" / "git"
CATALOGUE = Catalogue((ADAPTER,))


def run_wrapper(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    wrapper: Path = WRAPPER,
    uid: int | None = None,
) -> Output:
    """Run the wrapper with `arguments`, as `uid` where one is given (root only)."""
    done = subprocess.run(
        [str(wrapper), *arguments],
        env={} if environment is None else dict(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    return Output(
        exit_code=done.returncode,
        stdout=done.stdout.decode(errors="replace"),
        stderr=done.stderr.decode(errors="replace"),
        stdout_bytes=len(done.stdout),
        stderr_bytes=len(done.stderr),
    )


def run_invocation(invocation: Invocation) -> Output:
    """Run an invocation of the git adapter."""
    return run_wrapper(*invocation.arguments)


def operation(name: str, **params: JsonValue) -> Operation:
    """Return a validated operation of the git adapter."""
    return CATALOGUE.parse(name, params)


def inspect(asked: Operation) -> Inspection:
    """Run the inspection of a change and return what it found.

    Raises:
        HostAgentError: what the adapter makes of an exit status other than 0.
    """
    spec = asked.spec
    if spec.inspect is None or spec.parse_inspection is None:
        message = f"{asked.name} has no inspection"
        raise AssertionError(message)
    output = run_invocation(spec.inspect(asked.params))
    if output.exit_code != 0:
        raise spec.failure(asked.params, output)
    return spec.parse_inspection(asked.params, output)


def run(asked: Operation, precondition: Mapping[str, JsonValue] | None = None) -> Output:
    """Run an operation; a change is bound to `precondition`, or to what an inspection finds now."""
    if precondition is None:
        precondition = {} if asked.spec.inspect is None else inspect(asked).precondition
    return run_invocation(asked.spec.invoke(asked.params, precondition))


def probe(asked: Operation, precondition: Mapping[str, JsonValue]) -> bool:
    """Run the probe of an operation and return what it saw."""
    spec = asked.spec
    if spec.probe is None or spec.parse_probe is None:
        message = f"{asked.name} has no probe"
        raise AssertionError(message)
    output = run_invocation(spec.probe(asked.params, precondition))
    return spec.parse_probe(asked.params, precondition, output)


def is_root() -> bool:
    """Return whether this test process may become another user."""
    return os.geteuid() == 0
