"""The page of events: its schemas hold what is really sent, and its programs work as printed."""

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from host_agent.api.wire.events import EventView
from host_agent.audit.record import CHAIN_FIELDS, ORIGIN, SUBJECT_FIELDS, Event, build, link
from host_agent.notify import signing
from host_agent.notify.channel import ChannelError, Message
from host_agent.notify.outbound import Outbound
from host_agent.notify.prompts import Prompt
from host_agent.notify.webhook import SCHEMAS as DATA_SCHEMAS
from host_agent.notify.webhook import WebhookChannel
from host_agent.requests.model import Problem, State, Terms
from tests.support.certificates import make_pki
from tests.support.messages import a_message, an_outcome, ended
from tests.support.schemas import SCHEMAS, faults, undescribed
from tests.support.stored_requests import a_decision, a_request
from tests.support.walkthrough import program
from tests.support.webhook_receiver import Receiver

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference/events.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to/approve-over-webhook.md").read_text(encoding="utf-8")
KEY = b"whsec_bWFueSBieXRlcyBvZiBhIHNlY3JldCBrZXk="


# -- the schemas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one_and_is_on_the_page(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:host-agent:schema:{name}:1"
    jsonschema_rs.meta.validate(schema)
    assert f"[{name}.json](schemas/{name}.json)" in PAGE


def test_the_schema_that_an_event_names_is_one_of_them() -> None:
    assert set(DATA_SCHEMAS.values()) == {
        SCHEMAS[name]["$id"] for name in ("request-held", "request-outcome")
    }


def test_every_member_is_in_a_table_of_the_page() -> None:
    for name in ("request-held", "request-outcome", "webhook-decision"):
        schema = SCHEMAS[name]
        members = [
            *schema["properties"],
            *schema["properties"].get("data", {}).get("properties", ()),
        ]
        for member in members:
            assert f"| `{member}` |" in PAGE or member == "data", member


# -- what is really sent ---------------------------------------------------------------------------

WHOLE = a_request(
    terms=Terms(approvals=2, approvers=frozenset({"bob", "carol"}), approver_role="admin"),
    decisions=(a_decision("carol"),),
)
BARE = replace(
    a_request(), unix_user=None, resource=None, reason=None, precondition=None, preview=None
)
MESSAGES: dict[str, tuple[str, Message]] = {
    "held": ("request-held", a_message()),
    "held with everything": ("request-held", a_message(request=WHOLE)),
    "held with nothing": ("request-held", a_message(request=BARE)),
    "held and cut": (
        "request-held",
        a_message(prompt=Prompt(title="t", text="NOT WHOLE", is_whole=False)),
    ),
    "ran": ("request-outcome", an_outcome()),
    "denied": (
        "request-outcome",
        an_outcome(
            request=ended(
                state=State.DENIED,
                outcome=None,
                problem=Problem(code="approval:denied", detail="bob denied this."),
            )
        ),
    ),
    "without a prompt": ("request-outcome", an_outcome(reply_to=None)),
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


async def sent(receiver: Receiver, folder: Path, message: Message) -> dict[str, Any]:
    (folder / "secret").write_bytes(KEY)
    channel = WebhookChannel(
        Outbound(receiver.url),
        secret_file=folder / "secret",
        host="host",
        now=lambda: datetime.now(UTC),
    )
    await channel.send(message)
    await channel.close()
    told: dict[str, Any] = json.loads(receiver.received[-1].body)
    return told


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_webhook_is_what_its_schema_says(
    receiver: Receiver, tmp_path: Path, name: str
) -> None:
    schema, message = MESSAGES[name]
    told = await sent(receiver, tmp_path, message)
    assert faults(schema, told) == []
    assert told["dataschema"] == SCHEMAS[schema]["$id"]
    assert undescribed("request", told["data"]["request"]) == set()
    other = {"request-held": "request-outcome", "request-outcome": "request-held"}[schema]
    assert faults(other, told)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told.update(approved=True),
        lambda told: told.update(id="x"),
        lambda told: told.update(time="yesterday"),
        lambda told: told.pop("subject"),
        lambda told: told["data"].update(code="ABCDEFGH23456789"),
        lambda told: told["data"].pop("digest"),
        lambda told: told["data"]["prompt"].update(title="two\nlines"),
        lambda told: told["data"]["request"].update(state="succeeded"),
        lambda told: told["data"]["request"].update(outcome={"stdout": "x"}),
    ],
)
async def test_the_schema_refuses_what_is_never_sent(
    receiver: Receiver, tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    told = await sent(receiver, tmp_path, a_message())
    spoil(told)
    assert faults("request-held", told)


RECORDED: dict[str, Any] = {
    "caller": "librarian",
    "fingerprint": "sha256:" + "3" * 64,
    "owner": "alice",
    "operation": "git.pull",
    "resource": "/srv/app",
    "params": {"branch": "main"},
    "digest": a_request().digest,
    "request_id": a_request().id,
    "outcome": {"exit_code": 0},
    "code": "approval:denied",
    "reason": "words " * 1000,
    "approver": "bob-laptop",
}


def an_event(event: Event, **members: Any) -> dict[str, Any]:
    """Return the members of a record as the log writes it, without its place in the chain."""
    line, _ = link(build(event, "2026-11-20T21:00:00.123456Z", members), ORIGIN)
    record: dict[str, Any] = json.loads(line)
    return {name: value for name, value in record.items() if name not in ("previous", "hash")}


@pytest.mark.parametrize("event", Event)
def test_an_audit_record_is_what_the_schema_of_events_says(event: Event) -> None:
    assert set(SUBJECT_FIELDS) <= set(RECORDED)
    assert faults("audit-event", an_event(event, **RECORDED)) == []
    assert faults("audit-event", an_event(event)) == []


def test_the_model_of_an_event_has_the_members_of_the_schema() -> None:
    known = set(EventView.model_fields)
    assert known == set(SCHEMAS["audit-event"]["properties"])
    assert known == {"sequence", "time", "event", *SUBJECT_FIELDS}


def test_a_record_that_was_too_long_still_is() -> None:
    params = {f"p{n}": "x" * 4_000 for n in range(20)}
    members = {**RECORDED, "params": params, "reason": "\u202e" * 4_000}
    told = an_event(Event.REQUEST_HELD, **members)
    assert told["params"].keys() == {"length", "sha256"}
    assert faults("audit-event", told) == []


def test_the_place_in_the_chain_is_no_event() -> None:
    whole = an_event(Event.REQUEST_HELD, **RECORDED)
    for name in CHAIN_FIELDS - {"sequence", "time", "event"}:
        assert faults("audit-event", {**whole, name: "sha256:" + "0" * 64})
    for name in ("sequence", "time", "event"):
        assert faults("audit-event", {key: whole[key] for key in whole if key != name})


def test_the_examples_of_the_page() -> None:
    examples = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    event, decision = map(json.loads, examples)
    assert faults("audit-event", event) == []
    assert event["event"] in set(Event)
    assert faults("webhook-decision", decision) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"decision": "yes"},
        {"decision": None},
        {"digest": None},
        {"digest": "sha256:12"},
        {"user": ""},
        {"user": None},
        {"approver": "alice"},
        {"request_id": "f84b"},
        {"grant": {"forever": True}},
        {"reason": "x" * 2001},
        {"decision": "deny", "grant": {"count": 3}},
    ],
)
def test_the_schema_of_decisions_refuses(changed: dict[str, Any]) -> None:
    *_, example = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    decision = {**json.loads(example), **changed}
    assert faults("webhook-decision", {k: v for k, v in decision.items() if v is not None})


