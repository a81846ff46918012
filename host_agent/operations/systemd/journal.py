"""The messages of a unit: what journalctl prints as JSON, made readable, then made rows.

journalctl writes a message with a control character in it as a list of bytes, and quotes and
newlines with backslashes. Nobody could find a secret in that, so `decode` makes text of it before
secrets are looked for: a line for each message, oldest first, with its fields between tabs. The
further lines of a message begin with a tab, so that no message can look like another one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidOutputError
from host_agent.operations.catalogue import Output
from host_agent.operations.systemd.output import with_text

_MICROSECONDS = re.compile(r"[0-9]{1,17}", re.ASCII)
_PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_MARK = "[redacted]"


def decode(output: Output) -> Output:
    """Return the entries of `journalctl --reverse --output=json` as text, oldest first.

    Where the output was cut, the last line, the oldest entry, is left out. What is not such an
    output is returned as it is; `parse_logs` refuses it. Never raises.
    """
    lines = output.stdout.split("\n")
    if output.truncated or lines[-1] == "":
        lines.pop()
    try:
        entries = [_entry(json.loads(line)) for line in lines]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return output
    return with_text(output, "".join(reversed(entries)))


def _entry(fields: Mapping[str, object]) -> str:
    """Return one entry as text.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is none.
    """
    microseconds = _MICROSECONDS.fullmatch(_text(fields["__REALTIME_TIMESTAMP"]))
    if microseconds is None:
        message = "no time"
        raise ValueError(message)
    instant = datetime.fromtimestamp(int(microseconds[0]) // 1_000_000, UTC)
    fraction = int(microseconds[0]) % 1_000_000
    time = f"{instant:%Y-%m-%dT%H:%M:%S}.{fraction:06}Z"
    priority = _text(fields.get("PRIORITY"))
    source = _text(fields.get("SYSLOG_IDENTIFIER")) or _text(fields.get("_COMM"))
    pid = _text(fields.get("_PID"))
    head = (time, *(_field(part) for part in (priority, pid, source)))
    first, *further = _text(fields.get("MESSAGE")).split("\n")
    return "".join(("\t".join((*head, first)), "\n", *(f"\t{line}\n" for line in further)))


def _text(value: object) -> str:
    """Return a field's value: text, a list of bytes, or a list of such; None is nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # no lone surrogate
    if isinstance(value, list) and all(isinstance(part, int) for part in value):
        return bytes(value).decode(errors="replace")
    if isinstance(value, list):
        return "\n".join(_text(part) for part in value)
    message = "no value of a journal field"
    raise TypeError(message)


def _field(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", text)


_ROW = re.compile(
    r"(?P<time>[0-9T:.Z-]{27}|\[redacted\])\t(?P<priority>[^\t]*)\t(?P<pid>[^\t]*)"
    r"\t(?P<source>[^\t]*)\t(?P<message>.*)",
    re.DOTALL,
)


def parse_logs(output: Output) -> JsonValue:
    """Return `{entries}`, oldest first, from what `decode` made, secrets taken out meanwhile.

    `source` is what the sender calls itself; `pid` is the journal's own knowledge. A secret that
    was taken out may have been longer than a line: then what is left of that line belongs to the
    message before.

    Raises:
        InvalidOutputError: it is something else.
    """
    return {"entries": list(_rows(output.stdout))}


def _rows(text: str) -> Iterator[JsonValue]:
    row: dict[str, JsonValue] | None = None
    lines: list[str] = []
    is_redacted = False
    for line in text.split("\n")[:-1]:
        found = _ROW.fullmatch(line)
        if found is not None:
            if row is not None:
                yield row | {"message": "\n".join(lines)}
            row, lines = _row(found), [found["message"]]
        elif row is None or not (line.startswith("\t") or is_redacted):
            message = "The journal's entries are not in the form that is understood here."
            raise InvalidOutputError(message)
        else:
            lines.append(line.removeprefix("\t"))
        is_redacted = is_redacted or _MARK in line
    if row is not None:
        yield row | {"message": "\n".join(lines)}
    elif text:
        message = "The journal's entries are not in the form that is understood here."
        raise InvalidOutputError(message)


def _row(found: "re.Match[str]") -> dict[str, JsonValue]:
    priority, pid = found["priority"], found["pid"]
    return {
        "time": None if found["time"] == _MARK else found["time"],
        "priority": _PRIORITIES[int(priority)] if re.fullmatch("[0-7]", priority) else None,
        "pid": int(pid) if re.fullmatch("[0-9]{1,10}", pid) else None,
        "source": found["source"] or None,
    }
