"""People far from the keyboard: prompts over Signal and a webhook, answers by code, on the host.

Signal is a stand-in that speaks as the daemon of signal-cli does; the receiver keeps what it got.
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from host_agent.requests.codes import spaced
from tests.support.installed import (
    AUDIT,
    IDENTITIES,
    PORT,
    RULES,
    SECTIONS,
    STATE_DIR,
    UNIT,
    Host,
    configuration,
    issue,
)
from tests.support.machine import ADDRESS
from tests.support.pages import REPOSITORY
from tests.support.patience import PATIENCE
from tests.support.walkthrough import program

HOW_TO = (REPOSITORY / "docs/how-to/approve-over-webhook.md").read_text()
PROGRAMS = Path(__file__).parents[1] / "support"
ALICE = "3f0a1b2c-0000-4000-8000-00000000a11c"
ERIN = "3f0a1b2c-0000-4000-8000-00000000e419"
BOB = "3f0a1b2c-0000-4000-8000-000000000b0b"
STRANGER = "3f0a1b2c-0000-4000-8000-0000000057a9"
RECORD = "/var/lib/hook/record.jsonl"
SECRET = "host-test-webhook-secret-0123456789"
BRIDGE_SECRET = "host-test-bridge-secret-0123456789"
NTFY_TOKEN, NTFY_DENY = "tk_hosttestagentstoken012345", "tk_hosttestbuttonstoken012345"
BRIDGE = """
[[identities]]
cn = "chat-bridge"
roles = ["bridge"]
"""
SHORT = """
[[rules]]
name = "these do not wait long"
operations = ["zfs.destroy"]
resources = ["tank/media@short"]
verdict = "ask"
ttl_seconds = 60
"""
CHANNELS = f"""
[approvals]
command_line = true
escalate_seconds = 5
[channels.signal]
socket = "/run/signal-cli/socket"
account = "+431234"
[channels.webhook]
url = "http://127.0.0.1:9900/hook"
secret_file = "secrets/webhook"
[channels.ntfy]
url = "http://127.0.0.1:9901"
token_file = "secrets/ntfy"
reply_topic = "replies"
reply_token_file = "secrets/ntfy-deny"
[[approvers]]
owner = "alice"
channels = ["signal"]
[[approvers]]
owner = "erin"
signal = "{ERIN}"
ntfy_topic = "erins"
channels = ["signal", "ntfy"]
[[approvers]]
owner = "bob"
signal = "{BOB}"
channels = ["signal", "webhook"]
[[approvers]]
owner = "frank"
roles = ["admin"]
channels = ["webhook"]
[[bridges]]
cn = "chat-bridge"
secret_file = "secrets/bridge"
approvers = {{ U1 = "frank", U2 = "bob" }}
"""
_SIGNAL = """\
[Service]
ExecStart=/usr/bin/python3 /usr/local/bin/signal_cli_server.py --socket /run/signal-cli/socket \
 --control /run/signal-cli/control --state /var/lib/signal-cli/state.json --account +431234 --single
User=signal-cli
Group=host-agent
UMask=0007
RuntimeDirectory=signal-cli
RuntimeDirectoryMode=0750
StateDirectory=signal-cli
"""
_HOOK = f"""\
[Service]
ExecStart=/usr/bin/python3 /usr/local/bin/webhook_receiver.py --record {RECORD} --port 9900
StateDirectory=hook
"""
_NTFY = """\
[Service]
ExecStart=/usr/bin/python3 /usr/local/bin/ntfy_server.py @/etc/ntfy.access
"""
_NTFY_ACCESS = f"""\
--port=9901
--write={NTFY_TOKEN}:erins
--read={NTFY_TOKEN}:replies
--write={NTFY_DENY}:replies
--read=erins-own:erins
"""
_TOPIC = """\
import http.client, sys
link = http.client.HTTPConnection("127.0.0.1", 9901, timeout=0.7)
link.request("GET", "/erins/json?since=all", headers={"Authorization": "Bearer erins-own"})
answer = link.getresponse()
try:
    while line := answer.readline():
        print(line.decode(), end="", flush=True)
except TimeoutError:
    pass
"""
_PRESS = """\
import json, sys
sys.path.insert(0, "/usr/local/bin")
import ntfy_server
print(ntfy_server.press(json.load(sys.stdin)))
"""
_CONTROL = """\
import json, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.settimeout(60)
    link.connect("/run/signal-cli/control")
    link.sendall(sys.stdin.read().encode() + b"\\n")
    print(link.makefile().readline())
