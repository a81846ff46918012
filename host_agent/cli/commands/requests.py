"""`host-agent requests`: the queue, for those who ask and those who decide."""

import argparse
import contextlib
import re
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from host_agent.cli import connection_settings, granting
from host_agent.cli.commands.call import wait_seconds
from host_agent.cli.terminal import endings, render
from host_agent.errors import EX_OK, EX_TEMPFAIL, UsageError
from host_agent.requests.state import State
from host_agent.text import DIGEST, ID

if TYPE_CHECKING:
    from host_agent.client import Client, GrantBody, RequestView

STATES = tuple(state.value for state in State)
LISTING_LIMIT = 100


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `requests` and its verbs to the command line."""
    parser = subparsers.add_parser(
        "requests",
        help="see, approve, deny and cancel requests",
        description="The queue of requests: a caller sees its own, an approver all. An ID may be"
        " cut to any beginning that only one request has.",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    _add_list(verbs)
    _add_show(verbs)
    _add_approve(verbs)
    denying = _add_ending(verbs, "deny", "deny a request", _deny)
    denying.add_argument(
        "--not-before",
        type=_not_before,
        metavar="TIME",
        help="people are not asked for the same before: 30m, 2h, 1d from now, or RFC 3339 with its"
        " offset; at most a week away",
    )
    _add_ending(verbs, "cancel", "withdraw a request of your own", _cancel)
    _add_watch(verbs)


def _add_list(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "list", help="list requests, what waits first: the most dangerous, then the soonest"
    )
    parser.add_argument("--state", choices=STATES, metavar="STATE", help=f"{', '.join(STATES)}")
    parser.add_argument(
        "--limit",
        type=_count,
        default=LISTING_LIMIT,
        metavar="N",
        help=f"at most so many (default: {LISTING_LIMIT})",
    )
    _finish(parser, _list)


def _add_show(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("show", help="show all of one request")
    _add_id(parser)
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=wait_seconds,
        default=0,
        help="first wait so long for it to be decided and to have run",
    )
    _finish(parser, _show)


def _add_approve(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "approve",
        help="show a request, ask, and approve exactly what was shown",
        description="Show a request, ask, and approve exactly what was shown. A script gives --yes"
        " and the digest of what it has looked at. With --for or --count the approval is also a"
        " bounded grant: further runs with the same parameters need no new approval.",
    )
    _add_id(parser)
    parser.add_argument("--digest", type=_digest, metavar="DIGEST", help="approve only this digest")
    parser.add_argument("--yes", action="store_true", help="do not ask; needs --digest")
    _add_reason(parser)
    granting.add_arguments(parser)
    _finish(parser, _approve)


def _add_ending(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    meaning: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(verb, help=meaning)
    _add_id(parser)
    _add_reason(parser)
    _finish(parser, function)
    return parser


def _add_watch(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "watch",
        help="show pending requests as they come and go, and answer them by keys",
        description="Show pending requests as they come and go, the selected one whole, until q:"
        " a approves what is shown, after a question; d denies it, with a reason. Nothing is"
        " taken in the last five seconds of a request. Without a terminal, each change is one"
        ' line; with --json: {"change": "new" | "changed" | "gone", "request": {...}}.',
    )
    parser.add_argument(
        "--interval",
        type=_count,
        default=2,
        metavar="SECONDS",
        help="without the agent's events, look so often (default: 2)",
    )
    _finish(parser, _watch)


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=_request_id, metavar="ID", help="its id, or a unique prefix")


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why; recorded with the decision")


def _finish(parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    connection_settings.add_arguments(parser)
    parser.set_defaults(run=function)


def _request_id(text: str) -> str:
    if re.fullmatch(ID, text):
        return text
    message = "an id is 1 to 64 letters, digits, `_` and `-`"
    raise argparse.ArgumentTypeError(message)


def _digest(text: str) -> str:
    if re.fullmatch(DIGEST, text):
        return text
    message = "a digest is sha256: and 64 hexadecimal digits"
    raise argparse.ArgumentTypeError(message)


def _not_before(text: str) -> timedelta | datetime:
    if found := re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", text, re.ASCII):
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    with contextlib.suppress(ValueError):
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant
    message = "a time is 30m, 2h or 1d, or 2026-11-20T18:00:00+00:00"
    raise argparse.ArgumentTypeError(message)


_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _count(text: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,4}", text):
        return int(text)
    message = "a whole number, 1 to 99999"
    raise argparse.ArgumentTypeError(message)


# -- looking ----------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    from host_agent.cli.watch.command import fetch

    with connection_settings.connect(args) as client:
        views, cursor = fetch(client, state=args.state, limit=args.limit)
    if args.json:
        print(render.json_text({"requests": [v.body for v in views], "next_cursor": cursor}))
        return EX_OK
    if not views:
        render.warn("No requests.")
        return EX_OK
    from host_agent.cli.terminal import listing

    listing.show(views)
    if cursor is not None:
        render.warn(f"More than {args.limit} requests; --limit shows more.")
    return EX_OK


def _show(args: argparse.Namespace) -> int:
    with connection_settings.connect(args) as client:
        view = client.follow(args.id, args.wait) if args.wait else client.request(args.id)
    _print(view, as_json=args.json)
    return EX_TEMPFAIL if args.wait and not view.is_finished else EX_OK


def _print(view: "RequestView", *, as_json: bool) -> None:
    from host_agent.cli.terminal import request_fields

    if as_json:
        print(render.json_text(view.body))
    else:
        rows = request_fields.drawn(view, datetime.now(UTC))
        render.console().print(render.fields(rows))


def _watch(args: argparse.Namespace) -> int:
    import asyncio

    from host_agent.cli.watch import app, command

    if not args.json and app.is_possible():
        connection = connection_settings.connect_async(args)
        return asyncio.run(app.watch(connection, interval_seconds=args.interval))
    with connection_settings.connect(args) as client:
        command.watch(client, interval_seconds=args.interval, as_json=args.json)
    return EX_OK


# -- deciding -----------------------------------------------------------------------------------


def _approve(args: argparse.Namespace) -> int:
    """Approve by digest without asking, or show, ask, and approve the digest that was shown."""
    if args.yes and args.digest is None:
        message = "--yes needs --digest DIGEST: the digest of what you have looked at."
        raise UsageError(message)
    if not args.yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "Without a terminal to ask on, approve takes --yes --digest DIGEST."
        raise UsageError(message)
    grant = granting.terms(args)
    with connection_settings.connect(args) as client:
        view = client.request(args.id)
        digest = args.digest
        if not args.yes:
            digest = _asked(view, args.digest, grant)
        if digest is None:
            return EX_TEMPFAIL
        if grant is not None and args.yes:
            render.warn(granting.sentence(view, grant))
        approved = client.approve(view.request_id, digest, args.reason, grant=grant)
        return _decided(_looked_at(client, approved), as_json=args.json)


def _looked_at(client: "Client", approved: "RequestView") -> "RequestView":
    """Return how the run ended, if that can be seen within some seconds; the yes is given."""
    from host_agent.client import ConnectionFailedError, InvalidAnswerError, ProblemError

    if approved.state in endings.UNDER_WAY:
        with contextlib.suppress(ProblemError, ConnectionFailedError, InvalidAnswerError):
            return client.follow(approved.request_id, endings.LOOK_SECONDS)
    return approved


def _asked(view: "RequestView", wanted: str | None, grant: "GrantBody | None" = None) -> str | None:
    """Show `view`, ask, and return its digest; None where the person, or its state, says no."""
    _print(view, as_json=False)
    if view.state != "pending" or view.digest is None:
        render.warn(f"The request is {render.visible(view.state)}: there is nothing to decide.")
        return None
    if wanted is not None and wanted != view.digest:
        render.warn("The request's digest is not the one given; nothing was approved.")
        return None
    subject = " ".join(
        render.visible(word, limit=128)
        for word in (view.verb or view.operation, view.subject or view.resource)
        if word
    )
    where = "" if view.host is None else f" on {render.visible(view.host, limit=128)}"
    caller = render.visible(view.caller or "an unnamed caller", limit=64)
    if grant is not None:
        print(f"\n{granting.sentence(view, grant)}")
    print(f"\nApprove {subject}{where} for {caller}, {render.visible(view.digest, limit=80)}?")
    if _answer("Type yes to approve: ") == "yes":
        return view.digest
    render.warn("Not approved; the request stays as it was.")
    return None


def _answer(prompt: str) -> str:
    """Return what the person types after seeing `prompt`; what was typed before does not count."""
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    print(prompt, end="", flush=True)
    return sys.stdin.readline().strip().lower()


def _deny(args: argparse.Namespace) -> int:
    with connection_settings.connect(args) as client:
        view = client.request(args.id)
        until = args.not_before
        if isinstance(until, timedelta):
            until = datetime.now(UTC) + until
        denied = client.deny(view.request_id, args.reason, not_before=until)
        return _decided(denied, as_json=args.json)


def _cancel(args: argparse.Namespace) -> int:
    with connection_settings.connect(args) as client:
        view = client.request(args.id)
        return _decided(client.cancel(view.request_id, args.reason), as_json=args.json)


def _decided(view: "RequestView", *, as_json: bool) -> int:
    if as_json:
        print(render.json_text(view.body))
        return EX_OK
    follow = ""
    if view.state in endings.UNDER_WAY:
        follow = f"; `host-agent requests show {endings.short_id(view.request_id)}` tells more"
    print(f"{endings.line(view)}{follow}")
    return EX_OK
