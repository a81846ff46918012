"""What the client asks and how often, held against scripted replies without a socket."""

import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import pytest
from pydantic import JsonValue

from host_agent.client import (
    CertificateRefusedError,
    Client,
    ConnectionFailedError,
    Held,
    InvalidAnswerError,
    ProblemError,
    Ran,
    RequestPage,
    RequestView,
)
from host_agent.client.connection import (
    Received,
    checked_url,
    client_context,
    translating,
)
from host_agent.client.exchange import (
    Call,
    DeadlineError,
    HandshakeError,
    Pause,
    Protocol,
    Reply,
    Steps,
    recovery_from,
)
from host_agent.errors import ConfigurationError, Recovery
from tests.support import answers
from tests.support.answers import DIGEST, REQUEST_ID
from tests.support.certificates import make_pki

T = TypeVar("T")
NOTHING_RAN = {"exit_code": None, "verified": None}


class Scene:
    """Plays the transport: replies from a list, and a clock that only pauses and polls move."""

    def __init__(self, *replies: Reply | Exception, poll_seconds: float = 0.0) -> None:
        self.replies = list(replies)
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.now = 1000.0
        self.poll_seconds = poll_seconds
        self.protocol = Protocol(
            timeout_seconds=30.0,
            run_timeout_seconds=300.0,
            monotonic=lambda: self.now,
            make_key=lambda: f"key-{len(self.calls)}",
        )

    def play(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = steps.send(None)
                    continue
                self.calls.append(step)
                self.now += self.poll_seconds
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                step = steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result


def reply(status: int, body: JsonValue | dict[str, Any], **headers: str) -> Reply:
    kind = "application/json" if status < 400 else "application/problem+json"
    found = {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Reply(status=status, headers=found, content=json.dumps(body).encode())


def problem(code: str, status: int, **headers: str) -> Reply:
    return reply(status, answers.problem(code), **headers)


LOST = ConnectionFailedError("lost")


# -- results ------------------------------------------------------------------------------------


def test_an_ask_that_ran_is_read() -> None:
    scene = Scene(reply(200, answers.ran(stdout="clean\n", verified=True)))

    answer = scene.play(scene.protocol.submit("git.status", {"repository": "/srv/app"}, None))

    assert isinstance(answer, Ran)
    assert (answer.outcome.stdout, answer.outcome.verified) == ("clean\n", True)
    assert json.loads(scene.calls[0].content or b"") == {
        "operation": "git.status",
        "params": {"repository": "/srv/app"},
    }


def test_a_dry_run_is_asked_without_a_key_and_read() -> None:
    scene = Scene(reply(503, {"code": "x:y"}, retry_after="1"), reply(200, answers.dry_run()))

    tried = scene.play(scene.protocol.dry_run("git.pull", {"branch": "main"}, "why"))

    assert (tried.would, tried.approvals and tried.approvals.needed) == ("ask", 1)
    assert "Idempotency-Key" not in scene.calls[0].headers
    assert json.loads(scene.calls[-1].content or b"") == {
        "operation": "git.pull",
        "params": {"branch": "main"},
        "reason": "why",
        "dry_run": True,
    }


def test_what_was_done_already_is_read_without_an_outcome() -> None:
    done = {**answers.ran("git.pull"), "state": "unchanged", "outcome": NOTHING_RAN}
    scene = Scene(reply(200, {**done, "preview": answers.view()["preview"]}))

    answer = scene.play(scene.protocol.submit("git.pull", {}, None))

    assert isinstance(answer, Ran)
    assert (answer.state, answer.outcome.exit_code) == ("unchanged", None)
    assert answer.preview is not None


def test_an_ask_that_is_held_is_told_apart() -> None:
    scene = Scene(reply(202, answers.held()))

    answer = scene.play(scene.protocol.submit("git.pull", {}, "why"))

    assert isinstance(answer, Held)
    assert answer.request_id == REQUEST_ID
    assert answer.body["rule"] == "pulling needs alice"
    assert json.loads(scene.calls[0].content or b"")["reason"] == "why"


def test_members_of_a_newer_agent_are_kept_and_do_no_harm() -> None:
    body = answers.view(body="x", colour="red", state="half-done", deliveries=[])

    view = RequestView.parse(body)

    assert view.body == body
    assert view.is_finished


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request_id": 1, "operation": "x", "state": "pending"},
        answers.view(decisions="none"),
        answers.view(expires_at="tomorrow"),
        answers.view(expires_at="2026-11-20T21:00:00"),
        answers.view(params=[]),
    ],
)
def test_a_view_that_is_none_is_an_invalid_answer(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidAnswerError, match="newer version"):
        RequestView.parse(body)


