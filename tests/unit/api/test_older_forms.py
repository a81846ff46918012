"""The older body form means the same operation and parameters as the typed one."""

from typing import Any, ClassVar

import pytest

from host_agent.api.older_forms import convert, parameters
from host_agent.errors import InvalidParameterError, UnknownOperationError
from host_agent.operations.catalogue import (
    Adapter,
    Catalogue,
    Choice,
    Effect,
    Invocation,
    OperationSpec,
    Parameters,
    RunAs,
)
from host_agent.operations.section import Section


class LookParameters(Parameters):
    """What to look at."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "limit", "deep", "names")
    repository: str
    limit: int = 20
    deep: bool = False
    names: list[str] | None = None


class ListParameters(Parameters):
    """Nothing."""


def _spec(name: str, effect: Effect, parameters: type[Parameters]) -> OperationSpec:
    return OperationSpec(
        name=name,
        effect=effect,
        summary=f"Does {name}.",
        parameters=parameters,
        wrapper="git",
        run_as=RunAs.UNIX_USER,
        resource=lambda params: getattr(params, "repository", None),
        admit=lambda _params, _section: None,
        choices=lambda _section: (Choice(),),
        invoke=lambda _params, _precondition: Invocation(
            wrapper="git", arguments=(), run_as=RunAs.UNIX_USER
        ),
    )


def _adapter(name: str, *specs: OperationSpec) -> Adapter:
    return Adapter(name=name, section=Section, specs=specs, names=lambda _section: ())


CATALOGUE = Catalogue(
    (
        _adapter(
            "git",
            _spec("git.status", Effect.READ, LookParameters),
            _spec("git.pull", Effect.CHANGE, LookParameters),
        ),
        _adapter("pct", _spec("pct.list", Effect.READ, ListParameters)),
    )
)


@pytest.mark.parametrize(
    ("resource", "args", "params"),
    [
        ("/srv/app", ["status"], {"repository": "/srv/app"}),
        ("/srv/app", ["status", "5"], {"repository": "/srv/app", "limit": 5}),
        (
            "/srv/app",
            ["status", "5", "true", "a,b"],
            {"repository": "/srv/app", "limit": 5, "deep": True, "names": ["a", "b"]},
        ),
        (None, ["status", "/srv/app", "5"], {"repository": "/srv/app", "limit": 5}),
    ],
)
def test_positions_fill_parameters(
    resource: str | None, args: list[str], params: dict[str, Any]
) -> None:
    name, filled = parameters(CATALOGUE, "git", resource, args)
    assert (name, filled) == ("git.status", params)
    assert CATALOGUE.parse(name, filled) == CATALOGUE.parse("git.status", params)


@pytest.mark.parametrize(
    "args",
    [
        ["status", "five"],
        ["status", "\u0665"],
        ["status", "5.0"],
        ["status", "0x5"],
        ["status", "5", "True"],
        ["status", "5", "1"],
        ["status", ""],
    ],
)
def test_strings_that_are_no_value_fail_by_the_same_grammar(args: list[str]) -> None:
    name, filled = parameters(CATALOGUE, "git", "/srv/app", args)
    with pytest.raises(InvalidParameterError):
        CATALOGUE.parse(name, filled)


def test_unknown_verbs_are_unknown_operations() -> None:
    for kind, verb in [("git", "clone"), ("git", ""), ("git.status", ""), ("", "git.status")]:
        with pytest.raises(UnknownOperationError):
            parameters(CATALOGUE, kind, "/srv/app", [verb])


def test_too_many_args_are_refused() -> None:
    with pytest.raises(InvalidParameterError):
        parameters(CATALOGUE, "git", "/srv/app", ["status", "5", "true", "a", "b"])


def test_a_resource_for_an_operation_without_one_is_refused() -> None:
    assert parameters(CATALOGUE, "pct", None, ["list"]) == ("pct.list", {})
    with pytest.raises(InvalidParameterError):
        parameters(CATALOGUE, "pct", "101", ["list"])


def test_a_text_stays_a_text_where_it_may_be_one() -> None:
    assert convert("101", frozenset({"string", "integer"})) == "101"
    assert convert("true", frozenset({"string"})) == "true"
    assert convert("true", frozenset({"boolean"})) is True
    assert convert("x", frozenset()) == "x"
