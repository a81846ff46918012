"""The state machine under any sequence of steps by anybody, in any order, at any time.

The store is the real one, so that a step which the pure machine allows and the store refuses (or
the other way round) is found too. Two views of each request race: one is always up to date, the
other is whatever it was when it was last looked at.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
)

from host_agent.errors import HostAgentError
from host_agent.requests import model as machine
from host_agent.requests.model import (
    LIVE,
    TRANSITIONS,
    Decision,
    Problem,
    Request,
    State,
    Terms,
    Verb,
)
from host_agent.store.store import RequestStore
from tests.support.stored_requests import NOW, TTL, a_decision, a_request

_T = TypeVar("_T")
OWNERS = ["alice", "Alice", "bob", "BOB", "carol", "dave"]
ROLES = [["approver"], ["admin"], ["caller"], []]
WHY = Problem(code="approval:target-changed", detail="It moved.")


class Requests(RuleBasedStateMachine):
    """Callers, approvers, the clock and the runner, all at once."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name, "state", "host-agent.db")
        self.store = RequestStore(self.path)
        self.run(self.store.open())
        self.now = NOW
        self.number = 0
        self.latest: dict[str, Request] = {}
        self.runs: dict[str, int] = {}

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.directory.cleanup()

    @rule(
        target=known,
        approvals=st.integers(1, 3),
        named=st.none() | st.just(frozenset({"bob", "carol"})),
        role=st.sampled_from(["approver", "admin"]),
    )
    def ask(self, approvals: int, named: frozenset[str] | None, role: str) -> Request:
        self.number += 1
        request = a_request(
            self.number,
            terms=Terms(approvals=approvals, approvers=named, approver_role=role),
            created_at=self.now,
            expires_at=self.now + TTL,
        )
        inserted = self.run(
            self.store.insert(request, max_pending=1000, max_pending_per_caller=1000)
        )
        assert inserted.created
        self.latest[request.id] = request
        return request

    @rule(target=known, seen=known)
    def look(self, seen: Request) -> Request:
        return self.latest[seen.id]

    @rule(
        seen=known,
        owner=st.sampled_from(OWNERS),
        roles=st.sampled_from(ROLES),
        verb=st.sampled_from(Verb),
        is_right=st.booleans(),
    )
    def decide(
        self, seen: Request, owner: str, roles: list[str], verb: Verb, is_right: bool
    ) -> None:
        spoken = a_decision(owner, verb, at=self.now)
        digest = seen.digest if is_right else "sha256:" + "0" * 64
        try:
            decided = machine.decide(seen, spoken, roles=roles, digest=digest, now=self.now)
        except HostAgentError:
            return
        assert self.now < seen.expires_at
        assert verb is Verb.DENY or is_right
        self.must_count(seen, spoken, roles)
        self.move(seen, decided)

    def must_count(self, seen: Request, spoken: Decision, roles: list[str]) -> None:
        assert spoken.owner.casefold() != seen.owner
        assert seen.terms.approver_role in roles or "admin" in roles
        named = seen.terms.approvers
        assert named is None or spoken.owner.casefold() in named

    @rule(seen=known)
    def cancel(self, seen: Request) -> None:
        if seen.state in {State.PENDING, State.APPROVED}:
            self.move(seen, machine.cancel(seen, problem=None, now=self.now))

    @rule(seen=known)
    def expire(self, seen: Request) -> None:
        if seen.state in {State.PENDING, State.APPROVED} and seen.is_expired(self.now):
            self.move(seen, machine.expire(seen, now=self.now))

    @rule(seen=known)
    def start(self, seen: Request) -> None:
        if seen.state is not State.APPROVED or seen.is_expired(self.now):
            return
        if self.move(seen, machine.start(seen, now=self.now)):
            self.runs[seen.id] = self.runs.get(seen.id, 0) + 1

    @rule(seen=known)
    def fail(self, seen: Request) -> None:
        if seen.state is State.APPROVED:
            self.move(seen, machine.fail(seen, problem=WHY, now=self.now))

    @rule(seen=known, state=st.sampled_from(sorted(TRANSITIONS[State.RUNNING])))
    def finish(self, seen: Request, state: State) -> None:
        if seen.state is State.RUNNING:
            ended = machine.finish(
                seen, state=state, outcome={"exit_code": 0}, problem=None, now=self.now
            )
            self.move(seen, ended)

    @rule(seconds=st.sampled_from([0, 1, 600, 1799, 1800]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = RequestStore(self.path)
        self.run(self.store.open())

    def move(self, before: Request, after: Request) -> bool:
        """Store a step of somebody who saw `before`; it wins exactly if that is still true."""
        is_current = self.latest[before.id] == before
        won = self.run(self.store.transition(after, expected_version=before.version))
        assert won is is_current
        if won:
            is_voice = after.state is before.state is State.PENDING
            assert is_voice or after.state in TRANSITIONS[before.state]
            assert after.version == before.version + 1
            self.latest[before.id] = after
        return won

    @invariant()
    def store_holds_the_truth(self) -> None:
        live = {request.id: request for request in self.run(self.store.live())}
        expected = {key: one for key, one in self.latest.items() if one.state in LIVE}
        assert live == expected
        pending = sum(one.state is State.PENDING for one in expected.values())
        assert self.run(self.store.pending_stats())[0] == pending

    @invariant()
    def nothing_runs_twice_or_unapproved(self) -> None:
        assert all(count == 1 for count in self.runs.values())
        for request_id in self.runs:
            request = self.latest[request_id]
            owners = {decision.owner for decision in request.consents}
            assert len(owners) == len(request.consents) == request.terms.approvals
            assert request.owner not in owners

    @invariant()
    def ends_are_dated_and_final(self) -> None:
        for request in self.latest.values():
            assert (request.finished_at is None) is (request.state in LIVE)
            owners = [decision.owner for decision in request.decisions]
            assert len(owners) == len(set(owners))

    @invariant()
    def expiry_is_what_the_store_says(self) -> None:
        open_ = [
            one.expires_at
            for one in self.latest.values()
            if one.state in {State.PENDING, State.APPROVED}
        ]
        soonest: datetime | None = min(open_, default=None)
        assert self.run(self.store.next_expiry()) == soonest
        due = {one.id for one in self.run(self.store.due(self.now))}
        assert due == {
            one.id
            for one in self.latest.values()
            if one.state in {State.PENDING, State.APPROVED} and one.is_expired(self.now)
        }


TestRequests = Requests.TestCase
TestRequests.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
