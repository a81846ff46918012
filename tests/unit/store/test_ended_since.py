"""What has ended lately, as a start asks for it."""

from datetime import timedelta
from pathlib import Path

from host_agent.requests import model as machine
from host_agent.store.store import RequestStore
from tests.support.stored_requests import NOW, a_request

MINUTE = timedelta(minutes=1)


async def test_only_what_ended_since_then_newest_first(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "requests.db")
    await store.open()
    try:
        for number in range(4):
            request = a_request(number)
            await store.insert(request, max_pending=10, max_pending_per_caller=10)
            if number == 3:
                break  # this one lives
            ended = machine.cancel(request, problem=None, now=NOW + number * MINUTE)
            assert await store.transition(ended, expected_version=1)
        found = await store.ended_since(NOW + MINUTE)
        assert [one.resource for one in found] == ["/srv/app2", "/srv/app1"]
        assert await store.ended_since(NOW + 3 * MINUTE) == []
    finally:
        await store.close()
