"""Bridges: programs with a certificate of their own that relay what people answered.

Three things prove a relayed answer: the bridge's certificate, its signature over exactly these
bytes, and its own table of users in the configuration. The answer is the user's own, with the
roles of their `[[approvers]]` entry, and never more than that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from host_agent.api.wire.people import SignalAnswer
from host_agent.api.wire.requests import RequestView
from host_agent.config.channels.registry import RELAYED
from host_agent.errors import (
    AlreadyDecidedError,
    BadSignatureError,
    DigestMismatchError,
    RoleRequiredError,
    SelfApprovalError,
    StoreUnavailableError,
    TargetChangedError,
)
from host_agent.identity.registry import Principal, Role
from host_agent.notify.relay import read_relayed
from host_agent.notify.signing import TOLERANCE_SECONDS, verify
from host_agent.pipeline.approver_identity import ApproverIdentity, identity_over, through
from host_agent.pipeline.authorize import as_now
from host_agent.pipeline.context import Context
from host_agent.pipeline.decide import Decisions
from host_agent.pipeline.replies import Replies
from host_agent.pipeline.views import facts_of
from host_agent.requests.facts import request_view
from host_agent.requests.model import GrantTerms, Request, Verb, is_same_owner
from host_agent.store.nonces import Spent

CHANNEL = RELAYED
MAX_NONCES = 10_000
"""Ids of one bridge that may be within their time at once. More are refused, none is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A body as it came, with the headers of its signature; None where one is missing."""

    message_id: str | None
    timestamp: str | None
    signature: str | None
    body: bytes


class Bridges:
    """Takes what bridges relay. One instance lives as long as the agent."""

    def __init__(self, context: Context, decisions: Decisions, replies: Replies) -> None:
        self._context = context
        self._decisions = decisions
        self._replies = replies

    async def accept(self, principal: Principal, signed: SignedMessage) -> None:
        """Return if the bridge signed these bytes just now, for the first time.

        The signature is verified before its id is spent, so nobody else can use ids up.

        Raises:
            BadSignatureError: the signature is missing, wrong, too old or new, or used before.
            StoreUnavailableError: too many ids are within their time, or they cannot be stored.
        """
        context = self._context
        secrets = context.bridge_secrets.get(principal.cn, ())
        verify(
            secrets,
            message_id=signed.message_id,
            timestamp=signed.timestamp,
            signature=signed.signature,
            body=signed.body,
            now=context.clock.wall(),
        )
        spent = await context.store.spend_nonce(
            f"bridge {principal.cn}",
            str(signed.message_id),
            expires_at=datetime.fromtimestamp(int(signed.timestamp or 0), UTC)
            + timedelta(seconds=TOLERANCE_SECONDS),
            now=context.clock.wall(),
            capacity=MAX_NONCES,
        )
        match spent:
            case Spent.NEW:
                return
            case Spent.REPLAYED:
                message = "This message was taken before; nothing was done. Sign a new one, new id."
                raise BadSignatureError(message)
            case Spent.FULL:
                message = (
                    "Too many messages within five minutes; nothing was done. Try again later."
                )
                raise StoreUnavailableError(message, retry_after_seconds=TOLERANCE_SECONDS)

    async def decide_by_bridge(
        self,
        principal: Principal,
        request_id: str,
        *,
        user: str,
        decision: Verb,
        digest: str | None,
        reason: str | None,
        grant: GrantTerms | None = None,
        not_before: datetime | None = None,
    ) -> RequestView:
        """Record the decision of a bridge's user and return the request without its output.

        Raises:
            RoleRequiredError: no bridge, or not a user of its table who is reached over it.
            SelfApprovalError: the user's owner is the caller's or the bridge's own, or the bridge
                acts for the caller's owner.
            ApprovalError: as of any decision.
        """
        principal = as_now(self._context, principal, Role.BRIDGE)
        approver = self._approver(principal, user)
        request = await self._context.store.find(request_id)
        if digest is not None and digest != request.digest:
            # A denial of something else that was shown is no denial of this.
            message = "This answer is for another digest; answer what is shown now."
            raise DigestMismatchError(message)
        try:
            decided = await self._decisions.decide_as(
                approver,
                request.id,
                decision=decision,
                digest=digest,
                reason=reason,
                grant=grant,
                not_before=not_before,
            )
        except (AlreadyDecidedError, TargetChangedError) as error:
            latest = await self._context.store.get(request.id) or request
            shown = self._view(latest).as_json()
            raise error.amended(members={"request": shown}) from error
        return self._view(decided)

    def _view(self, request: Request) -> RequestView:
        return request_view(facts_of(self._context, request), with_output=False)

    def _approver(self, principal: Principal, user: str) -> ApproverIdentity:
        bridge = self._context.snapshot.config.bridge(principal.cn)
        owner = None if bridge is None else bridge.approvers.get(user)
        if owner is None:
            message = "This bridge does not speak for that user."
            raise RoleRequiredError(message)
        if is_same_owner(owner, principal.owner):
            message = "The owner of a bridge cannot decide through it."
            raise SelfApprovalError(message)
        approver = identity_over(self._context, owner.casefold(), CHANNEL, None)
        if approver is None:
            message = f"That user is not reached by {CHANNEL} here, so has no voice over a bridge."
            raise RoleRequiredError(message)
        return through(approver, principal)

    async def relay_signal(
        self, principal: Principal, params: Mapping[str, object]
    ) -> SignalAnswer:
        """Take what signal-cli-rest-api posts of an arriving message; return what to answer.

        The older way in: the bridge vouches for the sender, and a code is asked for all the same,
        to deny too. Nobody is enrolled over it.

        Raises:
            RoleRequiredError: no bridge, or none of the configuration.
            InvalidParameterError: the channel that it relays is not configured here.
        """
        principal = as_now(self._context, principal, Role.BRIDGE)
        config = self._context.snapshot.config
        if config.bridge(principal.cn) is None:
            message = "This bridge has no [[bridges]] entry here."
            raise RoleRequiredError(message)
        heard = read_relayed(config.channels, params)
        if heard is None:
            return SignalAnswer(answer=None)
        return SignalAnswer(answer=await self._replies.hear(heard, bridge=principal))
