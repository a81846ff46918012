"""What people answer over channels: read, held to who they are, decided, and answered in words.

The channel has proven the sender. Whatever is refused is answered, written down, and moves nothing.
Strangers are told nothing, but for an enrolment code.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from host_agent.audit.record import Event
from host_agent.audit.throttle import RefusalThrottle
from host_agent.canonical import JsonValue
from host_agent.config import CHANNELS
from host_agent.errors import (
    AlreadyDecidedError,
    AuditUnavailableError,
    DigestMismatchError,
    ExpiredError,
    HostAgentError,
    RateLimitedError,
    RequestNotFoundError,
    RoleRequiredError,
    SelfApprovalError,
    StoreUnavailableError,
    TargetChangedError,
    UnknownIdentityError,
)
from host_agent.identity.registry import Principal
from host_agent.notify.channel import ChannelReply
from host_agent.notify.prompts import short_id
from host_agent.notify.reply_parser import (
    ApproveReaction,
    Chatter,
    Confirm,
    Denial,
    Enrol,
    Unclear,
    Words,
    read,
    read_reaction,
)
from host_agent.pipeline.approver_identity import ApproverIdentity, identity_over, through
from host_agent.pipeline.context import Context, identify_request, record, refresh_contacts
from host_agent.pipeline.decide import Decisions
from host_agent.pipeline.fatigue import LONGEST_NOT_BEFORE
from host_agent.requests import codes
from host_agent.requests.model import Request, State, Verb, is_same_owner
from host_agent.requests.notification import CodeHash, Kind, Notification, Purpose
from host_agent.store.nonces import Spent

_log = logging.getLogger("host_agent.pipeline")

MAX_REMEMBERED = 2_000
"""References by which a message that comes over two ways, or twice, is known."""
CLOCKS_APART = timedelta(minutes=5)
"""How far a sender's clock may be from ours: an older message than its request is not about it."""
PRESSES_KEPT, MAX_PRESSES = timedelta(days=1), 10_000
"""By how long, and how many at once, a press is known again that the channel brings again."""
HOW = "Send CONFIRM and the code to approve, DENY and the code to deny."
_ENROL = "enrol"
"""What stands for `decision` in the audit log where somebody tried to enrol."""


