"""Requests as rows and back. What goes in comes out equal; a row that does not fit is refused."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from sqlite3 import Row
from typing import Any, TypeAlias

from host_agent.canonical import JsonValue, canonical_json
from host_agent.identity.credential import Credential
from host_agent.requests.model import (
    Decision,
    Digest,
    GrantTerms,
    Problem,
    Request,
    RequestId,
    State,
    Terms,
    Verb,
)

Values: TypeAlias = dict[str, Any]
"""Column names and what is bound to them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_OUTPUT = ("stdout", "stderr", "data")
"""The members of an outcome that can be large: kept compressed, beside the row."""


class RowError(Exception):
    """A stored row is not one that this module wrote."""


def microseconds(instant: datetime) -> int:
    """Return an aware instant as the integer that is stored; exact."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(stored: int) -> datetime:
    """Return the aware UTC instant of a stored integer."""
    return _EPOCH + timedelta(microseconds=stored)


def optional_microseconds(instant: datetime | None) -> int | None:
    """Return an aware instant as the integer that is stored, None for None."""
    return None if instant is None else microseconds(instant)


def optional_instant(stored: int | None) -> datetime | None:
    """Return the aware UTC instant of a stored integer, None for None."""
    return None if stored is None else instant(stored)


def request_key(operation: str, params: Mapping[str, JsonValue]) -> bytes:
    """Return a hash of what is asked for, whatever state, policy or wrapper it meets."""
    return hashlib.sha256(canonical_json({"operation": operation, "params": params})).digest()


def request_row(request: Request) -> Values:
    """Return every column of a request that is stored for the first time."""
    return {
        "id": request.id,
        "caller": request.caller,
        "fingerprint": request.credential.fingerprint,
        "serial": f"{request.credential.serial:x}",
        "issued": _issued_text(request.credential),
        "owner": request.owner,
        "unix_user": request.unix_user,
        "operation": request.operation,
        "params": dump(request.params),
        "request_key": request_key(request.operation, request.params),
        "resource": request.resource,
        "digest": request.digest,
        "rule": request.rule,
        "reason": request.reason,
        "terms": dump(terms_json(request.terms)),
        "precondition": _dump_optional(request.precondition),
        "preview": _dump_optional(request.preview),
        "created_at": microseconds(request.created_at),
        "expires_at": microseconds(request.expires_at),
        **transition_row(request),
    }


def transition_row(request: Request) -> Values:
    """Return the columns that a transition may change, and no other."""
    problem = request.problem
    return {
        "state": request.state.value,
        "decisions": dump([decision_json(decision) for decision in request.decisions]),
        "outcome": None if request.outcome is None else dump(_without_output(request.outcome)),
        "problem": None
        if problem is None
        else dump({"code": problem.code, "detail": problem.detail}),
        "finished_at": optional_microseconds(request.finished_at),
        "version": request.version,
    }


def output_of(request: Request) -> bytes | None:
    """Return the large members of the outcome, compressed; None where there are none."""
    outcome = request.outcome or {}
    large = {name: outcome[name] for name in _OUTPUT if name in outcome}
    return pack(large) if large else None


def read_request(row: Row, output: bytes | None = None) -> Request:
    """Return the request of a row, with its output where it is given.

    Raises:
        RowError: the row is not one that `request_row` made.
    """
    try:
        return _request(row, output)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        message = f"the row of request {row['id']!r} cannot be read: {error!r}"
        raise RowError(message) from error


def _request(row: Row, output: bytes | None) -> Request:
    outcome = _load_optional(row["outcome"])
    if outcome is not None and output is not None:
        outcome |= unpack(output)
    problem = _load_optional(row["problem"])
    return Request(
        id=RequestId(row["id"]),
        state=State(row["state"]),
        caller=row["caller"],
        credential=_credential(
            row["caller"], row["fingerprint"], row["serial"], _load_optional(row["issued"])
        ),
        owner=row["owner"],
        unix_user=row["unix_user"],
        operation=row["operation"],
        params=json.loads(row["params"]),
        resource=row["resource"],
        digest=Digest(row["digest"]),
        rule=row["rule"],
        reason=row["reason"],
        terms=terms_of(json.loads(row["terms"])),
        precondition=_load_optional(row["precondition"]),
        preview=_load_optional(row["preview"]),
        created_at=instant(row["created_at"]),
        expires_at=instant(row["expires_at"]),
        decisions=read_decisions(row["decisions"]),
        outcome=outcome,
        problem=None if problem is None else Problem(**problem),
        finished_at=optional_instant(row["finished_at"]),
        version=row["version"],
    )


def read_decisions(stored: str) -> tuple[Decision, ...]:
    """Return the decisions of a row, oldest first."""
    return tuple(decision_of(entry) for entry in json.loads(stored))


def pack(value: Mapping[str, JsonValue]) -> bytes:
    """Return a JSON object compressed, at the level that costs little."""
    return zlib.compress(dump(value).encode("ascii"), 1)


def unpack(stored: bytes) -> dict[str, JsonValue]:
    """Return the JSON object that `pack` compressed."""
    value: dict[str, JsonValue] = json.loads(zlib.decompress(stored))
    return value


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    message = f"a {type(value).__name__} cannot be stored"
    raise TypeError(message)


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


def dump(value: JsonValue) -> str:
    """Return JSON as it is stored: short, without NaN, what is no JSON refused."""
    return _encode(value)


def _dump_optional(value: Mapping[str, JsonValue] | None) -> str | None:
    return None if value is None else dump(value)


def _load_optional(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    value: dict[str, Any] = json.loads(text)
    return value


def _without_output(outcome: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in outcome.items() if name not in _OUTPUT}


def terms_json(terms: Terms) -> dict[str, JsonValue]:
    """Return who must say yes, as JSON."""
    return {
        "approvals": terms.approvals,
        "approvers": None if terms.approvers is None else sorted(terms.approvers),
        "approver_role": terms.approver_role,
    }


def terms_of(entry: dict[str, Any]) -> Terms:
    """Return what `terms_json` wrote; another value raises `KeyError` or `TypeError`."""
    named = entry["approvers"]
    return Terms(
        approvals=entry["approvals"],
        approvers=None if named is None else frozenset(named),
        approver_role=entry["approver_role"],
    )


def decision_json(decision: Decision) -> dict[str, JsonValue]:
    """Return a decision as JSON; what not every decision has is left out where it is missing."""
    credential = decision.credential
    entry: dict[str, JsonValue] = {
        "approver": decision.approver,
        "owner": decision.owner,
        "decision": decision.decision.value,
        "channel": decision.channel,
        "at": microseconds(decision.at),
        "reason": decision.reason,
        "fingerprint": None if credential is None else credential.fingerprint,
        "serial": None if credential is None else f"{credential.serial:x}",
    }
    if credential is not None and (issued := _issued_json(credential)) is not None:
        entry["issued"] = issued
    if decision.address is not None:
        entry["address"] = decision.address
    if decision.through is not None:
        entry["through"] = decision.through
    if decision.vouchers:
        entry["vouchers"] = sorted(decision.vouchers)
    if decision.grant is not None:
        entry["grant"] = _grant_terms_json(decision.grant)
    if decision.not_before is not None:
        entry["not_before"] = microseconds(decision.not_before)
    return entry


def decision_of(entry: dict[str, Any]) -> Decision:
    """Return what `decision_json` wrote, also before some fields existed.

    Another value raises `KeyError`, `TypeError` or `ValueError`.
    """
    entry = dict(entry)
    granted = entry.get("grant")
    fingerprint, serial = entry.pop("fingerprint", None), entry.pop("serial", None)
    issued = entry.pop("issued", None)
    spoke = entry.get("through") or entry["approver"]
    typed = {
        "credential": None
        if fingerprint is None or serial is None
        else _credential(spoke, fingerprint, serial, issued),
        "decision": Verb(entry["decision"]),
        "at": instant(entry["at"]),
        "vouchers": frozenset(entry.get("vouchers", ())),
        "grant": None if granted is None else GrantTerms(**granted),
        "not_before": optional_instant(entry.get("not_before")),
    }
    return Decision(**{**entry, **typed})


def _credential(
    cn: str, fingerprint: str, serial: str, issued: Mapping[str, Any] | None
) -> Credential:
    """Return a certificate as it was remembered; before `r0004` without what issued it."""
    known = {"issuer": None, "ends": None, "points": ()} | dict(issued or {})
    return Credential(
        cn=cn,
        fingerprint=fingerprint,
        serial=int(serial, 16),
        issuer=known["issuer"],
        ends=optional_instant(known["ends"]),
        points=frozenset(known["points"]),
    )


def _issued_json(credential: Credential) -> dict[str, JsonValue] | None:
    if credential.issuer is None:
        return None
    issued: dict[str, JsonValue] = {
        "issuer": credential.issuer,
        "ends": optional_microseconds(credential.ends),
    }
    return {**issued, "points": sorted(credential.points)} if credential.points else issued


def _issued_text(credential: Credential) -> str | None:
    issued = _issued_json(credential)
    return None if issued is None else dump(issued)


def _grant_terms_json(terms: GrantTerms) -> dict[str, JsonValue]:
    given = {"for_seconds": terms.for_seconds, "count": terms.count, "resource": terms.resource}
    return {name: value for name, value in given.items() if value is not None}
