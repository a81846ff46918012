"""The client commands over real mutual TLS: what they print, where, and how they end."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli.watch import command
from host_agent.client import AsyncClient, Client, Ran, RequestView
from host_agent.requests.model import Request, Verb
from tests.support import answers, counterpart
from tests.support.answers import DIGEST, REQUEST_ID
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.counterpart import Answer, CommandLine, Counterpart, refused
from tests.support.patience import PATIENCE
from tests.support.people import PEOPLE
from tests.support.pipeline import ASIDE, RESET, output
from tests.support.site import IDENTITIES
from tests.support.webhook_receiver import Receiver


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def librarian(pki: Pki) -> Leaf:
    return pki.client("librarian")


@pytest.fixture
def agent(pki: Pki, tmp_path: Path) -> Iterator[Counterpart]:
    identities = f'{IDENTITIES}[[identities]]\ncn = "librarian"\nowner = "bob"\n'
    with counterpart.running(
        tmp_path / "agent", pki, identities=identities, people=PEOPLE
    ) as running:
        yield running


@pytest.fixture
def home(
    agent: Counterpart, librarian: Leaf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    for name in ("URL", "CERT", "KEY", "CA"):
        monkeypatch.delenv(f"HOST_AGENT_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    counterpart.write_client_toml(tmp_path, url=agent.url, leaf=librarian, ca=agent.pki.ca_path)
    return tmp_path


@pytest.fixture
def run(home: Path, agent: Counterpart, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(home, agent, capsys, cn="librarian")


def view(**members: Any) -> Answer:
    return Answer(body=answers.view(**members))


def held(agent: Counterpart, **asked: Any) -> Request:
    """Have a request of the librarian's wait."""
    return agent.do(agent.bench.held(by="librarian", **asked))


async def decided(
    agent: Counterpart, verb: Verb = Verb.APPROVE, *, by: str = "alice", reason: str | None = None
) -> None:
    """Decide on the request that waits, once there is one."""
    async with asyncio.timeout(PATIENCE):
        while not (waiting := await agent.bench.store.live()):
            await asyncio.sleep(0.005)
    await agent.bench.decide(waiting[0], verb, by=by, reason=reason)


PULL = ("git.pull", "repository=/srv/app", "remote=origin", "branch=main")
REQUEST = f"/requests/{REQUEST_ID}"

# -- call ---------------------------------------------------------------------------------------


def test_call_prints_what_the_operation_printed(agent: Counterpart, run: CommandLine) -> None:
    commit = f"commit {'a' * 40}\nauthor a\nemail b\ndate c\nsubject \x1b[1md\n"
    agent.bench.host.answers["log"] = output(f"{commit}\n", stderr="w\n")

    assert run("call", "git.log", "repository=/srv/app", "limit=5", "ref=12") == 0

    assert run.out == f"{commit}\n"
    assert run.err == "w\n"
    ask = agent.seen[-1]
    assert ask.peer == "librarian"
    assert ask.body == {
        "operation": "git.log",
        "params": {"repository": "/srv/app", "limit": 5, "ref": "12"},
    }
    assert 1 <= len(ask.headers["idempotency-key"]) <= 64


def test_an_allowed_change_says_that_it_is_done_and_a_read_says_nothing_more(
    agent: Counterpart, run: CommandLine
) -> None:
    assert run("call", "git.fetch", "repository=/srv/app", "remote=origin") == 0
    assert re.fullmatch(r"done   git\.fetch /srv/app  not probed  [0-9.]+ s\n", run.err)
    assert len(agent.bench.host.changes) == 1

    assert run("call", "git.status", "repository=/srv/app") == 0
    assert run.err == ""


