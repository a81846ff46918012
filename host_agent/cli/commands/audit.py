"""`host-agent audit`: verify the files of the audit log, and read its end.

Works on files alone: no agent needs to run, and none is asked.
"""

import argparse
import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from host_agent.audit.record import NotARecordError, Record, read
from host_agent.audit.verify import ChainReport, Concern, NotAnAuditFileError, parse_head, verify
from host_agent.cli.commands import audit_head
from host_agent.cli.service_user import service_user
from host_agent.cli.terminal import render
from host_agent.errors import EX_DATAERR, EX_FAILED, EX_OK, UsageError
from host_agent.host.install import layout
from host_agent.text import visible

DEFAULT_CONFIG = Path(layout.CONFIGURATION)
MAX_LINES = 100_000
FOLLOW_SECONDS = 0.25
_BLOCK_BYTES = 65_536
_MAX_TAIL_BYTES = 256 * 1_048_576
_SHOWN_FINDINGS = 20
_FIELD_LIMIT = 200


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `audit` and its commands to the command line."""
    parser = subparsers.add_parser("audit", help="verify and read the audit log")
    commands = parser.add_subparsers(
        title="commands", dest="verb", metavar="COMMAND", required=True
    )
    check = commands.add_parser(
        "verify",
        help="say whether the files are what was written, and whether all of it is there",
        description="Reads the files of one audit log, in any order, and says of each line whether"
        " it is what was written, and whether any is missing. Exit status 1 with findings, 65"
        " where a file is none of an audit log.",
    )
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.add_argument(
        "--head",
        metavar="HASH",
        help="a hash that was kept elsewhere: only with it is a cut end, or a chain that was"
        " computed anew, found",
    )
    check.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="the same, as `audit head --sign` made it"
    )
    check.add_argument(
        "--signer", type=Path, metavar="FILE", help="the certificate of the host that signed it"
    )
    check.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    check.set_defaults(run=run, command=_verify)
    head = commands.add_parser(
        "head",
        help="print the newest hash, to be kept elsewhere",
        description="Prints sequence and hash of the newest record. Kept where this host's root"
        " cannot change it, it lets `audit verify --head` find a cut or rewritten log.",
    )
    audit_head.add_arguments(head, DEFAULT_CONFIG)
    head.set_defaults(run=run, command=audit_head.show_head)
    tail = commands.add_parser(
        "tail",
        help="show the newest records",
        description="Shows the newest records of the live file. Nothing is verified but each"
        " record's own hash: `audit verify` does the rest.",
    )
    tail.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="default: the configuration's"
    )
    tail.add_argument("--config", type=Path, help=f"default: {DEFAULT_CONFIG}")
    tail.add_argument("-n", "--lines", default="10", metavar="N", help="how many; default: 10")
    tail.add_argument("--follow", action="store_true", help="go on with what is appended")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")
    tail.set_defaults(run=run, command=_tail)


def run(args: argparse.Namespace) -> int:
    """Run the command of `audit` that `args` names; return a sysexits status.

    Raises:
        UsageError: an argument cannot be followed.
        ConfigurationError: the configuration that names the file cannot be used.
    """
    try:
        status: int = args.command(args)
    except NotAnAuditFileError as error:
        return _say(f"{error}.", EX_DATAERR)
    except OSError as error:
        return _say(f"{error.filename} cannot be read: {error.strerror}.", EX_DATAERR)
    return status


def _say(sentence: str, status: int) -> int:
    render.warn(render.visible(sentence))
    return status


# -- verify -----------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    try:
        head = None if args.head is None else parse_head(args.head)
    except ValueError as error:
        raise UsageError(f"--head: {error}.") from error
    if args.checkpoint is not None:
        if head is not None:
            raise UsageError("Give --head or --checkpoint, not both.")
        head = audit_head.head_of_checkpoint(args.checkpoint, args.signer)
    report = verify(args.files, head)
    if args.json:
        sys.stdout.write(render.json_text(_as_json(report)) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _as_text(report, head))
    return EX_FAILED if report.found else EX_OK


def _as_json(report: ChainReport) -> dict[str, object]:
    return {
        "ok": report.found == 0,
        "integrity": report.is_clean(Concern.INTEGRITY),
        "completeness": report.is_clean(Concern.COMPLETENESS),
        "records": report.records,
        "first": report.first,
        "last": report.last,
        "head": report.head,
        "head_sequence": report.head_sequence,
        "first_bad": report.first_bad,
        "findings": [asdict(finding) for finding in report.findings],
        "findings_total": report.found,
        "torn": [asdict(torn) for torn in report.torn],
        "files": [asdict(span) for span in report.files],
    }


def _as_text(report: ChainReport, head: str | None) -> Iterator[str]:
    for span in report.files:
        records = "no record" if span.first is None else f"{span.first} to {span.last}"
        yield f"{render.visible(span.file)}: {records}"
    for torn in report.torn:
        yield (
            f"torn at {torn.sequence}: {torn.length} bytes of a write that was cut short, "
            f"{render.visible(torn.file)} line {torn.line}"
        )
    for finding in report.findings[:_SHOWN_FINDINGS]:
        yield (
            f"{finding.concern.value}: bad at {finding.sequence}, {render.visible(finding.file)} "
            f"line {finding.line}: {render.visible(finding.message)}"
        )
    if report.found > _SHOWN_FINDINGS:
        yield f"... and {report.found - _SHOWN_FINDINGS} more; --json shows them"
    yield f"records: {report.records}"
    yield f"integrity: {'intact' if report.is_clean(Concern.INTEGRITY) else 'BROKEN'}"
    yield f"completeness: {_completeness(report, head)}"
    yield f"head: {report.head}"
    if report.first_bad is not None:
        yield f"first bad sequence: {report.first_bad}"


def _completeness(report: ChainReport, head: str | None) -> str:
    if not report.is_clean(Concern.COMPLETENESS):
        return "BROKEN"
    begins = f"from {1 if report.first is None else report.first}, no gap"
    if head is None:
        return f"{begins}; a cut end shows only against a --head that was kept elsewhere"
    if report.head_sequence == report.last:
        return f"{begins}, to the given head"
    return f"{begins}; the given head is record {report.head_sequence}"


# -- tail -------------------------------------------------------------------------------------


def _tail(args: argparse.Namespace) -> int:
    if not (args.lines.isascii() and args.lines.isdigit() and int(args.lines[:7]) <= MAX_LINES):
        raise UsageError(f"-n takes a number from 0 to {MAX_LINES}.")
    if args.file is not None and args.config is not None:
        raise UsageError("Name a file or a configuration, not both.")
    path = args.file if args.file is not None else _configured(args.config or DEFAULT_CONFIG)
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(_opened(path))
        for line in _last_lines(stream, int(args.lines)):
            _show(line, as_json=args.json)
        sys.stdout.flush()
        while args.follow:
            _show_appended(stream, as_json=args.json)
            following = None if _is_at(path, stream) else _next(path)
            if following is None:
                time.sleep(FOLLOW_SECONDS)
                continue
            _show_appended(stream, as_json=args.json)  # what came between the last look and the end
            opened.close()
            stream = opened.enter_context(following)
    return EX_OK


def _configured(config: Path) -> Path:
    from host_agent.config import load

    return load(config, uid=service_user(None, config)[1]).audit.path


def _opened(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{path} is not a regular file"
        raise NotAnAuditFileError(message)
    return os.fdopen(descriptor, "rb")


def _last_lines(stream: BinaryIO, count: int) -> Sequence[bytes]:
    """Return the last `count` whole lines, and leave `stream` behind them."""
    end = stream.seek(0, os.SEEK_END)
    begin, data = end, b""
    while begin > 0 and data.count(b"\n") <= count and len(data) < _MAX_TAIL_BYTES:
        start = max(0, begin - _BLOCK_BYTES)
        stream.seek(start)
        data = stream.read(begin - start) + data
        begin = start
    whole, newline, rest = data.rpartition(b"\n")
    stream.seek(end - len(rest))
    lines = whole.split(b"\n") if newline else []
    return lines[-count:] if count else []


def _show_appended(stream: BinaryIO, *, as_json: bool) -> None:
    """Show the whole lines from where `stream` stands, and leave it behind them."""
    while block := stream.read(_BLOCK_BYTES * 16):
        whole, newline, rest = block.rpartition(b"\n")
        stream.seek(-len(rest), os.SEEK_CUR)
        if not newline:
            return
        for line in whole.split(b"\n"):
            _show(line, as_json=as_json)
        sys.stdout.flush()


def _next(path: Path) -> BinaryIO | None:
    """Return the file that has taken the path, or None while there is none."""
    try:
        return _opened(path)
    except FileNotFoundError:
        return None


def _is_at(path: Path, stream: BinaryIO) -> bool:
    held = os.fstat(stream.fileno())
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _show(line: bytes, *, as_json: bool) -> None:
    """Write one record as a line; what is none is told to standard error where JSON is asked."""
    try:
        record = read(line)
    except NotARecordError as error:
        told = f"a line {error}; `host-agent audit verify` tells more"
        if as_json:
            render.warn(told)
        else:
            sys.stdout.write(f"? {told}\n")
        return
    if as_json:
        sys.stdout.write(render.json_text(record.members, indent=None) + "\n")
    else:
        sys.stdout.write(" ".join(_fields(record)) + "\n")


def _fields(record: Record) -> Iterator[str]:
    """Yield what a person reads first. The record's text is escaped already, once."""
    members = record.members
    yield _text(members["time"])
    yield str(record.sequence)
    yield _text(members["event"])
    for name in ("caller", "approver", "decision", "operation", "resource", "state", "code"):
        if name in members:
            yield _text(members[name])
    outcome = members.get("outcome")
    if isinstance(outcome, dict) and "state" in outcome:
        yield _text(outcome["state"])
    for name in ("request_id", "exchange_id", "suppressed", "cause", "detail", "reason"):
        if name in members:
            yield f"{name}={_text(members[name])}"
    faults = members.get("faults")
    if isinstance(faults, list) and faults:
        yield f"fault={_text(faults[0])}"
        if len(faults) > 1:
            yield f"more_faults={len(faults) - 1}"


def _text(value: object) -> str:
    text = value if isinstance(value, str) else render.json_text(value, indent=None)
    shown = visible(text[:_FIELD_LIMIT], is_escaped=True)
    if " " in shown or '"' in shown:  # else a value could look like the field after it
        shown = json.dumps(shown, ensure_ascii=False)
    return shown if len(text) <= _FIELD_LIMIT else f"{shown}..."