"""
SERVERS = ("signal-cli.service", "hook.service", "ntfy.service")
FILES = {
    "webhook": SECRET,
    "bridge": BRIDGE_SECRET,
    "ntfy": NTFY_TOKEN,
    "ntfy-deny": NTFY_DENY,
}
seen_codes: set[str] = set()
"""Every code that came out during this module."""


class Phone:
    """What the people's phones show, and what they send."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def do(self, **wish: object) -> Any:  # noqa: ANN401 - JSON of the stand-in
        """Ask the stand-in for something."""
        answer = json.loads(
            self._host.machine.must("python3", "-c", _CONTROL, stdin=json.dumps(wish))
        )
        assert "ok" in answer, answer
        return answer["ok"]

    def sent_at(self, aci: str, text: str) -> int:
        """Return the time, which is the name, of a message that was sent to one person."""
        times = [
            sent["timestamp"]
            for sent in self.do(do="sent")
            if sent["recipient"] == [aci] and text in sent["message"]
        ]
        return int(times[-1])

    def texts(self, aci: str) -> list[str]:
        """Return what was sent to one person so far."""
        return [sent["message"] for sent in self.do(do="sent") if sent["recipient"] == [aci]]

    def until(self, aci: str, pattern: str, *, after: int = 0, seconds: float = PATIENCE) -> str:
        """Wait for a text to one person that has `pattern`, and return it."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [t for t in self.texts(aci)[after:] if re.search(pattern, t)]
            return bool(found)

        try:
            self._host.machine.until(is_there, f"no message with {pattern}", seconds=seconds)
        except AssertionError:
            pytest.fail(f"no message with {pattern!r} among {self.texts(aci)[after:]}")
        return found[-1]

    def say(self, aci: str, text: str, *, quotes: int | None = None) -> str:
        """Send a message, in answer to another one or not, and return what comes back."""
        before = len(self.texts(aci))
        self.do(do="say", aci=aci, text=text, quotes=quotes)
        self.until(aci, "", after=before)
        return "\n".join(self.texts(aci)[before:])  # the outcome may be there as well

    def code(self, aci: str, request: dict[str, Any], *, seconds: float = PATIENCE) -> str:
        """Return the code that somebody was sent for a request: what followed its prompt."""
        about = f"Request {request['request_id'][:8]} "
        found: list[str] = []

        def is_there() -> bool:
            texts = self.texts(aci)
            found[:] = [after for text, after in pairwise(texts) if about in text]
            return bool(found)

        self._host.machine.until(is_there, f"no code behind {about}", seconds=seconds)
        answer = re.fullmatch(r"CONFIRM ((?:[A-Z2-9]{4} ?){4})", found[-1])
        assert answer is not None, found
        code = answer[1].replace(" ", "")
        seen_codes.add(code)
        return code


@pytest.fixture(scope="module")
def phone(host: Host) -> Iterator[Phone]:
    machine = host.machine
    for name in ("signal_cli_server.py", "webhook_receiver.py", "ntfy_server.py"):
        content = (PROGRAMS / name).read_bytes()
        machine.write(f"/usr/local/bin/{name}", content)
    machine.must("useradd", "--system", "--no-create-home", "signal-cli")
    machine.write("/etc/systemd/system/signal-cli.service", _SIGNAL)
    machine.write("/etc/systemd/system/hook.service", _HOOK)
    machine.write("/etc/systemd/system/ntfy.service", _NTFY)
    machine.write("/etc/ntfy.access", _NTFY_ACCESS, mode=0o600)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", *SERVERS)
    for name, secret in FILES.items():
        machine.write(f"/etc/host-agent/secrets/{name}", secret, mode=0o600, owner="host-agent")
    issue(machine, "chat-bridge", "--usage", "client")
    machine.until(lambda: machine.path("/run/signal-cli/control").exists(), "no stand-in")
    text = configuration(
        rules=SHORT + RULES, sections=SECTIONS + CHANNELS, identities=IDENTITIES + BRIDGE
    )
    assert host.reload(text)["event"] == "config.loaded"
    people = Phone(host)
    offered = host.http("frank").post("/approvers/alice/enrol", json={"channel": "signal"})
    assert offered.status_code == 200, offered.text
    code = offered.json()["code"]
    seen_codes.add(code)
    assert "alice" in people.say(ALICE, f"enrol {code.lower()}")
    assert "Nobody was enrolled" in people.say(STRANGER, f"ENROL {code}")
    yield people
    assert host.reload(configuration())["event"] == "config.loaded"
    machine.must("systemctl", "stop", *SERVERS)


def snapshots(host: Host) -> str:
    return host.machine.must("zfs", "list", "-H", "-o", "name", "-t", "snapshot")


def held(host: Host, name: str) -> dict[str, Any]:
    """Ask for the end of a snapshot that is there."""
    host.machine.must("zfs", "snapshot", f"tank/media@{name}")
    return host.held("zfs.destroy", dataset=f"tank/media@{name}")


def refused(host: Host, since: int) -> list[tuple[str | None, str]]:
    """Return owner and code of each refused answer in the audit log since then."""
    return [
        (record.get("approver_owner"), record["code"])
        for record in host.since(since)
        if record["event"] == "decision.refused"
    ]


def hooked(host: Host) -> list[dict[str, Any]]:
    """Return the events that the webhook got."""
    lines = host.machine.path(RECORD).read_text().splitlines()
    return [json.loads(json.loads(line)["body"]) for line in lines]


def test_an_answer_over_signal_runs_it_and_only_the_right_one_counts(
    host: Host, phone: Phone
) -> None:
    since = host.sequence
    request = held(host, "chan")
    alices, erins = phone.code(ALICE, request), phone.code(ERIN, request)
    assert alices != erins
    assert not any(request["request_id"][:8] in text for text in phone.texts(BOB))
    host.machine.until(
        lambda: any(event["subject"] == request["request_id"] for event in hooked(host)),
        "the webhook got nothing",
    )
    assert "somebody else" in phone.say(ERIN, f"CONFIRM {alices}")
    assert "somebody else" in phone.say(BOB, f"CONFIRM {alices}")
    assert "not known" in phone.say(ERIN, "CONFIRM AAAAAAAAAAAAAAAA")
    stranger = len(phone.texts(STRANGER))
    phone.do(do="say", aci=STRANGER, text=f"CONFIRM {alices}")
    assert "CONFIRM and the code" in phone.say(ERIN, "approve")
    assert host.look(request)["state"] == "pending"
    assert "tank/media@chan" in snapshots(host)
    assert "Approved" in phone.say(ALICE, f"confirm {alices[:4]}-{alices[4:].lower()}")
    assert host.ended(request)["state"] == "succeeded"
    assert "tank/media@chan" not in snapshots(host)
    phone.until(ALICE, "(?i)succeeded|done|ran")
    assert "Already decided" in phone.say(ALICE, f"CONFIRM {alices}")
    assert len(phone.texts(STRANGER)) == stranger
    codes = [code for _, code in refused(host, since)]
    assert codes.count("approval:digest-mismatch") == 3
    assert codes.count("approval:already-decided") == 1
    assert codes.count("identity:unknown") == 1
    decided = [r for r in host.since(since) if r["event"] == "request.decided"]
    assert [(r["channel"], r["approver_owner"]) for r in decided] == [("signal", "alice")]


def test_a_code_is_for_its_own_request_only(host: Host, phone: Phone) -> None:
    since = host.sequence
    one, other = held(host, "one"), held(host, "other")
    code, others = phone.code(ALICE, one), phone.code(ALICE, other)
    prompt = f"Request {other['request_id'][:8]} "
    for verb, message in (("CONFIRM", prompt), ("DENY", spaced(others))):  # either message of it
        about_other = phone.sent_at(ALICE, message)
        answer = phone.say(ALICE, f"{verb} {code}", quotes=about_other)
        assert "of another request" in answer
    assert [host.look(request)["state"] for request in (one, other)] == ["pending"] * 2
    assert refused(host, since) == [("alice", "approval:digest-mismatch")] * 2
    assert "Denied" in phone.say(ALICE, f"DENY {code} not this one")
    assert host.look(one)["state"] == "denied"
    assert host.look(other)["state"] == "pending"
    assert {"tank/media@one", "tank/media@other"} <= set(snapshots(host).split())
    assert host.http("operator").post(f"/requests/{other['request_id']}/cancel").status_code == 200


def test_the_requesters_own_owner_gets_no_prompt_and_has_no_voice(host: Host, phone: Phone) -> None:
    since = host.sequence
    request = held(host, "own")
    code = phone.code(ALICE, request)
    assert "somebody else" in phone.say(BOB, f"CONFIRM {code}")
    assert host.look(request)["state"] == "pending"
    assert refused(host, since) == [("bob", "approval:digest-mismatch")]
    assert (
        host.http("operator").post(f"/requests/{request['request_id']}/cancel").status_code == 200
    )
    assert "tank/media@own" in snapshots(host)


def test_too_late_is_said_and_nothing_runs(host: Host, phone: Phone) -> None:
    since = host.sequence
    request = held(host, "short")
    code = phone.code(ALICE, request)
    end = time.monotonic() + PATIENCE
    while host.look(request, wait=30)["state"] == "pending":
        assert time.monotonic() < end
    assert "Too late" in phone.say(ALICE, f"CONFIRM {code}")
    assert host.look(request)["state"] == "expired"
    assert "tank/media@short" in snapshots(host)
    assert refused(host, since) == [("alice", "approval:expired")]


def events(host: Host) -> list[str]:
    """Return the lines of the events that the agent still keeps."""
    lines: list[str] = []
    headers = {"Last-Event-ID": "0", "Accept": "text/event-stream"}
    with (
        suppress(httpx.ReadTimeout),
        host.http("frank").stream("GET", "/events", headers=headers, timeout=2) as answer,
    ):
        assert answer.status_code == 200, answer.status_code
        lines.extend(answer.iter_lines())
    return lines


def button(host: Host, request: dict[str, Any]) -> dict[str, Any]:
    """Return the button that denies, of the message about a request that erin's phone shows."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        lines = host.machine.must("python3", "-c", _TOPIC).splitlines()
        about = request["request_id"][:8]
        found[:] = [
            action
            for message in map(json.loads, lines)
            for action in message.get("actions", [])
            if about in message["message"] and action["action"] == "http"
        ]
        return bool(found)

    host.machine.until(is_there, "ntfy brought no button")
    return found[-1]


