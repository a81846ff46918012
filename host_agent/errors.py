"""One exception tree with stable codes: to each a title, an HTTP status, and what to do next.

Every refusal and failure that a user can meet is a `HostAgentError` with a `code`, which
docs/reference/problems.md lists and which is never reused for another meaning. Rooms raise these;
`api` renders them as RFC 9457 problems, `cli` as one sentence and an exit status.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Any, ClassVar, Final, Self

# -- what to do next ------------------------------------------------------------------------------


class RecoveryKind(StrEnum):
    """What a program does about a problem without understanding its sentence.

    - `never`: the same is refused again, and nothing in it can be corrected.
    - `change_parameters`: the same is refused again; correct what the faults name.
    - `wait_for`: another request of this caller goes first; ask when that has ended, not before.
    - `ask_again_after`: the same may be asked again once so many seconds have passed.
    - `ask_a_person`: no program mends it; somebody has to look.
    """

    NEVER = "never"
    CHANGE_PARAMETERS = "change_parameters"
    WAIT_FOR = "wait_for"
    ASK_AGAIN_AFTER = "ask_again_after"
    ASK_A_PERSON = "ask_a_person"


class FaultPlace(StrEnum):
    """The part of an HTTP request that a fault is in."""

    BODY = "body"
    QUERY = "query"
    HEADER = "header"
    PATH = "path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to correct.

    `pointer` (RFC 6901) is into the JSON body in the typed form, or into the query, the header
    section or the path as an object of their names; empty is all of it.
    """

    pointer: str
    message: str
    place: FaultPlace = FaultPlace.BODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What to do next. Beside `kind` only what belongs to that kind is set.

    `faults` of `change_parameters` are at least one in every problem. `wait_for` names the same
    request as `request_id`, or one that would have the same effect as `equivalent_to`. `seconds` of
    `ask_again_after` are whole; 0 is at once.
    """

    kind: RecoveryKind
    faults: tuple[Fault, ...] = ()
    request_id: str | None = None
    equivalent_to: str | None = None
    seconds: int | None = None


NEVER: Final = Recovery(kind=RecoveryKind.NEVER)
ASK_A_PERSON: Final = Recovery(kind=RecoveryKind.ASK_A_PERSON)
CORRECT: Final = Recovery(kind=RecoveryKind.CHANGE_PARAMETERS)
"""The detail is the one fault, unless who raises the error names others."""


def again_after(seconds: float) -> Recovery:
    """Return that the same may be asked again in `seconds`, rounded up, at least 0."""
    whole = max(0, math.ceil(seconds))
    return Recovery(kind=RecoveryKind.ASK_AGAIN_AFTER, seconds=whole)


def wait_for(*, request_id: str | None = None, equivalent_to: str | None = None) -> Recovery:
    """Return that one's own request goes first: the same one, or an equivalent."""
    return Recovery(kind=RecoveryKind.WAIT_FOR, request_id=request_id, equivalent_to=equivalent_to)


def correct(message: str, *path: str | int, place: FaultPlace = FaultPlace.BODY) -> Recovery:
    """Return that what `path` leads to has to be corrected, for the reason `message`."""
    fault = Fault(pointer=pointer(path), message=message, place=place)
    return Recovery(kind=RecoveryKind.CHANGE_PARAMETERS, faults=(fault,))


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of keys and indexes from the outermost inwards."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


# -- the tree -------------------------------------------------------------------------------------


