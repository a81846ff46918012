"""People answer over channels: each answer is answered in words, and each forgery moves nothing."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import RoleRequiredError
from host_agent.pipeline.context import refresh_contacts
from host_agent.requests import codes
from host_agent.requests.model import Request, State, Verb
from host_agent.requests.notification import Contact, Failure, Purpose
from tests.support.people import (
    ALICE,
    BOB,
    CHANNELS,
    ERIN,
    ERIN_ENTRY,
    PEOPLE,
    STRANGER,
    Chat,
)
from tests.support.pipeline import ASIDE, RESET, Workbench, opened
from tests.support.site import IDENTITIES

DOWN, UP = "\N{THUMBS DOWN SIGN}", "\N{THUMBS UP SIGN}"
UNENROLLED = """
[[approvers]]
owner = "Carol"
channels = ["signal"]
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, people=PEOPLE + UNENROLLED) as bench:
        yield bench


@pytest.fixture
def chat(bench: Workbench) -> Chat:
    return Chat(bench)


class Untouched:
    """Holds a request to how it is; with `async with`, whatever is said meanwhile moves nothing."""

    def __init__(self, bench: Workbench, request: Request) -> None:
        self._bench, self._request = bench, request

    async def __aenter__(self) -> None:
        self._before = await self._bench.request(self._request.id)
        self._ran = self._bench.host.changes

    async def __aexit__(self, *_: object) -> None:
        assert await self._bench.request(self._request.id) == self._before
        assert self._bench.host.changes == self._ran


def refused(bench: Workbench) -> list[tuple[str | None, str]]:
    """Return who was refused, and why, as it is in the audit log."""
    return [
        (record.get("approver_owner"), record["code"])
        for record in bench.records()
        if record["event"] == Event.DECISION_REFUSED
    ]


# -- yes -------------------------------------------------------------------------------------------


async def test_a_code_confirms_and_it_runs(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    answer = await chat.say(f"confirm {(await chat.code(request)).lower()}")
    assert answer is not None
    assert answer.startswith("Approved: git.pull")
    assert await bench.state(request) is State.SUCCEEDED
    assert len(bench.host.changes) == 1
    assert refused(bench) == []


async def test_one_of_two_waits_for_the_other(bench: Workbench, chat: Chat) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="because")
    code = await chat.code(request)
    answer = await chat.say(f"CONFIRM {code}")
    assert answer is not None
    assert "1 of 2" in answer
    async with Untouched(bench, request):
        again = await chat.say(f"CONFIRM {code}")
        assert again is not None
        assert "answered" in again
    await chat.say(f"CONFIRM {await chat.code(request, 'erin')}", by=ERIN)
    assert await bench.state(request) is State.SUCCEEDED
    assert refused(bench) == [("alice", "approval:already-decided")]


# -- no --------------------------------------------------------------------------------------------


