"""What every model of the wire is, and what its texts are from."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    JsonValue,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from host_agent.clock import rfc3339
from host_agent.errors import InvalidAnswerError
from host_agent.text import DIGEST

VOCABULARY = "x-vocabulary"
"""The key by which a text's schema names the closed set that it is from."""


def one_of(vocabulary: str) -> WithJsonSchema:
    """Return the schema of a text of a closed set, by the name that OpenAPI has for the set."""
    return WithJsonSchema({"type": "string", VOCABULARY: vocabulary})


Instant = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str)]
"""RFC 3339 in UTC."""
Digest = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{DIGEST}$"})]
RequestState = Annotated[str, one_of("State")]
Effect = Annotated[str, one_of("Effect")]
Verdict = Annotated[str, one_of("Verdict")]
Json = dict[str, JsonValue]
"""A JSON object whose members an operation defines."""
_KEPT = object()


class WireModel(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    def as_json(self) -> dict[str, Any]:
        """Return it as it is answered."""
        return self.model_dump(mode="json", exclude_unset=True)


def name_of(model: type[WireModel]) -> str:
    """Return the name of a model in the OpenAPI document."""
    return str(model.model_config.get("title", model.__name__))


def models_below(model: type[WireModel]) -> Iterator[type[WireModel]]:
    """Yield every model of those modules of the wire that are imported, which has members."""
    for child in model.__subclasses__():
        if child.model_fields and child.__module__.startswith(__package__):
            yield child
        yield from models_below(child)


class WireAnswer(WireModel):
    """A whole answer, or a row of one, which keeps the object that it was read from."""

    _body: dict[str, JsonValue] = PrivateAttr(default_factory=dict)

    @property
    def body(self) -> dict[str, JsonValue]:
        """Return the object as it came, unknown members included; empty where none was read."""
        return self._body

    @classmethod
    def parse(cls, body: Mapping[str, JsonValue]) -> Self:
        """Return `body` as this value.

        Raises:
            InvalidAnswerError: a member is missing or has another type than it should.
        """
        try:
            return cls.model_validate(body, context=_KEPT)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            message = f"The agent's answer has no usable `{where}`: is it a newer version?"
            raise InvalidAnswerError(message) from None

    @model_validator(mode="wrap")
    @classmethod
    def _keep(
        cls, value: object, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        made = validate(value)
        if info.context is _KEPT and isinstance(value, Mapping):
            made._body.update(value)  # noqa: SLF001 - it is this very class
        return made
