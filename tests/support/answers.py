"""Bodies of answers as the agent's own code makes them, with members that a test may bend.

Every one is built by what answers for a real agent, from a stored request, an output or an error.
Members given by name replace the body's: that is how an answer of another version, or of a hostile
peer, is made.
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from host_agent.api.problems import problem_body
from host_agent.api.wire.dry_run import DryRun
from host_agent.api.wire.host import Readiness
from host_agent.api.wire.operations import OperationList
from host_agent.errors import BY_CODE, HostAgentError
from host_agent.identity.registry import Autonomy, Principal, Role
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Output
from host_agent.pipeline import responses
from host_agent.pipeline.context import Snapshot
from host_agent.pipeline.discovery import discover
from host_agent.pipeline.run import outcome_json
from host_agent.requests.facts import request_view
from host_agent.requests.model import LIVE, Request, RequestId, State, Terms, Verb
from tests.support.pipeline import configuration
from tests.support.stored_requests import a_credential, a_decision, a_request, facts_of

DIGEST = "sha256:" + "ab" * 32
REQUEST_ID = "0f8e7d6c5b4a39281706f5e4d3c2b1a0"
ASKED = datetime(2026, 11, 20, 21, tzinfo=UTC)
FAR_FUTURE = datetime(2099, 11, 20, 22, tzinfo=UTC)
REPOSITORY = "/srv/app"
PARAMS = {
    "git.status": {"repository": REPOSITORY},
    "git.fetch": {"repository": REPOSITORY, "remote": "origin"},
    "git.pull": {"repository": REPOSITORY, "remote": "origin", "branch": "main"},
}


def a_pull(**changes: Any) -> Request:
    """Return the request that these answers are about; the keywords replace fields."""
    request = a_request(
        id=RequestId(REQUEST_ID),
        owner="bob",
        params=PARAMS["git.pull"],
        resource=REPOSITORY,
        digest=DIGEST,
        rule="pulling needs alice",
        reason="before the release",
        terms=Terms(approvers=frozenset({"alice"})),
        preview={
            "accuracy": "estimate",
            "summary": "2 commits would be merged",
            "details": ["abc1234 first", "def5678 second"],
            "undo": "reset to 0000000",
        },
        precondition="0" * 40,
        created_at=ASKED,
        expires_at=FAR_FUTURE,
    )
    return replace(request, **changes)


def view(**members: Any) -> dict[str, Any]:
    """Return the request as it is shown."""
    has_ended = members.get("state", State.PENDING) not in {state.value for state in LIVE}
    request = a_pull(finished_at=FAR_FUTURE if has_ended else None)
    facts = facts_of(request, host="agent-host", runs_as="librarian")
    return {**request_view(facts, with_output=True).as_json(), **members}


def decision(verb: str = "approve", **members: Any) -> dict[str, Any]:
    """Return what erin said, as a request that is shown has it."""
    said = replace(a_decision("erin", Verb(verb), at=ASKED), approver="erin")
    shown = request_view(facts_of(a_pull(decisions=(said,))), with_output=True)
    return {**shown.decisions[0].as_json(), **members}


def held(**members: Any) -> dict[str, Any]:
    """Return the answer to an ask that waits for people."""
    return {**responses.held(a_pull()).body, **members}


def outcome(**members: Any) -> dict[str, Any]:
    """Return the outcome of a process that ended well and printed nothing."""
    output = Output(exit_code=0, duration_ms=12, stdout_sha256=sha256(b"").hexdigest())
    return {**outcome_json(output, data=None, verified=None), **members}


def ran(name: str = "git.status", **members: Any) -> dict[str, Any]:
    """Return the answer to an ask that ran; the members are those of its outcome."""
    request = a_pull(
        operation=name, params=PARAMS[name], state=State.SUCCEEDED, outcome=outcome(**members)
    )
    answer = responses.answer_of(request, CATALOGUE.parse(name, PARAMS[name]))
    assert isinstance(answer, responses.SubmitAnswer)
    return dict(answer.body)


def dry_run(name: str = "git.pull", **members: Any) -> dict[str, Any]:
    """Return what the request would come to, asked as a dry run."""
    shown = view()
    kept = ("resource", "effect", "digest", "runs_as", "approvals", "preview", "precondition")
    told = DryRun(
        exchange_id="x-1",
        operation=name,
        state="dry_run",
        would="ask",
        verdict="ask",
        rule=shown["rule"],
        **{member: shown[member] for member in kept},
    )
    return {**told.as_json(), **members}


def problem(code: str, detail: str = "Not this time.", **members: Any) -> dict[str, Any]:
    """Return the body of the error with `code`."""
    return {**problem_body(error(code, detail), "x-1"), **members}


def error(code: str, detail: str = "Not this time.", **named: Any) -> HostAgentError:
    """Return the error with `code`."""
    return BY_CODE[code](detail, **named)


def parts(**members: Any) -> dict[str, Any]:
    """Return the parts of an agent that is ready."""
    fine = dict.fromkeys(
        ("store", "audit", "crl", "certificate", "configuration", "sudoers", "root_list"), "ok"
    )
    sums = ("configuration_sha256", "certificate_sha256", "client_ca_sha256", "crl_sha256")
    serving = {**dict.fromkeys(sums, "0" * 64), "crl_numbers": [1]}
    told = {"serving": serving, "audit_sequence": 7, "audit_head": DIGEST}
    return Readiness.model_validate({**fine, **told, **members}).as_json()


def operations(*names: str) -> dict[str, Any]:
    """Return what a caller is told that it can ask for: these operations of git."""
    told = _discovered().operations
    return OperationList(operations=tuple(one for one in told if one.name in names)).as_json()


@cache
def _discovered() -> OperationList:
    with TemporaryDirectory() as folder:
        snapshot = Snapshot.of(configuration(Path(folder)))
    caller = Principal(
        cn="deployer",
        unix_user="deployer",
        owner="bob",
        roles=frozenset({Role.CALLER}),
        autonomy=Autonomy.SUPERVISED,
        skip_ask=False,
        credential=a_credential("deployer"),
    )
    return discover(CATALOGUE, snapshot, caller)