class HostAgentError(Exception):
    """A refusal or failure with a stable `code`; `detail` is safe to show to the caller.

    `detail` is one sentence that says what to do next. It never holds a secret, and never says how
    to lift a restriction. It names no command line: who reads it may have none.
    `retry_after_seconds` is set where trying again later can help. `recovery` says what to do next,
    where this one has another than its code. `members` are further members of the problem body
    (`outcome`, `request`), `about` the audit fields of what was refused (operation, resource,
    params, digest). Who knows more of it raises an error of its own from this one (`amended`).

    A class that declares a `code` declares title and recovery with it.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    title: ClassVar[str] = "The agent failed"
    usual_recovery: ClassVar[Recovery] = ASK_A_PERSON
    usual_pointer: ClassVar[str] = ""
    """Where in the body the fault is, for a code that is corrected always in the same place."""

    def __init_subclass__(cls) -> None:
        """Refuse a class that has a code of its own and takes the rest from its parent."""
        super().__init_subclass__()
        own = vars(cls)
        if "code" in own and not {"title", "usual_recovery"} <= own.keys():
            message = f"{cls.__name__} declares a code without its title and usual_recovery"
            raise TypeError(message)

    def __init__(
        self,
        detail: str,
        *,
        retry_after_seconds: float | None = None,
        recovery: Recovery | None = None,
        members: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self._recovery: Final = recovery
        self.members: Final[Mapping[str, Any]] = dict(members or {})
        self.about: Final[Mapping[str, Any]] = dict(about or {})

    @property
    def recovery(self) -> Recovery:
        """Return what to do next; to correct something has at least one fault."""
        recovery = self._recovery or self.usual_recovery
        match recovery.kind:
            case RecoveryKind.CHANGE_PARAMETERS if not recovery.faults:
                return replace(
                    recovery, faults=(Fault(pointer=self.usual_pointer, message=self.detail),)
                )
            case RecoveryKind.ASK_AGAIN_AFTER if self.retry_after_seconds is not None:
                return again_after(max(1.0, self.retry_after_seconds))
            case (
                RecoveryKind.CHANGE_PARAMETERS
                | RecoveryKind.ASK_AGAIN_AFTER
                | RecoveryKind.NEVER
                | RecoveryKind.WAIT_FOR
                | RecoveryKind.ASK_A_PERSON
            ):
                return recovery

    def amended(
        self,
        *,
        recovery: Recovery | None = None,
        members: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return another of the same code that has `members` and `about` beside its own.

        A `recovery` takes the place of its own.
        """
        return type(self)(
            self.detail,
            retry_after_seconds=self.retry_after_seconds,
            recovery=recovery or self._recovery,
            members={**self.members, **(members or {})},
            about={**self.about, **(about or {})},
        )


class InternalError(HostAgentError):
    """A defect of the agent. Its detail says nothing of the inside."""


# -- the ask itself -------------------------------------------------------------------------------


class RequestError(HostAgentError):
    """The ask cannot be understood or followed."""


class MalformedRequestError(RequestError):
    """Not JSON as this service takes it: syntax, duplicate keys, depth, unknown fields."""

    code = "request:malformed"
    status = HTTPStatus.BAD_REQUEST
    title = "The request is malformed"
    usual_recovery = CORRECT


class InvalidParameterError(RequestError):
    """A parameter breaks its grammar."""

    code = "request:invalid-parameter"
    status = HTTPStatus.BAD_REQUEST
    title = "A parameter is invalid"
    usual_recovery = CORRECT


def invalid_in_query(name: str, rule: str) -> InvalidParameterError:
    """Return that the query value `name` breaks `rule`."""
    message = f"{name}: {rule}"
    return InvalidParameterError(message, recovery=correct(message, name, place=FaultPlace.QUERY))


class ReasonRequiredError(RequestError):
    """The rule wants a reason and none was given."""

    code = "request:reason-required"
    status = HTTPStatus.BAD_REQUEST
    title = "A reason is required"
    usual_recovery = CORRECT
    usual_pointer = "/reason"


class RequestTimeoutError(RequestError):
    """The headers or the body did not arrive before their deadline."""

    code = "request:timeout"
    status = HTTPStatus.REQUEST_TIMEOUT
    title = "The request did not arrive in time"
    usual_recovery = again_after(1)


class ForeignOriginError(RequestError):
    """The request carries an `Origin` that is not this service's own."""

    code = "request:foreign-origin"
    status = HTTPStatus.FORBIDDEN
    title = "The request comes from a foreign origin"
    usual_recovery = NEVER


class UnknownOperationError(RequestError):
    """No operation of that name."""

    code = "request:unknown-operation"
    status = HTTPStatus.NOT_FOUND
    title = "No such operation"
    usual_recovery = CORRECT
    usual_pointer = "/operation"


