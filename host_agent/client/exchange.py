"""What the client asks, in which order and how often, without a socket.

Each function is a generator that yields what it needs done (`Call`: one exchange, `Pause`: waiting)
and returns the typed result; `transport` does these things, blocking or on asyncio, so both
clients follow one protocol.

Retries, all of them here:

- An exchange is repeated only if repeating cannot do a thing twice: a GET, or the ask, which
  carries an `Idempotency-Key` made for it, or is a dry run. Decisions and cancellations are sent
  once.
- It is repeated where the connection failed, or where the answer is 429 or 503 with a
  `Retry-After` of at most `RETRY_AFTER_LIMIT_SECONDS`; never after a deadline passed or the
  handshake was refused.
- There are `ATTEMPTS` attempts in all, with `BACKOFF_SECONDS` between them.
- `follow` goes on through failed connections, 429 and 503 until its own deadline.
"""

import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, TypeVar
from urllib.parse import quote, urlencode

from pydantic import JsonValue, TypeAdapter, ValidationError

from host_agent.api.wire.dry_run import DryRun
from host_agent.api.wire.host import Health, Readiness
from host_agent.api.wire.model import Json
from host_agent.api.wire.operations import Held, OperationInfo, OperationList, Ran
from host_agent.api.wire.people import GrantBody, OwnIdentity
from host_agent.api.wire.requests import RequestPage, RequestView
from host_agent.api.wire.tools import ToolList
from host_agent.errors import (
    CertificateRefusedError,
    ConnectionFailedError,
    InvalidAnswerError,
    ProblemError,
    Recovery,
)
from host_agent.text import ID

LONGEST_POLL_SECONDS = 60
"""The server refuses a longer `wait`."""

ATTEMPTS = 3
BACKOFF_SECONDS = (0.2, 0.8)
RETRY_AFTER_LIMIT_SECONDS = 5.0
FOLLOW_PAUSE_SECONDS = 1.0
"""Between two polls, where one was answered early and nothing had changed, or failed."""

_ID = re.compile(ID)


class DeadlineError(ConnectionFailedError):
    """No whole answer within the exchange's deadline: it may have been followed or not."""


class HandshakeError(ConnectionFailedError):
    """Something listens, and TLS with it failed in a way that trying again does not mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP exchange to be done. `seconds` bounds all of it, connecting included."""

    method: str
    target: str
    seconds: float
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


