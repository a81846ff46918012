"""A person answers: approve, deny, cancel. The state moves by compare-and-set, then it is told.

Step 7 of the way of a request. The approver is whoever the channel proved, never a body field.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import replace
from datetime import datetime, timedelta

from host_agent.api.wire.requests import RequestView
from host_agent.audit.record import Event
from host_agent.clock import Clock
from host_agent.errors import (
    AlreadyDecidedError,
    HostAgentError,
    RateLimitedError,
    RequestError,
    SelfApprovalError,
    TargetChangedError,
    request_not_found,
)
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.approver_identity import ApproverIdentity, identity_of
from host_agent.pipeline.authorize import as_now
from host_agent.pipeline.context import Context, identify_request
from host_agent.pipeline.fatigue import checked_not_before, cooled_down_at, denials_of
from host_agent.pipeline.grants import make_grant, require_grantable
from host_agent.pipeline.lifecycle import Lifecycle
from host_agent.pipeline.transitions import Transitions
from host_agent.pipeline.views import facts_of, view_for
from host_agent.requests import codes
from host_agent.requests import model as machine
from host_agent.requests.model import (
    Decision,
    GrantTerms,
    Request,
    RequestId,
    State,
    Verb,
    is_same_owner,
)
from host_agent.requests.notification import Purpose
from host_agent.text import HASH_PREFIX

CHECK_SECONDS = 1.0
"""How long a decision waits to see whether the target has changed; never for the run itself."""

WRONG_CODES, WRONG_CODES_WINDOW = 5, timedelta(minutes=10)
MAX_LOCKED_OUT = 10_000


class CodeLockout:
    """Counts wrong codes by who sent them; memory is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def refuse(self, key: str) -> None:
        """Refuse who has sent too many wrong codes.

        Raises:
            RateLimitedError: five within ten minutes.
        """
        wrong = self._wrong.get(key)
        if not wrong:
            return
        oldest_that_counts = self._clock.monotonic() - WRONG_CODES_WINDOW.total_seconds()
        while wrong and wrong[0] <= oldest_that_counts:
            wrong.popleft()
        if len(wrong) >= WRONG_CODES:
            message = "Too many wrong codes; this approver is not listened to for a while."
            left = wrong[0] - oldest_that_counts
            raise RateLimitedError(message, retry_after_seconds=left)

    def count(self, key: str) -> None:
        """Count one wrong code."""
        wrong = self._wrong.setdefault(key, deque(maxlen=WRONG_CODES))
        wrong.append(self._clock.monotonic())
        self._wrong.move_to_end(key)
        while len(self._wrong) > MAX_LOCKED_OUT:
            self._wrong.popitem(last=False)


