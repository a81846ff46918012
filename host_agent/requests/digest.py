"""What is approved, as 32 bytes: the SHA-256 over everything that decides what would run.

The digest that is shown is the digest that is approved and the digest that runs: it is computed
again from the stored request and the world as it is, right before the run. Reasons, keys and times
are outside, so that who asks for the same gets the same digest.
"""

from collections.abc import Mapping

from host_agent.canonical import JsonValue, canonical_json
from host_agent.requests.model import Digest
from host_agent.text import sha256_digest

VERSION = 1
"""The version of the digested form; another form gets another number, never the same digest."""


def compute(
    *,
    host: str,
    caller: str,
    unix_user: str | None,
    operation: str,
    params: Mapping[str, JsonValue],
    policy: str,
    wrapper: str,
    precondition: Mapping[str, JsonValue] | None,
) -> Digest:
    """Return the digest of what would run.

    `params` are canonical (defaults filled in, ids as strings). `policy` and `wrapper` are the
    hashes of their content. `precondition` is None for what assumes no state.

    Raises:
        ValueError: a value that has no canonical form, such as a float.
    """
    form = canonical_json(
        {
            "version": VERSION,
            "host": host,
            "caller": caller,
            "unix_user": unix_user,
            "operation": operation,
            "params": params,
            "policy": policy,
            "wrapper": wrapper,
            "precondition": precondition,
        }
    )
    return Digest(sha256_digest(form))
