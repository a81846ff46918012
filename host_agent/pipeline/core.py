"""The pipeline as one object: its services, and what is asked of every exchange."""

from collections.abc import Callable

from host_agent.api.wire.operations import OperationList
from host_agent.api.wire.people import OwnIdentity
from host_agent.audit.record import Event
from host_agent.audit.throttle import RefusalThrottle
from host_agent.canonical import JsonValue
from host_agent.errors import HostAgentError, IdentityError, PolicyError
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.authorize import require_role
from host_agent.pipeline.bridges import Bridges
from host_agent.pipeline.context import Context, audit_fields, record
from host_agent.pipeline.decide import Decisions
from host_agent.pipeline.discovery import discover
from host_agent.pipeline.enrolment import Enrolments
from host_agent.pipeline.events import Events, Streams
from host_agent.pipeline.fatigue import Fatigue
from host_agent.pipeline.grants import Grants
from host_agent.pipeline.lifecycle import Lifecycle
from host_agent.pipeline.replies import Replies
from host_agent.pipeline.submit import Submissions
from host_agent.pipeline.transitions import Transitions
from host_agent.pipeline.views import Views
from host_agent.policy.limits import Limits


class Pipeline:
    """The services by what they are about; who asks, what is refused, and what is measured."""

    def __init__(self, context: Context, events: Events | None = None) -> None:
        self.context = context
        self.events = events or Events(context.metrics.event_sent)
        self.streams = Streams(context, self.events)
        self.transitions = Transitions(context)
        self.lifecycle = Lifecycle(context, self.transitions)
        self.asks = Submissions(context, self.transitions, self.lifecycle)
        self.decisions = Decisions(context, self.transitions, self.lifecycle)
        self.views = Views(context, self.lifecycle)
        self.replies = Replies(context, self.decisions)
        self.bridges = Bridges(context, self.decisions, self.replies)
        self.grants = Grants(context)
        self.fatigue = Fatigue(context)
        self.enrolment = Enrolments(context)
        self._throttle = RefusalThrottle()

    async def end_unwelcome(self) -> None:
        """End what was begun with certificates that are not welcome any more, and say so.

        Pending requests are cancelled, grants of givers who are over for good are revoked. What
        else they said or began is asked anew wherever it would count.

        Raises:
            StoreUnavailableError: it has to be tried again.
        """
        await self.lifecycle.cancel_callers_gone()
        await self.grants.revoke_void()

    # -- who --------------------------------------------------------------------------------------

    def identify(self, certificate: PeerCertificate) -> Principal:
        """Return the principal behind a verified certificate, as things are now.

        Asked for every request of an open connection: a reload or a new CRL bites on the next one.

        Raises:
            IdentityError: unknown, revoked, expired, not as pinned, or revocation cannot be asked.
        """
        context, now = self.context, self.context.clock.wall()
        return context.snapshot.registry.recall(context.revocation.check(certificate, now))

    def admit(
        self,
        principal: Principal,
        *roles: Role,
        rate: Callable[[Limits, str, float], None] | None = None,
    ) -> None:
        """Refuse who has none of `roles`, where some are given, or comes more often than `rate`.

        Raises:
            RoleRequiredError, RateLimitedError: as said.
        """
        if roles:
            require_role(principal, *roles)
        if rate is not None:
            rate(self.context.limits, principal.cn, self.context.clock.monotonic())

    def whoami(self, principal: Principal) -> OwnIdentity:
        """Return which identity this is here, whom it acts for, and the host's own name."""
        return OwnIdentity(
            cn=principal.cn,
            owner=principal.owner,
            roles=tuple(sorted(role.value for role in principal.roles)),
            autonomy=principal.autonomy.value,
            host=self.context.snapshot.config.host,
        )

    def operations(self, principal: Principal) -> OperationList:
        """Return what this principal can ask for, with the values that it may name."""
        return discover(self.context.catalogue, self.context.snapshot, principal)

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
        context = self.context
        context.metrics.refused(error.code)
        cn, fingerprint, owner = None, None, None
        if principal is not None:
            cn, fingerprint, owner = principal.cn, principal.fingerprint, principal.owner
        elif certificate is not None:
            cn, fingerprint = certificate.common_name, certificate.fingerprint
        fields = {
            "exchange_id": exchange_id,
            **audit_fields(caller=cn, fingerprint=fingerprint, owner=owner, operation=operation),
            **error.about,
        }
        counted = self._throttle.admit(
            str(fields.get("fingerprint", "")), context.clock.monotonic()
        )
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
        for entry in self._throttle.due(self.context.clock.monotonic(), everything=everything):
            fields: dict[str, JsonValue] = {"suppressed": entry.count}
            if entry.identity:
                fields["fingerprint"] = entry.identity
            await self._write(Event.REQUEST_REFUSED, fields, None)

    async def _write(self, event: Event, fields: dict[str, JsonValue], code: str | None) -> None:
        await record(self.context, event, f"a refusal ({code})", **{**fields, "code": code})

    # -- health -----------------------------------------------------------------------------------

    async def refresh_gauges(self) -> None:
        """Bring the gauges that are read from the store up to date, for a scrape."""
        count, oldest = await self.context.store.pending_stats()
        age = 0.0 if oldest is None else (self.context.clock.now() - oldest).total_seconds()
        self.context.metrics.pending(count, age)
        self.context.metrics.notifications_waiting(await self.context.store.waiting_notifications())
