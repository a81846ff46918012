"""Problem bodies (RFC 9457) for everything that is not 2xx, the server's and framework's included.

The one place where a `HostAgentError` becomes bytes.
"""

import json
import math
from collections.abc import Mapping

from host_agent import __version__
from host_agent.api.wire.host import Health, Readiness
from host_agent.api.wire.problems import ProblemBody
from host_agent.api.wire.recovery import RecoveryView
from host_agent.errors import (
    AdapterUnavailableError,
    AuditUnavailableError,
    HostAgentError,
    RevocationUnavailableError,
    StoreUnavailableError,
)
from host_agent.http.exchange import Rendered

PROBLEM_JSON = "application/problem+json"
JSON = "application/json"
HEALTH = Health(status="ok", version=__version__)

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def problem_type(code: str) -> str:
    """Return the stable URI of a problem code; it names the code and is not for fetching."""
    return f"urn:host-agent:problem:{code}"


def to_bytes(body: Mapping[str, object]) -> bytes:
    """Return `body` as JSON in UTF-8. Text that has no UTF-8 form (lone surrogates) is escaped."""
    try:
        return _encode(body).encode()
    except UnicodeEncodeError:
        return _encode_ascii(body).encode()


def problem_body(error: HostAgentError, exchange_id: str) -> dict[str, object]:
    """Return the RFC 9457 object for `error`.

    Members that the error carries never replace the standard ones.
    """
    body = ProblemBody(
        type=problem_type(error.code),
        title=error.title,
        status=int(error.status),
        detail=error.detail,
        code=error.code,
        recovery=RecoveryView.of(error.recovery),
        exchange_id=exchange_id,
        request_id=exchange_id,
        **(
            {} if error.retry_after_seconds is None else {"retry_after_seconds": retry_after(error)}
        ),
    )
    return {**error.members, **body.as_json()}


def retry_after(error: HostAgentError) -> int | None:
    """Return whole seconds after which to try again, rounded up and at least 1; None if unset."""
    if error.retry_after_seconds is None:
        return None
    return max(1, math.ceil(error.retry_after_seconds))


def render(
    error: HostAgentError, exchange_id: str, *, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> Rendered:
    """Return the response that tells of `error`, with `extra` header fields (`allow`)."""
    headers = [(b"content-type", PROBLEM_JSON.encode())]
    seconds = retry_after(error)
    if seconds is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    return Rendered(
        status=int(error.status),
        headers=(*headers, *extra),
        body=to_bytes(problem_body(error, exchange_id)),
    )


def render_unready(parts: Readiness, exchange_id: str) -> Rendered:
    """Return the 503 of an agent that cannot serve; `parts` are shown beside the problem.

    The code is that of the first part that is not `ok`.
    """
    members = parts.as_json()
    kinds = (kind for part, kind in _UNREADY.items() if members[part] != "ok")
    message = "The agent cannot serve now; the other members say what is wrong."
    return render(next(kinds, AdapterUnavailableError)(message, members=members), exchange_id)


_UNREADY: Mapping[str, type[HostAgentError]] = {
    "store": StoreUnavailableError,
    "audit": AuditUnavailableError,
    "crl": RevocationUnavailableError,
}
"""The parts of readiness that have a code of their own."""
