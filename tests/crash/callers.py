"""Callers and approvers over mutual TLS: they wish, ask again, decide, follow, and note answers."""

import asyncio
import json
import random
from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import httpx

from tests.crash.ledger import ENDED, RANK, VOICES, Kind, Ledger, Wish
from tests.crash.place import PEOPLE, Place

WORKERS = 5
OPEN_WISHES = 16
"""How many wishes are under way before old ones go before new ones."""
CHOICES: dict[Kind, int] = {
    Kind.READ: 2,
    Kind.CHANGE: 5,
    Kind.APPROVE: 6,
    Kind.DENY: 3,
    Kind.RACE: 2,
    Kind.QUORUM: 3,
    Kind.VETO: 2,
    Kind.CANCEL: 2,
    Kind.EXPIRE: 3,
    Kind.LEAVE: 1,
}
"""How often each kind is wished for, against the others."""


class GoneError(Exception):
    """The connection is lost: the agent is dead, or as good as that."""


class BrokenPromiseError(Exception):
    """An answer that contradicts an earlier one, or that no working agent gives."""


class Callers:
    """Everybody who talks to one living agent."""

    def __init__(self, place: Place, ledger: Ledger, url: str, chance: random.Random) -> None:
        self._place = place
        self._ledger = ledger
        self._url = url
        self._chance = chance
        self._is_over = False
        self.steps = 0
        self._exits = AsyncExitStack()
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        for cn in PEOPLE:
            client = self._place.client(self._url, cn)
            self._clients[cn] = await self._exits.enter_async_context(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    # -- what they do -----------------------------------------------------------------------------

    async def check(self) -> None:
        """Look at everything that was told and has not ended: it is there, and nothing is lost."""
        known = [w for w in self._ledger.wishes.values() if w.request_id and not w.is_settled]
        for begin in range(0, len(known), WORKERS):
            await _together(self._look(wish) for wish in known[begin : begin + WORKERS])

    async def work(self) -> None:
        """Wish, and follow wishes, until the agent is gone or an answer is wrong."""
        waiting = deque(self._ledger.unsettled)
        await _together(self._work(waiting) for _ in range(WORKERS))

    async def finish(self) -> None:
        """Follow every wish to its end; nothing new is wished for."""
        rounds = 0
        while rest := [wish for wish in self._ledger.unsettled if wish.kind is not Kind.LEAVE]:
            rounds += 1
            if rounds > 4000:
                stuck = ", ".join(f"{wish.name} ({wish.kind}) {wish.state}" for wish in rest[:10])
                message = f"does not come to its end: {stuck}"
                raise BrokenPromiseError(message)
            for begin in range(0, len(rest), WORKERS):
                await _together(self._advance(wish) for wish in rest[begin : begin + WORKERS])
            await asyncio.sleep(0.02)

    async def _work(self, waiting: deque[Wish]) -> None:
        while not self._is_over:
            is_old = waiting and (len(waiting) >= OPEN_WISHES or self._chance.random() < 0.6)
            wish = waiting.popleft() if is_old else self._ledger.wish(self._choose())
            try:
                await self._advance(wish)
            except BaseException:
                self._is_over = True
                raise
            finally:
                if not wish.is_settled:
                    waiting.append(wish)

    def _choose(self) -> Kind:
        return self._chance.choices(list(CHOICES), list(CHOICES.values()))[0]

    # -- one wish ---------------------------------------------------------------------------------

    async def _advance(self, wish: Wish) -> None:
        """Take the next step that its caller or an approver would take."""
        self.steps += 1
        if wish.request_id is None:
            await self._ask(wish)
        elif wish.state != "pending":
            await self._look(wish, wait=2)
        elif wish.kind in VOICES:
            await self._speak(wish)
        elif wish.kind is Kind.CANCEL:
            await self._cancel(wish)
        else:
            await self._look(wish)

    async def _ask(self, wish: Wish) -> None:
        if wish.kind is Kind.READ:
            wish.is_settled = True  # a read is not asked for again: nothing says whether it ran
            answer = await self._post(wish.caller, "/host/op", wish.body(self._place))
            self._require(answer, wish, 200)
            wish.told_done = True
            return
        key = {"Idempotency-Key": wish.name}
        answer = await self._post(wish.caller, "/host/op", wish.body(self._place), key)
        self._require(answer, wish, 200, 202)
        told = answer.json()
        wish.request_id, wish.digest = told["request_id"], told["digest"]
        if answer.status_code == 200:
            wish.told_done = wish.is_settled = True
            wish.state = told["state"]
            return
        wish.told_held = wish.kind is not Kind.CHANGE
        await self._look(wish)

    async def _speak(self, wish: Wish) -> None:
        voices = VOICES[wish.kind]
        if not wish.has_attached and self._chance.random() < 0.2:
            await self._attach(wish)
        if wish.kind is Kind.RACE:
            await _together(self._decide(wish, *voice) for voice in voices)
        else:
            heard = len(wish.told_voices)
            await self._decide(wish, *voices[min(heard, len(voices) - 1)])
        await self._look(wish)

    async def _attach(self, wish: Wish) -> None:
        """Ask the same again, without the key, while it is pending: the same request comes back."""
        wish.has_attached = True
        answer = await self._post(wish.caller, "/host/op", wish.body(self._place))
        self._require(answer, wish, 202)
        if answer.json()["request_id"] != wish.request_id:
            message = f"{wish.name}: the same ask while pending made another request"
            raise BrokenPromiseError(message)

    async def _decide(self, wish: Wish, approver: str, verb: str) -> None:
        body = json.dumps({"decision": verb, "digest": wish.digest}).encode()
        answer = await self._post(approver, f"/requests/{wish.request_id}/decision", body)
        self._require(answer, wish, 200, 409)
        view = answer.json()
        if answer.status_code == 409:
            view = view.get("request") or {}
            if (approver, verb) not in _voices(view):
                return
        # Told now, or asked again because the first answer was lost and told by the request itself.
        wish.told_voices.add((approver, verb))

    async def _cancel(self, wish: Wish) -> None:
        answer = await self._post(wish.caller, f"/requests/{wish.request_id}/cancel", b"")
        self._require(answer, wish, 200, 409)
        wish.told_cancelled = wish.told_cancelled or answer.status_code == 200
        await self._look(wish)

    async def _look(self, wish: Wish, *, wait: int = 0) -> None:
        query = f"?wait={wait}" if wait else ""
        answer = await self._get("root-admin", f"/requests/{wish.request_id}{query}")
        if answer.status_code == 404:
            message = f"{wish.name}: request {wish.request_id} was told and is not found"
            raise BrokenPromiseError(message)
        self._require(answer, wish, 200)
        view = answer.json()
        wrong = wish.observe(view["state"], _voices(view))
        if wrong:
            message = f"{wish.name} ({wish.kind}, {wish.request_id}): {'; '.join(wrong)}"
            raise BrokenPromiseError(message)
        wish.is_settled = RANK.get(wish.state, ENDED) == ENDED

    # -- HTTP -------------------------------------------------------------------------------------

    async def _post(
        self, cn: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        typed = {"Content-Type": "application/json"} if body else {}
        return await self._send(
            self._clients[cn].build_request(
                "POST", path, content=body, headers={**typed, **(headers or {})}
            ),
            cn,
        )

    async def _get(self, cn: str, path: str) -> httpx.Response:
        return await self._send(self._clients[cn].build_request("GET", path), cn)

    async def _send(self, request: httpx.Request, cn: str) -> httpx.Response:
        try:
            return await self._clients[cn].send(request)
        except httpx.TimeoutException as error:
            message = f"no answer in time to {request.method} {request.url.path}"
            raise BrokenPromiseError(message) from error
        except httpx.TransportError as error:
            raise GoneError from error

    @staticmethod
    def _require(answer: httpx.Response, wish: Wish, *statuses: int) -> None:
        if answer.status_code not in statuses:
            request = answer.request
            message = (
                f"{wish.name} ({wish.kind}): {request.method} {request.url.path} was answered "
                f"{answer.status_code}: {answer.text[:400]}"
            )
            raise BrokenPromiseError(message)


def _voices(view: dict[str, Any]) -> set[tuple[str, str]]:
    return {(entry["approver"], entry["decision"]) for entry in view.get("decisions", ())}


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all to their ends; then raise what went wrong, a broken promise before a lost connection.

    Nothing is cancelled: that would leave connections open that are being made.
    """
    ends = await asyncio.gather(*works, return_exceptions=True)
    failures = [end for end in ends if isinstance(end, BaseException)]
    failures.sort(key=lambda failure: isinstance(failure, GoneError))
    if failures:
        raise failures[0]
