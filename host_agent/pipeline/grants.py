"""Bounded grants: given with an approval, found and used at an ask, listed and revoked.

A grant is a consent that stands for a while. At each use everything is asked as it would be without
it (policy, protections, the state of the resource), and also whether the people who gave it still
count; it stands in only for asking them again. It is never used for what always asks.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from host_agent.api.wire.people import GrantList, GrantView
from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.config import MAX_PATTERN_LENGTH, compile_pattern
from host_agent.errors import (
    FaultPlace,
    HostAgentError,
    InvalidParameterError,
    RequestNotFoundError,
    correct,
)
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Operation
from host_agent.pipeline.approver_identity import still_counts
from host_agent.pipeline.authorize import as_now, judge
from host_agent.pipeline.context import Context, record, welcome
from host_agent.policy.rules import Allow, Ask
from host_agent.requests.grant import Grant
from host_agent.requests.model import (
    GrantTerms,
    Request,
)
from host_agent.store.grants import AGENT

FOR_SECONDS = range(60, 86_401)
COUNT = range(1, 1001)
COUNTED_FOR = timedelta(hours=24)
"""How long a grant of so many uses can be used at most."""
MAX_REPEATS, MAX_ALTERNATIVES = 3, 8
"""A pattern is matched while others wait, so it must not be able to take long."""

# -- giving ----------------------------------------------------------------------------------------


def check_terms(request: Request, terms: GrantTerms) -> None:
    """Refuse terms of a grant that are out of bounds, or not about `request`.

    Raises:
        InvalidParameterError: not exactly one of a time and a count, one of them out of range, or
            a pattern that is none, could be slow, or does not match the request's own resource.
    """
    bounds = {"for_seconds": (terms.for_seconds, FOR_SECONDS), "count": (terms.count, COUNT)}
    given = {name: (value, span) for name, (value, span) in bounds.items() if value is not None}
    if len(given) != 1:
        message = "grant: give exactly one of for_seconds and count."
        raise InvalidParameterError(message, recovery=correct(message, "grant"))
    for name, (value, span) in given.items():
        if type(value) is not int or value not in span:
            message = f"grant.{name}: {span.start} to {span.stop - 1}."
            raise InvalidParameterError(message, recovery=correct(message, "grant", name))
    if terms.resource is not None:
        _check_pattern(terms.resource, request.resource)


def _check_pattern(pattern: str, resource: str | None) -> None:
    if not 1 <= len(pattern) <= MAX_PATTERN_LENGTH:
        message = f"grant.resource: 1 to {MAX_PATTERN_LENGTH} characters."
        raise _bad_pattern(message)
    try:
        compiled = compile_pattern(pattern)
    except ValueError as error:
        message = f"grant.resource: {error}."
        raise _bad_pattern(message) from None
    _refuse_slow(pattern)
    if resource is None or compiled.fullmatch(resource) is None:
        message = "grant.resource: does not match the resource of the request itself."
        raise _bad_pattern(message)


def _refuse_slow(pattern: str) -> None:
    """Refuse what Python's engine could take long for: it tries every way to share out a text."""
    bare = re.sub(r"\\.|\[\]?[^]]*\]", "x", pattern, flags=re.DOTALL)
    repeats = len(re.findall(r"[*+?{]", bare))
    is_plain = bare.count("(") <= 1 and re.search(r"\)[*+?{]|\(\?", bare) is None
    if not is_plain or repeats > MAX_REPEATS or bare.count("|") >= MAX_ALTERNATIVES:
        message = (
            f"grant.resource: takes at most {MAX_REPEATS} repeats (* + ? and braces),"
            f" {MAX_ALTERNATIVES} alternatives, and one plain group, not repeated."
        )
        raise _bad_pattern(message)


def _bad_pattern(message: str) -> InvalidParameterError:
    return InvalidParameterError(message, recovery=correct(message, "grant", "resource"))


def may_be_granted(context: Context, request: Request) -> bool:
    """Return whether an approval of `request` may stand for further runs, as things are now.

    Never where the rule or the operation always asks, nor for what has no resource.
    """
    snapshot = context.snapshot
    try:
        caller = welcome(context, request.credential)
        operation = context.catalogue.parse(request.operation, request.params)
        return _is_grantable(operation, judge(snapshot, caller, operation))
    except HostAgentError:
        return False


def _is_grantable(operation: Operation, verdict: Allow | Ask) -> bool:
    if not isinstance(verdict, Ask) or operation.resource is None:
        return False
    positional = operation.spec.parameters.positional
    has_own = bool(positional) and operation.params.canonical()[positional[0]] is not None
    always_asks = verdict.rule.always_ask or operation.spec.always_asks(operation.params)
    return has_own and not always_asks


def require_grantable(context: Context, request: Request, terms: GrantTerms) -> None:
    """Refuse a grant that could not be given with an approval of `request`.

    Raises:
        InvalidParameterError: the terms are not good, or this has to be asked each time.
    """
    check_terms(request, terms)
    if not may_be_granted(context, request):
        message = "grant: this has to be asked each time; approve it without a grant."
        raise InvalidParameterError(message, recovery=correct(message, "grant"))


