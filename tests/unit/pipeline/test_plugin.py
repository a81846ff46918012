"""The identity plugin can only refuse; whatever is no clear yes refuses."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import RoleRequiredError
from host_agent.pipeline.plugin import MAX_ANSWER_BYTES, Plugin
from host_agent.requests.model import GrantTerms, State, Verb
from tests.support.pipeline import RESET, Workbench, opened


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


class Asked:
    """An exchange that answers `answer`, and keeps what it was asked."""

    def __init__(self, answer: bytes | Exception = b'{"allow": true}') -> None:
        self._answer = answer
        self.questions: list[bytes] = []

    async def __call__(self, question: bytes) -> bytes:
        self.questions.append(question)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def test_a_clear_yes_lets_the_approval_count(bench: Workbench) -> None:
    asked = Asked()
    bench.context.plugin = Plugin(asked)
    request = await bench.held()
    await bench.decide(request, grant=GrantTerms(count=2))
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED
    assert [json.loads(question) for question in asked.questions] == [
        {
            "version": 1,
            "approver": "alice",
            "owner": "alice",
            "channel": "http",
            "through": None,
            "grant": {"for_seconds": None, "count": 2, "resource": None},
            "request": {
                "id": request.id,
                "operation": "git.pull",
                "params": dict(request.params),
                "resource": request.resource,
                "caller": "deployer",
                "owner": "bob",
                "digest": request.digest,
            },
        }
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"allow": false}',
        b'{"allow": false, "reason": "on leave"}',
        b"",
        b"true",
        b"null",
        b"[]",
        b"{}",
        b"yes",
        b'{"allow": 1}',
        b'{"allow": "true"}',
        b'{"allow": null}',
        b'{"allow": true, "reason": "fine"}',
        b'{"allow": true, "more": 1}',
        b'{"allow": false, "allow": true}',
        b'{"allow": true, "allow": true}',
        b'{"ALLOW": true}',
        b'{"allow": true} {"allow": true}',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"allow": true}' + b" " * MAX_ANSWER_BYTES,
        OSError("gone"),
        TimeoutError(),
        RuntimeError("a defect"),
    ],
    ids=lambda answer: repr(answer)[:40],
)
async def test_anything_else_refuses_and_nothing_moves(
    bench: Workbench, answer: bytes | Exception
) -> None:
    bench.context.plugin = Plugin(Asked(answer))
    request = await bench.held()
    before = await bench.request(request.id)
    with pytest.raises(RoleRequiredError):
        await bench.decide(request)
    await bench.settle()
    assert await bench.request(request.id) == before
    assert bench.host.changes == []
    assert Event.REQUEST_DECIDED not in bench.events()


async def test_no_answer_in_time_refuses(bench: Workbench) -> None:
    async def silent(_question: bytes) -> bytes:
        await asyncio.Event().wait()
        return b'{"allow": true}'

    bench.context.plugin = Plugin(silent, deadline_seconds=0.01)
    request = await bench.held()
    with pytest.raises(RoleRequiredError):
        await bench.decide(request)
    assert await bench.state(request) is State.PENDING
    assert bench.host.changes == []


async def test_a_denial_asks_no_plugin(bench: Workbench) -> None:
    asked = Asked(b'{"allow": false}')
    bench.context.plugin = Plugin(asked)
    request = await bench.held()
    await bench.decide(request, Verb.DENY)
    assert await bench.state(request) is State.DENIED
    assert asked.questions == []


async def test_what_would_not_count_anyway_asks_no_plugin(bench: Workbench) -> None:
    asked = Asked()
    bench.context.plugin = Plugin(asked)
    request = await bench.held()
    with pytest.raises(Exception, match="cannot decide"):
        await bench.decide(request, by="bobs-phone")
    assert asked.questions == []


async def test_what_happened_while_the_plugin_thought_counts(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="because")

    async def slow(_question: bytes) -> bytes:
        bench.context.plugin = None
        await bench.decide(request, Verb.DENY, by="erin")
        return b'{"allow": true}'

    bench.context.plugin = Plugin(slow)
    with pytest.raises(Exception, match="already"):
        await bench.decide(request)
    assert await bench.state(request) is State.DENIED
    assert bench.host.changes == []


async def test_its_reason_is_told_where_it_can_be_shown(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    request = await bench.held()
    for answer, told in (
        (b'{"allow": false, "reason": "on leave"}', "(on leave)"),
        (b'{"allow": false, "reason": "a\\u202eb"}', "decide."),
        (b'{"allow": false, "reason": "line\\nline"}', "decide."),
        (b'{"allow": false, "reason": {"x": 1}}', "decide."),
    ):
        bench.context.plugin = Plugin(Asked(answer))
        with pytest.raises(RoleRequiredError) as caught:
            await bench.decide(request)
        assert told in caught.value.detail
        assert "\n" not in caught.value.detail
