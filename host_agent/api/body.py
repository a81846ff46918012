"""The body of a request, read once and strictly, into values that cannot hold a bad shape.

Stricter than JSON where two readers could understand one text differently, and bounded before it
is parsed. Nobody looks at the raw bytes afterwards.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
)

from host_agent.api.wire.people import GrantBody
from host_agent.canonical import JsonValue
from host_agent.errors import (
    FaultPlace,
    InvalidParameterError,
    MalformedRequestError,
    NotJsonError,
    RateLimitedError,
    RequestTooLargeError,
    correct,
)
from host_agent.http.exchange import Receive
from host_agent.operations.catalogue import explain, faults_of
from host_agent.requests.model import GrantTerms
from host_agent.text import DIGEST, ID

DecisionT = TypeVar("DecisionT", bound="DecisionBody")
ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024
SMALL_BODY_BYTES = 16 * 1024
"""No operation needs more; what goes beyond takes one of few places."""
LARGE_BODIES = 32
"""Larger bodies that are read at once: what slow senders can make the agent hold is bounded."""
LARGE_RETRY_SECONDS = 5.0
MAX_DEPTH = 16
MAX_CONTAINERS = 1000
"""Objects and arrays in one body: no operation has so many parameters."""
MAX_DIGITS = 20
"""Digits of an integer: no parameter is beyond 64 bits."""
MAX_REASON = 2000
"""Characters of a caller's or approver's reason."""

_JSON_TYPE = re.compile(r"application/json(?:\s*;\s*charset\s*=\s*\"?utf-8\"?)?\s*", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
# Possessive, and an unterminated string ends with the text: linear in any text.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


# -- the shapes -----------------------------------------------------------------------------------


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


Reason = Annotated[
    str, Field(max_length=MAX_REASON, description="Why, in the asker's own words; unverified.")
]


def _text_of_instant(value: object) -> object:
    """Refuse what is no text: a number stands for no instant here."""
    if not isinstance(value, str):
        message = "must be an instant in RFC 3339, with its offset"
        raise ValueError(message)  # noqa: TRY004 - what pydantic tells
    return value


NotBefore = Annotated[AwareDatetime, Strict(strict=False), BeforeValidator(_text_of_instant)]


class TypedAsk(_Body):
    """An operation and its parameters."""

    operation: str = Field(max_length=128, description="The operation's name, `adapter.verb`.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Its parameters, as GET /host/operations lists them."
    )
    reason: Reason | None = None
    dry_run: bool = Field(
        default=False, description="Only tell what it would come to; nothing happens."
    )


class OlderMetadata(_Body):
    """What the older form says besides the operation."""

    reason: Reason | None = None
    approval_token: str | None = Field(
        default=None, max_length=256, description="Accepted and ignored: it carries no authority."
    )


class OlderAsk(_Body):
    """The older form of the same: strings only, parameters by position."""

    kind: str = Field(max_length=64, description="The adapter.")
    resource: str | None = Field(
        default=None, max_length=4096, description="The first parameter, where there is one."
    )
    args: list[Annotated[str, Field(max_length=4096)]] = Field(
        min_length=1, max_length=64, description="The verb, then the other parameters in order."
    )
    metadata: OlderMetadata = Field(default_factory=OlderMetadata)


class OlderZfsList(_Body):
    """The older form of `zfs.list`."""

    dataset: str | None = Field(default=None, description="As in `zfs.list`.")


class OlderZfsSnapshot(_Body):
    """The older form of `zfs.snapshot`."""

    dataset: str = Field(description="As in `zfs.snapshot`.")
    name: str = Field(description="As in `zfs.snapshot`.")


class OlderZfsDestroy(_Body):
    """The older form of `zfs.destroy`."""

    dataset: str = Field(description="As in `zfs.destroy`.")
    recursive: bool | None = Field(default=None, description="As in `zfs.destroy`.")
    approval_token: str | None = Field(
        default=None, max_length=256, description="Accepted and ignored: it carries no authority."
    )


def terms_of(grant: GrantBody | None) -> GrantTerms | None:
    return None if grant is None else GrantTerms(**grant.model_dump())


class DecisionBody(_Body):
    """A person's answer to a request."""

    decision: Literal["approve", "deny"]
    digest: str | None = Field(
        default=None,
        pattern=f"^{DIGEST}$",
        description="The digest of what is approved; a denial need not repeat it.",
    )
    reason: Reason | None = None
    grant: GrantBody | None = None
    not_before: NotBefore | None = Field(
        default=None,
        description="With a denial: people are not asked for the same before; within a week.",
    )


