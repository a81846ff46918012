"""A route as one row: path, who may, models, handler. What `app` serves and the document prints."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel
from quart import Response

from host_agent.api.wire.host import Readiness, SudoersReport
from host_agent.api.wire.model import WireModel
from host_agent.api.wire.people import RenewalAnswer
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.core import Pipeline
from host_agent.policy.limits import Limits
from host_agent.text import ID

Schema: TypeAlias = Mapping[str, Any]
AnswerT = TypeVar("AnswerT", bound=WireModel)
Answered: TypeAlias = Callable[..., Awaitable[AnswerT | Response]]
"""A handler: of the services, the request, and by name what the path says."""

ALWAYS = frozenset({400, 403, 408, 431, 500, 503})
"""What the server or the identity check can answer before any route is reached."""
REQUEST_ID: Schema = {"type": "string", "pattern": f"^{ID}$"}
IN_PATH: Mapping[str, Schema] = {
    "request_id": REQUEST_ID,
    "grant_id": REQUEST_ID,
    "owner": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"},
    "cn": {"type": "string", "pattern": "^[a-z_][a-z0-9_.-]{0,63}$"},
}
"""What can stand in a path, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the handlers work with."""

    pipeline: Pipeline
    ready: Callable[[], Awaitable[Readiness]]
    sudoers: Callable[[], Awaitable[SudoersReport]]
    renew: Callable[[Principal, PeerCertificate, str, str], Awaitable[RenewalAnswer]]
    """Takes a renewal: of whom, by which certificate, the request and the proof."""
    document: Callable[[], bytes]
    """The OpenAPI document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[AnswerT]):
    """One method of one path.

    `roles` are asked, and `rate` is counted, before anything of the request is looked at; no roles:
    any registered identity. `scope` says who sees what, where the roles do not. `statuses` are
    those it can answer beside 200, `ALWAYS` and what a body adds. `query` maps the query parameters
    it takes to their JSON schemas; others are refused. `headers` are those it reads. `answer` is
    the body of a 200, `unready` that of a 503 beside the problem that every route can answer.
    """

    method: str
    rule: str
    handler: Answered[AnswerT]
    answer: type[AnswerT] | None
    summary: str
    roles: tuple[Role, ...] = ()
    scope: str = ""
    rate: Callable[[Limits, str, float], None] | None = None
    body: type[BaseModel] | str | None = None
    """What it takes; a text names a schema that the catalogue makes."""
    needs_body: bool = True
    also: frozenset[int] = frozenset()
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    streams: tuple[type[WireModel], ...] = ()
    """Of server-sent events: the data of one."""
    or_else: type[WireModel] | None = None
    """Another body of a 200."""
    unready: type[WireModel] | None = None
    is_older: bool = False

    @property
    def name(self) -> str:
        """Return the handler's name, which is the operation's in the document."""
        return str(getattr(self.handler, "__name__", ""))

    @property
    def path(self) -> str:
        """Return the path in OpenAPI's form."""
        return self.rule.replace("<", "{").replace(">", "}")

    @property
    def answers(self) -> tuple[type[WireModel], ...]:
        """Return the bodies of a 200 that it can have."""
        return tuple(one for one in (self.answer, self.or_else) if one is not None)

    @property
    def who(self) -> str:
        """Return in words who is answered."""
        roles = ", ".join(role.value for role in self.roles)
        return self.scope or roles or "any registered identity"

    @property
    def statuses(self) -> frozenset[int]:
        """Return all that it can answer."""
        sent = {413} if self.method == "POST" else set()
        typed = {415} if self.body is not None else set()
        limited = {429} if self.rate is not None else set()
        return ALWAYS | {int(HTTPStatus.OK)} | sent | typed | limited | self.also