# -- the programs of the page ----------------------------------------------------------------------


@contextmanager
def printed_receiver(folder: Path, *keys: bytes) -> Iterator[tuple[str, Path]]:
    """Run receiver.py as it is printed; yield its URL and the file of what it shows."""
    (folder / "receiver.py").write_text(program(HOW_TO, "receiver.py"), encoding="utf-8")
    for number, key in enumerate(keys):
        (folder / f"key{number}").write_bytes(key)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    shown = folder / "shown"
    names = [str(folder / f"key{number}") for number in range(len(keys))]
    command = [sys.executable, "-I", str(folder / "receiver.py"), str(port), *names]
    with shown.open("w") as output, subprocess.Popen(command, stdout=output) as started:
        try:
            while started.poll() is None and not is_listening(port):
                os.sched_yield()
            yield f"http://127.0.0.1:{port}/host-agent", shown
        finally:
            started.terminate()


def is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


async def post(url: str, folder: Path, secret: bytes, now: datetime | None = None) -> None:
    (folder / "secret").write_bytes(secret)
    channel = WebhookChannel(
        Outbound(url, deadline_seconds=10),
        secret_file=folder / "secret",
        host="host",
        now=lambda: now or datetime.now(UTC),
    )
    try:
        await channel.send(a_message())
    finally:
        await channel.close()


async def test_the_printed_receiver_takes_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    other = b"whsec_YW5vdGhlciBzZWNyZXQgb2YgbWFueSBieXRlcw=="
    with printed_receiver(tmp_path, KEY, other) as (url, shown):
        await post(url, tmp_path, KEY)
        await post(url, tmp_path, KEY)
        await post(url, tmp_path, other)
        old = datetime.fromtimestamp(datetime.now(UTC).timestamp() - 400, UTC)
        for secret, now in ((b"x" * 40, None), (KEY, old)):
            with pytest.raises(ChannelError, match="401"):
                await post(url, tmp_path, secret, now)
        said = shown.read_text()
    assert said.count("host_agent.request.held bob git.pull waits") == 1


async def test_the_printed_bridge_signs_what_the_agent_takes(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    server, client = pki.server(), pki.client("chat-bridge")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(server.certificate_path, server.key_path)
    tls.load_verify_locations(pki.ca_path)
    tls.verify_mode = ssl.CERT_REQUIRED
    files = {"ca": pki.ca_path, "cert": client.certificate_path, "key": client.key_path}
    scope: dict[str, Any] = {}
    exec(compile(program(HOW_TO, "bridge.py"), "bridge.py", "exec"), scope)
    digest = a_request().digest
    event = {"subject": a_request().id, "data": {"digest": digest}}
    key = signing.read_secret(KEY)
    with Receiver(tls=tls, mode="decided") as agent:
        status, told = await asyncio.to_thread(
            scope["decide"], ("127.0.0.1", agent.port), files, key, "U123", event, "approve", "ok"
        )
        (got,) = agent.received
    assert (status, told) == (200, {"state": "approved"})
    assert (got.method, got.path) == ("POST", "/webhook/decision")
    assert faults("webhook-decision", json.loads(got.body)) == []
    signing.verify(
        [key],
        message_id=got.headers["webhook-id"],
        timestamp=got.headers["webhook-timestamp"],
        signature=got.headers["webhook-signature"],
        body=got.body.encode(),
        now=datetime.now(UTC),
    )