def press(host: Host, action: dict[str, Any]) -> int:
    return int(host.machine.must("python3", "-c", _PRESS, stdin=json.dumps(action)))


def test_the_button_of_ntfy_denies_once_and_never_approves(host: Host, phone: Phone) -> None:
    since = host.sequence
    request, other = held(host, "pressed"), held(host, "unpressed")
    action = button(host, request)
    (code,) = re.findall(r"(?i)deny ([A-Z2-9]{16})", action["body"])
    seen_codes.add(code)
    for word, forged in (
        ("CONFIRM", code),
        ("DENY", "AAAAAAAAAAAAAAAA"),
        ("DENY", phone.code(ERIN, other)),
        ("DENY", phone.code(ERIN, request)),
    ):
        body = json.dumps({"topic": "replies", "message": f"{word} {forged}"})
        assert press(host, {**action, "body": body}) == 200  # it is ntfy that takes it
    assert press(host, {**action, "headers": {}}) == 403
    assert press(host, action) == 200
    assert host.ended(request)["state"] == "denied"
    assert press(host, action) == 200
    assert host.look(other)["state"] == "pending"
    host.machine.until(
        lambda: ("erin", "approval:already-decided") in refused(host, since), "no refusal"
    )
    (decided,) = (r for r in host.since(since) if r["event"] == "request.decided")
    assert (decided["approver_owner"], decided["channel"]) == ("erin", "ntfy")
    assert {"tank/media@pressed", "tank/media@unpressed"} <= set(snapshots(host).split())
    assert host.http("operator").post(f"/requests/{other['request_id']}/cancel").status_code == 200


