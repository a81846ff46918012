"""What people read once a request that they were asked about has ended: two lines. Pure."""

from collections.abc import Iterator, Mapping
from typing import assert_never

from host_agent.notify.prompts import Prompt, clipped, short_id, title_of
from host_agent.requests.facts import RequestFacts
from host_agent.requests.model import Request, State, Verb
from host_agent.requests.state import NOTHING_RAN
from host_agent.text import cut, name, value

_MAX_WORDS = 300
_MAX_NAMES = 5
_MAX_LINE = 600

_ENDS: Mapping[State, str] = {
    State.SUCCEEDED: "Done",
    State.FAILED: "Failed",
    State.TIMED_OUT: "Not ended in time",
    State.UNKNOWN: "Unknown",
    State.DENIED: "Denied",
    State.EXPIRED: "Expired",
    State.CANCELLED: "Withdrawn",
}
_SEEN: Mapping[bool, str] = {
    True: ", verified.",
    False: ", NOT VERIFIED: the probe did not see the effect.",
}


def render_outcome(facts: RequestFacts, *, max_characters: int) -> Prompt:
    """Return what became of a request, and who decided.

    What the command printed is not in it.
    """
    request = facts.request
    ended = _ENDS.get(request.state, f"Is {request.state.value}")
    what = f"{ended} on {name(facts.host)}: {facts.verb} {facts.subject}".rstrip()
    what = what if len(what) <= _MAX_LINE else f"{what[:_MAX_LINE]} ... cut"
    lines = [f"{what}{''.join(_ran(request))}", f"{' '.join(_decided(request))}"]
    title = f"{ended}: {title_of(facts)}"[:80]
    return Prompt(title=title, text=clipped(lines, max_characters))


def _ran(request: Request) -> Iterator[str]:
    """Yield clauses on what ran, and on why it failed."""
    outcome, problem = request.outcome, request.problem
    if request.state is State.SUCCEEDED:
        seen = None if outcome is None else outcome.get("verified")
        yield _SEEN[seen] if isinstance(seen, bool) else ", not probed."
        return
    if request.state in NOTHING_RAN or (outcome is None and request.state is State.FAILED):
        yield "; nothing was run."
    elif request.state is State.UNKNOWN:
        yield "; whether it ran to its end is not known: look at the host."
    elif outcome is not None:
        yield f"; exit status {value(outcome.get('exit_code'))}."
    else:
        yield "."
    if problem is not None and request.state not in NOTHING_RAN:
        yield f" {cut(problem.detail, _MAX_WORDS)}"


def _decided(request: Request) -> Iterator[str]:
    yes: list[str] = []
    no: list[str] = []
    for decision in request.decisions:
        match decision.decision:
            case Verb.APPROVE:
                yes.append(name(decision.owner))
            case Verb.DENY:
                said = f", {cut(decision.reason, _MAX_WORDS)}" if decision.reason else ""
                no.append(f"No: {name(decision.owner)}{said}.")
            case _:
                assert_never(decision.decision)
    if yes:
        yield f"Yes: {', '.join(yes[:_MAX_NAMES])}."
    yield from no[:_MAX_NAMES]
    if not request.decisions:
        yield "Nobody decided."
    yield f"Request {short_id(request)}"
