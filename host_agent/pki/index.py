"""What the small CA has issued, and the JSON form in which `index.json` keeps it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from host_agent.pki.profiles import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate that was issued; `name` is what its files are called.

    `key` is the SHA-256 of its public key (SubjectPublicKeyInfo) in hexadecimal digits, empty for
    what was issued before that was kept. `renews` is the serial of the one that it came after.
    """

    common_name: str
    usage: Usage
    serial: int
    fingerprint: str
    not_valid_before: datetime
    not_valid_after: datetime
    name: str
    revoked_at: datetime | None = None
    key: str = ""
    renews: int | None = None

    def state(self, now: datetime) -> Literal["valid", "revoked", "expired"]:
        """Return what has become of it at `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if now >= self.not_valid_after else "valid"

    def days_left(self, now: datetime) -> int:
        """Return the whole days until its end, 0 when it has ended."""
        return max(0, (self.not_valid_after - now).days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All that was issued, oldest first, and the number of the newest CRL."""

    certificates: tuple[Issued, ...] = ()
    crl_number: int = 0

    def successors(self, serials: Collection[int]) -> set[int]:
        """Return `serials`, and those that were renewed from them, however often."""
        found = set(serials)
        for issued in self.certificates:  # oldest first: one comes after what it renews
            if issued.renews in found:
                found.add(issued.serial)
        return found


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _IndexEntry(_Strict):
    cn: str
    usage: Usage
    serial: str = Field(pattern=r"^[0-9a-f]{1,40}$")
    fingerprint: str
    not_before: AwareDatetime
    not_after: AwareDatetime
    name: str
    revoked_at: AwareDatetime | None = None
    key: str = Field(default="", pattern=r"^(?:[0-9a-f]{64})?$")
    renews: str | None = Field(default=None, pattern=r"^[0-9a-f]{1,40}$")


class _Document(_Strict):
    version: Literal[1]
    crl_number: int = Field(ge=0)
    certificates: tuple[_IndexEntry, ...]


def encode(index: Index) -> bytes:
    """Return the JSON form of `index`."""
    document = _Document(
        version=1,
        crl_number=index.crl_number,
        certificates=tuple(_line(issued) for issued in index.certificates),
    )
    return document.model_dump_json(indent=2).encode() + b"\n"


def decode(data: bytes) -> Index:
    """Return the index that `data` is the JSON form of.

    Raises:
        ValueError: it is not one.
    """
    document = _Document.model_validate_json(data)
    return Index(
        certificates=tuple(_issued(line) for line in document.certificates),
        crl_number=document.crl_number,
    )


def _line(issued: Issued) -> _IndexEntry:
    return _IndexEntry(
        cn=issued.common_name,
        usage=issued.usage,
        serial=f"{issued.serial:x}",
        fingerprint=issued.fingerprint,
        not_before=issued.not_valid_before,
        not_after=issued.not_valid_after,
        name=issued.name,
        revoked_at=issued.revoked_at,
        key=issued.key,
        renews=None if issued.renews is None else f"{issued.renews:x}",
    )


def _issued(line: _IndexEntry) -> Issued:
    return Issued(
        common_name=line.cn,
        usage=line.usage,
        serial=int(line.serial, 16),
        fingerprint=line.fingerprint,
        not_valid_before=line.not_before,
        not_valid_after=line.not_after,
        name=line.name,
        revoked_at=line.revoked_at,
        key=line.key,
        renews=None if line.renews is None else int(line.renews, 16),
    )