@pytest.mark.parametrize("body", [{}, {"requests": {}}, {"requests": [1]}, {"requests": [{}]}])
def test_a_page_that_is_none_is_an_invalid_answer(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidAnswerError):
        RequestPage.parse(body)


@pytest.mark.parametrize(
    "answer",
    [
        Reply(status=200, headers={"content-type": "text/html"}, content=b"<html>"),
        Reply(status=200, headers={}, content=b"{}"),
        Reply(status=200, headers={"content-type": "application/json"}, content=b"{"),
        Reply(status=200, headers={"content-type": "application/json"}, content=b"[]"),
        Reply(status=200, headers={"content-type": "application/json"}, content=b"\xff"),
        Reply(status=200, headers={"content-type": "application/json"}, content=b"[" * 100_000),
        reply(302, {}),
        reply(404, {"detail": "no code"}),
        reply(200, {"operations": 1}),
    ],
)
def test_an_answer_that_is_not_ours_is_invalid(answer: Reply) -> None:
    scene = Scene(answer)

    with pytest.raises(InvalidAnswerError):
        scene.play(scene.protocol.operations())


def test_a_problem_keeps_all_that_it_says() -> None:
    body = {**answers.problem("host:failed", "It broke."), "outcome": {"exit_code": 3}}
    scene = Scene(reply(502, body))

    with pytest.raises(ProblemError) as caught:
        scene.play(scene.protocol.submit("git.status", {}, None))

    found = caught.value
    assert (found.code, found.status, found.detail) == ("host:failed", 502, "It broke.")
    assert found.exchange_id == "x-1"
    assert found.body == body


def test_what_to_do_next_is_read_and_an_unknown_kind_is_none() -> None:
    fault = {"pointer": "/params/a", "message": "Too long.", "place": "body", "since": 1}
    told = {"kind": "change_parameters", "faults": [fault], "more": 1}
    (read,) = cast("Recovery", recovery_from(cast("JsonValue", told))).faults
    assert (read.pointer, read.place) == ("/params/a", "body")
    assert recovery_from({"kind": "pray"}) is None
    assert recovery_from({"kind": "never", "faults": 3}) is None
    assert recovery_from(None) is None


def test_retry_after_comes_from_the_body_else_the_header() -> None:
    for answer, seconds in (
        (reply(429, {"code": "rate:limited", "retry_after_seconds": 7.5}, retry_after="9"), 7.5),
        (problem("rate:limited", 429, retry_after="9"), 9.0),
        (problem("rate:limited", 429, retry_after="soon"), None),
    ):
        scene = Scene(answer)
        with pytest.raises(ProblemError) as caught:
            scene.play(scene.protocol.operations())
        assert caught.value.retry_after_seconds == seconds


# -- retries ------------------------------------------------------------------------------------


def test_an_ask_is_repeated_with_the_same_key_after_a_lost_connection() -> None:
    scene = Scene(LOST, LOST, reply(200, answers.ran()))

    scene.play(scene.protocol.submit("git.status", {}, None))

    assert [call.headers["Idempotency-Key"] for call in scene.calls] == ["key-0"] * 3
    assert len({call.content for call in scene.calls}) == 1
    assert scene.pauses == [0.2, 0.8]