def make_grant(context: Context, request: Request, now: datetime) -> Grant | None:
    """Return the grant that the consents of an approved `request` give, or None.

    Every one of them must carry the same terms: nobody's yes to one run becomes more by another's.
    """
    terms = {consent.grant for consent in request.consents}
    if len(terms) != 1 or (wanted := terms.pop()) is None or request.resource is None:
        return None
    if not may_be_granted(context, request):
        return None
    operation = context.catalogue.parse(request.operation, request.params)
    lasts = COUNTED_FOR if wanted.for_seconds is None else timedelta(seconds=wanted.for_seconds)
    return Grant(
        id=secrets.token_hex(16),
        request_id=request.id,
        caller=request.caller,
        operation=request.operation,
        resource=wanted.resource or re.escape(request.resource),
        params=bound_params(operation),
        terms=request.terms,
        consents=request.consents,
        created_at=now,
        expires_at=now + lasts,
        uses_left=wanted.count,
    )


def bound_params(operation: Operation) -> Mapping[str, JsonValue]:
    """Return the parameters that a grant binds: all but the first, which is the resource."""
    of_resource = operation.spec.parameters.positional[:1]
    named = operation.params.canonical().items()
    return {name: value for name, value in named if name not in of_resource}


# -- using -----------------------------------------------------------------------------------------


def is_granted(
    context: Context,
    principal: Principal,
    operation: Operation,
    verdict: Allow | Ask,
    live: Sequence[Grant],
) -> bool:
    """Return whether one of `live` could be used for this ask now."""
    return bool(_usable(context, principal, operation, verdict, live))


async def use_grant(
    context: Context, principal: Principal, operation: Operation, verdict: Allow | Ask
) -> Grant | None:
    """Use a grant for one run of this ask, and return it; None where there is none any more.

    The use is counted on disk before anything runs, and is spent whatever comes of the run.
    """
    now = context.clock.now()
    live = await context.store.live_grants(principal.cn, operation.name, now)
    for grant in _usable(context, principal, operation, verdict, live):
        if await context.store.use_grant(grant.id, context.clock.now()):
            return grant
    return None


def _usable(
    context: Context,
    principal: Principal,
    operation: Operation,
    verdict: Allow | Ask,
    live: Sequence[Grant],
) -> Sequence[Grant]:
    if not isinstance(verdict, Ask) or not _is_grantable(operation, verdict):
        return ()
    now = context.clock.now()
    return [
        grant
        for grant in live
        if grant.is_live(now)
        and grant.covers(principal.cn, operation.name, operation.resource)
        and grant.params == bound_params(operation)
        and still_counts(context, principal.owner, grant.consents, verdict.terms)
    ]


# -- looking, revoking -----------------------------------------------------------------------------


class Grants:
    """Shows and revokes grants. One instance lives as long as the agent."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list_grants(self, principal: Principal) -> GrantList:
        """Return all grants of the last 30 days, newest first.

        Raises:
            RoleRequiredError: for approvers and admins only.
        """
        as_now(self._context, principal, Role.APPROVER, Role.ADMIN)
        now = self._context.clock.now()
        grants = await self._context.store.grants()
        return GrantList(grants=tuple(grant_view(grant, now) for grant in grants))

    async def revoke_grant(self, principal: Principal, grant_id: str) -> GrantView:
        """Revoke a live grant by its id, or a unique prefix of one, and return it.

        Raises:
            RoleRequiredError: for approvers and admins only.
            RequestNotFoundError: there is no live grant of that id, or more than one.
        """
        context = self._context
        principal = as_now(context, principal, Role.APPROVER, Role.ADMIN)
        now = context.clock.now()
        revoked = await context.tasks.shielded(
            self._revoke(principal, grant_id, now), name=f"revoke {grant_id}"
        )
        return grant_view(revoked, now)

    async def revoke_void(self) -> None:
        """Revoke the live grants whose givers' certificates are over for good.

        They would not be used anyway; so it is on record, and nobody takes them for live.
        """
        now = self._context.clock.now()
        for grant in await self._context.store.grants():
            if grant.is_live(now) and self._is_void(grant):
                await self._context.store.revoke_grant(grant.id, by=AGENT, now=now)
                await self._record_revoked(grant, AGENT)

    def _is_void(self, grant: Grant) -> bool:
        revocation, wall = self._context.revocation, self._context.clock.wall()
        standing = {
            consent.owner
            for consent in grant.consents
            if consent.credential is None or not revocation.is_over(consent.credential, wall)
        }
        return len(standing) < grant.terms.approvals

    async def _revoke(self, principal: Principal, grant_id: str, now: datetime) -> Grant:
        grant = await self._context.store.revoke_grant(grant_id, by=principal.cn, now=now)
        if grant is None:
            message = "There is no such grant that could be used; GET /grants lists all."
            fix = correct(message, "grant_id", place=FaultPlace.PATH)
            raise RequestNotFoundError(message, recovery=fix)
        await self._record_revoked(grant, principal.cn)
        return grant

    async def _record_revoked(self, grant: Grant, by: str) -> None:
        await record(
            self._context,
            Event.GRANT_REVOKED,
            f"the revocation of grant {grant.id}",
            caller=grant.caller,
            operation=grant.operation,
            resource=grant.resource,
            request_id=grant.request_id,
            grant=grant.id,
            by=by,
        )


def grant_view(grant: Grant, now: datetime) -> GrantView:
    """Return `grant` as GET /grants shows it."""
    return GrantView(
        grant_id=grant.id,
        request_id=grant.request_id,
        caller=grant.caller,
        operation=grant.operation,
        resource=grant.resource,
        params=grant.params,
        given_by=tuple(sorted({consent.owner for consent in grant.consents})),
        created_at=grant.created_at,
        expires_at=grant.expires_at,
        uses_left=grant.uses_left,
        used=grant.used,
        is_live=grant.is_live(now),
        revoked_at=grant.revoked_at,
        revoked_by=grant.revoked_by,
    )
