"""What the agent looks at by itself: the revocation list, the audit file, the clock, old requests.

A part of `agent`, which starts it and names what it works with.
"""

import asyncio
import contextlib
import logging
from datetime import timedelta

from host_agent.audit.log import AuditLog
from host_agent.audit.record import Event
from host_agent.clock import SystemClock
from host_agent.errors import HostAgentError, StoreUnavailableError
from host_agent.identity.revocation import Revocation
from host_agent.pipeline import Pipeline
from host_agent.pipeline.fatigue import LONGEST_NOT_BEFORE

WATCH_SECONDS = 1.0
"""How often the revocation list, the audit file and the clock are looked at."""
PURGE_SECONDS = 3600.0
"""How often finished requests past their retention are removed."""
_log = logging.getLogger("host_agent.agent")


class Watch:
    """Looks once a second, and once an hour. Nothing that it meets ends it."""

    def __init__(self, pipeline: Pipeline, audit: AuditLog) -> None:
        self._pipeline = pipeline
        self._context = pipeline.context
        self._audit = audit
        self._may_have_gone = False

    async def end_unwelcome(self) -> None:
        """End what the unwelcome have begun; the watch tries again if it fails."""
        self._may_have_gone = True
        try:
            await self._pipeline.end_unwelcome()
        except HostAgentError as error:
            _log.error("requests of callers who are gone are still pending: %s", error.detail)
        else:
            self._may_have_gone = False

    async def watch_forever(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.look()
            except HostAgentError as error:
                _log.error("the watch failed: %s", error.detail)
            except Exception:  # noqa: BLE001 - or nobody would look at the list any more
                _log.exception("the watch failed")

    async def purge_forever(self) -> None:
        """Remove finished requests past their retention every hour, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailableError):
                await self.purge()
            await asyncio.sleep(PURGE_SECONDS)

    async def purge(self) -> None:
        """Remove finished requests past their retention, and none whose denial may still hold.

        Raises:
            StoreUnavailableError: nothing is removed.
        """
        retained = timedelta(days=self._context.snapshot.config.audit.retain_days)
        kept = max(retained, LONGEST_NOT_BEFORE)
        await self._context.store.purge(self._context.clock.now() - kept)

    async def look(self) -> None:
        self._audit.reopen()  # a removed or renamed file is noticed also when nothing is written
        await self._look_at_revocation()
        if self._may_have_gone:
            await self.end_unwelcome()
        await self._pipeline.record_suppressed()
        clock = self._context.clock
        jump = clock.jump() if isinstance(clock, SystemClock) else None
        if jump is not None:
            _log.warning("the wall clock was set by %+.1f s", jump.total_seconds())
            seconds = round(jump.total_seconds())
            await self._context.audit.append(Event.CLOCK_JUMPED, seconds=seconds)

    async def _look_at_revocation(self) -> None:
        revocation = self._context.revocation
        if not isinstance(revocation, Revocation):
            return
        news = await asyncio.to_thread(revocation.refresh, self._context.clock.wall())
        self._context.metrics.crl_file(is_used=revocation.complaint is None)
        if isinstance(news, str):
            _log.error("revocation list: %s", news)
            await self._context.audit.append(Event.CONFIG_REJECTED, faults=[news])
        elif news:
            _log.info("a new revocation list serves")
            self._context.metrics.crl_expires(revocation.next_update)
            self._may_have_gone = True
            await self._context.audit.append(Event.CONFIG_LOADED, detail="a new revocation list")