def test_what_was_done_already_is_told_with_its_preview(
    agent: Counterpart, run: CommandLine
) -> None:
    preview = {"accuracy": "exact", "summary": "Nothing: main is\x1b there."}
    nothing = {"exit_code": None, "verified": None}
    done = {**answers.ran("git.pull"), "state": "unchanged", "outcome": nothing}
    agent.say("POST", "/host/op", Answer(body={**done, "preview": preview}), Answer(body=done))

    assert run("call", "git.pull") == 0
    assert run.out == ""
    assert run.err == "unchanged  git.pull /srv/app  Nothing: main is\\u{1b} there.\n"

    assert run("call", "git.pull") == 0
    assert run.err == "unchanged  git.pull /srv/app\n"


def test_a_dry_run_tells_what_it_would_come_to(agent: Counterpart, run: CommandLine) -> None:
    shown = answers.view()["preview"]
    tried = answers.dry_run(preview={**shown, "details": ["a\x1b[2J"], "left_out": 7})
    agent.say("POST", "/host/op", Answer(body=tried))

    assert run("call", "git.pull", "branch=main", "--reason", "why", "--dry-run") == 0
    assert run.out.splitlines() == [
        "would ask  git.pull /srv/app  rule: pulling needs alice",
        "       needs the yes of one with the role approver of alice",
        "       2 commits would be merged (estimate)",
        "       a\\u{1b}[2J",
        "       and 7 more",
        "       undo: reset to 0000000",
        "       runs as librarian",
        f"       digest {DIGEST}",
    ]
    assert agent.seen[-1].body["dry_run"] is True
    assert "idempotency-key" not in agent.seen[-1].headers

    assert run("call", "git.pull", "--dry-run", "--json") == 0
    assert json.loads(run.out) == tried


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ({"would": "run", "approvals": None}, "would run  git.pull"),
        ({"would": "attach", "attaches_to": REQUEST_ID}, "would attach to 0f8e7d6c  git.pull"),
        ({"would": "unchanged"}, "nothing to do  git.pull"),
        ({"would": "pray\x1b"}, "pray\\u{1b}  git.pull"),
    ],
)
def test_a_dry_run_says_in_its_first_line_what_it_would_come_to(
    agent: Counterpart, run: CommandLine, members: dict[str, Any], line: str
) -> None:
    bare: dict[str, Any] = {"preview": None, "runs_as": None, "precondition": None}
    agent.say("POST", "/host/op", Answer(body=answers.dry_run(**bare, **members)))
    assert run("call", "git.pull", "--dry-run") == 0
    assert run.out.splitlines()[0].startswith(line)


def test_a_dry_run_that_is_refused_ends_as_the_ask_would(
    agent: Counterpart, run: CommandLine
) -> None:
    agent.say("POST", "/host/op", refused("policy:no-rule"))
    assert run("call", "git.pull", "--dry-run") == 77
    assert "policy:no-rule" in run.err


def test_two_of_any_owner_are_asked_for_by_their_role(agent: Counterpart, run: CommandLine) -> None:
    terms = {"needed": 2, "given": 0, "approvers": None, "approver_role": "admin"}
    preview = {"accuracy": "exact", "summary": "All is lost."}
    tried = answers.dry_run(approvals=terms, preview=preview)
    agent.say("POST", "/host/op", Answer(body=tried))
    assert run("call", "git.pull", "--dry-run") == 0
    assert "needs the yes of 2 with the role admin\n" in run.out
    assert "undo" not in run.out


def test_who_denied_and_their_words_are_told(agent: Counterpart, run: CommandLine) -> None:
    with agent.meanwhile(decided(agent, Verb.DENY, by="erin", reason='no "more" today\x1b[A')):
        assert run("call", *PULL, "--wait", "60") == 77
    assert "denied by erin: \"no 'more' today\\u{1b}[A\"; nothing ran\n" in run.err
    assert agent.bench.host.changes == []


def test_call_fetches_the_schema_only_where_a_word_needs_one(
    agent: Counterpart, run: CommandLine
) -> None:
    assert run("call", "git.status", 'repository:="/srv/app"') == 0
    assert agent.paths() == ["POST /host/op"]

    assert run("call", "git.status", "repository=/srv/app") == 0
    assert agent.paths()[1:] == ["GET /host/operations", "POST /host/op"]


