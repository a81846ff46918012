"""Requests in a list: what waits first, the most dangerous and soonest before all, a line each.

Operation and resource are never folded or cut; reason, caller and time left give way to them.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from host_agent.cli.terminal import render, request_fields
from host_agent.client import RequestView

if TYPE_CHECKING:
    from rich.text import Text

_RANKS = {"destroy": 0, "change": 1, "read": 2}
_LATEST = datetime.max.replace(tzinfo=UTC)
COLUMNS = ("request", "state", "operation", "resource", "left", "caller", "reason")
_WHOLE = 4
"""So many columns are never cut."""
_LEAST = 8
"""A column that gives way has so many characters at least, or is not there."""
_GAP = "  "


def ordered(views: Iterable[RequestView]) -> list[RequestView]:
    """Return what waits first: by effect, then by who expires soonest; the rest as it came."""
    found = list(views)
    waiting = sorted((view for view in found if view.state == "pending"), key=_urgency)
    return [*waiting, *(view for view in found if view.state != "pending")]


def _urgency(view: RequestView) -> tuple[int, datetime]:
    return _RANKS.get(view.effect or "", 0), view.expires_at or _LATEST


def headline(views: Sequence[RequestView]) -> str:
    """Return host and number of those that wait: `agent-bookworm  3 pending`."""
    hosts = {view.host for view in views if view.host is not None}
    where = ", ".join(sorted(render.visible(host, limit=64) for host in hosts))
    count = sum(view.state == "pending" for view in views)
    waits = f"{count} pending" if count else "none pending"
    return f"{where}{_GAP}{waits}" if where else waits


def lines(views: Iterable[RequestView], *, width: int | None, now: datetime) -> "Iterator[Text]":
    """Yield a heading and a line a request, at most `width` columns where that is possible."""
    from rich.text import Text

    shown = list(views)
    short = request_fields.short_ids(shown)
    rows = [_cells(view, short[view.request_id], now) for view in shown]
    widths = _widths([COLUMNS, *rows], width)
    yield Text(_joined([name.upper() for name in COLUMNS], widths), style="bold")
    for view, cells in zip(shown, rows, strict=True):
        style = request_fields.STYLES.get(view.effect or "", "") if view.state == "pending" else ""
        yield Text(_joined(cells, widths), style=style)


def _cells(view: RequestView, short: str, now: datetime) -> tuple[str, ...]:
    mark = "! " if view.effect == "destroy" and view.state == "pending" else ""
    left = view.seconds_left(now)
    return (
        render.visible(short, limit=64),
        request_fields.name_text(view.state),
        mark + request_fields.name_text(view.operation),
        request_fields.name_text(view.resource),
        "-" if left is None or view.is_finished else render.span_text(left),
        request_fields.name_text(view.caller),
        "" if view.reason is None else render.words(view.reason, limit=80),
    )


def _widths(rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return how wide each column is; 0 for one that has no room."""
    from rich.text import Text

    wanted = [max(Text(cell).cell_len for cell in column) for column in zip(*rows, strict=True)]
    if width is None:
        return wanted
    room = width - sum(wanted[:_WHOLE]) - len(_GAP) * (_WHOLE - 1)
    widths = wanted[:_WHOLE]
    for column in wanted[_WHOLE:]:
        least = min(column, _LEAST)
        given = min(column, room - len(_GAP))
        widths.append(given if given >= least else 0)
        room -= widths[-1] + len(_GAP) if widths[-1] else 0
    return widths


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    from rich.text import Text

    fitted = []
    for cell, width in zip(cells, widths, strict=True):
        if not width:
            continue
        text = Text(cell)
        is_cut = text.cell_len > width
        text.truncate(width - 1 if is_cut else width, overflow="crop", pad=True)
        fitted.append(f"{text.plain}+" if is_cut else text.plain)
    return _GAP.join(fitted).rstrip()


def show(views: Sequence[RequestView]) -> None:
    """Print host and list to standard output."""
    is_seen = render.is_terminal(sys.stdout)
    width = shutil.get_terminal_size().columns if is_seen else None
    console = render.console()
    console.print(headline(views), style="bold", soft_wrap=True)
    for line in lines(ordered(views), width=width, now=datetime.now(UTC)):
        console.print(line, soft_wrap=True)
