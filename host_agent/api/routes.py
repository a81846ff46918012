"""The table of routes: what `app` serves, and what the OpenAPI document and the page describe."""

from collections.abc import Mapping
from dataclasses import dataclass

from host_agent.requests.model import State

_ALWAYS = frozenset({400, 403, 408, 431, 500, 503})
"""What the server or the identity check can answer before any route is reached."""
_BODY = frozenset({413, 415})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. `name` is the handler's; `statuses` are all it can answer.

    `query` maps the query parameters it takes to their JSON schemas; others are refused.
    """

    method: str
    rule: str
    name: str
    who: str
    summary: str
    statuses: frozenset[int]
    query: Mapping[str, Mapping[str, object]]
    body: str | None = None
    is_older: bool = False

    @property
    def path(self) -> str:
        """Return the path in OpenAPI's form."""
        return self.rule.replace("<", "{").replace(">", "}")


def _get(
    rule: str,
    name: str,
    who: str,
    summary: str,
    *statuses: int,
    query: Mapping[str, Mapping[str, object]] | None = None,
    is_older: bool = False,
) -> Route:
    return Route(
        method="GET",
        rule=rule,
        name=name,
        who=who,
        summary=summary,
        statuses=_ALWAYS | {200, *statuses},
        query=query or {},
        is_older=is_older,
    )


def _post(
    rule: str, name: str, who: str, summary: str, body: str, *statuses: int, is_older: bool = False
) -> Route:
    return Route(
        method="POST",
        rule=rule,
        name=name,
        who=who,
        summary=summary,
        statuses=_ALWAYS | _BODY | {200, *statuses},
        query={},
        body=body,
        is_older=is_older,
    )


def _act(rule: str, name: str, who: str, summary: str, *statuses: int) -> Route:
    """Return a POST that takes no body: the path says it all."""
    return Route(
        method="POST",
        rule=rule,
        name=name,
        who=who,
        summary=summary,
        statuses=_ALWAYS | {200, 404, 413, 429, *statuses},
        query={},
    )


_STATE: Mapping[str, object] = {"type": "string", "enum": [state.value for state in State]}
_LIMIT: Mapping[str, object] = {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
_CURSOR: Mapping[str, object] = {"type": "string"}
_WAIT: Mapping[str, object] = {"type": "integer", "minimum": 0, "maximum": 60, "default": 0}
_ANYBODY = "any registered identity"

ROUTES: tuple[Route, ...] = (
    _post(
        "/host/op",
        "submit",
        "caller",
        "Ask for an operation: it runs, is held for approval, or is refused.",
        "Ask",
        *(202, 404, 409, 429, 502, 504),
    ),
    _get(
        "/host/operations",
        "operations",
        _ANYBODY,
        "What can be asked for, with parameters and what policy says of it to this identity.",
    ),
    _get(
        "/requests",
        "list_requests",
        "caller: own; approver, admin: all",
        "Requests, newest first.",
        query={"state": _STATE, "limit": _LIMIT, "cursor": _CURSOR},
    ),
    _get(
        "/requests/<request_id>",
        "show",
        "its caller, approver, admin; to others it does not exist",
        "One request; with `wait`, once it changes or the time is over.",
        *(404, 429),
        query={"wait": _WAIT},
    ),
    _get(
        "/events",
        "events",
        "caller: own; approver: requests, operations and grants; admin: all",
        "What happens, as server-sent events; `Last-Event-ID` goes on after that one.",
        429,
    ),
    _post(
        "/requests/<request_id>/decision",
        "decide",
        "approver, admin",
        "Approve or deny a request; answers at once and does not wait for the run.",
        "Decision",
        *(404, 409, 410, 429),
    ),
    _post(
        "/requests/<request_id>/cancel",
        "cancel",
        "its caller, admin",
        "Withdraw a request that has not begun to run.",
        "Cancel",
        *(404, 409, 410, 429),
    ),
    _get(
        "/approvers",
        "approvers",
        "admin",
        "Who approves, and over which channels each of them is reached.",
    ),
    _post(
        "/approvers/<owner>/enrol",
        "enrol",
        "admin",
        "Make a one-time code by which an approver enrols over a channel.",
        "Enrol",
        *(404, 409, 429),
    ),
    _get(
        "/grants",
        "grants",
        "approver, admin",
        "Bounded grants of the last 30 days, newest first.",
    ),
    _act(
        "/grants/<grant_id>/revoke",
        "revoke_grant",
        "approver, admin",
        "End a grant; no further run by it begins.",
    ),
    _act(
        "/identities/<cn>/release",
        "release",
        "admin",
        "Forget what came to nothing of an identity so far, which ends its hold-off.",
    ),
    _get(
        "/admin/sudoers",
        "sudoers",
        "admin",
        "What sudo grants that is not known to be safe.",
    ),
    *(
        _post(
            f"/zfs/{verb}",
            f"zfs_{verb}",
            "caller",
            f"As `zfs.{verb}` by POST /host/op, which it becomes.",
            body,
            *(202, 404, 409, 429, 502, 504),
            is_older=True,
        )
        for verb, body in (
            ("list", "OlderZfsList"),
            ("snapshot", "OlderZfsSnapshot"),
            ("destroy", "OlderZfsDestroy"),
        )
    ),
    _post(
        "/webhook/decision",
        "bridged_decision",
        "bridge",
        "A person's answer, relayed and signed by a bridge.",
        "BridgedDecision",
        *(401, 404, 409, 410, 429),
    ),
    _get(
        "/whoami", "whoami", _ANYBODY, "Which identity this certificate is here, and of which host."
    ),
    _get("/health", "health", _ANYBODY, "That the agent lives."),
    _get("/ready", "ready", _ANYBODY, "Whether the agent can serve; 503 says why not."),
    _get("/openapi.json", "openapi", _ANYBODY, "This interface as an OpenAPI document."),
    _post(
        "/approve",
        "approve",
        "approver, admin",
        "Approve with the code that was sent to this approver, or with the request's digest.",
        "OlderApproval",
        *(404, 409, 410, 429),
        is_older=True,
    ),
    _post(
        "/webhook/signal",
        "bridged_signal",
        "bridge",
        "A message that arrived over Signal, as signal-cli-rest-api posts it.",
        "BridgedSignal",
        *(429,),
        is_older=True,
    ),
    _get(
        "/pending",
        "pending",
        _ANYBODY,
        "One's own pending requests.",
        query={"limit": _LIMIT, "cursor": _CURSOR},
        is_older=True,
    ),
    _get(
        "/admin/pending",
        "admin_pending",
        "admin",
        "All pending requests.",
        query={"limit": _LIMIT, "cursor": _CURSOR},
        is_older=True,
    ),
    _get(
        "/admin/warn-permissions",
        "warn_permissions",
        "admin",
        "What sudo grants that is not known to be safe.",
        is_older=True,
    ),
)
