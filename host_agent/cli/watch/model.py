"""What the keys of `requests watch` do, as a value that is replaced: no terminal, no connection.

Nothing is decided by default: an approval takes a request that was shown to its end, a question and
`y`; a denial takes words. A request takes no answer from five seconds before it expires.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from pydantic import JsonValue

from host_agent.cli.terminal import render
from host_agent.cli.watch import keys
from host_agent.client import RequestView
from host_agent.text import SHOWN_ID

LAST_SECONDS = 5.0
"""Before a request expires, in which it takes no answer any more."""
MAX_WORDS = 500
NAME_LIMIT = 100
TOO_LATE = "too late to answer"
SHRUNK = "the terminal has become too small; nothing was sent"
UNREAD = "read it to its end first: space, or page down"
GO_ON = "press Escape or Enter to go on"
ENDED = "the request has ended meanwhile; nothing was sent"
MOVED = "the request that was here has ended; this is another one: read it, with space, first"
_MOVING = frozenset({"decisions", "approvals"})
"""What others may add to a request while somebody reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Approve exactly what was shown."""

    view: RequestView
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialKey:
    """Deny it, in these words."""

    view: RequestView
    reason: str


@dataclass(frozen=True, slots=True)
class Quit:
    """End the watch."""


Act: TypeAlias = Approve | DenialKey | Quit


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenQuestion:
    """What is being asked about `view`: whether to approve, or with `words` why it is denied."""

    view: RequestView
    words: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """The requests that wait, and how far the person is.

    `scroll` is the first line shown of the selected one, and `is_read` whether its last was shown.
    `needs_acknowledgement`: a question went away under somebody who was typing, so keys mean
    nothing until they say that they have seen it. `selection_moved`: the selected request took the
    place of another.
    """

    views: tuple[RequestView, ...] = ()
    selected: str | None = None
    scroll: int = 0
    is_read: bool = False
    question: OpenQuestion | None = None
    notice: str = ""
    needs_acknowledgement: bool = False
    selection_moved: bool = False

    @property
    def view(self) -> RequestView | None:
        return next((view for view in self.views if view.request_id == self.selected), None)

    @property
    def index(self) -> int:
        """Return the place of the selected request; 0 where there is none."""
        ids = [view.request_id for view in self.views]
        return ids.index(self.selected) if self.selected in ids else 0


def is_late(view: RequestView, now: datetime) -> bool:
    """Return whether `view` takes no answer any more."""
    left = view.seconds_left(now)
    return left is not None and left <= LAST_SECONDS


def subject(view: RequestView) -> str:
    """Return what a request is about, on one line and escaped."""
    words = (view.verb or view.operation, view.subject or view.resource or "")
    return " ".join(render.visible(word, limit=NAME_LIMIT) for word in words if word)


def asked(question: OpenQuestion) -> str:
    what = f"{subject(question.view)} ({render.visible(question.view.request_id[:SHOWN_ID])})"
    if question.words is None:
        return f"approve {what}? y/N"
    return f"deny {what}, because: {render.visible(question.words)}"


# -- what comes from outside ----------------------------------------------------------------------


def arrived(desk: WatchState, views: tuple[RequestView, ...]) -> WatchState:
    """Return the desk with the requests that wait now; who reads stays with the same one."""
    before = desk.view
    newest = {view.request_id: view for view in views}
    fresh = replace(desk, views=views)
    if desk.question is not None:
        asked_about = newest.get(desk.question.view.request_id)
        if asked_about is None or _shown(asked_about) != _shown(desk.question.view):
            fresh = interrupted(fresh, ENDED)
    if before is None or before.request_id not in newest:
        place = min(desk.index, len(views) - 1)
        chosen = views[place].request_id if views else None
        selection_moved = chosen is not None and desk.selected is not None
        notice = fresh.notice or (MOVED if selection_moved else "")
        fresh = replace(fresh, selected=chosen, scroll=0, is_read=False)
        return replace(fresh, selection_moved=selection_moved, notice=notice)
    if _shown(newest[before.request_id]) != _shown(before):
        return replace(fresh, scroll=0, is_read=False)
    return fresh


def interrupted(desk: WatchState, why: str) -> WatchState:
    """Return the desk without its question, if there was one: what is typed on is no answer."""
    if desk.question is None:
        return desk
    return replace(desk, question=None, needs_acknowledgement=True, notice=f"{why}: {GO_ON}")


def _shown(view: RequestView) -> dict[str, JsonValue]:
    return {name: value for name, value in view.body.items() if name not in _MOVING}


def passed(desk: WatchState, now: datetime) -> WatchState:
    """Return the desk as time has passed: a question that can no longer be answered is gone."""
    if desk.question is not None and is_late(desk.question.view, now):
        return interrupted(desk, TOO_LATE)
    return desk


def drawn(desk: WatchState, *, scroll: int, is_end_shown: bool) -> WatchState:
    """Return the desk after it was drawn, from line `scroll` of the selected request on."""
    return replace(desk, scroll=scroll, is_read=desk.is_read or is_end_shown)


# -- keys -----------------------------------------------------------------------------------------


def press(
    desk: WatchState, key: str, now: datetime, *, page: int = 5
) -> tuple[WatchState, Act | None]:
    """Return the desk after one key, and what is to be done. `page` is the lines of a page."""
    desk = passed(desk, now)
    if desk.needs_acknowledgement:
        return _hear_again(desk, key)
    desk = replace(desk, notice="")
    if desk.question is None:
        return _browse(desk, key, now, page)
    if desk.question.words is None:
        return _confirm(desk, desk.question.view, key)
    return _explain(desk, desk.question.view, desk.question.words, key)


def _hear_again(desk: WatchState, key: str) -> tuple[WatchState, Act | None]:
    """Take keys that nobody types in the middle of words; the others were for what is gone."""
    if key == keys.END:
        return desk, Quit()
    if key in (keys.ENTER, keys.ESCAPE):
        return replace(desk, needs_acknowledgement=False, notice=""), None
    return desk, None


def _browse(desk: WatchState, key: str, now: datetime, page: int) -> tuple[WatchState, Act | None]:
    match key:
        case "q" | keys.END:
            return desk, Quit()
        case "j" | keys.DOWN:
            return _select(desk, desk.index + 1), None
        case "k" | keys.UP:
            return _select(desk, desk.index - 1), None
        case " " | keys.PAGE_DOWN:
            return replace(desk, scroll=desk.scroll + max(page, 1), selection_moved=False), None
        case "b" | keys.PAGE_UP:
            return replace(desk, scroll=max(desk.scroll - max(page, 1), 0)), None
        case "a" | "d":
            return _ask(desk, key, now), None
        case _:
            return desk, None


def _select(desk: WatchState, index: int) -> WatchState:
    if not desk.views:
        return desk
    chosen = desk.views[min(max(index, 0), len(desk.views) - 1)].request_id
    if chosen == desk.selected:
        return replace(desk, selection_moved=False)
    return replace(desk, selected=chosen, scroll=0, is_read=False, selection_moved=False)


def _ask(desk: WatchState, key: str, now: datetime) -> WatchState:
    view = desk.view
    if view is None:
        return desk
    if desk.selection_moved:
        return replace(desk, notice=MOVED)
    if is_late(view, now):
        return replace(desk, notice=TOO_LATE)
    if key == "d":
        return replace(desk, question=OpenQuestion(view=view, words=""))
    if not desk.is_read:
        return replace(desk, notice=UNREAD)
    return replace(desk, question=OpenQuestion(view=view))


def _confirm(desk: WatchState, view: RequestView, key: str) -> tuple[WatchState, Act | None]:
    if key in ("y", "Y") and view.digest is not None:
        return replace(desk, question=None), Approve(view=view, digest=view.digest)
    return replace(desk, question=None, notice="not approved; it stays as it was"), None


def _explain(
    desk: WatchState, view: RequestView, words: str, key: str
) -> tuple[WatchState, Act | None]:
    away = replace(desk, question=None, notice="not denied; it stays as it was")
    if key == keys.ENTER and words.strip():
        return replace(desk, question=None), DenialKey(view=view, reason=words.strip())
    if key in (keys.ENTER, keys.ESCAPE, keys.END):
        return away, None
    if key == keys.BACKSPACE:
        words = words[:-1]
    elif len(key) == 1 and len(words) < MAX_WORDS:
        words += key
    return replace(desk, question=OpenQuestion(view=view, words=words)), None