class RequestNotFoundError(RequestError):
    """No request of that id that this principal may see."""

    code = "request:not-found"
    status = HTTPStatus.NOT_FOUND
    title = "No such request"
    usual_recovery = CORRECT


def request_not_found(message: str = "") -> RequestNotFoundError:
    """Return that the request of a path is not there; `message` says so otherwise."""
    message = message or "There is no such request that you may see; GET /requests lists yours."
    fix = correct(message, "request_id", place=FaultPlace.PATH)
    return RequestNotFoundError(message, recovery=fix)


class RequestTooLargeError(RequestError):
    """The body is over its limit."""

    code = "request:too-large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "The request body is too large"
    usual_recovery = CORRECT


class NotJsonError(RequestError):
    """The body is not declared as JSON, or is encoded."""

    code = "request:not-json"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    title = "The request body is not JSON"
    usual_recovery = CORRECT


class HeadersTooLargeError(RequestError):
    """The header section is over its limit."""

    code = "request:headers-too-large"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    title = "The request headers are too large"
    usual_recovery = CORRECT


class IdempotencyConflictError(RequestError):
    """The same idempotency key came with another body."""

    code = "request:idempotency-conflict"
    status = HTTPStatus.CONFLICT
    title = "The idempotency key was used for another body"
    usual_recovery = CORRECT


def idempotency_conflict() -> IdempotencyConflictError:
    """Return that a key was used for another body."""
    message = "This Idempotency-Key was used for another body; take a new key."
    fix = correct(message, "Idempotency-Key", place=FaultPlace.HEADER)
    return IdempotencyConflictError(message, recovery=fix)


class RouteNotFoundError(RequestError):
    """No such path."""

    code = "route:not-found"
    status = HTTPStatus.NOT_FOUND
    title = "No such route"
    usual_recovery = NEVER


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""

    code = "route:method-not-allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED
    title = "The method is not allowed here"
    usual_recovery = NEVER


# -- who asks -------------------------------------------------------------------------------------


class IdentityError(HostAgentError):
    """The peer is not somebody who may ask."""

    status = HTTPStatus.FORBIDDEN


class UnknownIdentityError(IdentityError):
    """A valid certificate whose CN no identity names."""

    code = "identity:unknown"
    title = "The identity is not registered"
    usual_recovery = ASK_A_PERSON


class RevokedIdentityError(IdentityError):
    """The certificate is on the revocation list."""

    code = "identity:revoked"
    title = "The certificate is revoked"
    usual_recovery = ASK_A_PERSON


class InvalidIdentityError(IdentityError):
    """The certificate has a shape that is not accepted, or is not the pinned one."""

    code = "identity:invalid"
    title = "The certificate is not acceptable"
    usual_recovery = ASK_A_PERSON


class RoleRequiredError(IdentityError):
    """The identity lacks the role that the route asks for."""

    code = "identity:role-required"
    title = "The identity lacks the role"
    usual_recovery = ASK_A_PERSON


class RenewalNotOfferedError(IdentityError):
    """This host takes no renewals of certificates, or none of this identity."""

    code = "renewal:not-offered"
    status = HTTPStatus.NOT_FOUND
    title = "The certificate is not renewed here"
    usual_recovery = ASK_A_PERSON


class RenewalConflictError(IdentityError):
    """The certificate was renewed for another key already."""

    code = "renewal:conflict"
    status = HTTPStatus.CONFLICT
    title = "Another renewal stands against it"
    usual_recovery = ASK_A_PERSON


class RevocationUnavailableError(IdentityError):
    """No current revocation list: nobody gets in."""

    code = "identity:revocation-unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Revocation cannot be checked"
    usual_recovery = again_after(60)


class BadSignatureError(IdentityError):
    """A bridge's message is not signed as it must be."""

    code = "bridge:bad-signature"
    status = HTTPStatus.UNAUTHORIZED
    title = "The signature is not valid"
    usual_recovery = NEVER


# -- may it ---------------------------------------------------------------------------------------


class PolicyError(HostAgentError):
    """Policy refuses."""

    status = HTTPStatus.FORBIDDEN


class PolicyDeniedError(PolicyError):
    """A rule or an allow-list denies."""

    code = "policy:denied"
    title = "Policy denies this"
    usual_recovery = NEVER


