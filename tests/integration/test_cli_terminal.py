"""The commands on a real terminal: asking before approving, and hostile text that stays text."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import answers, counterpart
from tests.support.answers import DIGEST, REQUEST_ID
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.counterpart import Answer, Counterpart, refused
from tests.support.pipeline import PULL
from tests.support.terminal import Terminal

REQUEST = f"/requests/{REQUEST_ID}"
OWN_SEQUENCES = re.compile(rb"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\x1b\[[12]K")
"""What the terminal library itself draws with: colour, cursor on and off, a line up, erase."""

HOSTILE = "".join(
    map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0), 0x202E, 0x2066, 0x200B, 0xFEFF])
)
FORGED = "\nstate     approved\nType yes to approve: yes\x1b[2K\x1b[1A\x1b]0;owned\x07"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def alice(pki: Pki) -> Leaf:
    return pki.client("alice")


@pytest.fixture
def agent(pki: Pki, tmp_path: Path) -> Iterator[Counterpart]:
    with counterpart.running(tmp_path / "agent", pki) as running:
        running.say("GET", REQUEST, view())
        running.say("POST", f"{REQUEST}/decision", view(state="approved"))
        yield running


@pytest.fixture
def environ(agent: Counterpart, alice: Leaf, tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path),
        "HOST_AGENT_URL": agent.url,
        "HOST_AGENT_CERT": str(alice.certificate_path),
        "HOST_AGENT_KEY": str(alice.key_path),
        "HOST_AGENT_CA": str(agent.pki.ca_path),
    }


def view(**members: Any) -> Answer:
    return Answer(body=answers.view(**members))


def decisions(agent: Counterpart) -> list[Any]:
    return [seen.body for seen in agent.seen if seen.path.endswith("/decision")]


def assert_nothing_hostile(terminal: Terminal) -> None:
    drawn = OWN_SEQUENCES.sub(b"", terminal.raw)
    text = drawn.decode("utf-8")
    allowed = {"\n", "\r"}
    assert not [c for c in text if c in HOSTILE and c not in allowed]
    assert not re.search(r"\r(?!\r*\n)[^\n]*\S", text.replace("\r\n", "\n"))


def test_approve_shows_the_request_and_asks(agent: Counterpart, environ: dict[str, str]) -> None:
    with Terminal(["requests", "approve", REQUEST_ID[:8]], environ=environ) as terminal:
        agent.say("GET", f"/requests/{REQUEST_ID[:8]}", view())
        terminal.read_until("Type yes to approve: ")
        assert decisions(agent) == []
        for words in ("/srv/app", "origin", "main", DIGEST, "own words", "before the release"):
            assert words in terminal.text
        terminal.type("yes\n")
        assert terminal.end() == 0

    assert decisions(agent) == [{"decision": "approve", "digest": DIGEST}]


@pytest.mark.parametrize("answer", ["\n", "y\n", "no\n", "yes please\n", "\x04"])
def test_any_other_answer_approves_nothing(
    agent: Counterpart, environ: dict[str, str], answer: str
) -> None:
    with Terminal(["requests", "approve", REQUEST_ID], environ=environ) as terminal:
        terminal.read_until("Type yes to approve: ")
        terminal.type(answer)
        assert terminal.end() == 75
        assert "Not approved" in terminal.text

    assert decisions(agent) == []


def test_an_answer_typed_before_the_question_does_not_count(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    with Terminal(["requests", "approve", REQUEST_ID], environ=environ) as terminal:
        terminal.type("yes\n")
        terminal.read_until("Type yes to approve: ")
        terminal.type("no\n")
        assert terminal.end() == 75

    assert decisions(agent) == []


def test_an_interrupt_at_the_question_approves_nothing(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    with Terminal(["requests", "approve", REQUEST_ID], environ=environ) as terminal:
        terminal.read_until("Type yes to approve: ")
        terminal.wait_for_a_read()
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.text

    assert decisions(agent) == []


@pytest.mark.parametrize(
    ("members", "arguments"),
    [({"state": "denied"}, ()), ({}, ("--digest", "sha256:" + "0" * 64))],
    ids=["decided already", "another digest"],
)
def test_there_is_no_question_where_there_is_nothing_to_approve(
    agent: Counterpart, environ: dict[str, str], members: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    agent.say("GET", REQUEST, view(**members))

    with Terminal(["requests", "approve", REQUEST_ID, *arguments], environ=environ) as terminal:
        assert terminal.end() == 75
        assert "Type yes" not in terminal.text

    assert decisions(agent) == []


def hostile_view() -> dict[str, Any]:
    text = HOSTILE + FORGED
    return answers.view(
        reason=text,
        rule=text,
        caller=text,
        owner=text,
        unix_user=text,
        resource=text,
        operation="git.pull" + text,
        params={"repository": "/srv/app", "branch": text, "x" + text: [text]},
        preview={"accuracy": text, "summary": text, "details": [text, text]},
        precondition={text: text},
        approvals={"needed": 1, "given": 0, "approvers": [text], "approver_role": text},
        decisions=[
            answers.decision(approver=text, decision=text, owner=text, channel=text, reason=text)
        ],
        problem={"code": text, "detail": text},
        outcome=answers.outcome(stdout=text, stderr=text),
    )


@pytest.mark.promise("c31")
@pytest.mark.parametrize("columns", [40, 100])
def test_a_hostile_request_stays_text_while_it_is_approved(
    agent: Counterpart, environ: dict[str, str], columns: int
) -> None:
    agent.say("GET", REQUEST, Answer(body=hostile_view()))

    with Terminal(
        ["requests", "approve", REQUEST_ID], environ=environ, columns=columns
    ) as terminal:
        terminal.read_until("\nType yes to approve: ")
        terminal.type("no\n")
        assert terminal.end() == 75

    assert_nothing_hostile(terminal)
    plain = OWN_SEQUENCES.sub(b"", terminal.raw).decode().replace("\r\n", "\n")
    assert "\nstate     approved" not in plain
    assert plain.count("\nType yes to approve: ") == 1
    assert "\\u{1b}" in plain
    folded = re.sub(r"\s+", "", plain)
    assert re.search(r"parameter(repository)?/srv/app", folded)
    assert DIGEST in folded
    assert decisions(agent) == []


@pytest.mark.promise("c31")
@pytest.mark.parametrize("arguments", [["show", REQUEST_ID], ["list"]], ids=["show", "list"])
def test_hostile_requests_stay_text_in_every_listing(
    agent: Counterpart, environ: dict[str, str], arguments: list[str]
) -> None:
    agent.say("GET", REQUEST, Answer(body=hostile_view()))
    agent.say("GET", "/requests", Answer(body={"requests": [hostile_view()], "next_cursor": None}))

    with Terminal(["requests", *arguments], environ=environ) as terminal:
        assert terminal.end() == 0

    assert_nothing_hostile(terminal)
    assert "\\u{1b}" in terminal.text


@pytest.mark.promise("c31")
def test_a_commands_output_stays_text_on_a_terminal(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    outcome = answers.ran(stdout=HOSTILE + "\nnext\n", stderr=HOSTILE + FORGED)
    agent.say("POST", "/host/op", Answer(body=outcome))

    with Terminal(["call", "git.log"], environ=environ) as terminal:
        assert terminal.end() == 0

    text = terminal.text.replace("\t", "").replace("\n", "")
    assert not [c for c in text if c in HOSTILE]
    assert "\nnext\n" in terminal.text


@pytest.mark.promise("c31")
def test_a_problem_stays_text_on_a_terminal(agent: Counterpart, environ: dict[str, str]) -> None:
    agent.say("POST", "/host/op", refused("policy:denied", HOSTILE + FORGED))

    with Terminal(["call", "git.log"], environ=environ) as terminal:
        assert terminal.end() == 77

    assert terminal.text.count("\n") == 1
    assert not [c for c in terminal.text if c in HOSTILE and c != "\n"]


def test_a_held_request_is_followed_with_progress(
    agent: Counterpart, environ: dict[str, str]
) -> None:
    deployer = agent.pki.client("deployer")
    files = {"CERT": deployer.certificate_path, "KEY": deployer.key_path}
    environ |= {f"HOST_AGENT_{name}": str(path) for name, path in files.items()}
    words = [f"{name}={value}" for name, value in PULL.items()]

    with Terminal(["call", "git.pull", *words, "--wait", "60"], environ=environ) as terminal:
        terminal.read_until("waiting")
        (waiting,) = agent.do(agent.bench.store.live())
        assert not agent.bench.host.changes
        agent.do(agent.bench.decide(waiting))
        assert terminal.end() == 0

    assert f"held   {waiting.id[:8]}  git.pull  waits for: pulling needs a person" in terminal.text
    assert "done\n" in terminal.text
    assert "done   git.pull /srv/app  " in terminal.text
    assert len(agent.bench.host.changes) == 1