def test_call_leaves_an_unknown_operation_to_the_agent(
    agent: Counterpart, run: CommandLine
) -> None:
    assert run("call", "git.frobnicate", "x=1") == 65

    assert agent.seen[-1].body == {"operation": "git.frobnicate", "params": {"x": "1"}}
    assert agent.bench.host.ran == []


def test_call_json_prints_the_whole_answer(agent: Counterpart, run: CommandLine) -> None:
    agent.bench.host.answers["fetch"] = output("x\x1b\n")

    assert run("call", "git.fetch", "repository=/srv/app", "remote=origin", "--json") == 0

    told = json.loads(run.out)
    assert (told["state"], told["outcome"]["stdout"]) == ("succeeded", "x\x1b\n")
    assert told["outcome"]["stdout_bytes"] == 3
    assert "\x1b" not in run.out


def test_call_says_that_nothing_has_run_yet(agent: Counterpart, run: CommandLine) -> None:
    assert run("call", *PULL, "--reason", "why") == 75

    (request,) = agent.do(agent.bench.store.live())
    assert run.out == ""
    short = request.id[:8]
    assert run.err == (
        f"held   {short}  git.pull  waits for: pulling needs a person\n"
        f"       nothing has run; follow it: host-agent requests show {short} --wait 60\n"
    )
    assert request.reason == "why"
    assert agent.bench.host.changes == []


def test_call_says_when_the_same_runs_already(agent: Counterpart, run: CommandLine) -> None:
    held = answers.held(state="running", operation="git.p\x1b[1m")
    agent.say("POST", "/host/op", Answer(status=202, body=held))

    assert run("call", *PULL) == 75

    name = "git.p\\u{1b}[1m"
    assert run.err.startswith(f"running  {REQUEST_ID[:8]}  {name}  was asked for before\n")
    assert "nothing has run" not in run.err


def test_call_follows_a_held_request_to_its_end(agent: Counterpart, run: CommandLine) -> None:
    agent.bench.host.answers["pull"] = output("merged\n")
    with agent.meanwhile(decided(agent)):
        assert run("call", *PULL, "--wait", "60") == 0

    assert run.out == "merged\n"
    assert len(agent.bench.host.changes) == 1
    waits = [seen.query.get("wait") for seen in agent.seen if seen.path.startswith("/requests/")]
    assert waits[0] is None
    assert all(int(wait[0]) <= 60 for wait in waits[1:] if wait)


@pytest.mark.parametrize(
    ("members", "status", "words"),
    [
        ({"state": "denied"}, 77, "denied; nothing ran"),
        ({"state": "expired"}, 75, "Ask again if it is still needed"),
        ({"state": "cancelled"}, 75, "nothing ran"),
        (
            {"state": "failed", "problem": {"code": "approval:target-changed", "detail": "Moved."}},
            75,
            "Moved. (approval:target-changed)",
        ),
        (
            {
                "state": "failed",
                "problem": {"code": "host:failed", "detail": "Exit 3."},
                "outcome": answers.outcome(exit_code=3, stderr="conflict\n"),
            },
            1,
            "conflict",
        ),
        ({"state": "unknown"}, 70, "look at the host before asking again"),
    ],
)
def test_call_tells_how_a_held_request_ended(
    agent: Counterpart, run: CommandLine, members: dict[str, Any], status: int, words: str
) -> None:
    agent.say("POST", "/host/op", Answer(status=202, body=answers.held()))
    agent.say("GET", REQUEST, view(**members))

    assert run("call", *PULL, "--wait", "60") == status

    assert words in run.err


def test_call_gives_up_at_its_wait(agent: Counterpart, run: CommandLine) -> None:
    assert run("call", *PULL, "--wait", "1") == 75

    assert "still pending" in run.err
    assert agent.bench.host.changes == []