class Bridge:
    """The printed program of docs/how-to/approve-over-webhook.md, used well and badly."""

    def __init__(self, host: Host) -> None:
        certificate, key, authority = host.files("chat-bridge")
        self._files = {"ca": authority, "cert": certificate, "key": key}
        self._program: dict[str, Any] = {}
        exec(compile(program(HOW_TO, "bridge.py"), "bridge.py", "exec"), self._program)

    def decide(
        self,
        event: dict[str, Any],
        user: str = "U1",
        *,
        secret: str = BRIDGE_SECRET,
        ahead: int = 0,
        id_: str | None = None,
        decision: str = "approve",
    ) -> tuple[int, str]:
        """Answer to what the webhook brought; return the status, and the code of a refusal."""
        self._program["time"] = SimpleNamespace(time=lambda: time.time() + ahead)
        self._program["secrets"] = SimpleNamespace(token_hex=lambda n: id_ or secrets.token_hex(n))
        files, key = self._files, secret.encode()
        status, told = self._program["decide"]((ADDRESS, PORT), files, key, user, event, decision)
        return int(status), str(told.get("code", told.get("state")))


def test_an_answer_over_a_bridge_runs_it_and_only_the_right_one_counts(
    host: Host, phone: Phone
) -> None:
    since = host.sequence
    request, other = held(host, "bridged"), held(host, "beside")

    def event_of(held: dict[str, Any]) -> dict[str, Any]:
        def mine() -> list[dict[str, Any]]:
            return [event for event in hooked(host) if event["subject"] == held["request_id"]]

        host.machine.until(lambda: bool(mine()), "the webhook got nothing")
        return mine()[0]

    event, bridge = event_of(request), Bridge(host)
    forged = {**event, "data": {**event["data"], "digest": event_of(other)["data"]["digest"]}}
    assert bridge.decide(event, secret=SECRET) == (401, "bridge:bad-signature")
    assert bridge.decide(event, ahead=400) == (401, "bridge:bad-signature")
    assert bridge.decide(event, ahead=-400) == (401, "bridge:bad-signature")
    assert bridge.decide(forged) == (409, "approval:digest-mismatch")
    assert bridge.decide(event, "U2") == (403, "approval:self-approval")
    assert bridge.decide(event, "frank") == (403, "identity:role-required")
    assert host.look(request)["state"] == "pending"
    assert bridge.decide(event, id_="once", decision="later")[0] in {400, 422}
    assert bridge.decide(event, id_="twice")[0] == 200
    assert bridge.decide(event, id_="twice") == (401, "bridge:bad-signature")
    assert host.ended(request)["state"] == "succeeded"
    assert bridge.decide(event)[0] == 409
    assert "tank/media@bridged" not in snapshots(host)
    assert "tank/media@beside" in snapshots(host)
    (decided,) = (r for r in host.since(since) if r["event"] == "request.decided")
    assert (decided["approver_owner"], decided["channel"]) == ("frank", "webhook")
    assert decided["through"] == "chat-bridge"
    codes = [record["code"] for record in host.since(since) if "code" in record]
    assert codes.count("bridge:bad-signature") == 4
    assert codes.count("approval:self-approval") == 1
    assert codes.count("identity:role-required") == 1
    assert codes.count("approval:digest-mismatch") == 1
    assert codes.count("approval:already-decided") == 1
    assert host.http("operator").post(f"/requests/{other['request_id']}/cancel").status_code == 200


