"""What stands beside the requests, on locked, full and damaged files, and wanted by two at once."""

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.errors import StoreUnavailableError
from host_agent.requests.grant import Grant
from host_agent.requests.model import Terms
from host_agent.requests.notification import Contact, DeliveryState, Failure
from host_agent.store import database
from host_agent.store.nonces import Spent
from host_agent.store.store import RequestStore
from tests.support.patience import PATIENCE
from tests.support.request_stores import a_code, a_prompt, approved
from tests.support.store_ground import file, limit_pages, opened, process, put
from tests.support.store_process import CLAIMED, CLAIMS
from tests.support.stored_requests import NOW, a_decision, a_request

DAY = timedelta(days=1)
ID = a_request(0).id


@pytest.fixture
def short_busy_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the same file."""
    file(tmp_path).parent.mkdir(mode=0o700, exist_ok=True)
    connection = sqlite3.connect(file(tmp_path), isolation_level=None)
    yield connection
    connection.close()


async def offer_claims(store: RequestStore, index: int) -> None:
    """Put there what two processes will want: each can be had once."""
    request = a_request(index)
    await store.insert(
        request,
        max_pending=1000,
        max_pending_per_caller=1000,
        notifications=[a_prompt(request, "bob")],
    )
    for number, name in enumerate((f"grant-{index}", f"standing-{index}-a")):
        giving = a_request(1000 + 2 * index + number)
        await put(store, giving)
        grant = a_grant(name, uses_left=None if number else 1)
        assert await store.transition(approved(giving), expected_version=1, grant=grant)
    await store.offer_enrolment(
        f"owner{index}", "signal", code_hash=f"code-{index}", expires_at=NOW + DAY, by="root"
    )


def a_grant(name: str, *, uses_left: int | None) -> Grant:
    return Grant(
        id=name,
        request_id="any",
        caller="librarian",
        operation="git.pull",
        resource="/srv/.*",
        params={},
        terms=Terms(),
        consents=(a_decision(),),
        created_at=NOW,
        expires_at=NOW + DAY,
        uses_left=uses_left,
    )


# -- C29: races of processes ----------------------------------------------------------------------


@pytest.mark.promise("c29")
async def test_processes_on_one_file_take_what_can_be_taken_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for index in range(CLAIMED):
            await offer_claims(store, index)
    claimants = [
        process("claim", str(file(tmp_path)), str(tmp_path / "ran"), str(n)) for n in range(2)
    ]
    for claimant in claimants:
        assert claimant.stdout is not None
        assert claimant.stdout.readline() == "ready\n"
    for claimant in claimants:
        assert claimant.stdin is not None
        claimant.stdin.write("\n")
        claimant.stdin.flush()
    said = [claimant.communicate(timeout=PATIENCE)[0].splitlines() for claimant in claimants]
    assert [claimant.returncode for claimant in claimants] == [0] * 2
    won = Counter(line for lines in said for line in lines)
    assert won == Counter(f"won {what} {index}" for what in CLAIMS for index in range(CLAIMED))
    async with opened(tmp_path) as store:
        assert len(await store.contacts()) == 2 * CLAIMED
        grants = {grant.id: grant for grant in await store.grants()}
        assert [grants[f"grant-{index}"].used for index in range(CLAIMED)] == [1] * CLAIMED
        assert await store.waiting_notifications() == {}


# -- C46: the file --------------------------------------------------------------------------------


@pytest.mark.promise("c46")
@pytest.mark.parametrize(
    ("bad", "read"),
    [
        ("notifications SET state = 'lost'", lambda store: store.notifications_of(ID)),
        (
            "notifications SET failure = 'rain'",
            lambda store: store.due_notifications(NOW, limit=1),
        ),
        ("codes SET purpose = 'any'", lambda store: store.codes(ID)),
        ("contacts SET disabled = 'rain'", lambda store: store.contacts()),
        ("grants SET consents = '[{}]'", lambda store: store.grants()),
        (
            "grants SET terms = 'null'",
            lambda store: store.live_grants("librarian", "git.pull", NOW),
        ),
    ],
)
async def test_row_beside_a_request_that_does_not_fit_is_a_503(
    tmp_path: Path,
    bad: str,
    read: Callable[[RequestStore], Awaitable[object]],
) -> None:
    async with opened(tmp_path) as store:
        await offer_claims(store, 0)
        await store.put_contact(a_contact())
        await store.add_code(a_code(a_request(0)))
        assert await read(store)

        def break_it(connection: sqlite3.Connection, _tally: object) -> None:
            connection.execute(f"UPDATE {bad}")

        await store._writer.write(break_it)
        with pytest.raises(StoreUnavailableError):
            await read(store)
        await store.ping()


async def fill_up(store: RequestStore) -> None:
    for number in range(2000):
        await spend(store, f"{number}-{'x' * 200}")


async def spend(store: RequestStore, nonce: str) -> Spent:
    return await store.spend_nonce("b", nonce, expires_at=NOW + DAY, now=NOW, capacity=9000)


def a_contact() -> Contact:
    return Contact(owner="bob", channel="signal", address="aci", since=NOW)


def standing_writes(store: RequestStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return every write that is about neither a request nor an answer."""
    code, other = a_code(a_request(0)), a_prompt(a_request(0), "carol")
    lost: dict[str, Any] = {"failure": Failure.REFUSED, "now": NOW}

    async def settle() -> bool:
        (one,) = await store.due_notifications(NOW, limit=1)
        dead = replace(one, state=DeliveryState.FAILED, tries=1)
        return await store.settle_notification(dead, expected_tries=0)

    return {
        "code": lambda: store.add_code(code),
        "prompt": lambda: store.add_notifications([other]),
        "try": settle,
        "hasten": lambda: store.hasten_notifications(ID, "bob", NOW - DAY),
        "contact": lambda: store.put_contact(a_contact()),
        "disabled": lambda: store.disable_contact("dave", "signal", "x", **lost),
        "offer": lambda: store.offer_enrolment(
            "eve", "signal", code_hash="c", expires_at=NOW, by="root"
        ),
        "enrol": lambda: store.enrol("signal", "y", code_hash="code-0", now=NOW),
        "nonce": lambda: spend(store, "n"),
        "use": lambda: store.use_grant("grant-0", NOW),
        "revoke": lambda: store.revoke_grant("standing-0", by="erin", now=NOW),
        "release": lambda: store.release("librarian", by="erin", now=NOW),
    }


