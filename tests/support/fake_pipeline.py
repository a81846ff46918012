# ruff: noqa: ANN401
"""An agent in memory for the gateway's tests: the pipeline's methods, scripted, and what they saw.

It keeps requests in a dictionary and knows three operations. It is no judge: tests of policy and
approvals use the real pipeline.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AlreadyDecidedError,
    BadSignatureError,
    DigestMismatchError,
    HostAgentError,
    RateLimitedError,
    RequestNotFoundError,
    RevokedIdentityError,
    RoleRequiredError,
    UnknownIdentityError,
)
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Autonomy, Principal, Role
from host_agent.operations.catalogue import (
    Adapter,
    Catalogue,
    Effect,
    Invocation,
    OperationSpec,
    Parameters,
    RunAs,
)
from host_agent.operations.section import Section
from host_agent.pipeline.bridges import Signed
from host_agent.pipeline.responses import Answer
from host_agent.pipeline.submit import Ask
from host_agent.requests.model import GrantTerms, Verb

DIGEST = "sha256:" + "d" * 64
ROLES: Mapping[str, frozenset[Role]] = {
    "librarian": frozenset({Role.CALLER}),
    "alice": frozenset({Role.APPROVER}),
    "root-admin": frozenset({Role.ADMIN}),
    "chat-bridge": frozenset({Role.BRIDGE}),
}


class Scripted(dict[str, Any]):
    """An answer that is whatever the test says."""

    def as_json(self) -> dict[str, Any]:
        return self

    @property
    def is_ready(self) -> bool:
        return all(state == "ok" for state in self.values())


class LookParameters(Parameters):
    """What to look at."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "limit", "deep", "names")
    repository: str
    limit: int = 20
    deep: bool = False
    names: list[str] | None = None


class ListParameters(Parameters):
    """Nothing."""


def _spec(name: str, effect: Effect, parameters: type[Parameters]) -> OperationSpec:
    return OperationSpec(
        name=name,
        effect=effect,
        summary=f"Does {name}.",
        parameters=parameters,
        wrapper="git",
        run_as=RunAs.UNIX_USER,
        resource=lambda params: getattr(params, "repository", None),
        admit=lambda _params, _section: None,
        invoke=lambda _params, _precondition: Invocation(
            wrapper="git", arguments=(), run_as=RunAs.UNIX_USER
        ),
    )


def _adapter(name: str, *specs: OperationSpec) -> Adapter:
    return Adapter(name=name, section=Section, specs=specs, names=lambda _section: ())


CATALOGUE = Catalogue(
    (
        _adapter(
            "git",
            _spec("git.status", Effect.READ, LookParameters),
            _spec("git.pull", Effect.CHANGE, LookParameters),
        ),
        _adapter("pct", _spec("pct.list", Effect.READ, ListParameters)),
    )
)


@dataclass(frozen=True, slots=True)
class FakeRooms:
    """What the routes look at."""

    catalogue: Catalogue = CATALOGUE


@dataclass(slots=True)
class Refusal:
    """One refusal that was recorded."""

    code: str
    exchange_id: str
    caller: str | None
    operation: str | None


