"""How a command ends: one sentence on standard error, and an exit status of sysexits(3)."""

import sys

from host_agent.cli import journal
from host_agent.cli.terminal import render
from host_agent.errors import (
    EX_CONFIG,
    EX_NOPERM,
    EX_SOFTWARE,
    EX_UNAVAILABLE,
    EX_USAGE,
    CertificateRefusedError,
    ConfigurationError,
    ConnectionFailedError,
    HostAgentError,
    InvalidAnswerError,
    ProblemError,
    UsageError,
    exit_status,
)

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended."""

_DETAIL_LIMIT = 1000


def end(error: BaseException, *, as_json: bool) -> int:
    """Tell `error` to standard error and return the exit status; never a traceback.

    With `as_json`, a problem's whole body is written to standard output too.
    """
    if isinstance(error, ProblemError):
        return _end_problem(error, as_json=as_json)
    if isinstance(error, ConfigurationError):
        for fault in error.faults:
            _say(fault)
        return EX_CONFIG
    status, sentence = _plain(error)
    _say(sentence)
    return status


def _end_problem(problem: ProblemError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(render.json_text(problem.body) + "\n")
    again = problem.retry_after_seconds
    hint = f" Try again in {again:.0f} s." if again is not None else ""
    _say(f"{problem.detail}{hint} ({problem.code})")
    return exit_status(problem.code)


def _plain(error: BaseException) -> tuple[int, str]:
    match error:
        case HostAgentError():
            return exit_status(error.code), f"{error.detail} ({error.code})"
        case UsageError():
            return EX_USAGE, str(error)
        case CertificateRefusedError():
            return EX_NOPERM, str(error)
        case ConnectionFailedError():
            return EX_UNAVAILABLE, str(error)
        case InvalidAnswerError():
            return EX_SOFTWARE, str(error)
        case ImportError():
            return EX_CONFIG, journal.missing_part(error)
        case _:
            kind = type(error).__name__
            return EX_SOFTWARE, f"A defect of host-agent ({kind}); please report what you did."


def _say(sentence: str) -> None:
    render.warn(render.visible(sentence, limit=_DETAIL_LIMIT))