async def test_a_code_denies_with_a_reason(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    answer = await chat.say(f"DENY {await chat.code(request)} not before noon")
    assert answer is not None
    assert answer.startswith("Denied: git.pull")
    assert await bench.state(request) is State.DENIED
    assert bench.last(Event.REQUEST_DECIDED)["reason"] == "not before noon"
    assert bench.host.changes == []


@pytest.mark.parametrize(
    ("words", "hours"), [("2h we deploy", 2), ("99d", 7 * 24), ("until 20:30", 23.5)]
)
async def test_a_denial_says_when_to_ask_again(
    bench: Workbench, chat: Chat, words: str, hours: float
) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await chat.deliver(request)
    now = bench.clock.now()
    assert now.hour == 22
    answer = await chat.say(f"DENY {code} {words}")
    decided = await bench.request(request.id)
    assert decided.decisions[-1].not_before is not None
    if words.startswith("until"):
        assert decided.decisions[-1].not_before == now.replace(
            hour=20, minute=30, second=0, microsecond=0
        ) + timedelta(days=1)
    else:
        assert decided.decisions[-1].not_before == now + timedelta(hours=hours)
    assert "Nobody is asked for it again before 2026-" in str(answer)


async def test_who_is_told_when_hears_of_the_longer_cooldown(bench: Workbench, chat: Chat) -> None:
    bench.reconfigure(cooldowns="[7200]", people=PEOPLE)
    request = await bench.held()
    code = await chat.code(request)
    await chat.deliver(request)
    assert "before 2026-11-21 00:00 UTC" in str(await chat.say(f"DENY {code} 5m"))


async def test_an_answer_to_a_prompt_says_when_to_ask_again(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    await chat.deliver(request)
    assert "before 2026-11-20 22:30 UTC" in str(await chat.react("100", text="DENY until 22:30"))
    assert "before" not in str(await chat.say("hello"))
    assert (await bench.request(request.id)).decisions[-1].not_before is not None


async def test_an_answer_to_a_prompt_denies_without_a_code(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    await chat.deliver(request)
    answer = await chat.react("100", text="deny not now")
    assert answer is not None
    assert answer.startswith("Denied")
    assert await bench.state(request) is State.DENIED


async def test_a_reaction_to_a_prompt_denies(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    await chat.deliver(request)
    assert "Denied" in str(await chat.react("100", reaction=DOWN))
    assert await bench.state(request) is State.DENIED


async def test_a_button_of_ntfy_denies_and_says_nothing(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    token = await chat.code(request, channel="ntfy", purpose=Purpose.DENY)
    assert await chat.say(f"DENY {token}", by="", channel="ntfy") is None
    assert await bench.state(request) is State.DENIED
    decided = bench.last(Event.REQUEST_DECIDED)
    assert (decided["approver_owner"], decided["channel"]) == ("alice", "ntfy")


async def test_a_press_that_a_start_hears_again_is_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path, people=PEOPLE) as bench:
        chat = Chat(bench)
        request = await bench.held()
        token = await chat.code(request, channel="ntfy", purpose=Purpose.DENY)
        pressed, again = (chat.message(f"DENY {token}", by="", channel="ntfy") for _ in range(2))
        await bench.pipeline.replies.hear(pressed)
        await bench.pipeline.replies.hear(again)  # another press, too late
        assert refused(bench) == [("alice", "approval:already-decided")]
    async with opened(tmp_path, people=PEOPLE) as bench:
        for heard in (pressed, again):
            await bench.pipeline.replies.hear(heard)
        assert refused(bench) == [("alice", "approval:already-decided")]
        assert await bench.state(request) is State.DENIED


# -- a yes needs its code --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["CONFIRM", "yes", "ok", "approve", "CONFIRM ABCD"])
async def test_an_answer_to_a_prompt_never_approves(
    bench: Workbench, chat: Chat, text: str
) -> None:
    request = await bench.held()
    await chat.deliver(request)
    async with Untouched(bench, request):
        assert "CONFIRM and the code" in str(await chat.react("100", text=text))


async def test_a_reaction_never_approves(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    await chat.deliver(request)
    async with Untouched(bench, request):
        assert "needs the code" in str(await chat.react("100", reaction=UP))
        assert await chat.react("100", reaction="\u2764") is None


async def test_a_token_to_deny_with_confirms_nowhere(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    token = await chat.code(request, channel="ntfy", purpose=Purpose.DENY)
    code = await chat.code(request)
    async with Untouched(bench, request):
        assert "not known" in str(await chat.say(f"CONFIRM {token}"))
        for text in (f"CONFIRM {token}", f"DENY {code}", f"CONFIRM {code}", f"ENROL {token}"):
            assert await chat.say(text, by="", channel="ntfy") is None
        assert await chat.say(f"DENY {codes.make()}", by="", channel="ntfy") is None
        assert await chat.say("DENY", by="", channel="ntfy") is None
        old = chat.message(f"DENY {codes.make()}", by="", channel="ntfy")
        hours_ago = bench.clock.now() - timedelta(hours=2)  # heard again by a start
        await bench.pipeline.replies.hear(replace(old, sent_at=hours_ago))
    mismatch = "approval:digest-mismatch"
    assert refused(bench) == [("alice", mismatch), (None, mismatch), (None, mismatch)]


# -- attacks ---------------------------------------------------------------------------------------


@pytest.mark.promise("c45")
async def test_the_same_message_again_is_one_message(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    heard = chat.message(f"CONFIRM {await chat.code(request)}")
    assert await bench.pipeline.replies.hear(heard) is not None
    await bench.settle()
    async with Untouched(bench, request):
        assert await bench.pipeline.replies.hear(heard) is None
        await bench.settle()
    assert len(bench.host.changes) == 1


@pytest.mark.promise("c45")
async def test_the_same_words_sent_again_are_told_how_it_was_decided(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await chat.say(f"CONFIRM {code}")
    async with Untouched(bench, request):
        answer = str(await chat.say(f"CONFIRM {code}"))
        assert "Already decided" in answer
        assert "succeeded, approved by you" in answer
        assert "Already decided" in str(await chat.say(f"DENY {code}"))
    assert refused(bench) == [("alice", "approval:already-decided")] * 2
    assert len(bench.host.changes) == 1


@pytest.mark.promise("c45")
async def test_the_same_confirmation_twice_at_once_decides_once(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    text = f"CONFIRM {await chat.code(request)}"
    answers = await asyncio.gather(*(chat.say(text) for _ in range(5)))
    assert sum(str(answer).startswith("Approved") for answer in answers) == 1
    assert sum("Already decided" in str(answer) for answer in answers) == 4
    assert len(bench.host.changes) == 1
    assert bench.events().count(Event.REQUEST_DECIDED) == 1


@pytest.mark.promise("c45")
async def test_a_code_from_another_approver_is_refused(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    async with Untouched(bench, request):
        for verb in ("CONFIRM", "DENY"):
            assert "somebody else" in str(await chat.say(f"{verb} {code}", by=ERIN))
    assert refused(bench) == [("erin", "approval:digest-mismatch")] * 2
    assert bench.last(Event.DECISION_REFUSED)["request_id"] == request.id


@pytest.mark.promise("c45")
async def test_a_stranger_hears_nothing_and_is_written_down(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await chat.deliver(request)
    async with Untouched(bench, request):
        for text in (f"CONFIRM {code}", f"DENY {code}", "DENY", "yes", "hello"):
            assert await chat.say(text, by=STRANGER) is None
        assert await chat.react("100", text="DENY", by=STRANGER) is None
        assert await chat.react("100", reaction=DOWN, by=STRANGER) is None
    assert refused(bench) == [(None, "identity:unknown")] * 2
    assert bench.last(Event.DECISION_REFUSED)["request_id"] == request.id
    assert STRANGER not in str(bench.records())


@pytest.mark.promise("c45")
async def test_of_messages_without_end_the_newest_are_known_again(
    bench: Workbench, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_agent.pipeline.replies.MAX_REMEMBERED", 3)
    first, *others = (chat.message("CONFIRM AAAAAAAAAAAAAAAA") for _ in range(4))
    assert await bench.pipeline.replies.hear(first) is not None
    assert await bench.pipeline.replies.hear(first) is None
    for message in others:
        assert await bench.pipeline.replies.hear(message) is not None
    assert len(bench.pipeline.replies._known) == 3
    assert await bench.pipeline.replies.hear(first) is not None


async def test_an_answer_to_what_is_not_kept_any_more_does_nothing(
    bench: Workbench, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await bench.held()
    await chat.deliver(request)
    code = await chat.code(request)
    token = await chat.code(request, channel="ntfy", purpose=Purpose.DENY)

    async def gone(_request_id: str) -> None:
        return None

    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "get", gone)
        assert "not kept any more" in str(await chat.say(f"CONFIRM {code}"))
        assert await chat.react("100", text="DENY") is None
        assert await chat.say(f"DENY {token}", by="", channel="ntfy") is None
    assert await bench.state(request) is State.PENDING
    assert bench.host.changes == []


@pytest.mark.promise("c45")
async def test_after_expiry_it_is_too_late(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await chat.deliver(request)
    bench.clock.advance(days=1)
    assert "expired" in str(await chat.say(f"CONFIRM {code}"))
    assert await bench.state(request) is State.EXPIRED
    async with Untouched(bench, request):
        for text in (f"CONFIRM {code}", f"DENY {code}"):
            assert "expired" in str(await chat.say(text))
        assert "expired" in str(await chat.react("100", text="DENY"))
    assert refused(bench) == [("alice", "approval:expired")] * 4
    assert bench.host.changes == []


@pytest.mark.promise("c45")
async def test_a_code_answers_for_its_own_request_only(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    other = await bench.held(operation="git.switch", params=ASIDE)
    await chat.deliver(request)
    code = await chat.code(other)
    await chat.say(f"CONFIRM {code}")
    assert await bench.state(request) is State.PENDING
    assert await bench.state(other) is State.SUCCEEDED
    assert [run[0] for run in bench.host.changes] == ["switch"]


@pytest.mark.promise("c45")
async def test_another_requests_code_in_answer_to_a_prompt_is_refused(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    other = await bench.held(operation="git.switch", params=ASIDE)
    await chat.deliver(request)
    code = await chat.code(other)
    async with Untouched(bench, request), Untouched(bench, other):
        for verb in ("CONFIRM", "DENY"):
            answer = await chat.react("100", text=f"{verb} {code}")
            assert "of another request" in str(answer)
    assert refused(bench) == [("alice", "approval:digest-mismatch")] * 2
    own = await chat.code(request)
    await chat.react("100", text=f"CONFIRM {own}")  # its twin
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c33")
async def test_the_requesters_own_owner_is_refused(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request, "bob")  # nobody sends them one
    async with Untouched(bench, request):
        for verb in ("CONFIRM", "DENY"):
            answer = await chat.say(f"{verb} {code}", by=BOB)
            assert "on your own behalf" in str(answer)
    assert refused(bench) == [("bob", "approval:self-approval")] * 2


@pytest.mark.promise("c44")
async def test_an_approver_who_was_removed_has_no_voice(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await bench.reload(people=CHANNELS + ERIN_ENTRY)
    async with Untouched(bench, request):
        assert await chat.say(f"CONFIRM {code}") is None
    assert refused(bench) == [(None, "identity:unknown")]


@pytest.mark.promise("c44")
async def test_an_approver_with_another_address_has_no_voice_at_the_old_one(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await bench.reload(people=PEOPLE.replace(ALICE, STRANGER))
    async with Untouched(bench, request):
        assert await chat.say(f"CONFIRM {code}") is None
    await chat.say(f"CONFIRM {code}", by=STRANGER)
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c44")
async def test_an_approver_whose_key_changed_has_no_voice(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await chat.deliver(request)
    await bench.pipeline.enrolment.identity_changed("alice", "signal", ALICE)
    async with Untouched(bench, request):
        assert await chat.say(f"CONFIRM {code}") is None
        assert await chat.react("100", reaction=DOWN) is None


async def test_whom_the_identity_plugin_refuses_is_told(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    bench.context.plugin = _Refusing()
    async with Untouched(bench, request):
        assert "not let" in str(await chat.say(f"CONFIRM {code}"))
    assert refused(bench) == [("alice", "identity:role-required")]
    assert "Denied" in str(await chat.say(f"DENY {code}"))  # nobody is asked about a no
    assert await bench.state(request) is State.DENIED


class _Refusing:
    async def require(self, request: Request, decision: object) -> None:
        message = "The identity plugin does not let this approver decide."
        raise RoleRequiredError(message)


# -- guessing --------------------------------------------------------------------------------------


async def test_five_wrong_codes_mute_their_sender_for_ten_minutes(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    code = await chat.code(request)
    async with Untouched(bench, request):
        for _ in range(5):
            assert "not known" in str(await chat.say(f"CONFIRM {codes.make()}"))
        assert "Too many" in str(await chat.say(f"CONFIRM {code}"))
        bench.clock.advance(minutes=9, seconds=59)
        assert "Too many" in str(await chat.say(f"CONFIRM {code}"))
    assert [code for _, code in refused(bench)] == ["approval:digest-mismatch"] * 5 + [
        "rate:limited"
    ] * 2
    # It is her who is not listened to, and only for so long.
    await chat.say(f"CONFIRM {codes.make()}", by=ERIN)
    bench.clock.advance(seconds=1)
    await chat.say(f"CONFIRM {code}")
    assert await bench.state(request) is State.SUCCEEDED


async def test_many_guesses_at_once_get_no_more_tries(bench: Workbench, chat: Chat) -> None:
    await bench.held()
    said = await asyncio.gather(*(chat.say(f"CONFIRM {codes.make()}") for _ in range(20)))
    assert sum("not known" in str(answer) for answer in said) == 5
    assert sum("Too many" in str(answer) for answer in said) == 15


async def test_wrong_codes_do_not_mute_the_certificate_of_the_same_person(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    for _ in range(5):
        await chat.say(f"CONFIRM {codes.make()}")
    await bench.decide(request)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


async def test_a_flood_of_refusals_is_counted_and_not_all_written(
    bench: Workbench, chat: Chat
) -> None:
    for _ in range(30):
        await chat.say(f"CONFIRM {codes.make()}", by=STRANGER)
    assert len(refused(bench)) == 10
    bench.clock.advance(seconds=2)
    await chat.say(f"CONFIRM {codes.make()}", by=STRANGER)
    assert bench.last(Event.DECISION_REFUSED)["suppressed"] == 20


# -- prompts and times -----------------------------------------------------------------------------


@pytest.mark.parametrize("by", [ERIN, BOB])
async def test_a_prompt_is_answered_by_whom_it_was_for(
    bench: Workbench, chat: Chat, by: str
) -> None:
    request = await bench.held()
    await chat.deliver(request)
    async with Untouched(bench, request):
        assert "no prompt" in str(await chat.react("100", text="DENY", by=by))
        assert await chat.react("100", reaction=DOWN, by=by) is None


async def test_an_answer_to_no_prompt_of_ours_denies_nothing(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    await chat.deliver(request)
    async with Untouched(bench, request):
        assert "no prompt" in str(await chat.react("101", text="DENY"))
        assert "has to answer the prompt" in str(await chat.say("DENY"))
        assert await chat.react("101", reaction=DOWN) is None
        assert await chat.react("101", reaction=UP) is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("yes", "that word alone decides nothing"),
        ("CONFIRM", "no code stands behind that word"),
        ("CONFIRM ABCD EFGH JKLM NPQR but only today", "more stands behind the code"),
    ],
)
async def test_what_is_no_answer_is_told_why(
    bench: Workbench, chat: Chat, said: str, why: str
) -> None:
    request = await bench.held()
    async with Untouched(bench, request):
        assert str(await chat.say(said)).startswith(f"Nothing was done: {why}")


async def test_a_thumb_is_told_that_it_is_no_yes(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    await chat.deliver(request)
    async with Untouched(bench, request):
        assert "a thumb is no yes" in str(await chat.react("100", reaction=UP))


async def test_a_message_older_than_the_request_decides_nothing_and_is_told_so(
    bench: Workbench, chat: Chat
) -> None:
    heard = chat.message("")
    bench.clock.advance(minutes=6)
    request = await bench.held()
    await chat.deliver(request)
    code = await chat.code(request)
    old = [
        replace(heard, text=f"CONFIRM {code}", reference="a"),
        replace(heard, text="DENY", quotes="100", reference="b"),
        replace(heard, reaction=DOWN, quotes="100", reference="c"),
    ]
    async with Untouched(bench, request):
        for message in old:
            answer = await bench.pipeline.replies.hear(message)
            assert "older than the request" in str(answer)
    assert refused(bench) == [("alice", "approval:digest-mismatch")] * 3


async def test_a_decision_by_somebody_else_is_told(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await chat.deliver(request)
    await bench.decide(request, Verb.DENY, by="erin")
    async with Untouched(bench, request):
        assert "is denied, denied by erin" in str(await chat.say(f"CONFIRM {code}"))
        assert "is denied, denied by erin" in str(await chat.react("100", reaction=DOWN))


async def test_what_was_withdrawn_was_decided_by_nobody(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
    async with Untouched(bench, request):
        answer = str(await chat.say(f"CONFIRM {code}"))
    assert answer.startswith("Already decided: ")
    assert answer.endswith(" is cancelled.")


async def test_a_target_that_changed_is_told_and_nothing_runs(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    code = await chat.code(request)
    bench.host.tip = "c" * 40
    assert "not run" in str(await chat.say(f"CONFIRM {code}"))
    assert await bench.state(request) is State.FAILED
    assert bench.host.changes == []
    assert refused(bench) == []


# -- what fails around it --------------------------------------------------------------------------


async def test_while_nothing_can_be_stored_it_is_said_and_may_be_sent_again(
    bench: Workbench, chat: Chat
) -> None:
    request = await bench.held()
    heard = chat.message(f"CONFIRM {await chat.code(request)}")
    bench.store.refused = frozenset({"transition"})
    async with Untouched(bench, request):
        assert "again" in str(await bench.pipeline.replies.hear(heard))
        await bench.settle()
    bench.store.refused = frozenset()
    assert "Approved" in str(await bench.pipeline.replies.hear(heard))
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


async def test_a_yes_that_is_not_written_down_is_no_yes(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED, Event.DECISION_REFUSED})
    answer = str(await chat.say(f"CONFIRM {await chat.code(request)}"))
    assert "audit log" in answer
    assert await bench.state(request) is State.FAILED
    assert bench.host.changes == []


async def test_a_defect_is_answered_and_raises_nothing(
    bench: Workbench, chat: Chat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    code = await chat.code(request)

    async def broken(_hash: str) -> None:
        message = f"secret {code}"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(bench.store, "code", broken)
    async with Untouched(bench, request):
        assert "failed" in str(await chat.say(f"CONFIRM {code}"))
    assert "ZeroDivisionError" in caplog.text
    assert code not in caplog.text


async def test_no_code_token_or_address_is_written_down(bench: Workbench, chat: Chat) -> None:
    request = await bench.held()
    said = [await chat.code(request), await chat.code(request, "erin"), codes.make()]
    token = await chat.code(request, channel="ntfy", purpose=Purpose.DENY)
    await chat.say(f"CONFIRM {said[1]}")
    await chat.say(f"CONFIRM {said[2]}")
    await chat.say(f"CONFIRM {token}")
    await chat.say(f"CONFIRM {said[0]}", by=STRANGER)
    await chat.say(f"CONFIRM {said[0]}")
    for path in (bench.directory / "state").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in (*said, token))
    log = str(bench.records())
    assert not any(address in log for address in (ALICE, ERIN, BOB, STRANGER))


@pytest.mark.promise("c49")
@pytest.mark.parametrize("form", ["{}", "{:.4}-", "lower"])
async def test_a_code_in_a_reason_is_not_written_down(
    bench: Workbench, chat: Chat, form: str
) -> None:
    request = await bench.held()
    other = await bench.held(operation="git.switch", params=ASIDE)
    await chat.deliver(request)
    code = await chat.code(other)
    typed = {"{}": code, "lower": code.lower()}.get(form, "-".join(re.findall("....", code)))
    assert "Denied" in str(await chat.react("100", text=f"DENY this, I meant {typed} not it"))
    stored = await bench.request(request.id)
    kept = str(stored.decisions) + str(bench.records())
    if form != "{:.4}-" or any(map(str.isdigit, code)):
        assert typed not in kept
        assert stored.decisions[0].reason == "this, I meant [code] not it"


# -- enrolment -------------------------------------------------------------------------------------


def not_enrolled(bench: Workbench) -> list[str]:
    """Return the codes of the refusals of enrolment that were written down, without who it was."""
    records = [record for record in bench.records() if record.get("decision") == "enrol"]
    assert all(record["event"] == "decision.refused" for record in records)
    assert not any("approver_owner" in record for record in records)
    return sorted(record["code"] for record in records)


async def offered(bench: Workbench, owner: str = "carol") -> str:
    answer = await bench.pipeline.enrolment.offer_enrolment(
        bench.who("root-admin"), owner, "signal"
    )
    return str(answer.code)


async def test_who_sends_the_code_is_the_approver_from_then_on(
    bench: Workbench, chat: Chat
) -> None:
    code = await offered(bench)
    assert "answers for carol" in str(await chat.say(f"enrol {code}", by=STRANGER))
    assert bench.context.contacts.owner_at("signal", STRANGER) == "carol"
    assert bench.last(Event.APPROVER_ENROLLED)["approver_owner"] == "carol"
    assert STRANGER not in str(bench.records())
    request = await bench.held()
    await chat.say(f"CONFIRM {await chat.code(request, 'carol')}", by=STRANGER)
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c33")
async def test_who_enrolled_somebody_is_not_answered_by_them(bench: Workbench, chat: Chat) -> None:
    """An admin who enrols a phone of their own as somebody else's is still themselves."""
    code = await offered(bench)
    await chat.say(f"ENROL {code}", by=STRANGER)
    franks = IDENTITIES.replace('owner = "bob"', 'owner = "FRANK"')  # whose admin offered the code
    await bench.reload(people=PEOPLE + UNENROLLED, identities=franks)
    request = await bench.held()
    confirm = await chat.code(request, "carol")
    async with Untouched(bench, request):
        assert "vouches for this answer" in str(await chat.say(f"CONFIRM {confirm}", by=STRANGER))
    assert refused(bench) == [("carol", "approval:self-approval")]
    await chat.say(f"CONFIRM {await chat.code(request)}")
    assert await bench.state(request) is State.SUCCEEDED


async def test_an_enrolment_code_is_good_once(bench: Workbench, chat: Chat) -> None:
    code = await offered(bench)
    await chat.say(f"ENROL {code}", by=STRANGER)
    other = STRANGER.replace("57a9", "57aa")
    assert "Nobody was enrolled" in str(await chat.say(f"ENROL {code}", by=other))
    assert bench.context.contacts.owner_at("signal", other) is None
    assert bench.events().count(Event.APPROVER_ENROLLED) == 1
    assert not_enrolled(bench) == ["identity:unknown"]


async def test_an_enrolment_code_ends_after_fifteen_minutes(bench: Workbench, chat: Chat) -> None:
    code = await offered(bench)
    bench.clock.advance(minutes=15)
    assert "Nobody was enrolled" in str(await chat.say(f"ENROL {code}", by=STRANGER))
    assert await bench.store.contacts() == []
    assert Event.APPROVER_ENROLLED not in bench.events()


@pytest.mark.parametrize("by", [ALICE, BOB])
async def test_an_address_of_the_configuration_enrols_as_nobody_else(
    bench: Workbench, chat: Chat, by: str
) -> None:
    code = await offered(bench)
    owner = bench.context.contacts.owner_at("signal", by)
    assert "Nobody was enrolled" in str(await chat.say(f"ENROL {code}", by=by))
    assert bench.context.contacts.owner_at("signal", by) == owner
    assert await bench.store.contacts() == []
    assert not_enrolled(bench) == ["identity:role-required"]
    await chat.say(f"ENROL {code}", by=STRANGER)  # it is still good
    assert bench.context.contacts.owner_at("signal", STRANGER) == "carol"


async def test_a_stranger_who_guesses_at_enrolment_is_muted(bench: Workbench, chat: Chat) -> None:
    code = await offered(bench)
    said = await asyncio.gather(*(chat.say(f"ENROL {codes.make()}", by=STRANGER) for _ in range(6)))
    assert sum("Nobody was enrolled" in str(answer) for answer in said) == 5
    assert "Too many" in str(await chat.say(f"ENROL {code}", by=STRANGER))
    assert not_enrolled(bench) == ["identity:unknown"] * 5 + ["rate:limited"] * 2
    assert await bench.store.contacts() == []


@pytest.mark.parametrize("text", ["ENROL", "ENROL ABCD", "enrol me please"])
async def test_a_stranger_is_answered_for_a_whole_code_only(
    bench: Workbench, chat: Chat, text: str
) -> None:
    assert await chat.say(text, by=STRANGER) is None
    assert await bench.store.contacts() == []


async def test_an_enrolment_that_is_not_written_down_does_not_stand(
    bench: Workbench, chat: Chat
) -> None:
    bench.audit.refused = frozenset({Event.APPROVER_ENROLLED})
    answer = await chat.say(f"ENROL {await offered(bench)}", by=STRANGER)
    assert "audit log" in str(answer)
    assert bench.context.contacts.owner_at("signal", STRANGER) is None
    await refresh_contacts(bench.context)
    assert bench.context.contacts.owner_at("signal", STRANGER) is None


async def test_an_enrolment_for_who_was_removed_reaches_nobody(
    bench: Workbench, chat: Chat
) -> None:
    code = await offered(bench)
    await bench.reload(people=PEOPLE)
    assert "does not reach" in str(await chat.say(f"ENROL {code}", by=STRANGER))
    assert bench.context.contacts.owner_at("signal", STRANGER) is None


async def test_a_disabled_approver_comes_back_by_enrolling_anew(
    bench: Workbench, chat: Chat
) -> None:
    await chat.say(f"ENROL {await offered(bench)}", by=STRANGER)
    await bench.pipeline.enrolment.identity_changed("carol", "signal", STRANGER)
    assert bench.context.contacts.owner_at("signal", STRANGER) is None
    disabled = [contact.disabled for contact in await bench.store.contacts()]
    assert disabled == [Failure.IDENTITY_CHANGED]
    await bench.pipeline.enrolment.identity_changed("carol", "signal", STRANGER)
    assert bench.events().count(Event.APPROVER_DISABLED) == 1
    await chat.say(f"ENROL {await offered(bench)}", by=STRANGER)
    assert bench.context.contacts.owner_at("signal", STRANGER) == "carol"


async def test_an_enrolled_number_of_somebody_else_is_not_taken_over(
    bench: Workbench, chat: Chat
) -> None:
    mine = Contact(owner="dora", channel="signal", address=STRANGER, since=bench.clock.now())
    assert await bench.store.put_contact(mine)
    code = await offered(bench)
    assert "Nobody was enrolled" in str(await chat.say(f"ENROL {code}", by=STRANGER))
    assert [contact.owner for contact in await bench.store.contacts()] == ["dora"]
