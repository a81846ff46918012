"""Tells waiting long polls that a request has changed."""

import asyncio
from collections import defaultdict


class Changes:
    """Waiters by request id. Nothing is kept for a request that nobody waits for."""

    def __init__(self) -> None:
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def tell(self, request_id: str) -> None:
        """Wake everyone who waits for `request_id`."""
        for waiter in self._waiters.pop(request_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def tell_all(self) -> None:
        """Wake everyone, as at shutdown."""
        for request_id in list(self._waiters):
            self.tell(request_id)

    def watch(self, request_id: str) -> asyncio.Future[None]:
        """Return a future that ends at the next change; cancel it to stop watching."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[request_id].add(waiter)
        waiter.add_done_callback(lambda done: self._forget(request_id, done))
        return waiter

    def _forget(self, request_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(request_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[request_id]