class NoRuleError(PolicyError):
    """No rule matches, and no match denies."""

    code = "policy:no-rule"
    title = "No rule allows this"
    usual_recovery = NEVER


class ReadOnlyError(PolicyError):
    """A read_only identity asked for a change."""

    code = "policy:read-only"
    title = "The identity may only read"
    usual_recovery = NEVER


class ProtectedError(PolicyError):
    """The resource is protected above all rules."""

    code = "policy:protected"
    title = "The resource is protected"
    usual_recovery = NEVER


class RateLimitedError(HostAgentError):
    """Too many asks, decisions or denials of this identity."""

    code = "rate:limited"
    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests"
    usual_recovery = again_after(60)


# -- who says yes ---------------------------------------------------------------------------------


class ApprovalError(HostAgentError):
    """The request cannot be decided, or was decided against."""

    status = HTTPStatus.CONFLICT


class SelfApprovalError(ApprovalError):
    """The approver acts for the owner who made the request."""

    code = "approval:self-approval"
    status = HTTPStatus.FORBIDDEN
    title = "Nobody approves for themselves"
    usual_recovery = ASK_A_PERSON


class ApprovalDeniedError(ApprovalError):
    """A person said no."""

    code = "approval:denied"
    status = HTTPStatus.FORBIDDEN
    title = "The request was denied"
    usual_recovery = again_after(60)


class AlreadyDecidedError(ApprovalError):
    """The request has left `pending`, or this owner has spoken already."""

    code = "approval:already-decided"
    title = "The request is decided already"
    usual_recovery = NEVER


class DigestMismatchError(ApprovalError):
    """The approval repeats another digest than the request's."""

    code = "approval:digest-mismatch"
    title = "The approval is for something else"
    usual_recovery = CORRECT
    usual_pointer = "/digest"


class TargetChangedError(ApprovalError):
    """The resource is no longer what was approved."""

    code = "approval:target-changed"
    title = "The target has changed since it was asked for"
    usual_recovery = again_after(0)


class ExpiredError(ApprovalError):
    """The request expired before it was decided or run. Nothing ran."""

    code = "approval:expired"
    status = HTTPStatus.GONE
    title = "The request has expired"
    usual_recovery = again_after(60)


class HeldOffError(ApprovalError):
    """The same was denied, and people are not asked again before some time has passed."""

    code = "approval:held-off"
    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "People are not asked for this again yet"
    usual_recovery = again_after(60)


class QueueFullError(ApprovalError):
    """Too many requests are pending."""

    code = "approval:queue-full"
    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests are pending"
    usual_recovery = again_after(60)


class UnreachableError(ApprovalError):
    """There are not enough approvers who could be asked."""

    code = "approval:unreachable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Nobody can be asked to approve this"
    usual_recovery = ASK_A_PERSON


# -- it runs --------------------------------------------------------------------------------------


class HostError(HostAgentError):
    """The host did not do it."""

    status = HTTPStatus.BAD_GATEWAY


class HostFailedError(HostError):
    """The command itself failed; `members["outcome"]` has its exit status and output."""

    code = "host:failed"
    title = "The command failed"
    usual_recovery = ASK_A_PERSON


class SudoRefusedError(HostError):
    """sudo would not run the wrapper: a line is missing in sudoers, or it would prompt."""

    code = "host:sudo-refused"
    title = "sudo refused to run the wrapper"
    usual_recovery = ASK_A_PERSON


class InvalidOutputError(HostError):
    """The command succeeded, and its output is not what it should be."""

    code = "host:output-invalid"
    title = "The command's output is not understood"
    usual_recovery = ASK_A_PERSON


class HostNotFoundError(HostError):
    """The resource does not exist on this host."""

    code = "host:not-found"
    status = HTTPStatus.NOT_FOUND
    title = "The resource does not exist"
    usual_recovery = CORRECT
    usual_pointer = "/params"


class HostBusyError(HostError):
    """The resource or the host had no turn free in time."""

    code = "host:busy"
    status = HTTPStatus.CONFLICT
    title = "The resource is busy"
    usual_recovery = again_after(5)


