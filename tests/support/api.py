"""The API over a real pipeline: asked in memory, or over TLS through a `Door` for its `app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from host_agent.api.app import create_app
from host_agent.api.openapi import document_bytes
from host_agent.api.route import Services
from host_agent.api.wire.host import Readiness, SudoersReport
from host_agent.api.wire.people import RenewalAnswer
from host_agent.errors import RenewalNotOfferedError
from host_agent.http.exchange import Application
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal
from host_agent.operations import CATALOGUE
from tests.support.answers import parts
from tests.support.asgi import Reply, ask
from tests.support.people import BRIDGE, IDENTITIES_AND_BRIDGE, PEOPLE
from tests.support.pipeline import STATUS, Workbench, opened

PULL = {
    "operation": "git.pull",
    "params": {"repository": STATUS["repository"], "remote": "origin", "branch": "main"},
    "reason": "new release",
}
LOOK = {"operation": "git.status", "params": dict(STATUS)}
SECRET = b"s" * 32


@dataclass
class Api:
    """A workbench, and the application over it. `parts` are what readiness tells."""

    bench: Workbench
    parts: dict[str, Any] = field(default_factory=parts)

    @property
    def app(self) -> Application:
        """Return the application."""
        return create_app(
            Services(
                pipeline=self.bench.pipeline,
                ready=self._ready,
                sudoers=self._sudoers,
                renew=self._renew,
                document=partial(document_bytes, CATALOGUE),
            )
        )

    async def _ready(self) -> Readiness:
        return Readiness.model_validate(self.parts)

    async def _renew(
        self, principal: Principal, _peer: PeerCertificate, request: str, _proof: str
    ) -> RenewalAnswer:
        if request == "refused":
            message = "This host takes no renewals."
            raise RenewalNotOfferedError(message)
        return RenewalAnswer(state="signed", certificate=f"{principal.cn}: {request}")

    async def _sudoers(self) -> SudoersReport:
        return SudoersReport(scan_ok=True, entries=(), scanned_at=self.bench.clock.now())

    async def __call__(
        self, method: str, target: str, cn: str | None = "deployer", **more: Any
    ) -> Reply:
        """Ask as `cn`, or as `who` in `more`."""
        who: PeerCertificate | None = None if cn is None else self.bench.certificate(cn)
        return await ask(self.app, method, target, **{"who": who, **more})

    async def held(self) -> dict[str, Any]:
        """Have a request held, and return the answer."""
        reply = await self("POST", "/host/op", body=PULL)
        assert reply.status == 202, reply.body
        return reply.json

    async def state(self, request_id: str) -> str:
        """Return the state in which a request is stored."""
        return str((await self.bench.request(request_id)).state)

    def refusals(self) -> list[tuple[str, str | None, str | None]]:
        """Return code, caller and operation of every refusal that is in the audit log."""
        return [
            (record["code"], record.get("caller"), record.get("operation"))
            for record in self.bench.records()
            if record["event"] in ("request.refused", "identity.refused", "policy.denied")
        ]

    async def is_untouched(self) -> bool:
        """Return whether nothing was asked of the host, and nothing was stored."""
        page = await self.bench.store.list(state=None, caller=None, limit=1, cursor=None)
        return not self.bench.host.ran and not page[0]


@asynccontextmanager
async def api(directory: Path, **configured: Any) -> AsyncIterator[Api]:
    """Open a workbench with people, a bridge, and the API over it."""
    directory.mkdir(exist_ok=True)
    known: dict[str, Any] = {"people": PEOPLE + BRIDGE, "identities": IDENTITIES_AND_BRIDGE}
    async with opened(directory, **{**known, **configured}) as bench:
        bench.context.bridge_secrets = {"chat-bridge": (SECRET,)}
        yield Api(bench)