def test_call_shows_output_of_a_command_that_failed(agent: Counterpart, run: CommandLine) -> None:
    agent.bench.host.answers["status"] = output(exit_code=1, stderr="no\n")

    assert run("call", "git.status", "repository=/srv/app") == 1
    assert "(host:failed)" in run.err
    assert run.err.startswith("no\n")

    assert run("call", "git.status", "repository=/srv/app", "--json") == 1
    assert json.loads(run.out)["outcome"]["exit_code"] == 1


def test_an_effect_that_was_not_seen_is_loud(agent: Counterpart, run: CommandLine) -> None:
    agent.say("POST", "/host/op", Answer(body=answers.ran(verified=False, truncated=True)))

    assert run("call", "git.status") == 0

    assert "NOT VERIFIED" in run.err
    assert "cut" in run.err


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (refused("request:invalid-parameter"), 65),
        (refused("request:unknown-operation"), 65),
        (refused("request:too-large"), 65),
        (refused("request:not-json"), 65),
        (refused("store:unavailable"), 69),
        (refused("internal"), 70),
        (refused("request:idempotency-conflict"), 75),
        (refused("approval:expired"), 75),
        (refused("rate:limited", retry_after_seconds=60), 75),
        (refused("policy:no-rule"), 77),
        (refused("identity:revoked"), 77),
        (refused("approval:denied"), 77),
        (refused("host:failed"), 1),
        (refused("host:timed-out"), 1),
        (Answer(content=b"<html>", headers={"Content-Type": "text/html"}), 70),
        (Answer(status=302, headers={"Location": "https://localhost:1/"}), 70),
    ],
    ids=lambda value: str(getattr(value, "body", {}).get("code", "")) or None,
)
def test_each_row_of_the_exit_table(
    agent: Counterpart, run: CommandLine, answer: Answer, status: int
) -> None:
    agent.say("POST", "/host/op", answer)

    assert run("call", "git.status") == status

    assert run.out == ""
    assert run.err.count("\n") == 1
    assert len(agent.seen) == 1


def test_a_refusal_says_when_to_try_again(agent: Counterpart, run: CommandLine) -> None:
    agent.say("POST", "/host/op", refused("rate:limited", retry_after_seconds=60))

    assert run("call", "git.status") == 75

    assert "Try again in 60 s." in run.err


@pytest.mark.parametrize(
    "arguments", [("x",), ("x=1", "x=2"), ("x:={",), ("x=\udcff",), ("--reason", "\udcff")]
)
def test_usage_is_refused_before_anything_is_sent(
    agent: Counterpart, run: CommandLine, arguments: tuple[str, ...]
) -> None:
    assert run("call", "git.status", *arguments) == 64

    assert agent.seen == []


# -- the connection -----------------------------------------------------------------------------


def test_a_dropped_connection_is_tried_again_with_the_same_key(
    agent: Counterpart, run: CommandLine
) -> None:
    agent.say("POST", "/host/op", Answer(drops=True), Answer(body=answers.ran()))

    assert run("call", "git.status") == 0

    keys = [seen.headers["idempotency-key"] for seen in agent.seen]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_dropped_decision_is_not_sent_again(agent: Counterpart, run: CommandLine) -> None:
    agent.say("GET", REQUEST, view())
    agent.say("POST", f"{REQUEST}/decision", Answer(drops=True))

    assert run("requests", "deny", REQUEST_ID) == 69

    assert agent.paths().count(f"POST {REQUEST}/decision") == 1


def test_nobody_listening_is_69(run: CommandLine, home: Path) -> None:
    assert run("call", "git.status", "--url", "https://localhost:1") == 69

    assert run.err.startswith("host-agent: https://localhost:1 could not be reached")


def test_a_server_of_another_ca_gets_nothing(
    agent: Counterpart, run: CommandLine, tmp_path: Path
) -> None:
    foreign = make_pki(tmp_path / "foreign")

    assert run("operations", "--ca", str(foreign.ca_path)) == 69

    assert "could not be verified" in run.err
    assert agent.seen == []


