"""A second agent's store in a process of its own, for tests that race it or kill it.

`python store_process.py MODE PATH SIDE_FILE [NUMBER]`. What it has done goes to standard output,
line by line, after the store has said that it is done. SIDE_FILE stands for the host: a line there
is an operation that ran.
"""

import asyncio
import os
import random
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from host_agent.errors import HostAgentError, StoreUnavailableError
from host_agent.requests import model as machine
from host_agent.requests.model import Request, RequestId, State, Verb
from host_agent.requests.notification import Contact, DeliveryState
from host_agent.store.nonces import Spent
from host_agent.store.store import RequestStore
from tests.support.stored_requests import NOW, a_decision, a_request

NOBODY = 65534


class Host:
    """The file that shows what ran, appended to as one write each."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def run(self, request: Request) -> None:
        os.write(self._descriptor, f"{request.id}\n".encode())


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def move(store: RequestStore, before: Request, after: Request) -> bool:
    """Try one step; where the other processes hold the lock for too long, try again."""
    while True:
        try:
            return await store.transition(after, expected_version=before.version)
        except StoreUnavailableError:
            continue


async def work_until_killed(store: RequestStore, host: Host, number: int) -> None:
    """Ask, approve, start and run one request after the other."""
    await store.insert(
        a_request(number, id=RequestId(f"first-{number}")),
        max_pending=10_000,
        max_pending_per_caller=10_000,
    )
    say("ready")
    for index in range(1, 100_000):
        request = a_request(number + index, id=RequestId(f"{number}-{index}"))
        await store.insert(request, max_pending=100_000, max_pending_per_caller=100_000)
        say("asked", request.id)
        approved = machine.approve(
            request, a_decision(), roles=["approver"], digest=request.digest, now=NOW
        )
        await move(store, request, approved)
        say("approved", request.id)
        running = machine.start(approved, now=NOW)
        if await move(store, approved, running):
            host.run(running)


async def race(store: RequestStore, host: Host, number: int) -> None:
    """Decide on all that is pending, each process in its own way, and run what is approved."""
    say("ready")
    sys.stdin.readline()
    for request in await store.live():
        await contend(store, host, request, number)


async def contend(store: RequestStore, host: Host, request: Request, number: int) -> None:
    how = number % 4
    try:
        if how == 0:
            after = machine.cancel(request, problem=None, now=NOW)
        elif how == 1:
            after = machine.expire(request, now=request.expires_at + timedelta(seconds=1))
        else:
            verb = Verb.APPROVE if how == 2 else Verb.DENY
            spoken = a_decision(f"owner{number}", verb)
            after = machine.decide(
                request, spoken, roles=["approver"], digest=request.digest, now=NOW
            )
    except HostAgentError:
        return
    if await move(store, request, after):
        say("won", request.id, after.state.value)
    # Whoever sees it approved tries to run it, as after a restart.
    latest = await store.get(request.id)
    if latest is not None and latest.state is State.APPROVED:
        running = machine.start(latest, now=NOW)
        if await move(store, latest, running):
            host.run(running)


async def claim(store: RequestStore, _host: Host, number: int) -> None:
    """Take what one of several processes can take, in an order of this process's own."""
    say("ready")
    sys.stdin.readline()
    claims = [(what, index) for what in CLAIMS for index in range(CLAIMED)]
    random.Random(number).shuffle(claims)
    for what, index in claims:
        while True:
            try:
                won = await CLAIMS[what](store, index, number)
                break
            except StoreUnavailableError:
                continue
        if won:
            say("won", what, str(index))


CLAIMED = 60
"""How many of each there are."""


async def use_grant(store: RequestStore, index: int, _number: int) -> bool:
    return await store.use_grant(f"grant-{index}", NOW)


async def revoke_grant(store: RequestStore, index: int, number: int) -> bool:
    revoked = await store.revoke_grant(f"standing-{index}-", by=f"by-{number}", now=NOW)
    return revoked is not None


async def enrol(store: RequestStore, index: int, number: int) -> bool:
    address = f"aci-{index}-{number}"
    return await store.enrol("signal", address, code_hash=f"code-{index}", now=NOW) is not None


async def put_contact(store: RequestStore, index: int, number: int) -> bool:
    """Two owners want one address."""
    owner = f"owner-{index}-{number}"
    contact = Contact(owner=owner, channel="webhook", address=f"u{index}", since=NOW)
    return await store.put_contact(contact)


async def spend_nonce(store: RequestStore, index: int, _number: int) -> bool:
    spent = await store.spend_nonce(
        "bridge", f"nonce-{index}", expires_at=NOW, now=NOW, capacity=CLAIMED
    )
    return spent is Spent.NEW


async def settle(store: RequestStore, index: int, number: int) -> bool:
    (waiting,) = await store.notifications_of(a_request(index).id)
    tried = replace(
        waiting,
        state=DeliveryState.DELIVERED,
        tries=1,
        delivered_at=NOW,
        reference=f"{index}-{number}",
    )
    return await store.settle_notification(tried, expected_tries=0)


CLAIMS = {
    "grant": use_grant,
    "revoked": revoke_grant,
    "enrolment": enrol,
    "contact": put_contact,
    "nonce": spend_nonce,
    "try": settle,
}


async def try_to_open(store: RequestStore) -> None:
    """Say whether the store opens for an ordinary user, and if not, why."""
    if os.geteuid() == 0:
        with tempfile.TemporaryDirectory() as directory:
            # Everything that is imported on the way is imported as root.
            warm = RequestStore(Path(directory, "warm.db"))
            await warm.open()
            await warm.close()
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        await store.open()
    except StoreUnavailableError as error:
        say("refused", error.detail)
    else:
        say("open")
        await store.close()


async def main() -> None:
    mode, path, side_file, number = (*sys.argv[1:], "0")[:4]
    store = RequestStore(Path(path))
    if mode == "open":
        await try_to_open(store)
        return
    await store.open()
    work = {"work": work_until_killed, "race": race, "claim": claim}[mode]
    await work(store, Host(side_file), int(number))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
