"""The page of promises and the marks in the tests name each other."""

import ast
import re
from collections.abc import Iterator

from tests.support.pages import REPOSITORY

PAGE = REPOSITORY / "docs/explanation/promises.md"


def test_every_promise_has_a_test_and_every_mark_a_promise() -> None:
    promised = re.findall(r"^\| (c[0-9]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(promised) == len(set(promised)) > 40
    assert set(promised) == set(marked())


def test_no_name_of_a_test_holds_the_number_of_a_promise() -> None:
    named = [node.name for node in functions() if re.match(r"test_c[0-9]+_", node.name)]
    assert named == []


def marked() -> Iterator[str]:
    for node in functions():
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                yield from (ast.literal_eval(argument) for argument in mark.args)


def functions() -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node