def test_a_server_of_another_name_gets_nothing(pki: Pki, run: CommandLine, tmp_path: Path) -> None:
    server = pki.server("other", names=("other.example",), file_name="other")
    with Counterpart(tmp_path / "other", pki, server) as other:
        assert run("operations", "--url", other.url) == 69
        assert other.seen == []

    assert "could not be verified" in run.err


def test_a_foreign_client_certificate_is_refused(
    agent: Counterpart, run: CommandLine, tmp_path: Path
) -> None:
    stranger = make_pki(tmp_path / "foreign").client("librarian")
    files = ("--cert", str(stranger.certificate_path), "--key", str(stranger.key_path))

    # The alert can be lost behind the reset of the connection: then it is "no connection".
    assert run("operations", *files) in (69, 77)

    assert agent.seen == []


def test_tls_1_2_is_not_spoken(pki: Pki, run: CommandLine) -> None:
    server = pki.server()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.load_cert_chain(server.certificate_path, server.key_path)
    with Receiver(tls=tls) as older:
        assert run("operations", "--url", f"https://localhost:{older.port}") == 69
        assert not older.received


def test_missing_settings_and_files_are_78(run: CommandLine, home: Path) -> None:
    (home / ".config/host-agent/client.toml").unlink()
    assert run("operations") == 78
    assert run.err.count("\n") == 5
    assert "host-agent login BUNDLE" in run.err

    assert run("operations", "--url", "http://x", "--cert", "a", "--key", "b", "--ca", "c") == 78


