"""One exception tree with stable codes, and the tables from code to HTTP status and exit status.

Every refusal and failure that a user can meet is a `HostAgentError` with a `code`, which
docs/reference/problems.md lists and which is never reused for another meaning. Rooms raise these;
`api` renders them as RFC 9457 problems, `cli` as one sentence and an exit status.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final, Self


class HostAgentError(Exception):
    """A refusal or failure with a stable `code`; `detail` is safe to show to the caller.

    `detail` is one sentence that says what to do next. It never holds a secret, and never says how
    to lift a restriction. `retry_after_seconds` is set where trying again later can help.
    `members` are further members of the problem body (`outcome`, `request`), `about` the audit
    fields of what was refused (operation, resource, params, digest). Who knows more of it raises
    an error of its own from this one (`amended`).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    title: ClassVar[str] = "The agent failed"

    def __init__(
        self,
        detail: str,
        *,
        retry_after_seconds: float | None = None,
        members: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.members: Final[Mapping[str, Any]] = dict(members or {})
        self.about: Final[Mapping[str, Any]] = dict(about or {})

    def amended(
        self,
        *,
        members: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return another of the same code that has `members` and `about` beside its own."""
        return type(self)(
            self.detail,
            retry_after_seconds=self.retry_after_seconds,
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


class InvalidParameterError(RequestError):
    """A parameter breaks its grammar."""

    code = "request:invalid-parameter"
    status = HTTPStatus.BAD_REQUEST
    title = "A parameter is invalid"


class ReasonRequiredError(RequestError):
    """The rule wants a reason and none was given."""

    code = "request:reason-required"
    status = HTTPStatus.BAD_REQUEST
    title = "A reason is required"


class RequestTimeoutError(RequestError):
    """The headers or the body did not arrive before their deadline."""

    code = "request:timeout"
    status = HTTPStatus.REQUEST_TIMEOUT
    title = "The request did not arrive in time"


class ForeignOriginError(RequestError):
    """The request carries an `Origin` that is not this service's own."""

    code = "request:foreign-origin"
    status = HTTPStatus.FORBIDDEN
    title = "The request comes from a foreign origin"


class UnknownOperationError(RequestError):
    """No operation of that name."""

    code = "request:unknown-operation"
    status = HTTPStatus.NOT_FOUND
    title = "No such operation"


class RequestNotFoundError(RequestError):
    """No request of that id that this principal may see."""

    code = "request:not-found"
    status = HTTPStatus.NOT_FOUND
    title = "No such request"


class RequestTooLargeError(RequestError):
    """The body is over its limit."""

    code = "request:too-large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "The request body is too large"


class NotJsonError(RequestError):
    """The body is not declared as JSON, or is encoded."""

    code = "request:not-json"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    title = "The request body is not JSON"


class HeadersTooLargeError(RequestError):
    """The header section is over its limit."""

    code = "request:headers-too-large"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    title = "The request headers are too large"


class IdempotencyConflictError(RequestError):
    """The same idempotency key came with another body."""

    code = "request:idempotency-conflict"
    status = HTTPStatus.CONFLICT
    title = "The idempotency key was used for another body"


class RouteNotFoundError(RequestError):
    """No such path."""

    code = "route:not-found"
    status = HTTPStatus.NOT_FOUND
    title = "No such route"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""

    code = "route:method-not-allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED
    title = "The method is not allowed here"


# -- who asks -------------------------------------------------------------------------------------


class IdentityError(HostAgentError):
    """The peer is not somebody who may ask."""

    status = HTTPStatus.FORBIDDEN


class UnknownIdentityError(IdentityError):
    """A valid certificate whose CN no identity names."""

    code = "identity:unknown"
    title = "The identity is not registered"


class RevokedIdentityError(IdentityError):
    """The certificate is on the revocation list."""

    code = "identity:revoked"
    title = "The certificate is revoked"


class InvalidIdentityError(IdentityError):
    """The certificate has a shape that is not accepted, or is not the pinned one."""

    code = "identity:invalid"
    title = "The certificate is not acceptable"


class RoleRequiredError(IdentityError):
    """The identity lacks the role that the route asks for."""

    code = "identity:role-required"
    title = "The identity lacks the role"


class RevocationUnavailableError(IdentityError):
    """No current revocation list: nobody gets in."""

    code = "identity:revocation-unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Revocation cannot be checked"


class BadSignatureError(IdentityError):
    """A bridge's message is not signed as it must be."""

    code = "bridge:bad-signature"
    status = HTTPStatus.UNAUTHORIZED
    title = "The signature is not valid"


# -- may it ---------------------------------------------------------------------------------------


class PolicyError(HostAgentError):
    """Policy refuses."""

    status = HTTPStatus.FORBIDDEN


class PolicyDeniedError(PolicyError):
    """A rule or an allow-list denies."""

    code = "policy:denied"
    title = "Policy denies this"


class NoRuleError(PolicyError):
    """No rule matches, and no match denies."""

    code = "policy:no-rule"
    title = "No rule allows this"


class ReadOnlyError(PolicyError):
    """A read_only identity asked for a change."""

    code = "policy:read-only"
    title = "The identity may only read"


class ProtectedError(PolicyError):
    """The resource is protected above all rules."""

    code = "policy:protected"
    title = "The resource is protected"


class RateLimitedError(HostAgentError):
    """Too many asks, decisions or denials of this identity."""

    code = "rate:limited"
    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests"


# -- who says yes ---------------------------------------------------------------------------------


class ApprovalError(HostAgentError):
    """The request cannot be decided, or was decided against."""

    status = HTTPStatus.CONFLICT


class SelfApprovalError(ApprovalError):
    """The approver acts for the owner who made the request."""

    code = "approval:self-approval"
    status = HTTPStatus.FORBIDDEN
    title = "Nobody approves for themselves"


class ApprovalDeniedError(ApprovalError):
    """A person said no."""

    code = "approval:denied"
    status = HTTPStatus.FORBIDDEN
    title = "The request was denied"


class AlreadyDecidedError(ApprovalError):
    """The request has left `pending`, or this owner has spoken already."""

    code = "approval:already-decided"
    title = "The request is decided already"


class DigestMismatchError(ApprovalError):
    """The approval repeats another digest than the request's."""

    code = "approval:digest-mismatch"
    title = "The approval is for something else"


class TargetChangedError(ApprovalError):
    """The resource is no longer what was approved."""

    code = "approval:target-changed"
    title = "The target has changed since it was asked for"


class ExpiredError(ApprovalError):
    """The request expired before it was decided or run. Nothing ran."""

    code = "approval:expired"
    status = HTTPStatus.GONE
    title = "The request has expired"


class QueueFullError(ApprovalError):
    """Too many requests are pending."""

    code = "approval:queue-full"
    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests are pending"


class UnreachableError(ApprovalError):
    """There are not enough approvers who could be asked."""

    code = "approval:unreachable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Nobody can be asked to approve this"


# -- it runs --------------------------------------------------------------------------------------


class HostError(HostAgentError):
    """The host did not do it."""

    status = HTTPStatus.BAD_GATEWAY


class HostFailedError(HostError):
    """The command itself failed; `members["outcome"]` has its exit status and output."""

    code = "host:failed"
    title = "The command failed"


class SudoRefusedError(HostError):
    """sudo would not run the wrapper: a line is missing in sudoers, or it would prompt."""

    code = "host:sudo-refused"
    title = "sudo refused to run the wrapper"


class InvalidOutputError(HostError):
    """The command succeeded, and its output is not what it should be."""

    code = "host:output-invalid"
    title = "The command's output is not understood"


class HostNotFoundError(HostError):
    """The resource does not exist on this host."""

    code = "host:not-found"
    status = HTTPStatus.NOT_FOUND
    title = "The resource does not exist"


class HostBusyError(HostError):
    """The resource or the host had no turn free in time."""

    code = "host:busy"
    status = HTTPStatus.CONFLICT
    title = "The resource is busy"


class HostTimedOutError(HostError):
    """The command was ended at its deadline."""

    code = "host:timed-out"
    status = HTTPStatus.GATEWAY_TIMEOUT
    title = "The command did not end in time"


class AdapterUnavailableError(HostError):
    """The adapter is not configured, or its wrapper is missing."""

    code = "adapter:unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "The adapter is not available"


# -- what happened --------------------------------------------------------------------------------


class AuditUnavailableError(HostAgentError):
    """The audit log cannot be written: nothing runs."""

    code = "audit:unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "The audit log cannot be written"


class StoreUnavailableError(HostAgentError):
    """The request store cannot be read or written: nothing runs."""

    code = "store:unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "The request store is not available"


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
    before it is escaped. `request_id` names the exchange, or the request where there is one.
    """

    def __init__(
        self,
        *,
        code: str,
        status: int,
        detail: str,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.status = status
        self.detail = detail
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds
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
