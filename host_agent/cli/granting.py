"""Bounded grants in words and on the command line: `--for`, `--count`, `--resource`."""

import argparse
import re
from typing import TYPE_CHECKING

from host_agent.cli.terminal import render
from host_agent.errors import UsageError

if TYPE_CHECKING:
    from host_agent.client import GrantBody, RequestView

SHORTEST, LONGEST = 60, 86_400
MOST = 1000
VALUE_LIMIT = 256

_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WORDS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options by which an approval stands for further runs."""
    group = parser.add_argument_group("a bounded grant")
    group.add_argument(
        "--for",
        dest="for_seconds",
        type=_span,
        metavar="TIME",
        help="for so long, the same may run without asking again: 90s, 30m, 2h, 1d; at most a day",
    )
    group.add_argument(
        "--count",
        type=_count,
        metavar="N",
        help=f"so many times, 1 to {MOST}, the same may run without asking again, within 24 hours",
    )
    group.add_argument(
        "--resource",
        metavar="PATTERN",
        help="for all resources that this regular expression matches whole; else for this one only",
    )


def _span(text: str) -> int:
    found = _SPAN.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if SHORTEST <= seconds <= LONGEST:
        return seconds
    message = "a time is a number with s, m, h or d, one minute to one day: 30m"
    raise argparse.ArgumentTypeError(message)


def _count(text: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,3}", text) and int(text) <= MOST:
        return int(text)
    message = f"a whole number, 1 to {MOST}"
    raise argparse.ArgumentTypeError(message)


def terms(args: argparse.Namespace) -> "GrantBody | None":
    """Return the grant that the command line names, or None.

    Raises:
        UsageError: a time and a count, or a pattern without either.
    """
    from host_agent.client import GrantBody

    if args.for_seconds is None and args.count is None:
        if args.resource is None:
            return None
        message = "--resource needs --for TIME or --count N: it is about further runs."
        raise UsageError(message)
    if args.for_seconds is not None and args.count is not None:
        message = "Give --for or --count, not both."
        raise UsageError(message)
    return GrantBody(for_seconds=args.for_seconds, count=args.count, resource=args.resource)


def sentence(view: "RequestView", grant: "GrantBody") -> str:
    """Return what `grant` would allow beyond the run of `view`, everything escaped and bounded."""
    caller = render.visible(view.caller or "the caller", limit=64)
    operation = render.visible(view.operation, limit=128)
    words = [f"{_bound(grant)}, {caller} may run {operation} on {_where(view, grant)}"]
    if others := _others(view):
        words.append(f"with {', '.join(others)}")
    text = f"{' '.join(words)} without asking again."
    if view.approvals is not None and view.approvals.needed > 1:
        text += " It is given only if every approver of this request gives the same."
    return text


def _bound(grant: "GrantBody") -> str:
    if grant.for_seconds is not None:
        return f"For {span_text(grant.for_seconds)}"
    times = "once more" if grant.count == 1 else f"{grant.count} more times"
    return f"Up to {times} within 24 hours"


def span_text(seconds: int) -> str:
    """Return a time span in words: `30 minutes`, `1 hour 30 minutes`."""
    parts = []
    for size, name in _WORDS:
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(render.counted(number, name))
    return " ".join(parts)


def _where(view: "RequestView", grant: "GrantBody") -> str:
    if grant.resource is not None:
        return f"whatever matches {render.visible(grant.resource, limit=VALUE_LIMIT)}"
    return render.visible(view.resource or "nothing", limit=VALUE_LIMIT)


def _others(view: "RequestView") -> list[str]:
    """Return the parameters but the one that is the resource: they must be the same each time."""
    others = list(view.params.items())
    own = next((item for item in others if item[1] == view.resource), None)
    if own is not None:
        others.remove(own)
    return [
        f"{render.visible(name, limit=64)}={render.value_text(value, limit=VALUE_LIMIT)}"
        for name, value in others
    ]
