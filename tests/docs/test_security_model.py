"""The security model claims nothing that no test shows."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import host_agent
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Effect
from tests.support.pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "explanation" / "security-model.md"
HEADER = "| claim | where | test |"


def claims() -> list[tuple[str, list[str], list[str]]]:
    """Return each claim of the page: its sentence, the places and the tests that it names."""
    found = []
    for table in PAGE.read_text(encoding="utf-8").split(HEADER)[1:]:
        for row in re.findall(
            r"^\| (.+) \| (.+) \| (.+) \|$", table.split("\n\n")[0], re.MULTILINE
        ):
            sentence, places, tests = row
            if not sentence.startswith("---"):
                found.append((sentence, _named(places), _named(tests)))
    return found


def _named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def known_tests() -> frozenset[str]:
    return frozenset(
        node.name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def exists(place: str) -> bool:
    package = Path(host_agent.__file__).parent
    at = REPOSITORY / place if place.startswith("wrappers/") else package / place
    return at.is_file() or at.is_dir() or at.with_suffix(".py").is_file()


def test_the_page_makes_claims() -> None:
    assert len(claims()) > 40


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim[0][:40])
def test_every_claim_names_where_it_is_enforced_and_a_test_that_exists(
    claim: tuple[str, list[str], list[str]],
) -> None:
    _, places, tests = claim
    assert places
    assert [place for place in places if not exists(place)] == []
    assert tests
    assert [name for name in tests if name not in known_tests()] == []


def losses() -> dict[str, str]:
    """Return what the page says that each change could lose, and what stands against it."""
    page = PAGE.read_text(encoding="utf-8")
    table = page.split("### What a change can lose")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (`.+`) \| (.+) \|$", table, re.MULTILINE)
    return {name: told for names, told in rows for name in _named(names)}


def test_every_change_says_what_it_could_lose() -> None:
    changes = {spec.name for spec in CATALOGUE if spec.effect is Effect.CHANGE}
    assert losses().keys() == changes


def test_what_is_said_of_losses_names_tests_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = page.split("### What a change can lose")[1].split("\n### ")[0]
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", told))
    assert named
    assert named <= known_tests()