def test_proxies_of_the_environment_mean_nothing(
    agent: Counterpart, run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://localhost:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")

    assert run("operations") == 0


# -- operations ---------------------------------------------------------------------------------


def test_operations_are_listed(agent: Counterpart, run: CommandLine) -> None:
    assert run("operations") == 0

    rows = [line.split() for line in run.out.splitlines()]
    assert rows[0] == ["OPERATION", "EFFECT", "VERDICT", "PARAMETERS"]
    assert ["git.log", "read", "allow", "repository", "limit?=integer", "ref?"] in rows

    assert run("operations", "--json") == 0
    listed = agent.bench.pipeline.operations(agent.bench.who("librarian"))
    assert json.loads(run.out) == listed.as_json()


# -- requests -----------------------------------------------------------------------------------


def test_requests_are_listed_over_all_pages(agent: Counterpart, run: CommandLine) -> None:
    pages = [
        Answer(body={"requests": [answers.view(request_id="a" * 32)], "next_cursor": "n"}),
        Answer(body={"requests": [answers.view(request_id="b" * 32)], "next_cursor": None}),
    ]
    agent.say("GET", "/requests", *pages)

    assert run("requests", "list", "--state", "pending") == 0

    lines = run.out.splitlines()
    assert lines[0] == "agent-host  2 pending"
    assert [line.split()[0] for line in lines[2:]] == ["a" * 8, "b" * 8]
    assert not any(line.endswith(" ") for line in lines)
    assert agent.seen[0].query["state"] == ["pending"]
    assert agent.seen[1].query["cursor"] == ["n"]

    agent.say("GET", "/requests", *pages)
    assert run("requests", "list", "--json", "--limit", "1") == 0
    assert [row["request_id"] for row in json.loads(run.out)["requests"]] == ["a" * 32]
    assert json.loads(run.out)["next_cursor"] == "n"


def test_no_requests_is_an_answer(run: CommandLine) -> None:
    assert run("requests", "list") == 0

    assert run.err == "host-agent: No requests.\n"


def test_show_gives_every_field(agent: Counterpart, run: CommandLine) -> None:
    request = held(agent, reason="before the release")

    assert run("requests", "show", request.id[:12]) == 0
    for text in (request.digest, "git.pull", "/srv/app", "origin", "own words", "before the rel"):
        assert text in run.out

    assert run("requests", "show", request.id[:12], "--json") == 0
    shown = agent.do(agent.bench.pipeline.views.show(agent.bench.who("librarian"), request.id))
    assert json.loads(run.out) == shown.as_json()


def test_show_can_wait(agent: Counterpart, run: CommandLine) -> None:
    request = held(agent)
    assert run("requests", "show", request.id, "--wait", "1") == 75

    with agent.meanwhile(decided(agent, Verb.DENY)):
        assert run("requests", "show", request.id, "--wait", "60") == 0
    assert "denied" in run.out


def test_a_request_that_is_not_there_is_65(agent: Counterpart, run: CommandLine) -> None:
    other = agent.do(agent.bench.held(by="deployer"))  # of another caller
    for name in ("abc", other.id):
        assert run("requests", "show", name) == 65


def test_a_script_approves_the_digest_that_it_looked_at(
    agent: Counterpart, run: CommandLine
) -> None:
    request = held(agent)
    script = ("requests", "approve", request.id[:8], "--yes", "--digest")
    run.become("alice")

    assert run(*script, "sha256:" + "0" * 64) == 75
    assert agent.do(agent.bench.request(request.id)) == request
    agent.seen.clear()

    assert run(*script, request.digest, "--reason", "ok") == 0
    said = {"decision": "approve", "digest": request.digest, "reason": "ok"}
    assert [seen.body for seen in agent.seen if seen.method == "POST"] == [said]
    assert re.fullmatch(r"done   git\.pull /srv/app  .*\(approved by alice\)\n", run.out)
    assert len(agent.bench.host.changes) == 1


def test_an_approval_whose_end_cannot_be_seen_stands(agent: Counterpart, run: CommandLine) -> None:
    agent.say("GET", f"/requests/{REQUEST_ID[:8]}", view())
    agent.say("POST", f"{REQUEST}/decision", view(state="approved"))

    assert run("requests", "approve", REQUEST_ID[:8], "--yes", "--digest", DIGEST) == 0
    assert run.out == (
        "approved  git.pull /srv/app; `host-agent requests show 0f8e7d6c` tells more\n"
    )


def test_an_approval_says_how_it_ended(agent: Counterpart, run: CommandLine) -> None:
    yes = answers.decision()
    agent.say("GET", REQUEST, view(), view(state="running"), view(state="running"))
    ended = answers.outcome(duration_ms=900, verified=True)
    agent.say("GET", REQUEST, view(), view(state="succeeded", decisions=[yes], outcome=ended))
    agent.say("POST", f"{REQUEST}/decision", view(state="running"))

    assert run("requests", "approve", REQUEST_ID, "--yes", "--digest", DIGEST) == 0
    assert run.out == "done   git.pull /srv/app  verified  0.9 s  (approved by erin)\n"


def test_one_of_two_approvals_says_that_it_waits_for_one_more(
    agent: Counterpart, run: CommandLine
) -> None:
    request = held(agent, operation="git.reset", params=RESET, reason="because")
    run.become("alice")

    assert run("requests", "approve", request.id, "--yes", "--digest", request.digest) == 0
    assert run.out == "held   git.reset /srv/app  1 of 2: waits for one more\n"
    assert agent.bench.host.changes == []


@pytest.mark.parametrize("arguments", [(), ("--yes",), ("--digest", DIGEST)])
def test_approve_needs_a_person_or_a_digest(
    agent: Counterpart, run: CommandLine, arguments: tuple[str, ...]
) -> None:
    agent.say("GET", REQUEST, view())

    assert run("requests", "approve", REQUEST_ID, *arguments) == 64

    assert agent.seen == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("approval:digest-mismatch", 75),
        ("approval:already-decided", 75),
        ("approval:expired", 75),
        ("approval:self-approval", 77),
        ("identity:role-required", 77),
    ],
)
def test_a_refused_decision_has_its_status(
    agent: Counterpart, run: CommandLine, code: str, status: int
) -> None:
    agent.say("GET", REQUEST, view())
    agent.say("POST", f"{REQUEST}/decision", refused(code))

    assert run("requests", "approve", REQUEST_ID, "--yes", "--digest", DIGEST) == status