class Replies:
    """Takes what channels bring. One instance lives as long as the agent."""

    def __init__(self, context: Context, decisions: Decisions) -> None:
        self._context = context
        self._decisions = decisions
        self._known: OrderedDict[str, None] = OrderedDict()
        self._throttle = RefusalThrottle()
        self._enrolling = asyncio.Lock()

    async def hear(self, reply: ChannelReply, *, bridge: Principal | None = None) -> str | None:
        """Return what to answer in the same chat, or None for nothing. Raises nothing.

        `bridge` is the one that relays it, where one does; then only a code decides.
        """
        if not self._is_new(f"{reply.channel} {reply.reference}"):
            return None
        words = read(reply.text) if reply.reaction is None else read_reaction(reply.reaction)
        try:
            return await self._answer(reply, words, bridge)
        except StoreUnavailableError:
            self._known.pop(f"{reply.channel} {reply.reference}", None)
            return "Nothing was done: the agent cannot store it now. Send it again in a while."
        except HostAgentError as error:
            return error.detail
        except Exception as error:  # noqa: BLE001 - a channel must go on; no text is logged
            _log.error("an answer over %s failed: %s", reply.channel, type(error).__name__)
            return "Nothing was done: the agent failed. Its administrator finds why in its log."

    def _is_new(self, reference: str) -> bool:
        if reference in self._known:
            return False
        self._known[reference] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return True

    async def _answer(
        self, reply: ChannelReply, words: Words, bridge: Principal | None
    ) -> str | None:
        if isinstance(words, Chatter):
            return None
        if CHANNELS[reply.channel].has_buttons:
            await self._press(reply, words)
            return None
        if isinstance(words, Enrol):
            if bridge is not None:
                return "Nobody was enrolled: a bridge cannot vouch for that."
            return await self._enrol(reply, words.code)
        owner = self._context.contacts.owner_at(reply.channel, reply.address)
        if owner is None:
            await self._strange(reply, words)
            return None
        approver = identity_over(self._context, owner, reply.channel, reply.address)
        if approver is None:
            return None
        if bridge is not None:
            approver, reply = through(approver, bridge), replace(reply, quotes=None)
        if isinstance(words, Confirm):
            return await self._by_code(approver, reply, words.code, Verb.APPROVE, None)
        if isinstance(words, Denial) and words.code is not None:
            until = self._not_before(words)
            return await self._by_code(approver, reply, words.code, Verb.DENY, words.reason, until)
        if isinstance(words, Denial) and reply.quotes is not None:
            return await self._by_quote(approver, reply, words.reason, self._not_before(words))
        if isinstance(words, ApproveReaction):
            is_prompt = await self._prompt_of(approver, reply) is not None
            why = "Nothing was approved: a thumb is no yes; that needs the code."
            return f"{why} {HOW}" if is_prompt else None
        if isinstance(words, Unclear):
            return f"Nothing was done: {words.why}. {HOW}"
        return f"Nothing was done: a denial without its code has to answer the prompt. {HOW}"

    def _not_before(self, words: Denial) -> datetime | None:
        """Return the instant that a denial names; a time of the day is the next one."""
        now = self._context.clock.now()
        if isinstance(words.wait, timedelta):
            return now + min(words.wait, LONGEST_NOT_BEFORE)
        if words.wait is None:
            return None
        today = now.astimezone(UTC).replace(
            hour=words.wait.hour, minute=words.wait.minute, second=0, microsecond=0
        )
        return today if today > now else today + timedelta(days=1)

    # -- decisions --------------------------------------------------------------------------------

    async def _by_code(
        self,
        approver: ApproverIdentity,
        reply: ChannelReply,
        code: str,
        verb: Verb,
        reason: str | None,
        not_before: datetime | None = None,
    ) -> str | None:
        found = await self._context.store.code(codes.hash_code(code))
        try:
            # Nothing is waited for between this and the count: many at once get no more tries.
            self._decisions.lockout.refuse(approver.key)
        except RateLimitedError as error:
            await self._refused(approver, verb, error, None)
            raise
        if found is None or found.purpose is not Purpose.CONFIRM:
            self._decisions.lockout.count(approver.key)
            message = "Nothing was done: that code is not known. Look at the newest message."
            await self._refused(approver, verb, DigestMismatchError(message), None)
            return message
        if found.owner != approver.owner:
            self._decisions.lockout.count(approver.key)
            message = "Nothing was done: that code was made for somebody else."
            await self._refused(approver, verb, DigestMismatchError(message), found.request_id)
            return message
        quoted = None if reply.quotes is None else await self._message_of(approver, reply)
        if quoted is not None and quoted.request_id != found.request_id:
            message = (
                "Nothing was done: that code is of another request than the message you answered. "
                "Answer the one that you mean, or send the code by itself."
            )
            await self._refused(approver, verb, DigestMismatchError(message), quoted.request_id)
            return message
        request = await self._context.store.get(found.request_id)
        if request is not None and _is_older(reply, request):
            return await self._too_old(approver, verb, request)
        return await self._decide(approver, found.request_id, verb, reason, not_before)

    async def _too_old(self, approver: ApproverIdentity, verb: Verb, request: Request) -> str:
        message = "Nothing was done: your message is older than the request. Is your clock right?"
        await self._refused(approver, verb, DigestMismatchError(message), request.id)
        return message

    async def _by_quote(
        self,
        approver: ApproverIdentity,
        reply: ChannelReply,
        reason: str | None,
        not_before: datetime | None,
    ) -> str | None:
        """Deny by an answer or a reaction to a prompt; never anything else."""
        row = await self._prompt_of(approver, reply)
        if row is None:
            return None if reply.reaction else f"Nothing was done: that is no prompt. {HOW}"
        request = await self._context.store.get(row.request_id)
        if request is None:
            return None
        if _is_older(reply, request):
            return await self._too_old(approver, Verb.DENY, request)
        return await self._decide(approver, request.id, Verb.DENY, reason, not_before)

    async def _prompt_of(
        self, approver: ApproverIdentity, reply: ChannelReply
    ) -> Notification | None:
        """Return the prompt of this person that the message quotes or reacts to."""
        row = await self._message_of(approver, reply)
        return row if row is not None and row.kind is Kind.PROMPT else None

    async def _message_of(
        self, approver: ApproverIdentity, reply: ChannelReply
    ) -> Notification | None:
        """Return what was sent to this person and is quoted or reacted to, prompt or outcome."""
        return await self._context.store.prompt_by_reference(
            approver.owner, approver.channel, reply.quotes or ""
        )

    async def _press(self, reply: ChannelReply, words: Words) -> None:
        """Take a button: its token says who, and may only deny. Nobody reads an answer there."""
        if not isinstance(words, Denial) or words.code is None:
            return
        found = await self._context.store.code(codes.hash_code(words.code))
        if found is None or not _is_of_button(found, reply):
            if reply.sent_at > self._context.clock.now() - CLOCKS_APART:  # a start hears old ones
                who: dict[str, JsonValue] = {"channel": reply.channel}
                code = DigestMismatchError.code
                await self._record(reply.channel, who, Verb.DENY.value, code)
            return
        approver = identity_over(self._context, found.owner, reply.channel, None)
        request = await self._context.store.get(found.request_id)
        if approver is None or request is None:
            return
        if request.state is State.PENDING:
            await self._decide(approver, request.id, Verb.DENY, None)
            await self._is_first(reply)
        elif await self._is_first(reply):
            await self._decide(approver, request.id, Verb.DENY, None)

    async def _is_first(self, reply: ChannelReply) -> bool:
        """Return whether a press comes for the first time: a start hears those of hours again."""
        now = self._context.clock.wall()
        spent = await self._context.store.spend_nonce(
            f"heard over {reply.channel}",
            reply.reference,
            expires_at=now + PRESSES_KEPT,
            now=now,
            capacity=MAX_PRESSES,
        )
        return spent is not Spent.REPLAYED

    async def _decide(
        self,
        approver: ApproverIdentity,
        request_id: str,
        verb: Verb,
        reason: str | None,
        not_before: datetime | None = None,
    ) -> str:
        request = await self._context.store.get(request_id)
        if request is None:
            return "Nothing was done: that request is not kept any more."
        try:
            decided = await self._decisions.decide_as(
                approver,
                request_id,
                decision=verb,
                digest=request.digest,
                reason=reason,
                not_before=not_before,
            )
        except TargetChangedError as error:
            # The answer counted; it is the run that was refused, and that is written down already.
            return f"Approved, but not run: {_what(request)}: {error.detail}"
        except StoreUnavailableError:
            raise
        except HostAgentError as error:
            await self._refused(approver, verb, error, request_id)
            latest = await self._context.store.get(request_id) or request
            return _refusal(error, latest, approver.owner)
        until = None if not_before is None else decided.decisions[-1].not_before
        return f"{_done(decided, verb)}{_told_until(until)}"

    async def _refused(
        self, approver: ApproverIdentity, verb: Verb, error: HostAgentError, request_id: str | None
    ) -> None:
        """Count an answer that was refused, and write it down."""
        who: dict[str, JsonValue] = {"approver_owner": approver.owner, "channel": approver.channel}
        if approver.through is not None:
            who["through"] = approver.through
        key = f"{approver.channel} {approver.owner}"
        await self._record(key, who, verb.value, error.code, request_id)

    async def _strange(self, reply: ChannelReply, words: Words) -> None:
        """Write down that somebody tried to decide whom nobody has enrolled. They hear nothing."""
        match words:
            case Confirm(code=code):
                verb = Verb.APPROVE
            case Denial(code=str(code)):
                verb = Verb.DENY
            case _:
                return
        who: dict[str, JsonValue] = {"channel": reply.channel}
        found = await self._context.store.code(codes.hash_code(code))
        request_id = None if found is None else found.request_id
        await self._record(reply.channel, who, verb.value, UnknownIdentityError.code, request_id)

    async def _record(
        self,
        key: str,
        who: dict[str, JsonValue],
        decision: str,
        code: str,
        request_id: str | None = None,
    ) -> None:
        """Write down a refusal, at most ten a second of one `key`, which is not written.

        No confirmation code, token or address is in it.
        """
        self._context.metrics.refused(code)
        counted = self._throttle.admit(key, self._context.clock.monotonic())
        if counted is None:
            return
        if request_id is not None:
            request = await self._context.store.get(request_id)
            who |= {"request_id": request_id} if request is None else identify_request(request)
        if counted:
            who["suppressed"] = counted
        what = f"a refused answer ({code})"
        await record(
            self._context, Event.DECISION_REFUSED, what, **who, decision=decision, code=code
        )

    # -- enrolment --------------------------------------------------------------------------------

    async def _enrol(self, reply: ChannelReply, code: str) -> str:
        async with self._enrolling:
            # One after the other: many at once get no more tries.
            enrolling = self._enrol_next(reply, code)
            return await self._context.tasks.shielded(enrolling, name="enrol over a channel")

    async def _enrol_next(self, reply: ChannelReply, code: str) -> str:
        context, key = self._context, f"{reply.channel}:{reply.address}"
        who: dict[str, JsonValue] = {"channel": reply.channel}
        try:
            self._decisions.lockout.refuse(key)
        except RateLimitedError as error:
            await self._record(reply.channel, who, _ENROL, error.code)
            raise
        if any(
            entry.address(reply.channel) == reply.address
            for entry in context.contacts.entries.values()
        ):
            await self._record(reply.channel, who, _ENROL, RoleRequiredError.code)
            return "Nobody was enrolled: the configuration says already whose address this is."
        contact = await context.store.enrol(
            reply.channel, reply.address, code_hash=codes.hash_code(code), now=context.clock.now()
        )
        if contact is None:
            self._decisions.lockout.count(key)
            await self._record(reply.channel, who, _ENROL, UnknownIdentityError.code)
            return "Nobody was enrolled: that code is not known, or its time is over."
        try:
            await context.audit.append(
                Event.APPROVER_ENROLLED, approver_owner=contact.owner, channel=contact.channel
            )
        except AuditUnavailableError as error:
            # Who decides must be on record: without that the enrolment does not stand.
            await refresh_contacts(context)
            return error.detail
        await context.store.put_contact(replace(contact, disabled=None))
        await refresh_contacts(context)
        if context.contacts.owner_at(reply.channel, reply.address) != contact.owner:
            return f"Enrolled, but the configuration does not reach {contact.owner} over this."
        return f"This address now answers for {contact.owner}. {HOW}"


