"""`requests watch` on a real terminal of 80 columns and 24 lines: what keys do, and what it leaves.

The screen is what was drawn last; the terminal's modes before and after are compared.
"""

import re
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import answers, counterpart
from tests.support.answers import DIGEST, REQUEST_ID
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.counterpart import Answer, Counterpart, frame, refused
from tests.support.terminal import Terminal

OTHER_ID = "f" * len(REQUEST_ID)
DECISION = f"/requests/{REQUEST_ID}/decision"
ENTER_SCREEN, LEAVE_SCREEN, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"
HOSTILE = "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0), 0x202E, 0x200B, 0xFEFF]))
WHAT = f"PULL /srv/app, main of origin ({REQUEST_ID[:8]})"
QUESTION = f"approve {WHAT}? y/N"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def alice(pki: Pki) -> Leaf:
    return pki.client("alice")


@pytest.fixture
def ending() -> Iterator[threading.Event]:
    """Ends the streams of a test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def happened(agent: Counterpart, ending: threading.Event) -> threading.Event:
    """Once it is set, the agent tells of an event; its stream goes on to the test's end."""
    told = threading.Event()
    agent.say("GET", "/events", counterpart.stream((told, frame(7)), (ending, b"")))
    return told


@pytest.fixture
def agent(pki: Pki, tmp_path: Path, ending: threading.Event) -> Iterator[Counterpart]:
    with counterpart.running(tmp_path / "agent", pki) as running:
        running.say("GET", "/events", counterpart.stream((ending, b"")))
        running.say("GET", "/requests", queue(answers.view()))
        running.say("POST", DECISION, Answer(body=answers.view(state="approved")))
        yield running
        ending.set()


@pytest.fixture
def environ(agent: Counterpart, alice: Leaf, tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path),
        "HOST_AGENT_URL": agent.url,
        "HOST_AGENT_CERT": str(alice.certificate_path),
        "HOST_AGENT_KEY": str(alice.key_path),
        "HOST_AGENT_CA": str(agent.pki.ca_path),
    }


def queue(*views: dict[str, Any]) -> Answer:
    return Answer(body={"requests": list(views), "next_cursor": None})


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def decisions(agent: Counterpart) -> list[Any]:
    return [seen.body for seen in agent.seen if seen.path == DECISION]


def sent(agent: Counterpart) -> list[str]:
    return [seen.path for seen in agent.seen if seen.path.endswith("/decision")]


def twin() -> dict[str, Any]:
    return answers.view(request_id=OTHER_ID, digest="sha256:" + "9" * 64)


