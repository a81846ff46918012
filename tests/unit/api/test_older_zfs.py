"""The older routes of zfs become the same ask as the typed form."""

import pytest

from host_agent.api.body import OlderZfsDestroy, OlderZfsList, OlderZfsSnapshot
from host_agent.api.request import AgentRequest
from host_agent.api.routes.asks import read_zfs
from host_agent.errors import HostAgentError


class _Asked(AgentRequest):
    """A request that only remembers its operation."""

    def __init__(self) -> None:
        self.operation = None


@pytest.mark.parametrize(
    ("verb", "shape", "body", "params"),
    [
        ("list", OlderZfsList, {}, {}),
        ("list", OlderZfsList, {"dataset": "tank"}, {"dataset": "tank"}),
        (
            "snapshot",
            OlderZfsSnapshot,
            {"dataset": "tank/media", "name": "daily"},
            {"dataset": "tank/media", "name": "daily"},
        ),
        (
            "destroy",
            OlderZfsDestroy,
            {"dataset": "tank/media@old", "recursive": True, "approval_token": "ABCD"},
            {"dataset": "tank/media@old", "recursive": True},
        ),
    ],
)
def test_an_older_body_becomes_the_typed_parameters(
    verb: str, shape: type, body: dict[str, object], params: dict[str, object]
) -> None:
    request = _Asked()
    name, found, reason, is_dry = read_zfs(verb, shape, request, body)  # type: ignore[arg-type]
    assert (name, found, reason, is_dry) == (f"zfs.{verb}", params, None, False)
    assert request.operation == f"zfs.{verb}"


@pytest.mark.promise("c19")
@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (OlderZfsSnapshot, {"dataset": "tank/media"}),
        (OlderZfsDestroy, {"dataset": "tank/media", "approved": True}),
        (OlderZfsDestroy, {"dataset": "tank/media", "recursive": "true"}),
        (OlderZfsList, {"dataset": 5}),
    ],
)
def test_an_older_body_with_other_fields_or_types_is_refused(
    shape: type, body: dict[str, object]
) -> None:
    with pytest.raises(HostAgentError) as refusal:
        read_zfs("destroy", shape, _Asked(), body)  # type: ignore[arg-type]
    assert refusal.value.status == 400
