"""A person answers: approve, deny, cancel. The state moves by compare-and-set, then it is told.

Step 7 of the way of a request. The approver is whoever the channel proved, never a body field.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from datetime import timedelta
from weakref import WeakValueDictionary

from host_agent.approvals import codes
from host_agent.approvals import request as machine
from host_agent.approvals.request import (
    Decision,
    Problem,
    Request,
    RequestId,
    State,
    Verb,
)
from host_agent.audit.record import Event
from host_agent.errors import (
    AlreadyDecidedError,
    AuditUnavailableError,
    HostAgentError,
    RateLimitedError,
    RequestNotFoundError,
    TargetChangedError,
)
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.approved import Approved
from host_agent.pipeline.judging import as_now
from host_agent.pipeline.rooms import Rooms, identify_request
from host_agent.pipeline.showing import NOT_FOUND, view_for

_log = logging.getLogger("host_agent.pipeline")

CHECK_SECONDS = 1.0
"""How long a decision waits to see whether the target has changed; never for the run itself."""
WRONG_CODES, WRONG_CODES_WINDOW = 5, timedelta(minutes=10)
MAX_MUTED = 10_000


class Deciding:
    """Takes decisions and cancellations. One instance lives as long as the agent."""

    def __init__(self, rooms: Rooms, approved: Approved) -> None:
        self._rooms = rooms
        self._approved = approved
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._speaking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def decide(
        self,
        principal: Principal,
        request_id: str,
        *,
        decision: Verb,
        digest: str | None,
        reason: str | None,
        channel: str,
    ) -> dict[str, object]:
        """Record one decision and return the request as GET shows it.

        Raises:
            RequestNotFoundError: no such id, or a prefix of several.
            ApprovalError: it is decided, expired, somebody's own, or for another digest.
            RoleRequiredError: this approver does not count for it.
        """
        principal = as_now(self._rooms, principal, Role.APPROVER, Role.ADMIN)
        request = await self._rooms.store.find(request_id)
        try:
            decided = await self._rooms.tasks.shielded(
                self._decide(
                    principal,
                    request,
                    decision=decision,
                    digest=digest,
                    reason=reason,
                    channel=channel,
                ),
                name=f"decide {request.id}",
            )
        except HostAgentError as error:
            error.about = {**identify_request(request), "decision": decision.value, **error.about}
            error.about |= {"caller": principal.cn, "fingerprint": principal.fingerprint}
            error.about |= {"owner": principal.owner, "channel": channel, "reason": reason}
            if isinstance(error, AlreadyDecidedError | TargetChangedError):
                latest = await self._rooms.store.get(request.id) or request
                error.members["request"] = view_for(principal, latest)
            raise
        return view_for(principal, decided)

    async def _decide(
        self,
        principal: Principal,
        request: Request,
        *,
        decision: Verb,
        digest: str | None,
        reason: str | None,
        channel: str,
    ) -> Request:
        rooms = self._rooms
        while True:
            now = rooms.clock.now()
            if request.is_expired(now) and request.state is State.PENDING:
                request = await self._approved.expire(request)
            spoken = Decision(
                approver=principal.cn,
                owner=principal.owner,
                decision=decision,
                channel=channel,
                at=now,
                reason=reason,
                fingerprint=principal.fingerprint,
                serial=f"{principal.serial:x}",
            )
            roles = [role.value for role in principal.roles]
            decided = machine.decide(request, spoken, roles=roles, digest=digest, now=now)
            if await rooms.store.transition(decided, expected_version=request.version):
                break
            request = await self._latest(request)
        # In the order in which they were stored: nothing runs by a voice while one before it is
        # not written down, and may yet be taken back.
        async with self._speaking.setdefault(request.id, asyncio.Lock()):
            await self._tell(decided, spoken)
        if decided.state is not State.APPROVED:
            return decided
        return await self._run_and_look(decided)

    async def _tell(self, decided: Request, spoken: Decision) -> None:
        rooms = self._rooms
        rooms.changes.tell(decided.id)
        seconds = (spoken.at - decided.created_at).total_seconds()
        rooms.metrics.decided(spoken.decision.value, spoken.channel, seconds)
        try:
            await rooms.audit.append(
                Event.REQUEST_DECIDED,
                **identify_request(decided),
                approver=spoken.approver,
                approver_owner=spoken.owner,
                decision=spoken.decision.value,
                channel=spoken.channel,
                state=decided.state.value,
                reason=spoken.reason,
            )
        except AuditUnavailableError as error:
            if spoken.decision is Verb.APPROVE:
                # A yes that is not written down is no yes.
                await self._void(decided, error)
                raise
            _log.critical("the denial of request %s is not in the audit log", decided.id)
        self._approved.pending_changed()

    async def _void(self, decided: Request, error: HostAgentError) -> None:
        """End a request with an unwritten consent, also where another voice came since."""
        problem = Problem(code=error.code, detail=error.detail)
        request = decided
        while request.state in {State.PENDING, State.APPROVED}:
            end = machine.fail if request.state is State.APPROVED else machine.cancel
            ended = end(request, problem=problem, now=self._rooms.clock.now())
            if await self._rooms.store.transition(ended, expected_version=request.version):
                break
            request = await self._latest(request)
        self._rooms.changes.tell(decided.id)

    async def _run_and_look(self, approved: Request) -> Request:
        """Start the run; if it is refused at once because the target changed, say so here."""
        change = self._rooms.changes.watch(approved.id)
        run = self._approved.start(approved)
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
    ) -> dict[str, object]:
        """Approve with a code that was sent to this approver, or with the request's digest.

        Raises:
            DigestMismatchError: the token is neither.
            RateLimitedError: five wrong codes in ten minutes.
        """
        request = await self._rooms.store.find(approval_id)
        is_code = not token.startswith("sha256:") and await self._is_code(principal, request, token)
        digest = request.digest if is_code else token
        # Nothing is waited for between this and the count: many at once get no more tries.
        self._refuse_muted(principal)
        if digest != request.digest and request.state is State.PENDING:
            self._count_wrong(principal)
        return await self.decide(
            principal, request.id, decision=Verb.APPROVE, digest=digest, reason=None, channel="http"
        )

    async def _is_code(self, principal: Principal, request: Request, token: str) -> bool:
        sent = await self._rooms.store.codes(request.id)
        matches = [
            codes.matches(token, hashed) for owner, hashed in sent if owner == principal.owner
        ]
        return any(matches)

    def _refuse_muted(self, principal: Principal) -> None:
        wrong = self._wrong.get(principal.cn)
        if not wrong:
            return
        oldest_that_counts = self._rooms.clock.monotonic() - WRONG_CODES_WINDOW.total_seconds()
        while wrong and wrong[0] <= oldest_that_counts:
            wrong.popleft()
        if len(wrong) >= WRONG_CODES:
            message = "Too many wrong codes; this approver is not listened to for a while."
            left = wrong[0] - oldest_that_counts
            raise RateLimitedError(message, retry_after_seconds=left)

    def _count_wrong(self, principal: Principal) -> None:
        wrong = self._wrong.setdefault(principal.cn, deque(maxlen=WRONG_CODES))
        wrong.append(self._rooms.clock.monotonic())
        self._wrong.move_to_end(principal.cn)
        while len(self._wrong) > MAX_MUTED:
            self._wrong.popitem(last=False)

    # -- cancel -----------------------------------------------------------------------------------

    async def cancel(
        self, principal: Principal, request_id: str, *, reason: str | None
    ) -> dict[str, object]:
        """Withdraw a request: its caller's own, or any for an admin.

        Raises:
            RequestNotFoundError: it is somebody else's, or does not exist.
            AlreadyDecidedError: it has left `pending` and `approved`.
        """
        principal = as_now(self._rooms, principal)
        whose = None if Role.ADMIN in principal.roles else principal.cn
        request = await self._rooms.store.find(request_id, caller=whose)
        try:
            return view_for(principal, await self._cancel(principal, request, reason))
        except HostAgentError as error:
            error.about = {**identify_request(request), "caller": principal.cn, **error.about}
            raise

    async def _cancel(self, principal: Principal, request: Request, reason: str | None) -> Request:
        rooms = self._rooms
        while True:
            cancelled = machine.cancel(request, problem=None, now=rooms.clock.now())
            if await rooms.store.transition(cancelled, expected_version=request.version):
                break
            request = await self._latest(request)
        rooms.changes.tell(cancelled.id)
        self._approved.pending_changed()
        fields = identify_request(cancelled)
        try:
            await rooms.audit.append(
                Event.REQUEST_CANCELLED, **fields, cancelled_by=principal.cn, reason=reason
            )
        except AuditUnavailableError:
            # It is withdrawn, and that is what has to be told.
            _log.critical("the cancellation of request %s is not in the audit log", cancelled.id)
        return cancelled

    async def _latest(self, request: Request) -> Request:
        latest = await self._rooms.store.get(RequestId(request.id))
        if latest is None:
            raise RequestNotFoundError(NOT_FOUND)
        return latest