class Watch(Terminal):
    """A watch that has begun, and the modes that the terminal had before."""

    def __init__(self, environ: dict[str, str], *, lines: int = 24, columns: int = 80) -> None:
        super().__init__(
            ["requests", "watch", "--interval", "1"],
            environ=environ,
            columns=columns,
            lines=lines,
        )
        self.before = self.modes

    @property
    def screen(self) -> str:
        """What was drawn last, one line a line."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text.rpartition("\x1b[H")[2])

    def read_until_shown(self, words: str) -> None:
        """Read until the screen that was drawn last says `words`."""
        while words not in self.screen:
            assert self._read(), f"the watch ended without {words!r}"

    def assert_restored(self) -> None:
        assert self.modes == self.before
        assert self.raw.count(ENTER_SCREEN) == self.raw.count(LEAVE_SCREEN) == 1
        assert self.raw.rindex(SHOW_CURSOR) > self.raw.index(ENTER_SCREEN)
        assert "Traceback" not in self.text


def ask(watch: Watch) -> None:
    """Read on until the request is whole, and ask for its approval."""
    watch.read_until("more lines below")
    watch.type("   ")
    watch.read_until("precondition")
    watch.type("a")
    watch.read_until(QUESTION)


def test_an_approval_takes_reading_a_question_and_y(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    with Watch(environ) as watch:
        ask(watch)
        assert decisions(agent) == []
        watch.type("y")
        watch.read_until("approved  git.pull /srv/app")
        assert decisions(agent) == [{"decision": "approve", "digest": DIGEST}]
        watch.type("q")
        assert watch.end() == 0
        watch.assert_restored()
    shown = re.sub(r"\s+", "", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", watch.text))
    for words in ("repository/srv/app", "remoteorigin", "branchmain", DIGEST, "abc1234first"):
        assert words in shown


@pytest.mark.parametrize("key", ["n", "\n", "x", "\x1b", "\x04"], ids=repr)
def test_every_other_key_approves_nothing(
    agent: Counterpart, environ: dict[str, str], key: str
) -> None:
    with Watch(environ) as watch:
        ask(watch)
        watch.type(key)
        watch.read_until("not approved")
        watch.type("q")
        assert watch.end() == 0
        watch.assert_restored()
    assert decisions(agent) == []


def test_what_is_typed_ahead_answers_no_question(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    with Watch(environ) as watch:
        watch.read_until("more lines below")
        watch.type("   ")
        watch.read_until("precondition")
        watch.type("ay")
        watch.read_until(QUESTION)
        watch.type("n")
        watch.read_until("not approved")
        watch.type("q")
        assert watch.end() == 0
    assert decisions(agent) == []


def test_what_was_not_read_is_not_approved(agent: Counterpart, environ: dict[str, str]) -> None:
    with Watch(environ) as watch:
        watch.read_until("more lines below")
        watch.type("a")
        watch.read_until("read it to its end first")
        watch.type("q")
        assert watch.end() == 0
        assert QUESTION not in watch.text
    assert decisions(agent) == []


def test_a_denial_takes_a_reason(agent: Counterpart, environ: dict[str, str]) -> None:
    agent.say("POST", DECISION, Answer(body=answers.view(state="denied")))
    with Watch(environ) as watch:
        watch.read_until("more lines below")
        watch.type("d")
        watch.read_until(f"deny {WHAT}, because:")
        watch.type("\n")
        watch.read_until_shown("not denied")
        assert decisions(agent) == []
        watch.type("d")
        watch.read_until_shown("deny PULL")
        watch.type("not today qq\x7f\x7f")
        watch.read_until_shown("because: not today")
        watch.type("\n")
        watch.read_until("denied; nothing ran")
        watch.type("q")
        assert watch.end() == 0
        watch.assert_restored()
    assert decisions(agent) == [{"decision": "deny", "reason": "not today"}]


def test_a_refused_decision_is_told_and_the_watch_goes_on(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    agent.say("POST", DECISION, refused("approval:self-approval", "Not your own."))
    with Watch(environ) as watch:
        ask(watch)
        watch.type("y")
        watch.read_until("Not your own. (approval:self-approval)")
        watch.type("q")
        assert watch.end() == 0


def test_the_last_five_seconds_take_no_answer(agent: Counterpart, environ: dict[str, str]) -> None:
    agent.say("GET", "/requests", queue(answers.view(expires_at=in_seconds(4))))
    with Watch(environ) as watch:
        watch.read_until("more lines below")
        watch.type("   ")
        watch.read_until("precondition")
        for key in ("a", "d"):
            watch.raw = b""
            watch.type(key)
            watch.read_until("too late to answer")
        watch.type("q")
        assert watch.end() == 0
    assert decisions(agent) == []


def test_a_question_goes_when_its_time_is_over(agent: Counterpart, environ: dict[str, str]) -> None:
    agent.say("GET", "/requests", queue(answers.view(expires_at=in_seconds(8))))
    with Watch(environ) as watch:
        ask(watch)
        watch.read_until("too late to answer")
        watch.type("yq\r")
        watch.type("q")
        assert watch.end() == 0
    assert decisions(agent) == []


def test_an_event_is_seen_at_once_and_a_question_ends_with_its_request(
    agent: Counterpart, environ: dict[str, str], happened: threading.Event
) -> None:
    with Watch(environ) as watch:
        ask(watch)
        assert "live" in watch.screen
        agent.say("GET", "/requests", queue())
        happened.set()
        watch.read_until("ended meanwhile")
        watch.read_until("No pending requests")
        watch.type("yq\r")
        watch.type("q")
        assert watch.end() == 0
    assert decisions(agent) == []


def test_words_of_a_denial_are_no_commands_when_its_request_goes_away(
    agent: Counterpart, environ: dict[str, str], happened: threading.Event
) -> None:
    """Its caller cancels it while the reason is typed; another request slides into its place."""
    agent.say("GET", "/requests", queue(answers.view(), twin()))
    with Watch(environ, lines=50) as watch:
        watch.read_until_shown("2 pending")
        watch.type("d")
        watch.read_until_shown("because:")
        watch.type("n")
        agent.say("GET", "/requests", queue(twin()))
        happened.set()
        watch.read_until_shown("ended meanwhile")
        for character in "o, please stay away from it a y":
            watch.type(character)
        watch.type("\r")
        watch.type("a")
        watch.read_until_shown("this is another one")
        watch.type("y q")
        assert watch.end() == 0
    assert sent(agent) == []


def test_who_has_read_one_is_not_asked_about_another(
    agent: Counterpart, environ: dict[str, str], happened: threading.Event
) -> None:
    agent.say("GET", "/requests", queue(answers.view(), twin()))
    with Watch(environ, lines=50) as watch:
        watch.read_until_shown("2 pending")
        agent.say("GET", "/requests", queue(twin()))
        happened.set()
        watch.read_until_shown("this is another one")
        watch.type("ay")
        watch.read_until_shown("this is another one")
        watch.type(" ")
        watch.type("a")
        watch.read_until_shown(f"({OTHER_ID[:8]})? y/N")
        watch.type("n")
        watch.read_until_shown("not approved")
        watch.type("q")
        assert watch.end() == 0
    assert sent(agent) == []


def test_whoever_ends_it_does_not_wait_for_an_agent_that_does_not_answer(
    agent: Counterpart, environ: dict[str, str], ending: threading.Event
) -> None:
    agent.say("POST", DECISION, Answer(body=answers.view(state="approved"), waits_for=ending))
    with Watch(environ, lines=50) as watch:
        watch.read_until_shown("1 pending")
        watch.type("a")
        watch.read_until_shown("? y/N")
        watch.type("y")
        watch.read_until_shown("sending:")
        watch.signal(signal.SIGTERM)
        assert watch.end() == 143
        watch.assert_restored()


def test_without_events_it_looks_again_and_again(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    agent.say("GET", "/events", refused("route:not-found"))
    with Watch(environ) as watch:
        watch.read_until("1 pending")
        agent.say("GET", "/requests", queue())
        watch.read_until("No pending requests")
        watch.type("q")
        assert watch.end() == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_whoever_ends_it_the_terminal_is_as_before(
    environ: dict[str, str], number: signal.Signals, status: int
) -> None:
    with Watch(environ) as watch:
        watch.read_until("1 pending")
        assert watch.modes != watch.before
        watch.signal(number)
        assert watch.end() == status
        watch.assert_restored()


def test_an_interrupt_at_the_question_approves_nothing(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    with Watch(environ) as watch:
        ask(watch)
        watch.type("\x03")
        assert watch.end() == 130
        watch.assert_restored()
    assert decisions(agent) == []


def test_a_refusal_ends_it_and_the_terminal_is_as_before(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    agent.say("GET", "/requests", queue(answers.view()), refused("identity:revoked", "Gone."))
    with Watch(environ) as watch:
        watch.read_until("1 pending")
        assert watch.end() == 77
        assert "Gone." in watch.text.rpartition("\x1b[?1049l")[2]
        watch.assert_restored()


@pytest.mark.promise("c31")
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 14), (200, 60)])
def test_a_hostile_request_stays_text_while_it_is_watched(
    agent: Counterpart, environ: dict[str, str], columns: int, lines: int
) -> None:
    text = HOSTILE + "\nstate     approved\x1b[2K\x1b[1A\x1b]0;owned\x07"
    hostile = answers.view(
        operation="git.pull" + text,
        resource=text,
        caller=text,
        reason=text,
        params={"repository": text, "x" + text: [text]},
        preview={"accuracy": text, "summary": text, "details": [text]},
    )
    agent.say("GET", "/requests", queue(hostile))
    with Watch(environ, columns=columns, lines=lines) as watch:
        watch.read_until("1 pending")
        watch.type("d")
        watch.read_until("because:")
        watch.type("\x1b[31mxyz\x1b[1D")
        watch.read_until("xyz")
        watch.type("\x03")
        assert watch.end() == 130
        watch.assert_restored()
    drawn = re.sub(rb"\x1b\[[0-9;]*[mHJ]|\x1b\[\?(25|1049)[lh]", b"", watch.raw)
    assert not [c for c in drawn.decode().replace("^C", "") if c in HOSTILE and c not in "\r\n"]
    assert "\\u{" in watch.text


def test_a_terminal_too_small_answers_nothing(agent: Counterpart, environ: dict[str, str]) -> None:
    with Watch(environ, columns=39, lines=10) as watch:
        watch.read_until("needs a terminal")
        watch.type("ay")
        watch.type("dxx\n")
        watch.type("q")
        assert watch.end() == 0
        watch.assert_restored()
    assert decisions(agent) == []
    assert REQUEST_ID[:8] not in watch.text
