"""A certificate as it is remembered: enough to ask later whether it would still be let in."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate that was let in, as it is remembered wherever somebody acted with it.

    `issuer` is the id of its authority (`authorities.Authority`), `ends` its end, `points` as in
    `certificate.PeerCertificate`. What was remembered before these were kept has none of them, and
    is not listened to.
    """

    cn: str
    fingerprint: str
    serial: int
    issuer: str | None = None
    ends: datetime | None = None
    points: frozenset[str] = frozenset()