def test_attempts_end() -> None:
    scene = Scene(LOST)

    with pytest.raises(ConnectionFailedError):
        scene.play(scene.protocol.operations())

    assert len(scene.calls) == 3


@pytest.mark.parametrize("verb", ["approve", "deny", "cancel"])
def test_a_decision_is_never_sent_twice(verb: str) -> None:
    scene = Scene(LOST, reply(200, answers.view()))
    steps = {
        "approve": scene.protocol.decide(REQUEST_ID, "approve", DIGEST, None),
        "deny": scene.protocol.decide(REQUEST_ID, "deny", None, None),
        "cancel": scene.protocol.cancel(REQUEST_ID, None),
    }[verb]

    with pytest.raises(ConnectionFailedError):
        scene.play(steps)

    assert len(scene.calls) == 1
    assert "Idempotency-Key" not in scene.calls[0].headers


@pytest.mark.parametrize(
    "error", [DeadlineError("late"), CertificateRefusedError("not you"), HandshakeError("not it")]
)
def test_what_repeating_cannot_mend_is_not_repeated(error: Exception) -> None:
    scene = Scene(error, reply(200, answers.operations("git.status", "git.log", "git.pull")))

    with pytest.raises(type(error)):
        scene.play(scene.protocol.operations())

    assert len(scene.calls) == 1


def test_a_short_retry_after_is_followed() -> None:
    scene = Scene(
        problem("rate:limited", 429, retry_after="2"),
        reply(200, answers.operations("git.status", "git.log", "git.pull")),
    )

    found = scene.play(scene.protocol.operations())

    assert [info.name for info in found] == ["git.status", "git.log", "git.pull"]
    assert scene.pauses == [2.0]


@pytest.mark.parametrize(
    "answer",
    [
        problem("rate:limited", 429, retry_after="6"),
        problem("rate:limited", 429),
        problem("approval:unreachable", 503),
        problem("policy:no-rule", 403, retry_after="1"),
        problem("host:busy", 409, retry_after="1"),
        problem("internal", 500, retry_after="1"),
    ],
)
def test_a_refusal_is_not_repeated(answer: Reply) -> None:
    scene = Scene(answer, reply(200, answers.ran()))

    with pytest.raises(ProblemError):
        scene.play(scene.protocol.submit("git.status", {}, None))

    assert len(scene.calls) == 1


# -- requests -----------------------------------------------------------------------------------


def test_requests_are_asked_for_with_what_is_given() -> None:
    scene = Scene(reply(200, {"requests": [answers.view()], "next_cursor": "c&d"}))

    page = scene.play(scene.protocol.requests("pending", 5, "a&b"))
    scene.play(scene.protocol.requests(None, None, None))

    assert scene.calls[0].target == "/requests?state=pending&limit=5&cursor=a%26b"
    assert scene.calls[1].target == "/requests"
    assert page.next_cursor == "c&d"
    assert page.requests[0].body["digest"] == DIGEST


@pytest.mark.parametrize("request_id", ["", "..", "a/b", "a?b", "a%2fb", "x" * 65, "ä", "a\n"])
def test_an_id_cannot_name_another_route(request_id: str) -> None:
    scene = Scene(reply(200, answers.view()))

    for steps in (
        scene.protocol.request(request_id, 0),
        scene.protocol.decide(request_id, "deny", None, None),
        scene.protocol.cancel(request_id, None),
    ):
        with pytest.raises(ValueError, match="request id"):
            scene.play(steps)

    assert scene.calls == []


@pytest.mark.parametrize("wait", [-1, 61])
def test_a_poll_is_at_most_a_minute(wait: int) -> None:
    scene = Scene(reply(200, answers.view()))

    with pytest.raises(ValueError, match="0 to 60"):
        scene.play(scene.protocol.request(REQUEST_ID, wait))

    assert scene.calls == []