@dataclass
class FakePipeline:
    """Answers from memory. `fault` is raised by `submit`; `revoked` and `limited` hold names."""

    asks: list[Ask] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    requests: dict[str, dict[str, object]] = field(default_factory=dict)
    fault: Exception | None = None
    revoked: set[str] = field(default_factory=set)
    limited: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    granted: list[GrantTerms | None] = field(default_factory=list)
    administered: list[tuple[str, ...]] = field(default_factory=list)

    def identify(self, certificate: PeerCertificate) -> Principal:
        name = certificate.common_name
        if name in self.revoked:
            raise RevokedIdentityError("This certificate is revoked; ask for another one.")
        if name not in ROLES:
            raise UnknownIdentityError("No identity is registered under this name.")
        return Principal(
            cn=name,
            unix_user=None,
            owner=name,
            roles=ROLES[name],
            autonomy=Autonomy.SUPERVISED,
            skip_ask=False,
            credential=Credential(
                cn=name, fingerprint=certificate.fingerprint, serial=certificate.serial
            ),
        )

    def require_role(self, principal: Principal, *roles: Role) -> None:
        if principal.roles.isdisjoint(roles):
            raise RoleRequiredError("This needs another role.")

    def admit_ask(self, principal: Principal) -> None:
        self.require_role(principal, Role.CALLER)
        self._admit(principal)

    def admit_decision(self, principal: Principal) -> None:
        self.require_role(principal, Role.APPROVER, Role.ADMIN)
        self._admit(principal)

    def _admit(self, principal: Principal) -> None:
        if principal.cn in self.limited:
            raise RateLimitedError("Too many requests.", retry_after_seconds=0.2)

    def whoami(self, principal: Principal) -> Any:
        return Scripted(
            cn=principal.cn,
            owner=principal.owner,
            roles=sorted(role.value for role in principal.roles),
            autonomy=principal.autonomy.value,
            host="fake",
        )

    def operations(self, principal: Principal) -> Any:
        return Scripted(operations=[{"name": spec.name} for spec in CATALOGUE])

    async def submit(self, principal: Principal, ask: Ask) -> Answer:
        if self.fault is not None:
            raise self.fault
        operation = CATALOGUE.parse(ask.operation, ask.params)
        self.asks.append(ask)
        body: dict[str, JsonValue] = {
            "request_id": ask.exchange_id,
            "operation": operation.name,
            "digest": DIGEST,
        }
        if operation.effect is Effect.READ:
            outcome: dict[str, JsonValue] = {"exit_code": 0, "stdout": "", "verified": None}
            return Answer(status=200, body={**body, "state": "succeeded", "outcome": outcome})
        self.requests[ask.exchange_id] = {**body, "state": "pending", "caller": principal.cn}
        held: dict[str, JsonValue] = {
            "state": "pending",
            "expires_at": "2026-11-20T22:00:00Z",
            "rule": "ask",
            "poll_after_seconds": 5,
            "message": "Nothing has run.",
        }
        return Answer(status=202, body={**body, **held})

    async def show(
        self,
        principal: Principal,
        request_id: str,
        *,
        wait_seconds: float = 0,
        still_welcome: Callable[[], None] | None = None,
    ) -> Any:
        request = self._find(principal, request_id)
        if wait_seconds:
            self.waiting += 1
            try:
                await asyncio.wait_for(self.changed.wait(), wait_seconds)
            finally:
                self.waiting -= 1
            if still_welcome is not None:
                still_welcome()
        return Scripted(request)

    async def list_requests(
        self,
        principal: Principal,
        *,
        state: str | None,
        limit: int,
        cursor: str | None,
        own: bool = False,
    ) -> Any:
        sees_all = not own and Role.CALLER not in principal.roles
        found = [
            request
            for request in self.requests.values()
            if (sees_all or request["caller"] == principal.cn)
            and (state is None or request["state"] == state)
        ]
        return Scripted({"requests": found[:limit], "next_cursor": None})

    async def decide(
        self,
        principal: Principal,
        request_id: str,
        *,
        decision: Verb,
        digest: str | None,
        reason: str | None,
        channel: str,
        grant: GrantTerms | None = None,
    ) -> Any:
        request = self._find(principal, request_id)
        if request["state"] != "pending":
            raise AlreadyDecidedError("It is decided.", members={"request": request})
        if decision is Verb.APPROVE and digest != request["digest"]:
            raise DigestMismatchError("The digest is another.")
        self.granted.append(grant)
        request["state"] = "approved" if decision is Verb.APPROVE else "denied"
        return Scripted(request)

    async def decide_by_token(self, principal: Principal, approval_id: str, token: str) -> Any:
        return await self.decide(
            principal,
            approval_id,
            decision=Verb.APPROVE,
            digest=token,
            reason=None,
            channel="http",
        )

    async def cancel(self, principal: Principal, request_id: str, *, reason: str | None) -> Any:
        request = self._find(principal, request_id)
        request["state"] = "cancelled"
        request["reason"] = reason
        return Scripted(request)

    async def approvers(self, principal: Principal) -> Any:
        return Scripted({"approvers": []})

    async def offer_enrolment(self, principal: Principal, owner: str, channel: str) -> Any:
        self.administered.append(("enrol", owner, channel))
        offer = {"code": "ABCDEFGHJKLMNPQR", "expires_at": "2026-11-20T22:00:00Z"}
        return Scripted({"owner": owner, "channel": channel, **offer})

    async def list_grants(self, principal: Principal) -> Any:
        return Scripted({"grants": []})

    async def revoke_grant(self, principal: Principal, grant_id: str) -> Any:
        self.administered.append(("revoke", grant_id))
        return Scripted({"grant_id": grant_id})

    async def release(self, principal: Principal, cn: str) -> Any:
        self.administered.append(("release", cn))
        return Scripted({"cn": cn, "released": True})

    def stream(self, principal: Principal, after: int | None) -> AsyncGenerator[bytes]:
        async def frames() -> AsyncGenerator[bytes]:
            yield f"data: {principal.cn} {after}\n\n".encode()

        return frames()

    def admit_bridge(self, principal: Principal) -> None:
        self.require_role(principal, Role.BRIDGE)

    async def accept(self, principal: Principal, signed: Signed) -> None:
        self.administered.append((principal.cn, signed.body.decode()))
        if signed.signature != "good":
            message = "The signature is missing or wrong."
            raise BadSignatureError(message)

    async def decide_by_bridge(self, principal: Principal, request_id: str, **said: object) -> Any:
        self.administered.append((principal.cn, request_id, str(said["user"])))
        return Scripted({"request_id": request_id})

    async def relay_signal(self, principal: Principal, params: Mapping[str, JsonValue]) -> Any:
        self.administered.append((principal.cn, *params))
        return Scripted({"answer": None})

    async def record_refusal(
        self,
        error: HostAgentError,
        *,
        exchange_id: str,
        principal: Principal | None = None,
        certificate: PeerCertificate | None = None,
        operation: str | None = None,
    ) -> None:
        caller = principal.cn if principal is not None else None
        if principal is None and certificate is not None:
            caller = certificate.common_name
        self.refusals.append(Refusal(error.code, exchange_id, caller, operation))

    async def refresh_gauges(self) -> None:
        """Do nothing."""

    def _find(self, principal: Principal, request_id: str) -> dict[str, object]:
        request = self.requests.get(request_id)
        if request is None or (
            Role.CALLER in principal.roles and request["caller"] != principal.cn
        ):
            raise RequestNotFoundError("There is no such request.")
        return request


class FakeMetrics:
    """Renders one line."""

    def render(self) -> bytes:
        return b"host_agent_up 1\n"


@dataclass
class FakeAgent:
    """What `create_app` and `create_metrics_app` take."""

    pipeline: FakePipeline = field(default_factory=FakePipeline)
    rooms: FakeRooms = field(default_factory=FakeRooms)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    parts: dict[str, object] = field(
        default_factory=lambda: dict[str, object](store="ok", audit="ok", crl="ok")
    )

    async def sudoers(self) -> Any:
        return Scripted({"scan_ok": True, "entries": [], "scanned_at": "2026-11-20T22:00:00Z"})

    async def ready(self) -> Any:
        return Scripted(self.parts)
