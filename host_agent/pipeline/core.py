"""The pipeline's face: one object with the methods that the api calls."""

from host_agent.api.wire import OperationInfo, OperationList, OwnIdentity
from host_agent.audit.record import Event
from host_agent.audit.throttle import RefusalThrottle
from host_agent.canonical import JsonValue
from host_agent.errors import HostAgentError, IdentityError, PolicyError
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.authorize import require_role
from host_agent.pipeline.bridges import Bridging
from host_agent.pipeline.context import Rooms, audit_fields, record
from host_agent.pipeline.decide import Deciding
from host_agent.pipeline.enrolment import Enrolling
from host_agent.pipeline.events import Events, Streaming
from host_agent.pipeline.fatigue import Braking
from host_agent.pipeline.grants import Granting
from host_agent.pipeline.lifecycle import Approved
from host_agent.pipeline.replies import Hearing
from host_agent.pipeline.submit import Asking
from host_agent.pipeline.transitions import Transitions
from host_agent.pipeline.views import Showing


class Pipeline:
    """Submit, show, decide, cancel; identify and refuse. Everything else is behind it."""

    def __init__(self, rooms: Rooms, events: Events | None = None) -> None:
        self.rooms = rooms
        self.events = events or Events(rooms.metrics.event_sent)
        self.stream = Streaming(rooms, self.events).open
        self.transitions = Transitions(rooms)
        self.approved = Approved(rooms, self.transitions)
        self._asking = Asking(rooms, self.transitions, self.approved)
        self._deciding = Deciding(rooms, self.transitions, self.approved)
        self._showing = Showing(rooms, self.approved)
        self.deciding = self._deciding
        self.hearing = Hearing(rooms, self._deciding)
        bridging = Bridging(rooms, self._deciding, self.hearing)
        self.admit_bridge = bridging.admit_bridge
        self.accept = bridging.accept
        self.decide_by_bridge = bridging.decide_by_bridge
        self.relay_signal = bridging.relay_signal
        self._granting = Granting(rooms)
        self._braking = Braking(rooms)
        self._enrolling = Enrolling(rooms)
        self._throttle = RefusalThrottle()
        self.submit = self._asking.submit
        self.decide = self._deciding.decide
        self.decide_by_token = self._deciding.decide_by_token
        self.cancel = self._deciding.cancel
        self.show = self._showing.show
        self.list_requests = self._showing.list_requests
        self.list_grants = self._granting.list_grants
        self.revoke_grant = self._granting.revoke_grant
        self.release = self._braking.release
        self.identity_changed = self._enrolling.identity_changed
        self.approvers = self._enrolling.approvers
        self.offer_enrolment = self._enrolling.offer_enrolment

    async def end_unwelcome(self) -> None:
        """End what was begun with certificates that are not welcome any more, and say so.

        Pending requests are cancelled, grants of givers who are over for good are revoked. What
        else they said or began is asked anew wherever it would count.

        Raises:
            StoreUnavailableError: it has to be tried again.
        """
        await self.approved.cancel_callers_gone()
        await self._granting.revoke_void()

    # -- who --------------------------------------------------------------------------------------

    def identify(self, certificate: PeerCertificate) -> Principal:
        """Return the principal behind a verified certificate, as things are now.

        Asked for every request of an open connection: a reload or a new CRL bites on the next one.

        Raises:
            IdentityError: unknown, revoked, expired, not as pinned, or revocation cannot be asked.
        """
        rooms, now = self.rooms, self.rooms.clock.wall()
        return rooms.snapshot.registry.recall(rooms.revocation.check(certificate, now))

    def require_role(self, principal: Principal, *roles: Role) -> None:
        """Refuse a principal that has none of `roles`.

        Raises:
            RoleRequiredError: naming the roles that the route takes.
        """
        require_role(principal, *roles)

    def admit_ask(self, principal: Principal) -> None:
        """Refuse who is not a caller, or asks too often.

        Raises:
            RoleRequiredError, RateLimitedError: as said.
        """
        self.require_role(principal, Role.CALLER)
        self.rooms.limits.ask(principal.cn, self.rooms.clock.monotonic())

    def admit_decision(self, principal: Principal) -> None:
        """Refuse who is not an approver or admin, or decides too often.

        Raises:
            RoleRequiredError, RateLimitedError: as said.
        """
        self.require_role(principal, Role.APPROVER, Role.ADMIN)
        self.rooms.limits.decision(principal.cn, self.rooms.clock.monotonic())

    def whoami(self, principal: Principal) -> OwnIdentity:
        """Return which identity this is here, whom it acts for, and the host's own name."""
        return OwnIdentity(
            cn=principal.cn,
            owner=principal.owner,
            roles=tuple(sorted(role.value for role in principal.roles)),
            autonomy=principal.autonomy.value,
            host=self.rooms.snapshot.config.host,
        )

    def operations(self, principal: Principal) -> OperationList:
        """Return what there is to ask for, and what policy would say to this principal."""
        rules = self.rooms.snapshot.rules
        return OperationList(
            operations=tuple(
                OperationInfo(
                    name=spec.name,
                    effect=spec.effect.value,
                    summary=spec.summary,
                    parameters=spec.parameters.model_json_schema(),
                    verdict=rules.summary(principal, spec),
                )
                for spec in self.rooms.catalogue
                if self.rooms.snapshot.section(spec) is not None
            )
        )

    # -- refusals ---------------------------------------------------------------------------------

    async def record_refusal(
        self,
        error: HostAgentError,
        *,
        exchange_id: str,
        principal: Principal | None = None,
        certificate: PeerCertificate | None = None,
        operation: str | None = None,
    ) -> None:
        """Count a refusal and write it down, at most ten a second for one identity.

        Never raises: the refusal stands whether or not it can be written.
        """
        rooms = self.rooms
        rooms.metrics.refused(error.code)
        cn, fingerprint, owner = None, None, None
        if principal is not None:
            cn, fingerprint, owner = principal.cn, principal.fingerprint, principal.owner
        elif certificate is not None:
            cn, fingerprint = certificate.common_name, certificate.fingerprint
        fields = audit_fields(
            request_id=exchange_id,
            caller=cn,
            fingerprint=fingerprint,
            owner=owner,
            operation=operation,
        )
        fields |= error.about
        counted = self._throttle.admit(str(fields.get("fingerprint", "")), rooms.clock.monotonic())
        if counted is None:
            return
        if counted:
            fields["suppressed"] = counted
        event = Event.REQUEST_REFUSED
        if isinstance(error, IdentityError):
            event = Event.IDENTITY_REFUSED
        elif isinstance(error, PolicyError):
            event = Event.POLICY_DENIED
        await self._write(event, fields, error.code)

    async def record_suppressed(self, *, everything: bool = False) -> None:
        """Write the counts of refusals that were too many to write one by one."""
        for entry in self._throttle.due(self.rooms.clock.monotonic(), everything=everything):
            fields: dict[str, JsonValue] = {"suppressed": entry.count}
            if entry.identity:
                fields["fingerprint"] = entry.identity
            await self._write(Event.REQUEST_REFUSED, fields, None)

    async def _write(self, event: Event, fields: dict[str, JsonValue], code: str | None) -> None:
        await record(self.rooms, event, f"a refusal ({code})", **{**fields, "code": code})

    # -- health -----------------------------------------------------------------------------------

    async def refresh_gauges(self) -> None:
        """Bring the gauges that are read from the store up to date, for a scrape."""
        count, oldest = await self.rooms.store.pending_stats()
        age = 0.0 if oldest is None else (self.rooms.clock.now() - oldest).total_seconds()
        self.rooms.metrics.pending(count, age)
        self.rooms.metrics.notifications_waiting(await self.rooms.store.waiting_notifications())
