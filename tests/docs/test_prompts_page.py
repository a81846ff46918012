"""What people see, of real runs: as the page shows it, short enough, and true."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import RunAs
from host_agent.requests.facts import RequestFacts
from tests.support import prompts_page as page
from tests.support.prompt_cases import PromptCase, prompt_cases, why_not
from tests.support.reference_pages import REPOSITORY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
PAGE = REPOSITORY / "docs/explanation/prompts.md"
MOST_LINES, COLUMNS = 12, 40


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PromptCase]:
    directory: Path = tmp_path_factory.mktemp("prompts").resolve()
    return {case.name: case for case in prompt_cases(directory)}


def texts(cases: dict[str, PromptCase]) -> Iterator[tuple[RequestFacts, str]]:
    for case in cases.values():
        yield case.facts, page.prompt_of(case.facts).text


def test_the_page_shows_what_real_runs_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page.prompts_page()


def test_a_prompt_has_at_most_12_lines_of_40_columns(cases: dict[str, PromptCase]) -> None:
    for _, text in texts(cases):
        folded = page.folded(text, COLUMNS)
        assert len(folded) <= MOST_LINES, "\n".join(folded)


def test_an_outcome_has_two_lines(cases: dict[str, PromptCase]) -> None:
    for case in cases.values():
        assert page.outcome_of(case.facts).text.count("\n") == 1


def test_the_first_line_has_effect_host_and_resource(cases: dict[str, PromptCase]) -> None:
    firsts = [text.split("\n")[0] for _, text in texts(cases)]
    assert firsts == [
        "DESTROY on agent-bookworm: tank/scratch and all below it",
        "STOP on web-2: nginx.service",
        "PULL on web-2: /srv/app, main of origin",
        "RUN on db-1: reindex what=books",
    ]


def test_the_user_is_root_where_sudo_changes_to_root(cases: dict[str, PromptCase]) -> None:
    for facts, text in texts(cases):
        spec = CATALOGUE.spec(facts.request.operation)
        user = "root" if spec.run_as is RunAs.ROOT else "librarian"
        assert f"\nAs {user}. From deployer, for bob. Unchecked: " in text
        assert page.view_of(facts).runs_as == user


def test_no_detail_of_a_real_preview_is_padded(cases: dict[str, PromptCase]) -> None:
    for facts, text in texts(cases):
        preview = facts.request.preview or {}
        details = preview["details"]
        assert isinstance(details, list)
        assert all(str(line) == str(line).strip() for line in details)
        assert "\\u{20}" not in text


def test_what_is_lost_and_what_stops_is_told_in_sum(cases: dict[str, PromptCase]) -> None:
    said = {name: page.prompt_of(case.facts).text for name, case in cases.items()}
    assert "\nLost for good: 112 KiB in 2. Undo: none.\n" in said["destroy"]
    assert "Nothing else stops with it. Starts at boot" in said["stop, denied before"]
    assert "\n3 commits come. Undo: reset to " in said["pull"]
    assert "as registered (" in said["run"]
    assert "What it does is not known to the agent. Undo: not known." in said["run"]


def test_the_watch_shows_what_is_lost_at_80_by_24(cases: dict[str, PromptCase]) -> None:
    screen = page._watched([page.view_of(case.facts) for case in cases.values()])
    assert len(screen) == page.LINES
    assert all(len(line) <= page.TERMINAL for line in screen)
    for words in ("DESTROY tank/scratch and all below it", "Lost for good: 112 KiB in 2", "none"):
        assert any(words in line for line in screen)
    listed = [line for line in screen if "deployer  " in line]
    assert [("! " in line) for line in listed] == [True, True, True, False]