def test_deny_and_cancel(agent: Counterpart, run: CommandLine) -> None:
    first, second = held(agent), held(agent, operation="git.switch", params=ASIDE)

    run.become("alice")
    assert run("requests", "deny", first.id, "--reason", "no") == 0
    assert agent.seen[-1].body == {"decision": "deny", "reason": "no"}
    assert run.out == 'denied by alice: "no"; nothing ran\n'

    run.become("librarian")
    assert run("requests", "cancel", second.id, "--json") == 0
    assert agent.seen[-1].body is None
    assert json.loads(run.out)["state"] == "cancelled"
    assert agent.bench.host.changes == []


@pytest.mark.parametrize("said", ["2h", "2099-11-20T22:00:00+00:00"])
def test_a_denial_may_say_when_to_ask_again(
    agent: Counterpart, run: CommandLine, said: str
) -> None:
    decision = {**answers.decision("deny", reason="later"), "not_before": "2099-11-20T22:00:00Z"}
    agent.say("GET", REQUEST, view())
    agent.say("POST", f"{REQUEST}/decision", view(state="denied", decisions=[decision]))

    assert run("requests", "deny", REQUEST_ID, "--reason", "later", "--not-before", said) == 0
    assert "not before 2099-11-20 22:00 UTC" in run.out
    sent = datetime.fromisoformat(agent.seen[-1].body["not_before"])
    soon = timedelta(minutes=110) < sent - datetime.now(UTC) < timedelta(minutes=130)
    assert soon if said == "2h" else sent == datetime.fromisoformat(said)


@pytest.mark.parametrize("said", ["2", "h", "noon", "2026-11-20T22:00:00", "0h", "99999h"])
def test_what_is_no_time_is_refused_before_anything_is_sent(
    agent: Counterpart, run: CommandLine, said: str
) -> None:
    assert run("requests", "deny", REQUEST_ID, "--not-before", said) == 64
    assert agent.seen == []


# -- watch --------------------------------------------------------------------------------------


class Enough(Exception):  # noqa: N818 - an end, not an error
    """Ends a watch after so many looks."""


def looks(number: int) -> Callable[[float], None]:
    left = iter(range(number - 1))

    def sleep(_seconds: float) -> None:
        if next(left, None) is None:
            raise Enough

    return sleep


def queue(*views: dict[str, Any]) -> Answer:
    return Answer(body={"requests": list(views), "next_cursor": None})


