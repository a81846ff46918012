"""What to do next about a problem."""

from dataclasses import asdict
from typing import Annotated, Self

from pydantic import (
    ConfigDict,
    Field,
)
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.model import WireModel, one_of
from host_agent.errors import Recovery


class FaultView(WireModel):
    """One thing to correct.

    `pointer` (RFC 6901) leads into the body in the typed form, or into the query, the header
    section or the path as an object of their names; empty is all of it.
    """

    model_config = ConfigDict(title="Fault")

    pointer: str
    message: str
    place: Annotated[str, one_of("FaultPlace")] = Field(description="Where `pointer` begins.")


class RecoveryView(WireModel):
    """What to do about a problem, for programs; by `kind` it has further members.

    `change_parameters`: `faults`, at least one. `wait_for`: `request_id`, the same request, or
    `equivalent_to`, one that would have the same effect. `ask_again_after`: whole `seconds`, 0 for
    at once. `never` and `ask_a_person` have none.
    """

    model_config = ConfigDict(title="Recovery")

    kind: Annotated[str, one_of("RecoveryKind")]
    faults: tuple[FaultView, ...] = ()
    request_id: str | SkipJsonSchema[None] = None
    equivalent_to: str | SkipJsonSchema[None] = None
    seconds: int | SkipJsonSchema[None] = Field(default=None, ge=0)

    @classmethod
    def of(cls, recovery: Recovery) -> Self:
        """Return `recovery` as it is answered."""
        given = {name: value for name, value in asdict(recovery).items() if value not in (None, ())}
        return cls.model_validate(given)