def test_a_poll_may_last_its_wait_longer() -> None:
    scene = Scene(reply(200, answers.view()))

    scene.play(scene.protocol.request(REQUEST_ID, 60))

    assert scene.calls[0].target == f"/requests/{REQUEST_ID}?wait=60"
    assert scene.calls[0].seconds == 90.0


def test_an_approval_repeats_the_digest_and_a_denial_need_not() -> None:
    scene = Scene(reply(200, answers.view()))

    scene.play(scene.protocol.decide(REQUEST_ID, "approve", DIGEST, "fine"))
    scene.play(scene.protocol.decide(REQUEST_ID, "deny", None, None))
    scene.play(scene.protocol.cancel(REQUEST_ID, None))

    bodies = [json.loads(call.content) if call.content else None for call in scene.calls]
    assert bodies == [
        {"decision": "approve", "digest": DIGEST, "reason": "fine"},
        {"decision": "deny"},
        None,
    ]
    assert "Content-Type" not in scene.calls[2].headers


# -- following ----------------------------------------------------------------------------------


def follow(scene: Scene, timeout: float) -> tuple[RequestView, list[str]]:
    states: list[str] = []
    view = scene.play(
        scene.protocol.follow(REQUEST_ID, timeout, lambda seen: states.append(seen.state))
    )
    return view, states


def views(*states: str) -> Sequence[Reply]:
    return [reply(200, answers.view(state=state)) for state in states]


def test_following_ends_with_the_final_state() -> None:
    scene = Scene(*views("pending", "approved", "running", "succeeded"), poll_seconds=1.0)

    view, states = follow(scene, 600)

    assert view.state == "succeeded"
    assert states == ["pending", "approved", "running", "succeeded"]
    assert [call.target.partition("=")[2] for call in scene.calls] == ["", "60", "60", "60"]
    assert scene.pauses == []


def test_following_ends_at_its_deadline() -> None:
    scene = Scene(*views("pending"), poll_seconds=40.0)

    view, _ = follow(scene, 100)

    assert view.state == "pending"
    assert [call.target.partition("=")[2] for call in scene.calls] == ["", "60", "20"]


def test_polls_that_come_back_at_once_are_spaced() -> None:
    scene = Scene(*views("pending"))

    follow(scene, 10)

    assert len(scene.calls) <= 11
    assert all(pause == 1.0 for pause in scene.pauses)


def test_following_survives_a_restart_of_the_agent() -> None:
    scene = Scene(
        *views("pending"),
        *([LOST] * 9),
        problem("store:unavailable", 503),
        problem("rate:limited", 429, retry_after="30"),
        *views("succeeded"),
    )

    view, _ = follow(scene, 600)

    assert view.state == "succeeded"
    assert 30.0 in scene.pauses


@pytest.mark.parametrize(
    "end",
    [
        problem("identity:revoked", 403),
        CertificateRefusedError("no"),
        reply(404, {**answers.problem("request:not-found"), "code": "x"}),
    ],
)
def test_following_ends_where_waiting_does_not_help(end: Reply | Exception) -> None:
    scene = Scene(*views("pending"), end)

    with pytest.raises((ProblemError, CertificateRefusedError)):
        follow(scene, 600)

    assert len(scene.calls) == 2


# -- health -------------------------------------------------------------------------------------


def test_readiness_is_an_answer_either_way() -> None:
    broken = answers.problem("store:unavailable", **answers.parts(store="gone"))
    for answer, is_ready in (
        (reply(200, answers.parts()), True),
        (reply(503, broken), False),
    ):
        scene = Scene(answer)
        assert scene.play(scene.protocol.ready()).is_ready is is_ready
        assert len(scene.calls) == 1

    scene = Scene(problem("identity:revocation-unavailable", 503))
    with pytest.raises(ProblemError):
        scene.play(scene.protocol.ready())