def is_delivered(host: Host, request: dict[str, Any], owner: str) -> bool:
    """Return whether it is stored that the owner has the prompt: else it comes again, anew."""
    rows = host.look(request, by="alice")["deliveries"]
    return any((row["approver"], row["state"]) == (owner, "delivered") for row in rows)


@pytest.mark.promise("c44")
def test_a_killed_agent_loses_neither_prompt_nor_answer(host: Host, phone: Phone) -> None:
    request = held(host, "killed")
    code = phone.code(ALICE, request)
    host.machine.until(lambda: is_delivered(host, request, "alice"), "it is not on record")
    pid, before = host.main_pid, len(phone.texts(ALICE))
    host.machine.must("systemctl", "kill", "--signal=KILL", "--kill-whom=main", UNIT)
    phone.do(do="say", aci=ALICE, text=f"CONFIRM {code}")  # while it is down
    host.machine.until(lambda: host.main_pid not in {0, pid}, "it is not started again")
    host.leave()
    phone.until(ALICE, "Approved", after=before)
    assert host.ended(request)["state"] == "succeeded"
    assert "tank/media@killed" not in snapshots(host)


@pytest.mark.promise("c44")
def test_a_dead_server_delays_and_then_delivers(host: Host, phone: Phone) -> None:
    host.machine.must("systemctl", "stop", "signal-cli.service")
    request = held(host, "later")
    host.machine.until(
        lambda: any(
            row["approver"] == "alice" and row["tries"] > 0
            for row in host.look(request)["deliveries"]
        ),
        "it was not tried",
    )
    assert host.ask("zfs.list", {"dataset": "tank/media"}).status_code == 200
    host.machine.must("systemctl", "start", "signal-cli.service")
    host.machine.until(lambda: host.machine.path("/run/signal-cli/control").exists(), "no stand-in")
    code = phone.code(ALICE, request)
    assert "Approved" in phone.say(ALICE, f"CONFIRM {code}")
    assert host.ended(request)["state"] == "succeeded"


def test_no_code_and_no_secret_is_left_anywhere(host: Host, phone: Phone) -> None:
    assert len(seen_codes) >= 7
    machine = host.machine
    said = {
        "events": "\n".join(events(host)),
        "metrics": host.inside("/metrics"),
        "journal": machine.must("journalctl", "-o", "cat", "-u", UNIT),
        "processes": machine.must("ps", "-eo", "args", "-ww"),
        "audit": "".join(machine.path(file).read_text() for file in host.audit_files()),
    }
    assert AUDIT in host.audit_files()
    for file in machine.path(STATE_DIR).iterdir():
        if file.name.startswith("host-agent.db"):
            said[file.name] = file.read_bytes().decode("latin-1")
    assert len(phone.texts(ALICE)) > 1
    shown = {spaced(code) for code in seen_codes}
    for secret in {*seen_codes, *shown, *FILES.values()}:
        for place, text in said.items():
            assert secret not in text, place
    host.require_whole()
