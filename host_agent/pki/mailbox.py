"""Where renewals wait for the authority, and where its certificates come back: two directories.

The inbox is the agent's. The other is root's: what lies there the authority has signed, and the
agent only hands it on. No key of the authority is ever here.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from host_agent.errors import InvalidIdentityError
from host_agent.identity import files
from host_agent.pki.door import load_certificates
from host_agent.pki.profiles import key_hash
from host_agent.pki.renewal import MAX_ENTRY_BYTES, Renewal, RenewalEntry
from host_agent.pki.request import certified_key

INBOX = "renewals"
"""The directory of waiting renewals, beside the store."""
MAX_WAITING = 1000
FORGOTTEN_SECONDS = 30 * 86_400
"""After so long a renewal that nobody has signed is gone at the next one that comes: refused ones,
and those of certificates that have ended, do not fail every run of the authority for good."""


class OtherKeyError(Exception):
    """The certificate was renewed for another key."""


class MailboxFullError(Exception):
    """Too many renewals wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """The two directories; every method blocks."""

    inbox: Path
    issued: Path

    def collect(self, renewal: Renewal) -> bytes | None:
        """Return the certificate that the authority made, PEM; None while there is none.

        Raises:
            OtherKeyError: it made one for another key.
        """
        name = _name(renewal)
        try:
            data = files.read_plain(self.issued / f"{name}.crt", limit=MAX_ENTRY_BYTES)
            key = key_hash(certified_key(load_certificates(data)[0]))
        except ValueError:
            return None
        if key != renewal.key:
            raise OtherKeyError
        return data

    def is_waiting(self, renewal: Renewal, entry: RenewalEntry) -> bool:
        """Return whether the same renewal waits; signatures of the same thing may differ."""
        try:
            data = files.read_plain(self._path(renewal), limit=MAX_ENTRY_BYTES)
            found = RenewalEntry.model_validate_json(data)
            return found.request == entry.request and found.renewal().key == renewal.key
        except (ValueError, InvalidIdentityError):
            return False

    def require_room(self, renewal: Renewal) -> None:
        """See that there is room for a renewal, once what has waited for too long is gone.

        Raises:
            MailboxFullError: there is no room.
            OSError: the inbox cannot be used.
        """
        self.inbox.mkdir(mode=0o700, exist_ok=True)
        if not self._path(renewal).exists():
            self._make_room()

    def put(self, renewal: Renewal, entry: RenewalEntry) -> None:
        """Let a renewal wait, in the place of another one of the same certificate.

        Raises:
            OSError: it cannot be written.
        """
        self.inbox.mkdir(mode=0o700, exist_ok=True)
        files.replace(self._path(renewal), entry.encode(), mode=files.PRIVATE)

    def forget(self, renewal: Renewal) -> None:
        """Let a renewal wait no more; it was delivered."""
        self._path(renewal).unlink(missing_ok=True)

    def oldest(self) -> tuple[int, float | None]:
        """Return how many renewals wait, and since which Unix time the oldest does.

        Raises:
            OSError: the inbox cannot be read.
        """
        if not self.inbox.exists():
            return 0, None
        times = [path.lstat().st_mtime for path in self.inbox.glob("*.json")]
        return len(times), min(times, default=None)

    def _path(self, renewal: Renewal) -> Path:
        return self.inbox / f"{_name(renewal)}.json"

    def _make_room(self) -> None:
        waiting, limit = 0, time.time() - FORGOTTEN_SECONDS
        for path in self.inbox.iterdir():
            with suppress(FileNotFoundError):  # delivered meanwhile
                if path.lstat().st_mtime < limit:
                    path.unlink()
                else:
                    waiting += 1
        if waiting >= MAX_WAITING:
            raise MailboxFullError


def _name(renewal: Renewal) -> str:
    return renewal.old.fingerprint.removeprefix("sha256:")
