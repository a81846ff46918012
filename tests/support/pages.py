"""The Markdown pages of this project, their headings and their links."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


WIDEST = 160
"""No line of a page is longer, but for rows of tables and for what is quoted."""


def folded(text: str) -> str:
    """Return a paragraph on lines that a person can read, code and links whole."""
    words = re.findall(r"(?:`[^`]*`|\[[^\]]*\]|[^\s`\[]|`|\[)+", text)
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 1 > WIDEST - 40:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def pages() -> list[Path]:
    """Return every Markdown page, the one at the top first."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def prose(page: Path) -> str:
    """Return the text of `page` without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[str]:
    """Yield the targets of the links of `page`."""
    yield from _LINK.findall(_CODE.sub("`", prose(page)))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of `page`, as code hosts make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def inline_code(page: Path) -> Iterator[str]:
    """Yield what stands in backquotes in the prose of `page`."""
    yield from (found.strip("`") for found in _CODE.findall(prose(page)))
