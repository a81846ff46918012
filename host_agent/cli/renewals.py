"""`host-agent pki renewals`: the authority's side of renewals, for a timer."""

import argparse
import heapq
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from host_agent.cli.terminal import render
from host_agent.errors import EX_FAILED, EX_OK, ConfigurationError, InvalidIdentityError
from host_agent.identity import files
from host_agent.pki.renewal import MAX_ENTRY_BYTES, Renewal, RenewalEntry
from host_agent.pki.signing import RenewalRefusedError, renew

MAX_ENTRIES = 10_000
MAX_TOLD = 20
"""So many refusals are told one by one: who writes into the inbox does not fill the journal."""
ENTRY = re.compile(r"[0-9a-f]{64}\.json", re.ASCII)
"""The file of a renewal: the fingerprint of the certificate that is renewed."""


def add_parser(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add `renewals` to the commands of `pki`, which `run` runs."""
    parser = verbs.add_parser(
        "renewals",
        help="sign the renewals that have come in: same name, same use, a new key",
        description="Sign what programs asked the agent for (`pki renew`). Each is signed by the"
        " key of the certificate that it renews, so nothing is believed of who carries it: that one"
        " must be of this authority, valid, not revoked, half over, and not renewed before.",
    )
    parser.add_argument("--dir", required=True, type=Path, help="the directory of the CA")
    parser.add_argument(
        "--inbox", required=True, type=Path, metavar="DIR", help="where the agent puts renewals"
    )
    parser.add_argument(
        "--issued", required=True, type=Path, metavar="DIR", help="where it looks for certificates"
    )
    parser.set_defaults(run=run, command=_renewals)


def _renewals(args: argparse.Namespace) -> int:
    """Sign each that can be; return 1 where one was refused.

    Raises:
        ConfigurationError: a directory cannot be used.
    """
    refused, now = 0, datetime.now(UTC)
    for path in _entries(args.inbox):
        place = args.issued / f"{path.stem}.crt"
        try:
            renewal = _read(path)
            renewed = renew(args.dir, renewal, now=now)
        except (ValueError, InvalidIdentityError) as error:
            refused += 1
            if refused <= MAX_TOLD:
                said = error.detail if isinstance(error, InvalidIdentityError) else str(error)
                render.warn(render.visible(f"{path.name} is not renewed: {said}"))
            continue
        if _put(place, renewed.certificate):
            issued = renewed.issued
            line = (
                f"renewed {issued.common_name}: serial {issued.serial:x}, ends on"
                f" {issued.not_valid_after:%Y-%m-%d}"
            )
            sys.stdout.write(render.visible(line) + "\n")
    if refused > MAX_TOLD:
        render.warn(f"{refused - MAX_TOLD} more are not renewed")
    return EX_FAILED if refused else EX_OK


def _entries(inbox: Path) -> list[Path]:
    """Return the first entries; a directory of any size takes no more memory than those."""
    try:
        found = (path for path in inbox.iterdir() if ENTRY.fullmatch(path.name))
        return heapq.nsmallest(MAX_ENTRIES, found)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError([f"{inbox} cannot be read: {error.strerror}"]) from error


def _read(path: Path) -> Renewal:
    """Return the renewal in a file, whose name must be of the certificate in it.

    Raises:
        ValueError, InvalidIdentityError: it is none.
    """
    data = files.read_plain(path, limit=MAX_ENTRY_BYTES)
    try:
        renewal = RenewalEntry.model_validate_json(data).renewal()
    except ValidationError as error:
        message = "it is not a renewal"
        raise RenewalRefusedError(message) from error
    if renewal.old.fingerprint != f"sha256:{path.stem}":
        message = "it is of another certificate than its name says"
        raise RenewalRefusedError(message)
    return renewal


def _put(place: Path, certificate: bytes) -> bool:
    """Write the certificate where it is not there already; return whether it was not.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        if place.exists() and files.read_plain(place) == certificate:
            return False
        files.replace(place, certificate, mode=files.PUBLIC)
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"{place} cannot be written: {error}"]) from error
    return True
