"""Operations as tools, in each of the forms."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from host_agent.api.problems import to_bytes
from host_agent.api.wire.operations import OperationInfo
from host_agent.api.wire.tools import (
    MAX_DESCRIPTION_CHARACTERS,
    TOOL_FORMS,
    ToolForm,
    takes_reason,
    tool_description,
    tool_input,
)
from host_agent.operations import CATALOGUE
from host_agent.pipeline.discovery import infos
from host_agent.policy.rules import Rules
from tests.support.policies import principal, rule

UNIT = {"unit": {"type": "string", "enum": ["nginx.service"]}}


def info(effect: str = "change", **more: Any) -> OperationInfo:
    told: dict[str, Any] = {
        "name": "systemd.stop",
        "tool": "systemd_stop",
        "effect": effect,
        "summary": "Stop a unit.",
        "parameters": {"type": "object", "properties": UNIT, "required": ["unit"]},
        "verdict": "ask",
        "cases": [case(reason_needed=False)],
        "reason_needed": False,
        "undo": "start it",
    }
    return OperationInfo.parse({**told, **more})


def case(**more: Any) -> dict[str, Any]:
    return {"verdict": "ask", "rule": "r", "reason_needed": True, "words": "Ask.", **more}


def test_the_forms_are_those_that_are_documented() -> None:
    one = info("destroy")
    words = "Stop a unit. Destroys something on the host. Ask. Undo: start it."
    schema = {
        "type": "object",
        "properties": {
            **UNIT,
            "reason": {"type": "string", "description": "Why, for who decides."},
        },
        "required": ["unit"],
    }
    assert TOOL_FORMS["anthropic"](one) == {
        "name": "systemd_stop",
        "description": words,
        "input_schema": schema,
    }
    assert TOOL_FORMS["openai"](one) == {
        "type": "function",
        "function": {"name": "systemd_stop", "description": words, "parameters": schema},
    }
    made = TOOL_FORMS["mcp"](one)
    assert (made["name"], made["description"], made["inputSchema"]) == (
        "systemd_stop",
        words,
        schema,
    )
    assert made["annotations"] == {
        "readOnlyHint": False,
        "destructiveHint": True,
        "idempotentHint": False,
        "openWorldHint": False,
    }


@pytest.mark.parametrize(
    ("effect", "hints"),
    [
        ("read", (True, False, True)),
        ("change", (False, False, False)),
        ("destroy", (False, True, False)),
    ],
)
def test_the_annotations_are_the_effect(effect: str, hints: tuple[bool, ...]) -> None:
    annotations: Any = TOOL_FORMS["mcp"](info(effect))["annotations"]
    names = ("readOnlyHint", "destructiveHint", "idempotentHint")
    assert tuple(annotations[name] for name in names) == hints
    assert annotations["openWorldHint"] is False


def test_a_reason_is_for_what_changes_and_required_where_every_case_needs_it() -> None:
    assert not takes_reason(info("read"))
    assert "reason" not in json.dumps(tool_input(info("read")))
    assert tool_input(info(cases=[case()]))["required"] == ["unit", "reason"]
    assert tool_input(info(cases=[case(), case(reason_needed=False)]))["required"] == ["unit"]


def test_no_operation_has_a_parameter_of_that_name() -> None:
    for spec in CATALOGUE:
        assert "reason" not in spec.parameters.model_fields


def test_what_hangs_together_is_left_out_and_the_answer_is_not_touched() -> None:
    told = info(parameters={"type": "object", "properties": UNIT, "oneOf": [{}]})
    assert set(tool_input(told)) == {"type", "properties"}
    assert told.parameters["oneOf"] == [{}]
    assert told.parameters["properties"] == UNIT


def test_cases_are_told_with_what_they_are_about() -> None:
    cases = [
        case(values=["a.service"]),
        case(patterns=["^b$"], words="It runs at once."),
        case(words="It runs at once."),
    ]
    words = tool_description(info(cases=[*cases, cases[0]]))
    assert words == (
        "Stop a unit. Changes the host. a.service: Ask. ^b$: It runs at once. It runs at once."
        " Undo: start it."
    )
    many = info(cases=[case(values=[f"unit{number}.service" for number in range(99)]), *cases])
    assert len(tool_description(many)) == MAX_DESCRIPTION_CHARACTERS


@pytest.mark.parametrize("form", TOOL_FORMS)
def test_a_tool_is_json_with_the_name_that_the_list_has(form: ToolForm) -> None:
    made: Any = json.loads(json.dumps(TOOL_FORMS[form](info())))
    assert made.get("function", made)["name"] == info().tool


DEMO: Mapping[str, dict[str, Any]] = {
    "zfs": {"datasets": ["tank/.*"], "protected": ["tank/vault.*"]},
    "systemd": {"units": [r"(nginx|redis)\.service", r"app@[a-z]+\.service"]},
    "git": {"repositories": [{"path": "/srv/app", "remotes": ["origin"], "branches": ["main"]}]},
    "exec": {
        "commands": [
            {"name": "reindex", "path": "/usr/local/sbin/reindex", "sha256": f"sha256:{'0' * 64}"}
        ]
    },
}


@pytest.mark.parametrize("form", TOOL_FORMS)
def test_the_tools_of_a_host_fit_into_16_kib(form: ToolForm) -> None:
    every = [f"{name}.*" for name in DEMO]
    rules = Rules(
        [
            rule("ask", ["zfs.destroy", "zfs.rollback"], approvals=2, require_reason=True),
            rule("ask", ["zfs.snapshot", "systemd.*"], resources=["tank/home.*", "nginx.*"]),
            rule("ask", ["git.pull", "git.switch", "git.reset", "exec.run"]),
            rule("allow", every),
        ]
    )
    tools = [
        TOOL_FORMS[form](one)
        for adapter in CATALOGUE.adapters
        if adapter.name in DEMO
        for spec in adapter.specs
        for one in infos(
            rules,
            principal(),
            spec,
            adapter.section.model_validate(DEMO[adapter.name], strict=False),
        )
    ]
    assert len(tools) == 22
    assert len(to_bytes({"tools": tools})) <= 16 * 1024
