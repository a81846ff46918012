"""`requests watch` as a screen of lines: what waits, the selected request whole, what is asked.

Everything shown was escaped by `render`; a question is never cut off, the rest gives way to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from host_agent.cli.terminal import listing, render, request_fields
from host_agent.cli.watch import model
from host_agent.cli.watch.model import WatchState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

MIN_COLUMNS, MIN_LINES = 40, 14
MOST_ROWS = 6
"""Of the list; the selected request is always among them."""
MOST_FOOT_LINES = 5
HINT = "a approve  d deny  up/down select  space/b read on/back  q quit"
TOO_SMALL = f"This needs a terminal of {MIN_COLUMNS} columns and {MIN_LINES} lines. q quits."
NONE_WAIT = "No pending requests."


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A screen. `scroll` is the first line of the request that it shows, `page` how many.

    `is_end_shown` tells whether the last one is among them. `fits` is False where the terminal is
    too small to show anything that could be answered.
    """

    lines: "list[list[Segment]]"
    scroll: int = 0
    page: int = 1
    is_end_shown: bool = False
    fits: bool = True


def draw(
    desk: WatchState, console: "Console", *, now: datetime, trouble: str, is_live: bool
) -> Drawing:
    """Return the screen for `desk`, exactly as large as the terminal."""
    width, height = console.size
    if width < MIN_COLUMNS or height < MIN_LINES:
        return Drawing(lines=_folded(console, TOO_SMALL), fits=False)
    head = _header(desk, now, is_live=is_live)
    listed = [_line(head, "bold", width), *_list(desk, console, now)]
    foot = _foot(desk, console, trouble)
    page = height - len(listed) - len(foot) - 2
    if page < 1:
        return Drawing(lines=_folded(console, TOO_SMALL), fits=False)
    whole = _details(desk, console, now)
    scroll = max(min(desk.scroll, len(whole) - page), 0)
    shown = whole[scroll : scroll + page]
    shown += [[]] * (page - len(shown))
    left = len(whole) - scroll - page
    more = f"-- {left} more lines below: space " if left > 0 else ""
    rules = [_line("-" * width, "dim", width), _line(more.ljust(width, "-"), "dim", width)]
    return Drawing(
        lines=[*listed, rules[0], *shown, rules[1], *foot],
        scroll=scroll,
        page=page,
        is_end_shown=bool(whole) and left <= 0,
    )


def _header(desk: WatchState, now: datetime, *, is_live: bool) -> str:
    many = listing.headline(desk.views) if desk.views else NONE_WAIT
    state = "live" if is_live else "asking again and again"
    return f"{many}  {now.strftime('%H:%M:%SZ')}  {state}"


def _list(desk: WatchState, console: "Console", now: datetime) -> "list[list[Segment]]":
    if not desk.views:
        return []
    first = max(min(desk.index - MOST_ROWS // 2, len(desk.views) - MOST_ROWS), 0)
    views = desk.views[first : first + MOST_ROWS]
    short = request_fields.short_ids(desk.views)
    lines = []
    for view in views:
        is_chosen = view.request_id == desk.selected
        words = (
            request_fields.time_left(view, now),
            model.subject(view),
            render.visible(view.caller or "-", limit=64),
            render.visible(short[view.request_id], limit=64),
        )
        mark = "! " if view.effect == "destroy" else "  "
        text = ("> " if is_chosen else "  ") + mark + "  ".join(words)
        colour = request_fields.STYLES.get(view.effect or "", "")
        style = f"{colour} reverse".strip() if is_chosen else colour
        lines.append(_line(text, style, console.width))
    return lines


def _details(desk: WatchState, console: "Console", now: datetime) -> "list[list[Segment]]":
    view = desk.view
    if view is None:
        return []
    options = console.options.update(height=None)
    table = render.fields(request_fields.drawn(view, now))
    return console.render_lines(table, options, pad=False)


def _foot(desk: WatchState, console: "Console", trouble: str) -> "list[list[Segment]]":
    if desk.question is not None:
        lines = _folded(console, model.asked(desk.question), "bold")
        if len(lines) > MOST_FOOT_LINES:  # the beginning says what it is, the end what to type
            lines = [*lines[:2], *lines[2 - MOST_FOOT_LINES :]]
        return lines
    note = desk.notice or trouble
    said = _folded(console, note, "" if desk.notice else "red")[:MOST_FOOT_LINES] if note else [[]]
    return [*said, _line(HINT, "dim", console.width)]


def _folded(console: "Console", text: str, style: str = "") -> "list[list[Segment]]":
    from rich.text import Text

    folded = Text(text, style=style, overflow="fold")
    return console.render_lines(folded, console.options.update(height=None), pad=False)


def _line(text: str, style: str, width: int) -> "list[Segment]":
    """Return one line, cut at the edge of the screen."""
    from rich.segment import Segment
    from rich.style import Style
    from rich.text import Text

    fitted = Text(text)
    if fitted.cell_len > width:
        fitted.truncate(width - 1, overflow="crop", pad=True)
        fitted.append("+")
    return [Segment(fitted.plain, Style.parse(style) if style else None)]


def plain(lines: "Sequence[Sequence[Segment]]") -> list[str]:
    """Return what lines say."""
    return ["".join(segment.text for segment in line).rstrip() for line in lines]
