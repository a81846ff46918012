"""Requests, decisions and the state machine. Pure: the instant is an argument, nothing is stored.

`pending -> approved | denied | expired | cancelled`; `approved -> running | failed | expired |
cancelled`; `running -> succeeded | failed | timed_out | unknown`. A request is expired at
`now >= expires_at`, everywhere.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NewType, NoReturn, assert_never

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AlreadyDecidedError,
    ApprovalDeniedError,
    DigestMismatchError,
    ExpiredError,
    RoleRequiredError,
    SelfApprovalError,
    wait_for,
)
from host_agent.identity.credential import Credential
from host_agent.requests.state import LIVE as LIVE
from host_agent.requests.state import TRANSITIONS as TRANSITIONS
from host_agent.requests.state import State as State
from host_agent.requests.state import Verb as Verb
from host_agent.text import cut

RequestId = NewType("RequestId", str)
Digest = NewType("Digest", str)
MAX_WORDS = 400
"""So many characters of an approver's words stand in a sentence for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What an approver grants beyond this one run: for a time, or so many further runs.

    `resource` is a regular expression over whole resources; None is exactly the request's own.
    Exactly one of `for_seconds` and `count` is set.
    """

    for_seconds: int | None = None
    count: int | None = None
    resource: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One person's answer: who, acting for which owner, when, over which channel, and why.

    `approver` is the CN of the certificate that spoke; over a channel it is the owner. `address` is
    what the channel proved of the sender, `through` the CN of the bridge that relayed it.
    `credential` is the certificate that spoke or relayed, where one did: a consent counts only as
    long as that would be let in. `vouchers` are the owners on whose word it is who spoke: of the
    admin who enrolled the address, of the bridge that relayed. `not_before` is set on a denial:
    until then people are not asked for the same act again.
    """

    approver: str
    owner: str
    decision: Verb
    channel: str
    at: datetime
    reason: str | None = None
    credential: Credential | None = None
    address: str | None = None
    through: str | None = None
    vouchers: frozenset[str] = frozenset()
    grant: GrantTerms | None = None
    not_before: datetime | None = None

    @property
    def makers(self) -> frozenset[str]:
        """Return everybody who could have made this answer up, case-folded."""
        return frozenset(owner.casefold() for owner in (self.owner, *self.vouchers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who must say yes: fixed when the request is made, from the rule that asked.

    `approvals` different owners; `approvers` are the owners who count (None: all with the role);
    `approver_role` is `approver` or `admin`.
    """

    approvals: int = 1
    approvers: frozenset[str] | None = None
    approver_role: str = "approver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused late or failed: the code of a problem and a sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One ask that needs, or needed, a durable row. Owners are case-folded.

    `credential` is the certificate that asked: once that is not welcome any more, the request is
    cancelled.

    `outcome` is the JSON object that callers see (`exit_code`, ...), or None while nothing has run.
    `version` counts the transitions and decisions, for compare-and-set and for long polls.
    """

    id: RequestId
    state: State
    caller: str
    credential: Credential
    owner: str
    unix_user: str | None
    operation: str
    params: Mapping[str, JsonValue]
    resource: str | None
    digest: Digest
    rule: str
    reason: str | None
    terms: Terms
    precondition: Mapping[str, JsonValue] | None
    preview: Mapping[str, JsonValue] | None
    created_at: datetime
    expires_at: datetime
    decisions: tuple[Decision, ...] = ()
    outcome: Mapping[str, JsonValue] | None = None
    problem: Problem | None = None
    finished_at: datetime | None = None
    version: int = 1

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the certificate that asked."""
        return self.credential.fingerprint

    def is_expired(self, now: datetime) -> bool:
        """Return whether `now` is at or past `expires_at`."""
        return now >= self.expires_at

    @property
    def was_refused(self) -> bool:
        """Return whether it ended before anything ran or anybody decided, and not by its caller.

        Its caller was answered with a problem, so asking again is a new ask.
        """
        has_ended = self.state in {State.FAILED, State.CANCELLED} and self.problem is not None
        return has_ended and not self.decisions and self.outcome is None

    @property
    def consents(self) -> tuple[Decision, ...]:
        """Return the approvals given so far."""
        return tuple(d for d in self.decisions if d.decision is Verb.APPROVE)

    @property
    def agreeing(self) -> int:
        """Return how many of the approvals that it needs it has; see `agreeing`."""
        return agreeing([(consent.makers,) for consent in self.consents], self.terms.approvals)

    @property
    def denial_words(self) -> str | None:
        """Return what the person who denied it said; None where nobody denied, or said anything."""
        if self.state is not State.DENIED or not self.decisions:
            return None
        return self.decisions[-1].reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Denials:
    """The denials of one act of one owner within some time.

    `times` is how many, `until` the latest instant before which people are not to be asked again,
    `words` what who denied last said.
    """

    times: int = 0
    until: datetime | None = None
    words: str | None = None


# -- who counts -----------------------------------------------------------------------------------


def is_same_owner(one: str, other: str) -> bool:
    """Return whether two owners are the same person or team: compared case-folded."""
    return one.casefold() == other.casefold()


def is_eligible(terms: Terms, owner: str, roles: Collection[str]) -> bool:
    """Return whether `owner`, holding `roles`, counts under `terms`.

    The role admin satisfies a rule that asks for approvers, never the other way round. Whether the
    owner is the caller's own is another question (`is_same_owner`).
    """
    if terms.approver_role not in roles and "admin" not in roles:
        return False
    named = terms.approvers
    return named is None or any(is_same_owner(owner, name) for name in named)


def agreeing(voices: Sequence[Collection[frozenset[str]]], needed: int) -> int:
    """Return how many of `voices` count beside one another, at most `needed`.

    A voice is there by any of its ways in, each given by its makers: the owners who could have made
    it up. Two whose makers meet may be one person's, so they count once.

    The work doubles with each owner who could make up several voices, and is the number of voices
    otherwise.
    """
    could_be = [makers for ways in voices for makers in set().union(*ways)]
    shared = frozenset(maker for maker, times in Counter(could_be).items() if times > 1)
    # How many are counted at most, by the shared makers that are used up by that.
    most = {frozenset[str](): 0}
    for ways in voices:
        for used, counted in tuple(most.items()):
            for makers in {makers & shared for makers in ways}:
                if used.isdisjoint(makers):
                    most[used | makers] = max(most.get(used | makers, 0), counted + 1)
        if max(most.values()) >= needed:
            return needed
    return max(most.values())


# -- decisions ------------------------------------------------------------------------------------


def decide(
    request: Request,
    decision: Decision,
    *,
    roles: Collection[str],
    digest: str | None,
    now: datetime,
) -> Request:
    """Return `request` with `decision` taken: `approve` or `deny`, as the decision says.

    Raises:
        ApprovalError, RoleRequiredError: as `approve` and `deny` do.
    """
    match decision.decision:
        case Verb.APPROVE:
            return approve(request, decision, roles=roles, digest=digest, now=now)
        case Verb.DENY:
            return deny(request, decision, roles=roles, now=now)
        case _:
            assert_never(decision.decision)


def approve(
    request: Request,
    decision: Decision,
    *,
    roles: Collection[str],
    digest: str | None,
    now: datetime,
) -> Request:
    """Return `request` with one owner's consent added; approved once its quorum is full.

    `roles` are those that the approver holds through the channel of the decision. Consents count
    once for all whom one person could have made up (`agreeing`). Nothing is stored and nothing runs
    here.

    Raises:
        ExpiredError: the request is expired at `now`.
        AlreadyDecidedError: it has left `pending`, or this owner has spoken already, by a way in
            that fewer people could have made up.
        SelfApprovalError: the approver acts for the owner who asked.
        RoleRequiredError: the approver lacks the role, or is not among those the rule names.
        DigestMismatchError: `digest` is not the request's.
    """
    _require_open(request, decision, roles=roles, now=now)
    if digest != request.digest:
        message = (
            "This approval is for another digest; look at the request again and approve the digest "
            "that it shows."
        )
        raise DigestMismatchError(message)
    consented = _with_decision(request, decision, Verb.APPROVE)
    if consented.agreeing < request.terms.approvals:
        return consented
    return replace(consented, state=State.APPROVED)


def deny(request: Request, decision: Decision, *, roles: Collection[str], now: datetime) -> Request:
    """Return `request` denied: one voice ends it, whatever its quorum.

    The problem says who denied it, and in which words, made visible.

    Raises:
        ExpiredError, AlreadyDecidedError, SelfApprovalError, RoleRequiredError: as `approve` does.
    """
    _require_open(request, decision, roles=roles, now=now)
    said = f": {cut(decision.reason, MAX_WORDS)}" if decision.reason else ""
    detail = f"{decision.owner.casefold()} denied this{said}; nothing was run."
    return replace(
        _with_decision(request, decision, Verb.DENY),
        state=State.DENIED,
        problem=Problem(code=ApprovalDeniedError.code, detail=detail),
        finished_at=now,
    )


def _require_open(
    request: Request, decision: Decision, *, roles: Collection[str], now: datetime
) -> None:
    """Refuse a decision that comes too late or from somebody who does not count."""
    if request.state is State.EXPIRED or (
        request.state is State.PENDING and request.is_expired(now)
    ):
        raise ExpiredError(_EXPIRED)
    if request.state is not State.PENDING:
        _already_decided(request)
    if any(
        is_same_owner(decision.owner, spoken.owner) and not decision.makers < spoken.makers
        for spoken in request.decisions
    ):
        # Another's word for who spoke must not keep the person's own from counting.
        message = "This owner has decided on this request already; another owner has to speak."
        raise AlreadyDecidedError(message)
    if is_same_owner(decision.owner, request.owner):
        message = "The owner who asks cannot decide on it; another owner has to."
        raise SelfApprovalError(message)
    if not is_eligible(request.terms, decision.owner, roles):
        message = f"This needs a decision by the role {request.terms.approver_role}"
        named = "" if request.terms.approvers is None else ", of an owner whom the rule names"
        raise RoleRequiredError(f"{message}{named}.")


def _with_decision(request: Request, decision: Decision, verb: Verb) -> Request:
    if decision.decision is not verb:
        message = f"a decision to {decision.decision} was taken for one to {verb}"
        raise RuntimeError(message)
    spoken = replace(decision, owner=decision.owner.casefold())
    return replace(request, decisions=(*request.decisions, spoken), version=request.version + 1)


# -- ends and runs --------------------------------------------------------------------------------


def cancel(request: Request, *, problem: Problem | None, now: datetime) -> Request:
    """Return `request` withdrawn; `problem` says why where it was not the caller's own wish.

    Raises:
        AlreadyDecidedError: it is running or has ended.
    """
    if request.state not in {State.PENDING, State.APPROVED}:
        _already_decided(request)
    return _moved(request, State.CANCELLED, problem=problem, now=now)


def expire(request: Request, *, problem: Problem | None = None, now: datetime) -> Request:
    """Return `request` expired. The only helper that does: at `now >= expires_at`, never earlier.

    Raises:
        AlreadyDecidedError: it is running or has ended.
    """
    if request.state not in {State.PENDING, State.APPROVED}:
        _already_decided(request)
    if not request.is_expired(now):
        message = f"request {request.id} is not expired yet"
        raise RuntimeError(message)
    why = problem or Problem(code=ExpiredError.code, detail=_EXPIRED)
    return _moved(request, State.EXPIRED, problem=why, now=now)


def start(request: Request, *, now: datetime) -> Request:
    """Return an approved `request` as running. `expires_at` bounds the start too.

    Raises:
        ExpiredError: the approval is expired at `now`; nothing may run.
    """
    _require_step(request, State.RUNNING)
    if request.is_expired(now):
        raise ExpiredError(_EXPIRED)
    return replace(request, state=State.RUNNING, version=request.version + 1)


def finish(
    request: Request,
    *,
    state: State,
    outcome: Mapping[str, JsonValue] | None,
    problem: Problem | None,
    now: datetime,
) -> Request:
    """Return a running `request` ended as `state`: succeeded, failed, timed_out or unknown."""
    if request.state is not State.RUNNING:
        _out_of_order(request, state)
    return replace(_moved(request, state, problem=problem, now=now), outcome=outcome)


def fail(request: Request, *, problem: Problem, now: datetime) -> Request:
    """Return an approved `request` failed before it ran, as for a changed target."""
    if request.state is not State.APPROVED:
        _out_of_order(request, State.FAILED)
    return _moved(request, State.FAILED, problem=problem, now=now)


def _moved(request: Request, state: State, *, problem: Problem | None, now: datetime) -> Request:
    _require_step(request, state)
    return replace(
        request, state=state, problem=problem, finished_at=now, version=request.version + 1
    )


def _require_step(request: Request, state: State) -> None:
    if state not in TRANSITIONS.get(request.state, frozenset()):
        _out_of_order(request, state)


def _out_of_order(request: Request, state: State) -> NoReturn:
    """Tell a programmer's mistake from a race: what races is refused with a code."""
    message = f"request {request.id} cannot go from {request.state} to {state}"
    raise RuntimeError(message)


def _already_decided(request: Request) -> NoReturn:
    message = f"This request is {request.state} already; it cannot be decided or withdrawn again."
    recovery = wait_for(request_id=request.id) if request.state in LIVE else None
    raise AlreadyDecidedError(message, recovery=recovery)


_EXPIRED = "It was not decided and run in time; nothing was run. Ask again if it is still needed."