def _is_older(reply: ChannelReply, request: Request) -> bool:
    """Return whether a message was sent before its request was made, so is not about it."""
    return reply.sent_at < request.created_at - CLOCKS_APART


def _is_of_button(found: CodeHash, reply: ChannelReply) -> bool:
    return found.channel == reply.channel and found.purpose is Purpose.DENY


# -- words ----------------------------------------------------------------------------------------


def _what(request: Request) -> str:
    return f"{request.operation} ({short_id(request)})"


def _done(request: Request, verb: Verb) -> str:
    match verb:
        case Verb.DENY:
            return f"Denied: {_what(request)}. Nothing was run."
        case Verb.APPROVE if request.state is State.PENDING:
            given, needed = request.agreeing, request.terms.approvals
            return f"Taken: {_what(request)} has {given} of {needed} approvals and still waits."
        case Verb.APPROVE:
            return f"Approved: {_what(request)}. What became of it is told here."
        case _:
            assert_never(verb)


def _told_until(not_before: datetime | None) -> str:
    if not_before is None:
        return ""
    return f" Nobody is asked for it again before {not_before:%Y-%m-%d %H:%M} UTC."


def _refusal(error: HostAgentError, request: Request, owner: str) -> str:
    """Return why an answer did not count, and how things stand."""
    what = _what(request)
    if isinstance(error, ExpiredError) or request.state is State.EXPIRED:
        return f"Too late: {what} expired; nothing was run. It has to be asked for again."
    if isinstance(error, SelfApprovalError) and is_same_owner(owner, request.owner):
        return f"Not counted: {what} was asked for on your own behalf; somebody else has to answer."
    if isinstance(error, AlreadyDecidedError):
        if request.state is State.PENDING:
            return f"You have answered {what} already; another person has to as well."
        return f"Already decided: {what} {_stands(request, owner)}."
    if isinstance(error, RateLimitedError | RequestNotFoundError):
        return error.detail
    return f"Not counted: {what}: {error.detail}"


_DONE: Mapping[Verb, str] = {Verb.APPROVE: "approved", Verb.DENY: "denied"}


def _stands(request: Request, owner: str) -> str:
    last = request.decisions[-1] if request.decisions else None
    by = ""
    if last is not None:
        who = "you" if last.owner == owner else last.owner
        by = f", {_DONE[last.decision]} by {who}"
    return f"is {request.state.value.replace('_', ' ')}{by}"
