"""Messages as the outbox makes them, for tests of channels."""

from dataclasses import replace
from typing import Any

from host_agent.notify.channel import AuditHead, Message
from host_agent.notify.prompts import Prompt
from host_agent.requests.model import Request, State
from host_agent.requests.notification import Kind
from tests.support.stored_requests import NOW, a_decision, a_request, facts_of

CODE = "ABCDEFGH23456789"


def a_message(**changes: Any) -> Message:
    """Return a prompt for bob; the keywords replace fields."""
    message = Message(
        id="5c1ab1d6ad9e4c8e9b1ce8a7e3c0f3aa",
        kind=Kind.PROMPT,
        owner="bob",
        address="host-agent-bob-x7",
        prompt=Prompt(title="host: git.pull /srv/app0", text="git.pull waits\nto: bob"),
        facts=facts_of(a_request()),
        audit=AuditHead(sequence=73, head="sha256:" + "9" * 64),
    )
    if "request" in changes:
        changes["facts"] = facts_of(changes.pop("request"))
    return replace(message, **changes)


def ended(**changes: Any) -> Request:
    """Return a request that was approved and ran."""
    request = a_request(
        state=State.SUCCEEDED,
        decisions=(a_decision(),),
        outcome={"exit_code": 0, "verified": True, "stdout": "secret output", "data": None},
        finished_at=NOW,
        version=4,
    )
    return replace(request, **changes)


def an_outcome(**changes: Any) -> Message:
    """Return the news of a request that ran, as an answer to an earlier prompt."""
    outcome = {"kind": Kind.OUTCOME, "request": ended(), "reply_to": "prompt-1"}
    return a_message(**{**outcome, **changes})
