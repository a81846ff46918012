"""`host-agent call`: one operation, asked for as a client; `--wait` follows a held request."""

import argparse
import contextlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from pydantic import JsonValue, ValidationError

from host_agent.cli import arguments, connection_settings
from host_agent.cli.terminal import endings, render, tables
from host_agent.errors import (
    EX_FAILED,
    EX_OK,
    EX_SOFTWARE,
    EX_TEMPFAIL,
    ProblemError,
    UsageError,
    exit_status,
)

if TYPE_CHECKING:
    from host_agent.client import (
        ApprovalsView,
        Client,
        DryRun,
        Held,
        Outcome,
        PreviewView,
        Ran,
        RequestView,
    )

LONGEST_WAIT_SECONDS = 86400
_SUMMARY_LIMIT = 300
"""Digits of a request's id that are shown to be typed again."""

_WITHOUT_PROBLEM = {"denied": "approval:denied", "expired": "approval:expired"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `call` to the command line."""
    parser = subparsers.add_parser(
        "call",
        help="ask for one operation",
        description="Ask for one operation. What it prints is printed; exit status 75 says that the"
        " request is held and nothing has run.",
    )
    parser.add_argument("operation", metavar="OPERATION", help="a name that `operations` lists")
    parser.add_argument(
        "parameters",
        metavar="NAME=VALUE",
        nargs="*",
        help="a parameter, typed by the operation's schema (lists by comma); NAME:=JSON is exact",
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the people who decide")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=wait_seconds,
        help="follow a held request for so long until it is decided and has run",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only tell what it would come to: nothing runs, nobody is asked",
    )
    parser.add_argument("--json", action="store_true", help="print the agent's answer as JSON")
    connection_settings.add_arguments(parser)
    parser.set_defaults(run=run)


def wait_seconds(text: str) -> int:
    """Return the seconds that `text` spells.

    Raises:
        argparse.ArgumentTypeError: not a whole number from 0 to a day.
    """
    if text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= LONGEST_WAIT_SECONDS:
        return int(text)
    message = f"a whole number of seconds, 0 to {LONGEST_WAIT_SECONDS}"
    raise argparse.ArgumentTypeError(message)


def run(args: argparse.Namespace) -> int:
    """Ask, and wait where told to; return the exit status."""
    from host_agent.client import Ran

    words = arguments.parse_words(args.parameters)
    if args.reason is not None and not arguments.is_text(args.reason):
        message = "The reason is not UTF-8."
        raise UsageError(message)
    with connection_settings.connect(args) as client:
        params = _params(client, args.operation, words)
        if args.dry_run:
            tried = client.dry_run(args.operation, params, reason=args.reason)
            return _show_dry_run(tried, as_json=args.json)
        try:
            answer = client.submit(args.operation, params, reason=args.reason)
        except ProblemError as problem:
            if not args.json:
                _show_failed(problem)
            raise
        if isinstance(answer, Ran):
            return _show_ran(answer, as_json=args.json)
        if not args.wait:
            return _show_held(answer, as_json=args.json)
        return _show_view(_followed(client, answer, args.wait), as_json=args.json)


def _params(
    client: "Client", operation: str, words: tuple[arguments.Word, ...]
) -> dict[str, JsonValue]:
    """Return typed parameters; the schemas are fetched only if a word needs one."""
    schema: dict[str, JsonValue] | None = None
    if arguments.needs_schema(words):
        known = {info.name: info.parameters for info in client.operations()}
        schema = known.get(operation)
    return arguments.typed(words, schema)


def _followed(client: "Client", held: "Held", wait: int) -> "RequestView":
    """Follow a held request, with the time left shown where a person looks."""
    _say(_held_text(held).partition("\n")[0])
    if not render.is_terminal(sys.stderr):
        return client.follow(held.request_id, wait)
    with render.console(sys.stderr).status(_waiting_text(held.state, held.expires_at)) as status:

        def show(view: "RequestView") -> None:
            status.update(_waiting_text(view.state, view.expires_at))

        return client.follow(held.request_id, wait, on_view=show)


def _waiting_text(state: str, expires_at: datetime | None) -> str:
    words = f"{render.visible(state)}: waiting (Ctrl-C stops waiting, the request stays)"
    if expires_at is None:
        return words
    left = max(0.0, (expires_at - datetime.now(UTC)).total_seconds())
    return f"{words}; expires in {render.duration_text(left)}"


def _show_ran(answer: "Ran", *, as_json: bool) -> int:
    if as_json:
        print(render.json_text(answer.body))
    else:
        _show_outcome(answer.outcome)
        if answer.outcome.exit_code is None:
            _say(f"unchanged  {_what_was_asked(answer)}  {_summary(answer.preview)}".rstrip())
        elif answer.effect != "read":
            by = "" if answer.grant is None else f"by grant {endings.short_id(answer.grant)}"
            _say(endings.done(_what_was_asked(answer), answer.outcome, by))
    return EX_OK


def _what_was_asked(answer: "Ran | DryRun") -> str:
    return endings.subject(answer.operation, answer.resource)


def _summary(preview: "PreviewView | None") -> str:
    return "" if preview is None else render.visible(preview.summary, limit=_SUMMARY_LIMIT)


_WOULD = {
    "run": "would run",
    "ask": "would ask",
    "attach": "would attach to",
    "unchanged": "nothing to do",
}


def _show_dry_run(tried: "DryRun", *, as_json: bool) -> int:
    """Show what an ask would come to, a line for each thing that is to be known before it."""
    if as_json:
        print(render.json_text(tried.body))
        return EX_OK
    end = _WOULD.get(tried.would, render.visible(tried.would, limit=64))
    if tried.attaches_to is not None:
        end = f"{end} {endings.short_id(tried.attaches_to)}"
    lines = [f"{end}  {_what_was_asked(tried)}  rule: {render.visible(tried.rule, limit=100)}"]
    if tried.approvals is not None:
        lines.append(f"       {_whose_yes(tried.approvals)}")
    if tried.preview is not None:
        accuracy = render.visible(tried.preview.accuracy, limit=16)
        lines.append(f"       {_summary(tried.preview)} ({accuracy})")
        lines += [f"       {render.visible(line, limit=200)}" for line in tried.preview.details]
        if tried.preview.left_out:
            lines.append(f"       and {tried.preview.left_out} more")
        if tried.preview.undo:
            lines.append(f"       undo: {render.visible(tried.preview.undo, limit=200)}")
    if tried.runs_as is not None:
        lines.append(f"       runs as {render.visible(tried.runs_as, limit=64)}")
    lines.append(f"       digest {render.visible(tried.digest, limit=80)}")
    print("\n".join(lines))
    return EX_OK


def _whose_yes(terms: "ApprovalsView") -> str:
    """Return whose yes it takes, in words."""
    role = render.visible(terms.approver_role, limit=64)
    named = ", ".join(render.visible(name, limit=64) for name in terms.approvers or ())
    of = f" of {named}" if named else ""
    people = "one" if terms.needed == 1 else str(terms.needed)
    return f"needs the yes of {people} with the role {role}{of}"


def _say(line: str) -> None:
    """Write a line about the request to standard error; standard output is the command's."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _show_held(held: "Held", *, as_json: bool) -> int:
    if as_json:
        print(render.json_text(held.body))
    sys.stderr.write(_held_text(held))
    return EX_TEMPFAIL


def _held_text(held: "Held") -> str:
    """Return in two lines what is held and why, and how to go on."""
    short = endings.short_id(held.request_id)
    operation = render.visible(held.operation, limit=64)
    if held.state == "pending":
        rule = render.visible(held.rule or "a person", limit=100)
        first = f"held   {short}  {operation}  waits for: {rule}"
        nothing = "nothing has run; "
    else:  # the same was asked for before, and somebody has said yes to it
        first = f"{render.visible(held.state)}  {short}  {operation}  was asked for before"
        nothing = ""
    return f"{first}\n       {nothing}follow it: host-agent requests show {short} --wait 60\n"


def _show_view(view: "RequestView", *, as_json: bool) -> int:
    if as_json:
        print(render.json_text(view.body))
    elif view.outcome is not None:
        _show_outcome(view.outcome)
    return _settled(view)


def _settled(view: "RequestView") -> int:
    """Say how a request ended; return the exit status."""
    _say(endings.line(view))
    if view.is_finished:
        return ended_status(view)
    request_id, state = endings.short_id(view.request_id), render.visible(view.state)
    _say(f"       still {state}; follow it: host-agent requests show {request_id} --wait 60")
    return EX_TEMPFAIL


def ended_status(view: "RequestView") -> int:
    """Return the exit status for a finished request."""
    if view.state == "succeeded":
        return EX_OK
    if view.state == "unknown":
        return EX_SOFTWARE
    code = view.problem.code if view.problem is not None else _WITHOUT_PROBLEM.get(view.state)
    if code is not None:
        return exit_status(code)
    return EX_TEMPFAIL if view.state == "cancelled" else EX_FAILED


def _show_failed(problem: ProblemError) -> None:
    """Show what the command printed before it failed, where the problem has it."""
    from host_agent.client import Outcome

    found = problem.body.get("outcome")
    if isinstance(found, dict):
        with contextlib.suppress(ValidationError):
            _show_outcome(Outcome.model_validate(found))


def _show_outcome(outcome: "Outcome") -> None:
    found = tables.of(outcome.data) if render.is_terminal(sys.stdout) else None
    if found is None:
        _write(sys.stdout, outcome.stdout or "")
    else:
        render.console().print(found)
    _write(sys.stderr, outcome.stderr or "")
    if outcome.truncated:
        render.warn("The output was longer than the agent keeps; it is cut.")
    if outcome.verified is False:
        render.warn("NOT VERIFIED: the command succeeded, and the probe did not see its effect.")


def _write(stream: TextIO, text: str) -> None:
    """Write a command's output: as it is into a file or a pipe, escaped on a terminal."""
    if text and render.is_terminal(stream):
        text = render.visible_lines(text) + "\n"
    stream.write(text)
    stream.flush()
