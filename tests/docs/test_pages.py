"""Pages lead to each other: no dead link, every page in its index, a short front page."""

import re
from pathlib import Path

import pytest

from tests.support.pages import REPOSITORY, WIDEST, anchors, folded, links, pages, prose

DOCS = REPOSITORY / "docs"
MOST_LINES = 120


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_relative_link_resolves(page: Path) -> None:
    dead = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        is_there = target.is_dir() if name.endswith("/") else target.is_file()
        if not is_there or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


def test_a_dead_link_or_anchor_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `[git]` page\n\n[a](b.md#c), `[no](link)`\n\n```\n[no](fence)\n```\n")
    assert list(links(page)) == ["b.md#c"]
    assert anchors(page) == {"a-git-page"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_no_line_of_prose_is_too_wide(page: Path) -> None:
    lines = prose(page).splitlines()
    assert [line for line in lines if len(line) > WIDEST and not line.startswith("|")] == []


def test_a_paragraph_is_folded_between_words_and_never_in_code_or_a_link() -> None:
    whole = "word " * 20 + "`some code with words` " * 9 + "[a link of words](page.md) end"
    lines = folded(whole).splitlines()
    assert " ".join(lines) == " ".join(whole.split())
    assert max(map(len, lines)) <= WIDEST
    assert all(line.count("`") % 2 == 0 and line.count("[") == line.count("](") for line in lines)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_page_has_one_title(page: Path) -> None:
    titles = re.findall(r"^# .+$", prose(page), re.MULTILINE)
    assert len(titles) == 1
    assert page.read_text(encoding="utf-8").startswith(titles[0])


@pytest.mark.parametrize("folder", ["adr", "explanation", "how-to", "reference"])
def test_every_page_is_in_the_index_of_its_folder(folder: str) -> None:
    here = {page.name for page in (DOCS / folder).glob("*.md")} - {"README.md"}
    listed = [link.partition("#")[0] for link in links(DOCS / folder / "README.md")]
    assert here <= set(listed)


def test_decisions_are_numbered_without_a_gap_and_listed_under_their_titles() -> None:
    decisions = sorted(page.name for page in (DOCS / "adr").glob("[0-9]*.md"))
    assert [name[:4] for name in decisions] == [f"{n + 1:04}" for n in range(len(decisions))]
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \|$", index, re.MULTILINE)
    assert [name for _, name, _ in rows] == decisions
    for number, name, title in rows:
        text = (DOCS / "adr" / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {number} {title}\n")
        assert re.search(r"^Status: (accepted|superseded by \d{4})$", text, re.MULTILINE)


def test_the_front_page_is_short_and_leads_to_every_folder() -> None:
    front = REPOSITORY / "README.md"
    assert len(front.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    targets = {(REPOSITORY / link).resolve() for link in links(front)}
    for folder in (path for path in DOCS.iterdir() if path.is_dir()):
        assert any(folder in target.parents for target in targets), folder
