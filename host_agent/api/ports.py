"""What the routes ask of the agent: the pipeline, the catalogue and readiness, as ports."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Protocol

from host_agent.api.wire import (
    ApproverList,
    Enrolment,
    GrantList,
    GrantView,
    OperationList,
    OwnIdentity,
    Readiness,
    Released,
    RequestPage,
    RequestView,
    SignalAnswer,
    SudoersReport,
)
from host_agent.canonical import JsonValue
from host_agent.errors import HostAgentError
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Catalogue
from host_agent.pipeline.bridges import Signed
from host_agent.pipeline.responses import Answer, Failed
from host_agent.pipeline.submit import Ask


class PipelinePort(Protocol):
    """What the routes ask of the pipeline."""

    def identify(self, certificate: PeerCertificate) -> Principal:
        """Return who a certificate is now; raises `IdentityError`."""
        ...

    def admit_ask(self, principal: Principal) -> None:
        """Refuse who may not ask, or asks too often."""
        ...

    def admit_decision(self, principal: Principal) -> None:
        """Refuse who may not decide, or decides too often."""
        ...

    def require_role(self, principal: Principal, *roles: Role) -> None:
        """Refuse who has none of `roles`."""
        ...

    def whoami(self, principal: Principal) -> OwnIdentity:
        """Return who this principal is on this host."""
        ...

    def operations(self, principal: Principal) -> OperationList:
        """Return what there is to ask for."""
        ...

    @property
    def submit(self) -> Callable[[Principal, Ask], Awaitable[Answer | Failed]]:
        """Run, hold or refuse one ask."""
        ...

    @property
    def show(self) -> Callable[..., Awaitable[RequestView]]:
        """Return one request, perhaps once it has changed."""
        ...

    @property
    def list_requests(self) -> Callable[..., Awaitable[RequestPage]]:
        """Return a page of requests."""
        ...

    @property
    def decide(self) -> Callable[..., Awaitable[RequestView]]:
        """Take a decision."""
        ...

    @property
    def decide_by_token(self) -> Callable[[Principal, str, str], Awaitable[RequestView]]:
        """Take an approval of the older form."""
        ...

    @property
    def cancel(self) -> Callable[..., Awaitable[RequestView]]:
        """Withdraw a request."""
        ...

    @property
    def approvers(self) -> Callable[[Principal], Awaitable[ApproverList]]:
        """Return who approves, and how each is reached."""
        ...

    @property
    def offer_enrolment(self) -> Callable[[Principal, str, str], Awaitable[Enrolment]]:
        """Make a one-time code by which an owner enrols over a channel."""
        ...

    @property
    def list_grants(self) -> Callable[[Principal], Awaitable[GrantList]]:
        """Return the grants of the last 30 days."""
        ...

    @property
    def revoke_grant(self) -> Callable[[Principal, str], Awaitable[GrantView]]:
        """End a grant."""
        ...

    @property
    def release(self) -> Callable[[Principal, str], Awaitable[Released]]:
        """End the hold-off of an identity."""
        ...

    @property
    def stream(self) -> Callable[[Principal, int | None], AsyncGenerator[bytes]]:
        """Begin a stream of events."""
        ...

    @property
    def admit_bridge(self) -> Callable[[Principal], None]:
        """Refuse who is no bridge, or relays too often."""
        ...

    @property
    def accept(self) -> Callable[[Principal, Signed], Awaitable[None]]:
        """Refuse what a bridge did not sign just now, or has sent before."""
        ...

    @property
    def decide_by_bridge(self) -> Callable[..., Awaitable[RequestView]]:
        """Take a decision that a bridge relays."""
        ...

    @property
    def relay_signal(
        self,
    ) -> Callable[[Principal, Mapping[str, JsonValue]], Awaitable[SignalAnswer]]:
        """Take a message that a bridge relays from Signal."""
        ...

    async def record_refusal(
        self,
        error: HostAgentError,
        *,
        exchange_id: str,
        principal: Principal | None = None,
        certificate: PeerCertificate | None = None,
        operation: str | None = None,
    ) -> None:
        """Count a refusal and write it down; never raises."""
        ...


class RoomsPort(Protocol):
    """What the routes ask of the rooms."""

    @property
    def catalogue(self) -> Catalogue:
        """What can be asked."""
        ...


class AgentPort(Protocol):
    """What the routes ask of the agent."""

    @property
    def pipeline(self) -> PipelinePort:
        """The way of a request."""
        ...

    @property
    def rooms(self) -> RoomsPort:
        """The rooms behind the pipeline."""
        ...

    async def ready(self) -> Readiness:
        """Return the state of each part."""
        ...

    async def sudoers(self) -> SudoersReport:
        """Return what sudo grants that is not known to be safe."""
        ...
