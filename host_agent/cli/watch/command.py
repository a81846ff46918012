"""`requests watch` without a terminal: pending requests as they come and go, one line a change.

It asks for the pending requests again and again; what has left them is looked up once, so that the
last line says how it ended.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from host_agent.cli.terminal import render
from host_agent.client import (
    CertificateRefusedError,
    Client,
    ConnectionFailedError,
    ProblemError,
    RequestView,
)

MOST = 500
PAGE = 100
"""Requests asked for at once."""


def fetch(client: Client, *, state: str | None, limit: int) -> tuple[list[RequestView], str | None]:
    """Return up to `limit` requests, and the cursor of the rest if there is one."""
    views: list[RequestView] = []
    cursor: str | None = None
    while len(views) < limit:
        wanted = min(PAGE, limit - len(views))
        page = client.requests(state=state, limit=wanted, cursor=cursor)
        views.extend(page.requests)
        cursor = page.next_cursor
        if cursor is None or not page.requests:
            break
    return views, cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """One difference between two looks at the queue."""

    change: Literal["new", "changed", "gone"]
    request: RequestView


def changes(
    before: Mapping[str, RequestView], after: Mapping[str, RequestView]
) -> Iterator[QueueChange]:
    """Yield what differs between two looks, gone ones first and new ones oldest first."""
    for request_id, view in before.items():
        if request_id not in after:
            yield QueueChange(change="gone", request=view)
    for request_id, view in reversed(list(after.items())):
        if request_id not in before:
            yield QueueChange(change="new", request=view)
        elif view.body != before[request_id].body:
            yield QueueChange(change="changed", request=view)


def watch(
    client: Client,
    *,
    interval_seconds: float,
    as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Watch until interrupted.

    Raises:
        ProblemError: the agent refuses the listing for a reason that waiting does not mend.
    """
    before: dict[str, RequestView] = {}
    trouble = ""
    while True:
        seen = look(client)
        if isinstance(seen, str):
            if seen != trouble:
                render.warn(seen)
            trouble = seen
        else:
            trouble = ""
            after = {view.request_id: view for view in seen}
            for change in changes(before, after):
                _write(client, change, as_json=as_json)
            before = after
        sleep(interval_seconds)


def look(client: Client) -> tuple[RequestView, ...] | str:
    """Return the pending requests, or a sentence on why they cannot be seen at the moment."""
    try:
        views, _ = fetch(client, state="pending", limit=MOST)
    except CertificateRefusedError:
        raise
    except ConnectionFailedError as error:
        return render.visible(str(error), limit=400)
    except ProblemError as problem:
        if problem.status not in (429, 503):
            raise
        return render.visible(f"{problem.detail} ({problem.code})", limit=400)
    return tuple(views)


def _write(client: Client, change: QueueChange, *, as_json: bool) -> None:
    view = _ended(client, change.request) if change.change == "gone" else change.request
    if as_json:
        line = render.json_text({"change": change.change, "request": view.body}, indent=None)
    else:
        words = (view.request_id, view.state, view.operation, view.resource, view.caller, view.host)
        line = " ".join(render.visible(word or "-", limit=128) for word in (change.change, *words))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _ended(client: Client, view: RequestView) -> RequestView:
    """Return the newest view of a request that is no longer pending, as far as it can be seen."""
    try:
        return client.request(view.request_id)
    except (ConnectionFailedError, ProblemError):
        return view
