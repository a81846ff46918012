"""A table goes to the end of a TOML file and comes out again; another's stays."""

import tomllib

import pytest

from host_agent.integration import toml_text
from host_agent.integration.toml_text import TomlTextError

HEADER = "mcp_servers.host-agent"
VALUES = {"command": '/a "b"/host-agent', "args": ["mcp"]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a = 1\n",
        "a = 1",
        "# only\n",
        "[t]\nb = 2\n\n",
        "a = 1\r\n",
        "[mcp_servers.x]\nc = 'd'\n",
    ],
)
def test_the_table_goes_in_and_comes_out(text: str) -> None:
    whole = toml_text.with_table(text, HEADER, VALUES)
    assert tomllib.loads(whole)["mcp_servers"]["host-agent"] == VALUES
    again = toml_text.without_table(whole, HEADER)
    assert again == (text if not text or text.endswith("\n") else f"{text}\n")


def test_what_was_written_after_it_stays() -> None:
    whole = toml_text.with_table("a = 1\n", HEADER, VALUES) + "[other]\nx = 1\n# end\n"
    assert toml_text.without_table(whole, HEADER) == "a = 1\n[other]\nx = 1\n# end\n"


@pytest.mark.parametrize("text", ["a = 1\n", f"[{HEADER}]\ncommand = 'mine'\n", toml_text.MARK])
def test_what_is_not_ours_stays(text: str) -> None:
    assert toml_text.without_table(text, HEADER) == text


def test_a_table_is_found_by_its_header() -> None:
    assert toml_text.table("[a]\nb.c = 1\n", "a.b") == {"c": 1}
    assert toml_text.table("[a]\nb = 1\n", "a.b") is None
    assert toml_text.table("a = 1\n", "a.b") is None
    with pytest.raises(TomlTextError):
        toml_text.table("a = \n", "a.b")