class Decisions:
    """Takes decisions and cancellations. One instance lives as long as the agent."""

    def __init__(self, context: Context, transitions: Transitions, lifecycle: Lifecycle) -> None:
        self._context = context
        self._transitions = transitions
        self._lifecycle = lifecycle
        self.lockout = CodeLockout(context.clock)

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
        not_before: datetime | None = None,
    ) -> RequestView:
        """Record the decision of a certificate and return the request as GET shows it.

        Raises:
            RequestNotFoundError: no such id, or a prefix of several.
            ApprovalError: it is decided, expired, somebody's own, or for another digest.
            RoleRequiredError: this approver does not count for it.
        """
        principal = as_now(self._context, principal, Role.APPROVER, Role.ADMIN)
        try:
            decided = await self.decide_as(
                identity_of(principal, channel),
                request_id,
                decision=decision,
                digest=digest,
                reason=reason,
                grant=grant,
                not_before=not_before,
            )
        except (AlreadyDecidedError, TargetChangedError) as error:
            latest = await self._context.store.find(request_id)
            shown = self._view(principal, latest).as_json()
            raise error.amended(members={"request": shown}) from error
        return self._view(principal, decided)

    def _view(self, principal: Principal, request: Request) -> RequestView:
        return view_for(principal, facts_of(self._context, request))

    async def decide_as(
        self,
        approver: ApproverIdentity,
        request_id: str,
        *,
        decision: Verb,
        digest: str | None,
        reason: str | None,
        grant: GrantTerms | None = None,
        not_before: datetime | None = None,
    ) -> Request:
        """Record one decision of an approver whom a way in has proven: the one door to one.

        With a denial, `not_before` may hold the same act off for longer than its cooldown does.

        Raises:
            HostAgentError: as `decide` does; its `about` is what the audit log needs.
        """
        request = await self._context.store.find(request_id)
        reason = None if reason is None else codes.masked(reason)
        try:
            return await self._context.tasks.shielded(
                self._decide(
                    approver,
                    request,
                    decision=decision,
                    digest=digest,
                    reason=reason,
                    grant=grant,
                    not_before=not_before,
                ),
                name=f"decide {request.id}",
            )
        except HostAgentError as error:
            about = {**identify_request(request), **_refused(approver, decision, reason)}
            raise error.amended(about=about) from error

    async def _decide(
        self,
        approver: ApproverIdentity,
        request: Request,
        *,
        decision: Verb,
        digest: str | None,
        reason: str | None,
        grant: GrantTerms | None,
        not_before: datetime | None,
    ) -> Request:
        context = self._context
        if not_before is not None:
            not_before = checked_not_before(not_before, context.clock.now())
        if any(is_same_owner(voucher, request.owner) for voucher in approver.vouchers):
            message = (
                "Who vouches for this answer, by a bridge or an enrolment, acts for the owner who"
                " asked; it does not count."
            )
            raise SelfApprovalError(message)
        if grant is not None:
            require_grantable(context, request, grant)
        plugin = context.plugin if decision is Verb.APPROVE else None
        while True:
            now = context.clock.now()
            if request.is_expired(now) and request.state is State.PENDING:
                request = await self._lifecycle.expire(request)
            spoken = _spoken(approver, decision, now, reason, grant)
            if decision is Verb.DENY:
                until = await self._held_off_until(request, not_before)
                spoken = replace(spoken, not_before=until)
            decided = machine.decide(request, spoken, roles=approver.roles, digest=digest, now=now)
            if plugin is not None:
                # It is asked once, about what would count; then everything is looked at anew.
                await plugin.require(request, spoken)
                plugin = None
                request = await self._latest(request)
                continue
            given = None
            if decided.state is State.APPROVED and grant is not None:
                given = make_grant(context, decided, now)
            if await self._transitions.move(request, decided, grant=given):
                break
            request = await self._latest(request)
        if decided.state is not State.APPROVED or context.is_draining:
            return decided  # an approval that comes while the agent ends is run at its next start
        return await self._run_and_look(decided)

    async def _held_off_until(
        self, request: Request, not_before: datetime | None
    ) -> datetime | None:
        """Return until when an act is held off that is denied now: as said, or by its cooldown."""
        context = self._context
        try:
            operation = context.catalogue.parse(request.operation, request.params)
        except RequestError:
            return not_before  # an older version took it; it cannot be asked again as it is
        denied = await denials_of(context, request.owner, operation)
        cooldowns = context.snapshot.config.approvals.denial_cooldowns_seconds
        cooled = cooled_down_at(cooldowns, denied.times, context.clock.now())
        return max((end for end in (not_before, cooled) if end is not None), default=None)

    async def _run_and_look(self, approved: Request) -> Request:
        """Start the run; if it is refused at once because the target changed, say so here."""
        change = self._context.changes.watch(approved.id)
        run = self._lifecycle.start(approved)
        try:
            await asyncio.wait(
                (run, change), timeout=CHECK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            change.cancel()
        latest = await self._latest(approved)
        problem = latest.problem
        if problem is not None and problem.code == TargetChangedError.code:
            raise TargetChangedError(problem.detail)
        return latest

    # -- the older route --------------------------------------------------------------------------

    async def decide_by_token(
        self, principal: Principal, approval_id: str, token: str
    ) -> RequestView:
        """Approve with a code that was sent to this approver, or with the request's digest.

        Raises:
            DigestMismatchError: the token is neither.
            RateLimitedError: five wrong codes in ten minutes.
        """
        request = await self._context.store.find(approval_id)
        is_code = not token.startswith(HASH_PREFIX) and await self._is_code(
            principal, request, token
        )
        digest = request.digest if is_code else token
        # Nothing is waited for between this and the count: many at once get no more tries.
        self.lockout.refuse(principal.cn)
        if digest != request.digest and request.state is State.PENDING:
            self.lockout.count(principal.cn)
        return await self.decide(
            principal, request.id, decision=Verb.APPROVE, digest=digest, reason=None, channel="http"
        )

    async def _is_code(self, principal: Principal, request: Request, token: str) -> bool:
        sent = await self._context.store.codes(request.id)
        matches = [
            codes.matches(token, code.code_hash)
            for code in sent
            if code.owner == principal.owner and code.purpose is Purpose.CONFIRM
        ]
        return any(matches)

    # -- cancel -----------------------------------------------------------------------------------

    async def cancel(
        self, principal: Principal, request_id: str, *, reason: str | None
    ) -> RequestView:
        """Withdraw a request: its caller's own, or any for an admin.

        Raises:
            RequestNotFoundError: it is somebody else's, or does not exist.
            AlreadyDecidedError: it has left `pending` and `approved`.
        """
        principal = as_now(self._context, principal)
        whose = None if Role.ADMIN in principal.roles else principal.cn
        request = await self._context.store.find(request_id, caller=whose)
        try:
            return self._view(principal, await self._cancel(principal, request, reason))
        except HostAgentError as error:
            about = {**identify_request(request), "caller": principal.cn}
            raise error.amended(about=about) from error

    async def _cancel(self, principal: Principal, request: Request, reason: str | None) -> Request:
        while True:
            cancelled = machine.cancel(request, problem=None, now=self._context.clock.now())
            if await self._transitions.move(
                request,
                cancelled,
                Event.REQUEST_CANCELLED,
                cancelled_by=principal.cn,
                reason=reason,
            ):
                return cancelled
            request = await self._latest(request)

    async def _latest(self, request: Request) -> Request:
        latest = await self._context.store.get(RequestId(request.id))
        if latest is None:
            raise request_not_found()
        return latest


def _refused(
    approver: ApproverIdentity, decision: Verb, reason: str | None
) -> dict[str, str | None]:
    """Return the audit fields of an answer that was refused: who gave it, and which."""
    return {
        "caller": approver.through or approver.name,
        "owner": approver.owner,
        "fingerprint": None if approver.credential is None else approver.credential.fingerprint,
        "decision": decision.value,
        "channel": approver.channel,
        "reason": reason,
    }


def _spoken(
    approver: ApproverIdentity,
    decision: Verb,
    now: datetime,
    reason: str | None,
    grant: GrantTerms | None,
) -> Decision:
    return Decision(
        approver=approver.name,
        owner=approver.owner,
        decision=decision,
        channel=approver.channel,
        at=now,
        reason=reason,
        credential=approver.credential,
        address=approver.address,
        through=approver.through,
        vouchers=approver.vouchers,
        grant=grant,
    )
