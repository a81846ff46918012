"""What the agent says to its log: one line a record, with a priority where the journal reads it.

Facts from sd-daemon(3) and systemd.exec(5): a line that begins with `<3>` has that syslog priority,
and JOURNAL_STREAM holds device and inode of the journal's stream, for a program to compare with
its own standard error. Elsewhere the lines have no prefix.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

from host_agent.clock import rfc3339

ERROR: Final = logging.ERROR
_OWN = __name__.partition(".")[0]
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
"""Levels of `logging` with the priorities of syslog(3), highest first; anything below is 7."""

_SPOKEN: tuple[type[BaseException], ...] = (
    ImportError,
    OSError,
    AttributeError,
    NameError,
    TypeError,
    MemoryError,
    RecursionError,
)
"""Exceptions whose text is the interpreter's or the kernel's: names of modules, types and files.

The text of every other one may hold what a caller sent or a file holds: a KeyError its key, a
ValueError its value, one of the database all parameters of a statement. Of those only type and
place are told.
"""
_MAX_CHAIN = 8
MAX_TEXT_BYTES = 20_000
"""So much of a message, and of a story, is written: at 48 KiB the journal begins another line
(LineMax= in journald.conf(5)), which would have the priority that its first characters say."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line, so that no text of a caller can make a second line."""

    def __init__(self, *, is_journal: bool = False) -> None:
        super().__init__()
        self._is_journal = is_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        entry = {
            "time": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = _cut(story(record.exc_info[1]))
        line = json.dumps(entry)
        return prefix(record.levelno) + line if self._is_journal else line


def log_as_json() -> None:
    """Write the log to standard error from now on: of other packages only what is a warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(is_journal=is_journal(sys.stderr, os.environ)))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(_OWN).setLevel(logging.INFO)


def say(sentence: str, level: int = ERROR) -> None:
    """Write one sentence for a person to standard error, with its priority for the journal."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _cut(sentence))
    mark = prefix(level) if is_journal(sys.stderr, os.environ) else ""
    sys.stderr.write(f"{mark}host-agent: {shown}\n")


def _cut(text: str) -> str:
    """Return `text`; beginning and end of one that is too long once it is written as JSON."""
    if len(json.dumps(text)) <= MAX_TEXT_BYTES:
        return text
    is_plain = all(" " <= character <= "~" or character == "\n" for character in text)
    half = MAX_TEXT_BYTES // (2 if is_plain else 12) // 2 - 20
    return f"{text[:half]} ... {len(text) - 2 * half} characters cut ... {text[-half:]}"


def prefix(level: int) -> str:
    """Return what a line of the journal begins with, for a level of `logging`."""
    return f"<{next((number for least, number in _PRIORITIES if level >= least), 7)}>"


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether what is written to `stream` goes straight to the journal."""
    said = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # closed, or no file at all
    return said == f"{status.st_dev}:{status.st_ino}"


# -- what became of it ----------------------------------------------------------------------------


def story(error: BaseException) -> str:
    """Return where `error` came from: every frame, and what led to it, oldest first.

    The text of an exception only where it can hold nothing of a caller's; no values of variables.
    """
    return "\n".join(_told(error, _MAX_CHAIN))


def _told(error: BaseException, left: int) -> Iterator[str]:
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and left > 1:
        yield from _told(earlier, left - 1)
        yield "which led to:"
    yield from _frames(error.__traceback__)
    yield said_of(error)
    if isinstance(error, BaseExceptionGroup) and left > 1:
        for one in error.exceptions[:_MAX_CHAIN]:
            yield "of which:"
            yield from _told(one, left - 1)


def _frames(trace: TracebackType | None) -> Iterator[str]:
    for frame in traceback.extract_tb(trace):
        yield f"{frame.filename}:{frame.lineno} in {frame.name}"


def said_of(error: BaseException) -> str:
    """Return type and text of `error`; only the type where the text may be a caller's."""
    kind = type(error)
    room = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    name = f"{room}{kind.__qualname__}"
    is_known = kind.__module__.partition(".")[0] in _KNOWN
    return f"{name}: {error}" if is_known and isinstance(error, _SPOKEN) else name


_KNOWN = frozenset({"builtins", *sys.stdlib_module_names})


def missing_part(error: ImportError) -> str:
    """Return the sentence that names what could not be imported, and what to do about it."""
    what = str(error).rstrip(".") or error.name or "a module"
    return (
        f"A part of the program is missing: {what}. What is installed is not what this version was"
        " locked with; install it again as docs/how-to/install.md says."
    )


def tell_defect(log: logging.Logger, error: BaseException) -> None:
    """Write an unexpected end to the log, with where it came from."""
    what = missing_part(error) if isinstance(error, ImportError) else f"a defect: {said_of(error)}"
    log.critical("the agent ends: %s", what, exc_info=error)


def loop_fault_handler(log: logging.Logger) -> Callable[[object, Mapping[str, Any]], object]:
    """Return a handler for what nobody awaited.

    asyncio's own writes the representation of task and exception, texts and all, into the message.
    """

    def handler(_loop: object, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        log.error("the event loop: %s", context.get("message", "a fault"), exc_info=error)

    return handler