class HostTimedOutError(HostError):
    """The command was ended at its deadline."""

    code = "host:timed-out"
    status = HTTPStatus.GATEWAY_TIMEOUT
    title = "The command did not end in time"
    usual_recovery = ASK_A_PERSON


class AdapterUnavailableError(HostError):
    """The adapter is not configured, or its wrapper is missing."""

    code = "adapter:unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "The adapter is not available"
    usual_recovery = ASK_A_PERSON


# -- what happened --------------------------------------------------------------------------------


class AuditUnavailableError(HostAgentError):
    """The audit log cannot be written: nothing runs."""

    code = "audit:unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "The audit log cannot be written"
    usual_recovery = again_after(60)


class StoreUnavailableError(HostAgentError):
    """The request store cannot be read or written: nothing runs."""

    code = "store:unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "The request store is not available"
    usual_recovery = again_after(60)


# -- the administrator's own mistakes; these never cross HTTP -------------------------------------


class ConfigurationError(Exception):
    """The configuration cannot be used; `faults` names every reason by its dotted key.

    Not a `HostAgentError`: it ends `serve` and `config check` with exit status 78, and a reload
    with the old configuration kept.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class RestartNeededError(ConfigurationError):
    """A reload would have to move what only a start can; the configuration itself is good."""

    remedy: ClassVar[str] = "systemctl restart host-agent.service"


class UsageError(Exception):
    """The command line cannot be followed (exit status 64)."""


class ConnectionFailedError(Exception):
    """The client could not reach the agent (exit status 69)."""


class CertificateRefusedError(ConnectionFailedError):
    """The agent ended the TLS connection because of the client's certificate (exit status 77)."""


class InvalidAnswerError(Exception):
    """What answered the client is not this service, or not whole (exit status 70)."""


class ProblemError(Exception):
    """A problem that the agent answered, as its client sees it (exit status by `code`).

    Not a `HostAgentError`: `code` and `detail` came over the wire, so a newer agent may send a code
    that `BY_CODE` lacks. `body` is the whole RFC 9457 object; nothing in it is fit for a terminal
    before it is escaped. `exchange_id` is what the agent's log names the exchange by. `recovery` is
    None where the agent said none, or one that this version does not know.
    """

    def __init__(
        self,
        *,
        code: str,
        status: int,
        detail: str,
        exchange_id: str | None = None,
        retry_after_seconds: float | None = None,
        recovery: Recovery | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.status = status
        self.detail = detail
        self.exchange_id = exchange_id
        self.retry_after_seconds = retry_after_seconds
        self.recovery = recovery
        self.body: dict[str, Any] = dict(body or {})


def _leaves(root: type[HostAgentError]) -> Iterator[type[HostAgentError]]:
    for child in root.__subclasses__():
        if "code" in vars(child):
            yield child
        yield from _leaves(child)


BY_CODE: Mapping[str, type[HostAgentError]] = {
    InternalError.code: InternalError,
    **{error.code: error for error in _leaves(HostAgentError)},
}
"""Every code of a problem, and the exception that carries it."""

EX_OK, EX_FAILED, EX_USAGE, EX_DATAERR, EX_UNAVAILABLE = 0, 1, 64, 65, 69
EX_SOFTWARE, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 70, 75, 77, 78

_EXIT_BY_STATUS: Mapping[int, int] = {
    400: EX_DATAERR,
    401: EX_NOPERM,
    403: EX_NOPERM,
    404: EX_DATAERR,
    405: EX_DATAERR,
    408: EX_TEMPFAIL,
    409: EX_TEMPFAIL,
    410: EX_TEMPFAIL,
    413: EX_DATAERR,
    415: EX_DATAERR,
    429: EX_TEMPFAIL,
    431: EX_DATAERR,
    500: EX_SOFTWARE,
    503: EX_UNAVAILABLE,
}


def exit_status(code: str) -> int:
    """Return the sysexits status of a problem code; 70 for an unknown one."""
    if code.startswith("host:"):
        return EX_FAILED
    error = BY_CODE.get(code)
    return EX_SOFTWARE if error is None else _EXIT_BY_STATUS[error.status]
