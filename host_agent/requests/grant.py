"""Bounded grants: what may run again without asking, for how long or how often. Pure.

A grant binds the caller, the operation, a pattern of resources, and every other parameter as it was
approved. It is never extended by use, and policy is asked each time all the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from host_agent.canonical import JsonValue
from host_agent.requests.model import Decision, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A standing consent. `uses_left` of None is bounded by `expires_at` alone.

    `resource` is a regular expression over the whole resource. `params` are the approved parameters
    but the one that the resource is read from. `terms` and `consents` are those of the request that
    it was given with: they are asked again at each use.
    """

    id: str
    request_id: str
    caller: str
    operation: str
    resource: str
    params: Mapping[str, JsonValue]
    terms: Terms
    consents: tuple[Decision, ...]
    created_at: datetime
    expires_at: datetime
    uses_left: int | None = None
    used: int = 0
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Return whether it can be used at `now`."""
        has_uses = self.uses_left is None or self.uses_left > 0
        return self.revoked_at is None and has_uses and now < self.expires_at

    def covers(self, caller: str, operation: str, resource: str | None) -> bool:
        """Return whether it is about this caller, operation and resource; parameters aside."""
        if (caller, operation) != (self.caller, self.operation) or resource is None:
            return False
        return re.fullmatch(self.resource, resource) is not None
