"""How a command ends: one sentence on standard error, and an exit status of sysexits(3)."""

import sys
from typing import assert_never

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
    Fault,
    HostAgentError,
    InvalidAnswerError,
    ProblemError,
    RecoveryKind,
    UsageError,
    exit_status,
)
from host_agent.text import SHOWN_ID

_DETAIL_LIMIT = 1000
_WORDS_LIMIT = 300


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
    _say(f"{problem.detail}{_hint(problem)} ({problem.code})")
    if isinstance(said := problem.body.get("decision_reason"), str):
        render.warn(f"Who denied it said: {render.words(said, limit=_WORDS_LIMIT)}")
    for fault in _told_apart(problem):
        _say(f"{fault.place.value} {fault.pointer}: {fault.message}")
    return exit_status(problem.code)


def _hint(problem: ProblemError) -> str:
    """Return in a sentence what the problem says to do next, where its detail does not."""
    again, recovery = problem.retry_after_seconds, problem.recovery
    if again is not None:
        return f" Try again in {again:.0f} s."
    if recovery is None:
        return ""
    match recovery.kind:
        case RecoveryKind.ASK_AGAIN_AFTER:
            return f" Try again in {recovery.seconds} s." if recovery.seconds else ""
        case RecoveryKind.WAIT_FOR:
            waited = recovery.request_id or recovery.equivalent_to or ""
            return f" Look at it with: host-agent requests show {waited[:SHOWN_ID]}"
        case RecoveryKind.NEVER | RecoveryKind.CHANGE_PARAMETERS | RecoveryKind.ASK_A_PERSON:
            return ""
        case _:
            assert_never(recovery.kind)


def _told_apart(problem: ProblemError) -> tuple[Fault, ...]:
    """Return the faults that have a place of their own; one alone the sentence names."""
    faults = () if problem.recovery is None else problem.recovery.faults
    return faults if len(faults) > 1 else ()


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