class BridgedDecisionBody(DecisionBody):
    """A person's answer that a bridge relays."""

    request_id: str = Field(pattern=f"^{ID}$", description="What it is about.")
    user: str = Field(
        pattern=r"^[!-~]{1,128}$",
        description="Who answered, as the bridge knows them: a key of its `approvers`.",
    )


class RenewalBody(_Body):
    """A request for a new key, signed by the key of the certificate that asks."""

    request: str = Field(max_length=16_384, description="A signing request (RFC 2986), PEM.")
    proof: str = Field(
        max_length=4096,
        description="Base64 of the signature by this certificate's key over the line `certificate"
        " renewal 1 of host-agent` with its newline, and the SHA-256 of this certificate's and of"
        " the request's DER.",
    )


class BridgedSignalBody(_Body):
    """What signal-cli-rest-api posts of an arriving message: a line of JSON-RPC, or its params."""

    jsonrpc: Literal["2.0"] | None = None
    method: Literal["receive"] | None = None
    params: dict[str, Any] | None = None
    envelope: dict[str, Any] | None = None
    account: str | None = Field(default=None, max_length=64)

    def received(self) -> Mapping[str, Any]:
        """Return the params of either form.

        Raises:
            MalformedRequestError: it is both, or neither.
        """
        if (self.params is None) == (self.envelope is None):
            message = "Give either a line of JSON-RPC with params, or envelope and account."
            raise MalformedRequestError(message)
        if self.params is not None:
            return self.params
        return {"envelope": self.envelope, "account": self.account}


class EnrolBody(_Body):
    """The channel over which an approver enrols."""

    channel: str = Field(
        max_length=32, description="A channel that proves who speaks, as `[[approvers]]` names it."
    )


class CancelBody(_Body):
    """Why a request is withdrawn."""

    reason: Reason | None = None


class OlderApproval(_Body):
    """The older form of an approval."""

    approval_id: str = Field(max_length=64, description="The request's id, or a unique prefix.")
    token: str = Field(
        max_length=256, description="The code that was sent to this approver, or the digest."
    )


# -- reading --------------------------------------------------------------------------------------


def check_length(content_length: str | None) -> None:
    """Refuse a body that is announced as too large.

    Raises:
        RequestTooLargeError: over 1 MiB.
        MalformedRequestError: not a number.
    """
    if content_length is None:
        return
    if _LENGTH.fullmatch(content_length) is None:
        message = "Content-Length is not a number."
        fix = correct(message, "Content-Length", place=FaultPlace.HEADER)
        raise MalformedRequestError(message, recovery=fix)
    if int(content_length) > MAX_BODY_BYTES:
        _too_large()


async def read_body(
    receive: Receive, content_length: str | None, large: asyncio.Semaphore
) -> bytes:
    """Return the whole body; what is announced as too large is not read.

    `large` holds the places for bodies that are not small; nobody waits for one.

    Raises:
        RequestTooLargeError: it is over 1 MiB, announced or counted.
        RateLimitedError: it is not small, and all places are taken.
        MalformedRequestError: the peer left in the middle of it.
    """
    check_length(content_length)
    body = bytearray()
    if not await _read_on(receive, body, SMALL_BODY_BYTES):
        if large.locked():
            message = "Too many large bodies are being sent at the same time; send a smaller one."
            raise RateLimitedError(message, retry_after_seconds=LARGE_RETRY_SECONDS)
        async with large:
            await _read_on(receive, body, MAX_BODY_BYTES)
    return bytes(body)


async def _read_on(receive: Receive, body: bytearray, enough: int) -> bool:
    """Add to `body` until it is whole or longer than `enough`; return whether it is whole."""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            message = "The connection ended before the body did."
            raise MalformedRequestError(message)
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            _too_large()
        if not event.get("more_body", False):
            return True
        if len(body) > enough:
            return False