# -- the connection -----------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://a", "https://a:8443", "https://a/", "https://[::1]:8443"])
def test_an_https_url_is_taken(url: str) -> None:
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:8443",
        "http://a",
        "https://",
        "https://u:p@a",
        "https://a/path",
        "https://a?x",
        "https://a#x",
        "https://a:port",
        "https://[::1",
        "https://\u0430.example",
        "https://a\n",
        "unix:///run/x",
    ],
)
def test_any_other_url_is_a_configuration_fault(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https://HOST"):
        checked_url(url)


@pytest.mark.parametrize("name", ["..", "a" * 64, "xn--a"])
def test_a_name_that_the_dns_cannot_have_is_not_reached(name: str, tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    me, url = pki.client(), f"https://{name}:1"
    with (
        Client(url=url, cert=me.certificate_path, key=me.key_path, ca=pki.ca_path) as client,
        pytest.raises(ConnectionFailedError, match="could not be reached"),
    ):
        client.whoami()


def test_the_context_demands_everything(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    me = pki.client("librarian")

    context = client_context(cert=me.certificate_path, key=me.key_path, ca=pki.ca_path)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert len(context.get_ca_certs()) == 1


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    me, other = pki.client("librarian"), pki.client("bob")
    good = {"cert": me.certificate_path, "key": me.key_path, "ca": pki.ca_path}
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text(ENCRYPTED_KEY)

    for bend in (
        {"ca": tmp_path / "none"},
        {"ca": empty},
        {"ca": tmp_path},
        {"cert": tmp_path / "none"},
        {"key": tmp_path / "none"},
        {"key": other.key_path},
        {"key": empty},
        {"key": encrypted},
    ):
        with pytest.raises(ConfigurationError) as caught:
            client_context(**{**good, **bend})
        assert str(next(iter(bend.values()))) in str(caught.value)


ENCRYPTED_KEY = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBDcZsYwT2BHwUpXDHhL
-----END ENCRYPTED PRIVATE KEY-----
"""


def test_a_client_refuses_a_url_before_it_reads_a_key(tmp_path: Path) -> None:
    none = tmp_path / "none"

    with pytest.raises(ConfigurationError, match="url"):
        Client(url="http://localhost", cert=none, key=none, ca=none)


CALL = Call(method="POST", target="/host/op", seconds=3.0)


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] tlsv13 alert")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ConnectError("x"), ConnectionFailedError, "could not be reached"),
        (ConnectionRefusedError(111, "Connection refused"), ConnectionFailedError, "refused"),
        (httpx.ConnectTimeout("x"), ConnectionFailedError, "in time"),
        (httpx.ReadTimeout("x"), DeadlineError, "look before retrying"),
        (httpx.RemoteProtocolError("x"), ConnectionFailedError, "closed the connection"),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), CertificateRefusedError, "unknown ca"),
        (alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"), CertificateRefusedError, "expired"),
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), CertificateRefusedError, "required"),
        (alert("TLSV1_ALERT_PROTOCOL_VERSION"), HandshakeError, "protocol version"),
        (alert("WRONG_VERSION_NUMBER"), HandshakeError, "TLS 1.3"),
    ],
)
def test_what_went_wrong_is_one_sentence_with_advice(
    error: Exception, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught, translating("https://a", CALL):
        raise error

    assert type(caught.value) is kind
    assert "https://a" in str(caught.value)


def test_an_answer_is_bounded_in_size_and_time() -> None:
    response = httpx.Response(200)
    received = Received(response, limit=10, deadline=float("inf"))
    received.add(b"x" * 10)
    with pytest.raises(InvalidAnswerError, match="larger than 10 bytes"):
        received.add(b"x")

    late = Received(response, limit=10, deadline=0.0)
    with pytest.raises(DeadlineError):
        late.add(b"x")


@pytest.mark.promise("c17")
def test_an_encoded_answer_is_not_unpacked() -> None:
    response = httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"")
    )

    with pytest.raises(InvalidAnswerError, match="encoded"):
        Received(response, limit=10, deadline=float("inf"))
