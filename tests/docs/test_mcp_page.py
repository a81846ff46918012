"""The page of MCP names each code, tool and member that there is, and no others."""

import re
from typing import Any

from host_agent.client import Held, ProblemError, Ran, RequestView
from host_agent.mcp import LONGEST_WAIT_SECONDS, WAIT_SECONDS, answers, calls, marks, server, tools
from host_agent.mcp.answers import OwnCode
from tests.support import answers as bodies
from tests.support.pages import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "mcp.md").read_text(encoding="utf-8")
HOW_TO = (REPOSITORY / "docs" / "how-to" / "mcp.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def named(text: str) -> set[str]:
    """Return what the first column of the tables names."""
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def view(**members: Any) -> RequestView:
    return RequestView.parse(bodies.view(**members))


def test_each_code_and_member_is_on_the_page() -> None:
    refusal = bodies.problem("policy:denied", recovery={"kind": "never"})
    cut = bodies.ran(verified=True, stdout="x", truncated=True, stdout_bytes=9)
    told = [
        answers.ran(Ran.parse({**cut, "grant": "g"})),
        answers.held(Held.parse(bodies.held())),
        answers.of_request(view()),
        answers.of_request(view(state="cancelled")),
        answers.rows([view()], has_more=False),
        answers.refused(ProblemError(code="policy:denied", status=403, detail="x", body=refusal)),
    ]
    members = {name for answer in told for name in answer.members}
    assert named(section("Answers")) == members | set(OwnCode)


def test_each_tool_for_requests_is_on_the_page_with_its_arguments() -> None:
    for tool in tools.request_tools():
        (row,) = re.findall(rf"^\| `{tool.name}` \| (.+?) \|", section("Tools"), re.MULTILINE)
        properties: Any = tool.input_schema["properties"]
        assert set(re.findall(r"`(\w+)`", row)) == set(properties)
        assert f"`{tool.name}`" in HOW_TO


def test_the_numbers_are_the_programs() -> None:
    page, how_to = " ".join(PAGE.split()), " ".join(HOW_TO.split())
    assert f"cut after {marks.MAX_CHARACTERS} characters" in page
    assert f"(0 to {LONGEST_WAIT_SECONDS})" in page
    assert f"`--wait`, {WAIT_SECONDS} s unless" in page
    assert f"then {calls.GRACE_SECONDS:.0f} s for the exchange" in page
    assert f"within {server.LOOK_SECONDS:.0f} s" in page
    assert f"the newest {tools.LISTED_REQUESTS} requests" in page
    assert f"waits {WAIT_SECONDS} seconds for a yes" in how_to
