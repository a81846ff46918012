"""`host-agent audit head`: the newest record's hash, to be kept elsewhere; signed on request.

A signed head is checked again by `audit verify --checkpoint FILE --signer CERTIFICATE`.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from host_agent.audit.record import NotARecordError, Record, read
from host_agent.audit.verify import NotAnAuditFileError
from host_agent.cli.service_user import service_user
from host_agent.cli.terminal import render
from host_agent.errors import EX_OK, ConfigurationError, UsageError

_MAX_TAIL_BYTES = 1_048_576
"""More than any two records: the last line may be torn."""


def add_arguments(parser: argparse.ArgumentParser, default_config: Path) -> None:
    """Add the arguments of `audit head`."""
    parser.add_argument("--config", type=Path, default=default_config, metavar="FILE")
    parser.add_argument(
        "--sign",
        action="store_true",
        help="print a token (RFC 8417) signed with the server's key instead",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")


def show_head(args: argparse.Namespace) -> int:
    """Print the head of the configured audit log.

    Raises:
        NotAnAuditFileError: there is no record in it.
        ConfigurationError: the configuration cannot be used, or its key cannot sign.
    """
    from host_agent.config import load

    config = load(args.config, uid=service_user(None, args.config)[1])
    record = newest_record(config.audit.path)
    if not args.sign:
        head = {"host": config.host, "sequence": record.sequence, "hash": record.hash}
        if args.json:
            sys.stdout.write(render.json_text(head) + "\n")
        else:
            sys.stdout.write(f"{record.sequence} {record.hash}\n")
        return EX_OK
    from host_agent.audit.checkpoint import Checkpoint, sign

    point = Checkpoint(
        host=config.host, sequence=record.sequence, head=record.hash, at=datetime.now(UTC)
    )
    try:
        token = sign(point, config.server.private_key.read_bytes())
    except ValueError as error:
        raise ConfigurationError([f"server.private_key: {error}"]) from error
    sys.stdout.write((render.json_text({"checkpoint": token}) if args.json else token) + "\n")
    return EX_OK


def newest_record(path: Path) -> Record:
    """Return the last whole record of the live file.

    Raises:
        NotAnAuditFileError: there is none.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _MAX_TAIL_BYTES))
        lines = stream.read().split(b"\n")
    for line in reversed(lines):
        try:
            return read(line)
        except NotARecordError:
            continue
    message = f"{path} holds no record"
    raise NotAnAuditFileError(message)


def head_of_checkpoint(checkpoint: Path, signer: Path | None) -> str:
    """Return the hash that a signed head in `checkpoint` states.

    Raises:
        UsageError: no signer was named, or it did not sign this.
    """
    from host_agent.audit.checkpoint import MAX_CHARACTERS, verify

    if signer is None:
        message = "--checkpoint needs --signer, the certificate of the host that signed it."
        raise UsageError(message)
    with checkpoint.open(encoding="ascii", errors="replace") as stream:
        token = stream.read(MAX_CHARACTERS + 2).strip()
    try:
        return verify(token, signer.read_bytes()).head
    except ValueError as error:
        raise UsageError(f"--checkpoint: {error}.") from error