def test_watch_prints_one_object_a_change(
    agent: Counterpart, librarian: Leaf, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = answers.view(request_id="a"), answers.view(request_id="b")
    one_said_yes = {**first, "decisions": [answers.decision(owner="alice")]}
    agent.say(
        "GET",
        "/requests",
        queue(first),
        queue(second, first),
        queue(second, one_said_yes),
        queue(second, one_said_yes),
        refused("store:unavailable", "The store is away."),
        queue(second),
    )
    agent.say("GET", "/requests/a", view(request_id="a", state="succeeded"))

    with client(agent, librarian) as connected, pytest.raises(Enough):
        command.watch(connected, interval_seconds=1, as_json=True, sleep=looks(6))

    said = capsys.readouterr()
    seen = [json.loads(line) for line in said.out.splitlines()]
    assert [(line["change"], line["request"]["request_id"]) for line in seen] == [
        ("new", "a"),
        ("new", "b"),
        ("changed", "a"),
        ("gone", "a"),
    ]
    assert seen[-1]["request"]["state"] == "succeeded"
    assert said.err.count("The store is away.") == 1


def test_watch_ends_where_it_is_refused(agent: Counterpart, run: CommandLine) -> None:
    agent.say("GET", "/requests", refused("identity:revoked"))

    assert run("requests", "watch", "--json") == 77


# -- the library --------------------------------------------------------------------------------


def client(agent: Counterpart, leaf: Leaf, **options: Any) -> Client:
    return Client(
        url=agent.url,
        cert=leaf.certificate_path,
        key=leaf.key_path,
        ca=agent.pki.ca_path,
        **options,
    )


def test_the_client_submits_and_waits(agent: Counterpart, librarian: Leaf) -> None:
    agent.say("POST", "/host/op", Answer(status=202, body=answers.held()))
    agent.say("GET", REQUEST, view(), view(state="succeeded"))

    with client(agent, librarian) as connected:
        answer = connected.submit("git.pull", {}, wait=30)

    assert isinstance(answer, RequestView)
    assert answer.state == "succeeded"


def test_the_client_bounds_an_answer(agent: Counterpart, librarian: Leaf) -> None:
    agent.say("GET", "/health", Answer(body={"status": "x" * 5000}))

    with (
        client(agent, librarian, max_response_bytes=1000) as connected,
        pytest.raises(Exception, match="larger than 1000 bytes"),
    ):
        connected.health()


@pytest.mark.promise("c16")
def test_an_agent_that_never_answers_does_not_hold_the_client(
    agent: Counterpart, librarian: Leaf
) -> None:
    silent = threading.Event()
    agent.say("GET", "/health", Answer(waits_for=silent))

    with client(agent, librarian, timeout_seconds=0.3) as connected:
        with pytest.raises(Exception, match="No answer from"):
            connected.health()
        silent.set()

    assert len(agent.seen) == 1


async def test_the_asynchronous_client_does_the_same(agent: Counterpart, librarian: Leaf) -> None:
    agent.say("POST", "/host/op", Answer(drops=True), Answer(body=answers.ran()))
    agent.say("GET", "/requests", queue(answers.view()))
    agent.say("GET", REQUEST, view(), view(state="succeeded"))
    agent.say("POST", f"{REQUEST}/decision", view(state="approved"))
    agent.say("POST", f"{REQUEST}/cancel", view(state="cancelled"))
    agent.say("GET", "/health", Answer(body={"status": "ok", "version": "0"}))
    agent.say("GET", "/ready", Answer(status=503, body=answers.parts(audit="gone")))

    async with AsyncClient(
        url=agent.url,
        cert=librarian.certificate_path,
        key=librarian.key_path,
        ca=agent.pki.ca_path,
    ) as connected:
        assert isinstance(await connected.submit("git.status", {}), Ran)
        assert "git.pull" in {info.name for info in await connected.operations()}
        assert len((await connected.requests(state="pending")).requests) == 1
        assert (await connected.follow(REQUEST_ID, 30)).state == "succeeded"
        assert (await connected.request(REQUEST_ID)).is_finished
        assert (await connected.approve(REQUEST_ID, DIGEST)).state == "approved"
        assert (await connected.deny(REQUEST_ID)).digest == DIGEST
        assert (await connected.cancel(REQUEST_ID)).state == "cancelled"
        assert (await connected.health()).version == "0"
        assert not (await connected.ready()).is_ready

    assert agent.paths().count("POST /host/op") == 2


async def test_the_asynchronous_client_is_refused_the_same(
    agent: Counterpart, librarian: Leaf, tmp_path: Path
) -> None:
    foreign = make_pki(tmp_path / "foreign")

    async with AsyncClient(
        url=agent.url, cert=librarian.certificate_path, key=librarian.key_path, ca=foreign.ca_path
    ) as connected:
        with pytest.raises(Exception, match="could not be verified"):
            await connected.operations()

    assert agent.seen == []


# -- the process --------------------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_the_command_quietly(agent: Counterpart, home: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        ended = subprocess.run(
            [sys.executable, "-m", "host_agent", "operations", "--json"],
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (141, b"")
