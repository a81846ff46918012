"""Sentences that callers over HTTP read name no command line: who reads them may have none."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import host_agent

PACKAGE = Path(host_agent.__file__).parent
ROOMS = (
    *("api", "http", "identity", "operations", "policy", "requests", "store", "execution"),
    *("audit", "pipeline"),
)
"""The rooms whose sentences a caller over HTTP can meet; `notify` speaks to approvers."""
NOUNS = frozenset(path.stem for path in (PACKAGE / "cli/commands").glob("[a-z]*.py"))
COMMAND = re.compile(r"\bhost-agent ([a-z-]+)")


def modules() -> list[Path]:
    found = [path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")]
    return sorted([*found, PACKAGE / "errors.py"])


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """Yield every text of a module that is no docstring, with its line."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bare = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, documented)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value


def commands(source: str) -> list[tuple[int, str]]:
    return [
        (line, match[0])
        for line, text in sentences(source)
        for match in COMMAND.finditer(text)
        if match[1].replace("-", "_") in NOUNS
    ]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_sentence_for_a_caller_names_a_command_line(path: Path) -> None:
    assert commands(path.read_text()) == []


def test_one_that_does_is_found() -> None:
    assert {"requests", "doctor", "sudoers"} <= NOUNS
    assert commands('x = "see `host-agent requests list`"\n') == [(1, "host-agent requests")]
    assert commands('def f():\n    """Run host-agent doctor."""\n') == []
    assert commands('x = "host-agent serves"\n') == []