STANDING = ("codes", "notifications", "contacts", "enrolments", "nonces", "grants", "releases")


async def everything(store: RequestStore) -> list[object]:
    return await store._read_from.read(
        lambda connection: [
            tuple(row) for table in STANDING for row in connection.execute(f"SELECT * FROM {table}")
        ]
    )


async def refused_all(store: RequestStore, match: str) -> None:
    for write in standing_writes(store).values():
        with pytest.raises(StoreUnavailableError, match=match):
            await write()


@pytest.mark.promise("c46")
@pytest.mark.usefixtures("short_busy_timeout")
async def test_locked_store_takes_nothing_that_stands(
    tmp_path: Path, holder: sqlite3.Connection
) -> None:
    async with opened(tmp_path) as store:
        await offer_claims(store, 0)
        before = await everything(store)
        holder.execute("BEGIN IMMEDIATE")
        await refused_all(store, "locked")
        assert await everything(store) == before
        holder.execute("ROLLBACK")
        for write in standing_writes(store).values():
            await write()
        assert await everything(store) != before


@pytest.mark.promise("c46")
async def test_no_room_left_takes_nothing_that_stands(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await offer_claims(store, 0)
        await limit_pages(store, 1)
        with pytest.raises(StoreUnavailableError, match="no room"):
            await fill_up(store)
        full = await everything(store)
        prompts = [a_prompt(a_request(0), f"{number}-{'x' * 200}") for number in range(50)]
        with pytest.raises(StoreUnavailableError, match="no room"):
            await store.add_notifications(prompts)
        assert await everything(store) == full
        await limit_pages(store, 100_000)
        await store.add_notifications(prompts)
        assert len(await everything(store)) == len(full) + 50


@pytest.mark.promise("c46")
async def test_damaged_store_takes_nothing_that_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await offer_claims(store, 0)
        writes = standing_writes(store)
        writes.pop("try")
        monkeypatch.setattr(store._integrity, "_is_damaged", True)
        for write in writes.values():
            with pytest.raises(StoreUnavailableError, match="damaged"):
                await write()