def require_json(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse a body that is not declared as plain JSON.

    Raises:
        NotJsonError: another media type or charset, or an encoded body.
    """
    if content_encoding is not None and content_encoding.strip().lower() != "identity":
        message = "Send the body without Content-Encoding."
        fix = correct(message, "Content-Encoding", place=FaultPlace.HEADER)
        raise NotJsonError(message, recovery=fix)
    if content_type is None or _JSON_TYPE.fullmatch(content_type) is None:
        message = "Send the body as Content-Type: application/json, in UTF-8."
        fix = correct(message, "Content-Type", place=FaultPlace.HEADER)
        raise NotJsonError(message, recovery=fix)


def parse_object(data: bytes) -> dict[str, JsonValue]:
    """Return the JSON object that `data` is.

    Raises:
        MalformedRequestError: not UTF-8, a byte order mark, not an object, a key twice, NaN or
            Infinity, a fraction, an integer over 20 digits, NUL, a lone surrogate, more than
            16 deep, more than 1000 containers, or no JSON at all.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise _malformed("it begins with a byte order mark")
    _check_depth(text)
    try:
        value = _decode(text)
    except ValueError:
        raise _malformed("it is not JSON, or its syntax is off") from None
    if not isinstance(value, dict):
        raise _malformed("it is not an object")
    if "\\u" in text:
        _check_text(value)
    return value


def fit(model: type[ModelT], value: Mapping[str, JsonValue]) -> ModelT:
    """Return `value` as `model`; unknown fields and other types are refused.

    Raises:
        MalformedRequestError: it does not fit.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fix = faults_of(error, value, model)
        raise MalformedRequestError(explain(error), recovery=fix) from None


def parse_decision(data: bytes) -> DecisionBody:
    """Return a decision.

    Raises:
        MalformedRequestError: the body does not fit.
        InvalidParameterError: an approval that does not say of what.
    """
    return _consistent(fit(DecisionBody, parse_object(data)))


def parse_bridged(data: bytes) -> BridgedDecisionBody:
    """Return a decision that a bridge relays.

    Raises:
        MalformedRequestError, InvalidParameterError: as `parse_decision` does.
    """
    return _consistent(fit(BridgedDecisionBody, parse_object(data)))


def _consistent(decision: DecisionT) -> DecisionT:
    if decision.decision == "approve" and decision.digest is None:
        message = "digest: an approval must repeat the digest of what is approved."
        raise InvalidParameterError(message, recovery=correct(message, "digest"))
    if decision.decision == "deny" and decision.grant is not None:
        message = "grant: a denial grants nothing."
        raise InvalidParameterError(message, recovery=correct(message, "grant"))
    if decision.decision == "approve" and decision.not_before is not None:
        message = "not_before: only a denial says when to ask again."
        raise InvalidParameterError(message, recovery=correct(message, "not_before"))
    return decision


# -- inside ---------------------------------------------------------------------------------------


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser, which recurses, sees it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = containers = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        if bracket[0] in "]}":
            depth -= 1
            continue
        depth += 1
        containers += 1
        if depth > MAX_DEPTH:
            raise _malformed(f"it is more than {MAX_DEPTH} deep")
        if containers > MAX_CONTAINERS:
            raise _malformed(f"it has more than {MAX_CONTAINERS} objects and arrays")


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _malformed("a key is given twice")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _malformed("a number is too long")
    return int(digits)


def _no_fraction(_text: str) -> NoReturn:
    raise _malformed("a number is not whole")


def _no_constant(_text: str) -> NoReturn:
    raise _malformed("NaN and Infinity are not JSON")


def _check_text(value: JsonValue) -> None:
    """Refuse NUL and lone surrogates, which only escapes can bring; depth is bounded by now."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise _malformed("a text holds NUL or a lone surrogate")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


_decode = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_integer,
    parse_float=_no_fraction,
    parse_constant=_no_constant,
).decode


def _malformed(why: str) -> MalformedRequestError:
    return MalformedRequestError(f"The body is not accepted: {why}.")


def _too_large() -> NoReturn:
    message = f"The body is over {MAX_BODY_BYTES} bytes; send less."
    raise RequestTooLargeError(message)