T = TypeVar("T")
Steps: TypeAlias = Generator[Call | Pause, Reply | None, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Each exchange of docs/reference/http.md; holds deadlines, a clock and a source of keys."""

    timeout_seconds: float
    run_timeout_seconds: float
    monotonic: Callable[[], float]
    make_key: Callable[[], str]

    def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        reason: str | None,
    ) -> Steps[Ran | Held]:
        call = Call(
            method="POST",
            target="/host/op",
            seconds=self.run_timeout_seconds,
            content=_encoded(_ask(operation, params, reason)),
            headers={"Content-Type": "application/json", "Idempotency-Key": self.make_key()},
            is_repeatable=True,
        )
        reply = yield from _exchange(call)
        answer = _object(reply)
        return Held.parse(answer) if reply.status == 202 else Ran.parse(answer)

    def dry_run(
        self, operation: str, params: Mapping[str, JsonValue], reason: str | None
    ) -> Steps[DryRun]:
        """Ask what an ask for `operation` would come to."""
        call = Call(
            method="POST",
            target="/host/op",
            seconds=self.run_timeout_seconds,
            content=_encoded({**_ask(operation, params, reason), "dry_run": True}),
            headers={"Content-Type": "application/json"},
            is_repeatable=True,
        )
        return DryRun.parse(_object((yield from _exchange(call))))

    def operations(self) -> Steps[tuple[OperationInfo, ...]]:
        """Ask for the catalogue."""
        return OperationList.parse((yield from self.read("/host/operations"))).operations

    def tools(self, form: str) -> Steps[tuple[Json, ...]]:
        """Ask for the same as tools."""
        return ToolList.parse((yield from self.read(f"/host/operations?format={form}"))).tools

    def requests(
        self, state: str | None, limit: int | None, cursor: str | None
    ) -> Steps[RequestPage]:
        query = {"state": state, "limit": limit, "cursor": cursor}
        given = {key: value for key, value in query.items() if value is not None}
        target = f"/requests?{urlencode(given)}" if given else "/requests"
        return RequestPage.parse(_object((yield from _exchange(self._get(target)))))

    def request(self, request_id: str, wait: int) -> Steps[RequestView]:
        """Ask for one request, waiting up to `wait` seconds for a change."""
        return (yield from _viewed(self._poll(request_id, wait)))

    def decide(
        self,
        request_id: str,
        decision: str,
        digest: str | None,
        reason: str | None,
        grant: GrantBody | None = None,
        not_before: datetime | None = None,
    ) -> Steps[RequestView]:
        """Give a decision, once."""
        terms = None if grant is None else grant.model_dump(exclude_none=True)
        body: dict[str, JsonValue] = {
            "decision": decision,
            "digest": digest,
            "reason": reason,
            "grant": terms,
        }
        if not_before is not None:
            body["not_before"] = not_before.isoformat()
        return (yield from _viewed(self._post(request_id, "decision", body)))

    def cancel(self, request_id: str, reason: str | None) -> Steps[RequestView]:
        """Withdraw a request, once."""
        return (yield from _viewed(self._post(request_id, "cancel", {"reason": reason})))

    def read(self, target: str) -> Steps[dict[str, JsonValue]]:
        """Read what is at `target`, a path."""
        return _object((yield from _exchange(self._get(target))))

    def act(self, target: str, body: Mapping[str, JsonValue]) -> Steps[dict[str, JsonValue]]:
        """Post `body` to `target`, a path, once; nothing where it is empty."""
        return _object((yield from _exchange(self._post_to(target, body))))

    def whoami(self) -> Steps[OwnIdentity]:
        """Ask who this client is to the agent."""
        return OwnIdentity.parse(_object((yield from _exchange(self._get("/whoami")))))

    def health(self) -> Steps[Health]:
        """Ask whether the agent answers."""
        return Health.parse((yield from self.read("/health")))

    def ready(self) -> Steps[Readiness]:
        """Ask whether the agent would run something; sent once, and a 503 may be the answer."""
        reply = yield from _sent(self._get("/ready"))
        if reply.status == 503 and "audit_head" in (body := _json(reply)):
            return Readiness.parse(body)
        return Readiness.parse(_object(reply))

    def follow(
        self,
        request_id: str,
        timeout_seconds: float,
        on_view: Callable[[RequestView], None] | None,
    ) -> Steps[RequestView]:
        """Poll until the request is finished or `timeout_seconds` are over; the newest view."""
        deadline = self.monotonic() + timeout_seconds
        view = yield from self.request(request_id, 0)
        while True:
            if on_view is not None:
                on_view(view)
            left = deadline - self.monotonic()
            if view.is_finished or left <= 0:
                return view
            view = yield from self._next_view(view, left)

    def _next_view(self, view: RequestView, left: float) -> Steps[RequestView]:
        wait = min(LONGEST_POLL_SECONDS, max(1, int(left)))
        started = self.monotonic()
        pause = min(FOLLOW_PAUSE_SECONDS, left)
        try:
            newer = yield from _viewed(self._poll(view.request_id, wait))
        except (CertificateRefusedError, HandshakeError):
            raise
        except ConnectionFailedError:
            yield Pause(seconds=pause)
            return view
        except ProblemError as problem:
            if problem.status not in (429, 503):
                raise
            yield Pause(seconds=min(left, max(pause, problem.retry_after_seconds or 0.0)))
            return view
        unchanged = newer.body == view.body
        if unchanged and self.monotonic() - started < min(FOLLOW_PAUSE_SECONDS, wait):
            yield Pause(seconds=pause)
        return newer

    def _get(self, target: str, *, waiting: float = 0.0) -> Call:
        seconds = self.timeout_seconds + waiting
        return Call(method="GET", target=target, seconds=seconds, is_repeatable=True)

    def _poll(self, request_id: str, wait: int) -> Call:
        if not 0 <= wait <= LONGEST_POLL_SECONDS:
            message = f"wait is 0 to {LONGEST_POLL_SECONDS} seconds, not {wait}"
            raise ValueError(message)
        target = f"/requests/{_checked_id(request_id)}" + (f"?wait={wait}" if wait else "")
        return self._get(target, waiting=wait)

    def _post(self, request_id: str, verb: str, members: Mapping[str, JsonValue]) -> Call:
        body: dict[str, JsonValue] = {k: v for k, v in members.items() if v is not None}
        return self._post_to(f"/requests/{_checked_id(request_id)}/{verb}", body)

    def _post_to(self, target: str, body: Mapping[str, JsonValue]) -> Call:
        return Call(
            method="POST",
            target=target,
            seconds=self.timeout_seconds,
            content=_encoded(body) if body else None,
            headers={"Content-Type": "application/json"} if body else {},
        )


def _ask(
    operation: str, params: Mapping[str, JsonValue], reason: str | None
) -> dict[str, JsonValue]:
    body: dict[str, JsonValue] = {"operation": operation, "params": dict(params)}
    return body if reason is None else {**body, "reason": reason}


def is_request_id(text: str) -> bool:
    """Return whether `text` could be a request's id, or the beginning of one."""
    return _ID.fullmatch(text) is not None


def _checked_id(text: str) -> str:
    if not is_request_id(text):
        message = "a request id is 1 to 64 letters, digits, `_` and `-`"
        raise ValueError(message)
    return quote(text, safe="")


def _encoded(body: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode("ascii")


def _sent(call: Call | Pause) -> Steps[Reply]:
    reply = yield call
    if reply is None:
        message = "the transport gave no reply to a call"
        raise RuntimeError(message)
    return reply


def _viewed(call: Call) -> Steps[RequestView]:
    return RequestView.parse(_object((yield from _exchange(call))))


def _exchange(call: Call) -> Steps[Reply]:
    """Do `call`, again where the module's rules say so."""
    attempt = 0
    while True:
        attempt += 1
        is_last = attempt == ATTEMPTS or not call.is_repeatable
        try:
            reply = yield from _sent(call)
        except (CertificateRefusedError, DeadlineError, HandshakeError):
            raise
        except ConnectionFailedError:
            if is_last:
                raise
            yield Pause(seconds=BACKOFF_SECONDS[attempt - 1])
            continue
        delay = _retry_after(reply) if reply.status in (429, 503) else None
        if is_last or delay is None or delay > RETRY_AFTER_LIMIT_SECONDS:
            return reply
        yield Pause(seconds=delay)


def _retry_after(reply: Reply) -> float | None:
    value = reply.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _object(reply: Reply) -> dict[str, JsonValue]:
    """Return the body of a 2xx answer.

    Raises:
        ProblemError: the agent answered with a problem.
        InvalidAnswerError: neither.
    """
    body = _json(reply)
    if 200 <= reply.status < 300:
        return body
    raise problem_from(reply.status, body, _retry_after(reply))


def refused_stream(reply: Reply) -> ProblemError | InvalidAnswerError:
    """Return the error for an answer that came where a stream was asked for."""
    return problem_from(reply.status, _json(reply), _retry_after(reply))


def problem_from(
    status: int, body: Mapping[str, JsonValue], retry_after_seconds: float | None = None
) -> ProblemError | InvalidAnswerError:
    code, detail = body.get("code"), body.get("detail")
    if status < 400 or not isinstance(code, str):
        return InvalidAnswerError(
            f"What answered with HTTP status {status} is not host-agent: check the URL."
        )
    exchange_id = body.get("exchange_id")
    retry = body.get("retry_after_seconds")
    is_number = isinstance(retry, int | float) and not isinstance(retry, bool)
    return ProblemError(
        code=code,
        status=status,
        detail=detail if isinstance(detail, str) else str(body.get("title", "")),
        exchange_id=exchange_id if isinstance(exchange_id, str) else None,
        retry_after_seconds=float(str(retry)) if is_number else retry_after_seconds,
        recovery=recovery_from(body.get("recovery")),
        body=body,
    )


def recovery_from(value: JsonValue) -> Recovery | None:
    """Return what a problem says to do next; None where it says nothing that is known here."""
    try:
        return _RECOVERY.validate_python(value)
    except ValidationError:
        return None


_RECOVERY = TypeAdapter(Recovery)


def _json(reply: Reply) -> dict[str, JsonValue]:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    message = f"What answered with HTTP status {reply.status} is not host-agent: check the URL."
    if kind not in ("application/json", "application/problem+json"):
        raise InvalidAnswerError(message)
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        message = "The agent's answer is not JSON; it may have been cut off."
        raise InvalidAnswerError(message) from None
    if not isinstance(body, dict):
        raise InvalidAnswerError(message)
    return body
