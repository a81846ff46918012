"""Requests and decisions for tests of the approvals room: whole values, each field replaceable."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from host_agent.identity.credential import Credential
from host_agent.operations import CATALOGUE
from host_agent.requests.digest import compute
from host_agent.requests.facts import NEVER, AskedBefore, RequestFacts, derive
from host_agent.requests.model import (
    Decision,
    Digest,
    Request,
    RequestId,
    State,
    Terms,
    Verb,
)
from tests.support.users import AsDeclared

NOW = datetime(2026, 11, 20, 21, 0, 0, 123456, tzinfo=UTC)
TTL = timedelta(minutes=30)


def digest_for(caller: str, params: dict[str, Any], *, precondition: str = "a" * 40) -> Digest:
    """Return the digest of a pull by `caller`."""
    return compute(
        host="host",
        caller=caller,
        unix_user=caller,
        operation="git.pull",
        params=params,
        policy="sha256:" + "1" * 64,
        wrapper="sha256:" + "2" * 64,
        precondition={"head": precondition},
    )


def a_credential(cn: str, digit: str = "3") -> Credential:
    """Return a remembered certificate of the authority that these tests trust."""
    return Credential(
        cn=cn,
        fingerprint="sha256:" + digit * 64,
        serial=0x1F,
        issuer="sha256:" + "ca" * 32,
        ends=NOW + timedelta(days=90),
    )


def a_request(number: int = 0, *, precondition: str = "a" * 40, **changes: Any) -> Request:
    """Return a pending `git.pull` of alice's librarian, another request for each `number`."""
    caller = changes.get("caller", "librarian")
    params = {"repository": f"/srv/app{number}", "remote": "origin", "branch": "main"}
    request = Request(
        id=RequestId(f"{number:08x}-0000-4000-8000-000000000000"),
        state=State.PENDING,
        caller=caller,
        credential=a_credential(caller),
        owner="alice",
        unix_user=caller,
        operation="git.pull",
        params=params,
        resource=f"/srv/app{number}",
        digest=digest_for(caller, params, precondition=precondition),
        rule="pulls need a yes",
        reason="deploy the fix",
        terms=Terms(),
        precondition={"head": precondition},
        preview={"accuracy": "exact", "summary": "moves main", "details": ["one", "two"]},
        created_at=NOW,
        expires_at=NOW + TTL,
    )
    return replace(request, **changes)


def facts_of(
    request: Request, *, host: str = "host", before: AskedBefore = NEVER, runs_as: str | None = None
) -> RequestFacts:
    """Return what people are told about `request`, as an agent with sudo derives it."""
    spec = CATALOGUE.find(request.operation)
    if spec is not None and runs_as is None:
        runs_as = AsDeclared().user_of(spec.run_as, request.unix_user)
    return derive(request, spec=spec, host=host, runs_as=runs_as, before=before)


def a_decision(
    owner: str = "bob", verb: Verb = Verb.APPROVE, *, at: datetime = NOW, reason: str | None = None
) -> Decision:
    """Return what `owner` says over HTTP with a certificate of their own."""
    return Decision(
        approver=f"{owner}-laptop", owner=owner, decision=verb, channel="http", at=at, reason=reason
    )
