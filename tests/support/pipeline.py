"""The pipeline at a workbench: real store, real audit log, a host in memory, a clock that is held.

`opened` gives a `Workbench`; leaving it leaves the files, so opening it again in the same directory
is a restart.
"""

import asyncio
import contextlib
import hashlib
import json
import secrets
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from host_agent.api.wire.requests import RequestView
from host_agent.audit.log import AuditLog
from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.config import Config, parse
from host_agent.errors import (
    AuditUnavailableError,
    HostAgentError,
    InvalidIdentityError,
    RevocationUnavailableError,
    RevokedIdentityError,
    StoreUnavailableError,
)
from host_agent.execution.slots import Slots
from host_agent.execution.wrappers import WrapperDigests
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Principal
from host_agent.metrics import Metrics
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Invocation, Output
from host_agent.pipeline import Context, Pipeline, Snapshot, Submission, SubmitAnswer
from host_agent.pipeline.context import refresh_contacts
from host_agent.pipeline.responses import Failed
from host_agent.policy.limits import Limits
from host_agent.requests.grant import Grant
from host_agent.requests.model import Request, State, Verb
from host_agent.store.store import RequestStore
from tests.support.audit_files import HeldClock
from tests.support.site import IDENTITIES, RULES
from tests.support.users import AsDeclared

REPOSITORY = "/srv/app"
AUTHORITY = "sha256:" + "ca" * 32
PULL: Mapping[str, JsonValue] = {"repository": REPOSITORY, "remote": "origin", "branch": "main"}
STATUS: Mapping[str, JsonValue] = {"repository": REPOSITORY}
FETCH: Mapping[str, JsonValue] = {"repository": REPOSITORY, "remote": "origin"}
RESET: Mapping[str, JsonValue] = {"repository": REPOSITORY, "ref": "main"}
ASIDE: Mapping[str, JsonValue] = {"repository": REPOSITORY, "branch": "topic"}

CHANGES = frozenset({"fetch", "pull", "switch", "reset"})
_HOLD = "1:2:3"


@dataclass
class Host(AsDeclared):
    """A repository in memory that speaks the protocol of `wrappers/git`; a `Runner`.

    `ran` are the arguments of every run. A verb in `answers` gives that output or error instead;
    a verb in `gates` waits for its event. `before` is called with each verb, first of all.
    """

    head: str = "a" * 40
    head_ref: str = "refs/heads/main"
    tip: str = "b" * 40
    ran: list[tuple[str, ...]] = field(default_factory=list)
    answers: dict[str, Output | HostAgentError] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    reached: dict[str, asyncio.Event] = field(default_factory=dict)
    before: Callable[[str], None] | None = None

    @property
    def changes(self) -> list[tuple[str, ...]]:
        """Return the runs that changed something."""
        return [run for run in self.ran if run[0] in CHANGES]

    def hold(self, verb: str) -> asyncio.Event:
        """Let the next runs of `verb` wait for the event that is returned."""
        self.reached[verb] = asyncio.Event()
        self.gates[verb] = asyncio.Event()
        return self.gates[verb]

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        verb = invocation.arguments[0]
        self.ran.append(invocation.arguments)
        if self.before is not None:
            self.before(verb)
        if verb in self.gates:
            self.reached[verb].set()
            await self.gates[verb].wait()
        scripted = self.answers.get(verb)
        if isinstance(scripted, HostAgentError):
            raise scripted
        if scripted is not None:
            return scripted
        return output(self._said(verb, invocation.arguments))

    def _said(self, verb: str, arguments: tuple[str, ...]) -> str:
        if verb == "pull":
            self.head = arguments[-1]
        elif verb == "switch":
            self.head_ref = f"refs/heads/{arguments[-2]}"
        elif verb == "status":
            return f"# branch.oid {self.head}\n# branch.head main\n"
        if verb in CHANGES:
            return "done\n"
        state = f"head {self.head}\nhead_ref {self.head_ref}\ndirty no\n"
        if verb == "state":
            return state
        facts = f"repository {_HOLD}\ngit_directory {_HOLD}\n"
        remote = "remote_url /srv/origin.git\n"
        more = {
            "inspect-fetch": remote,
            "inspect-pull": f"{state}{remote}target {self.tip}\n",
            "inspect-switch": f"{state}target {self.head}\nfile_count 0\n",
            "inspect-reset": f"{state}target {self.head}\nchanges none\nfile_count 0\n"
            "commit_count 0\n",
        }
        return facts + more[verb]


def output(stdout: str = "", *, exit_code: int = 0, stderr: str = "", **more: Any) -> Output:
    """Return what a process left behind."""
    data = stdout.encode()
    return Output(
        exit_code=exit_code,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=len(data),
        stderr_bytes=len(stderr.encode()),
        stdout_sha256=hashlib.sha256(data).hexdigest(),
        **more,
    )


@dataclass
class Revocations:
    """A revocation list in memory: names, not numbers."""

    revoked: set[int] = field(default_factory=set)
    authorities: set[str | None] = field(default_factory=lambda: {AUTHORITY})
    is_late: bool = False

    def check(self, certificate: PeerCertificate, now: datetime) -> Credential:
        credential = Credential(
            cn=certificate.common_name,
            fingerprint=certificate.fingerprint,
            serial=certificate.serial,
            issuer=AUTHORITY,
            ends=certificate.not_valid_after,
        )
        self.recheck(credential, now)
        return credential

    def is_over(self, credential: Credential, now: datetime) -> bool:
        ends = credential.ends
        return credential.issuer not in self.authorities or ends is None or now >= ends

    def recheck(self, credential: Credential, now: datetime) -> None:
        if self.is_late:
            raise RevocationUnavailableError("There is no current revocation list.")
        if credential.issuer not in self.authorities:
            raise InvalidIdentityError("The authority is not in client_ca.")
        if credential.ends is None or now >= credential.ends:
            raise InvalidIdentityError("The certificate has expired.")
        if credential.serial in self.revoked:
            raise RevokedIdentityError("The certificate is revoked.")


class FaultyAudit(AuditLog):
    """The real log, but for the events in `refused`: those cannot be written.

    A hook of `before` runs once, before the next record of its event.
    """

    refused: frozenset[Event] = frozenset()
    before: tuple[Event, Callable[[], Awaitable[None]]] | None = None

    async def append(self, event: Event, **fields: Any) -> int:
        if self.before is not None and self.before[0] is event:
            hook, self.before = self.before[1], None
            await hook()
        if event in self.refused:
            message = "The audit log cannot be written (no room), so nothing was run."
            raise AuditUnavailableError(message)
        return await super().append(event, **fields)


class FaultyStore(RequestStore):
    """The real store, but for the methods in `refused`, with a hook around the next transition.

    `refused` holds `transition`, `remember` and so on, or `transition:failed` for one new state.
    `before_transition` is where somebody else may be quicker; `after_transition` where it is stored
    and not told yet.
    """

    refused: frozenset[str] = frozenset()
    before_transition: Callable[[Request], Awaitable[None]] | None = None
    after_transition: Callable[[], object] | None = None

    def _refuse(self, *names: str) -> None:
        if not self.refused.isdisjoint(names):
            raise StoreUnavailableError("The request store is locked; try again.")

    async def transition(
        self, request: Request, *, expected_version: int, grant: Grant | None = None
    ) -> bool:
        hook, self.before_transition = self.before_transition, None
        if hook is not None:
            await hook(request)
        self._refuse("transition", f"transition:{request.state}")
        won = await super().transition(request, expected_version=expected_version, grant=grant)
        after, self.after_transition = self.after_transition, None
        if after is not None:
            after()
        return won

    async def remember(self, caller: str, key: str, **named: Any) -> None:
        self._refuse("remember")
        await super().remember(caller, key, **named)

    async def due(self, now: datetime) -> list[Request]:
        self._refuse("due")
        return await super().due(now)


@dataclass
class Workbench:
    """The pipeline and everything around it that a test may bend."""

    directory: Path
    clock: HeldClock
    host: Host
    revocations: Revocations
    store: FaultyStore
    audit: FaultyAudit
    context: Context
    pipeline: Pipeline
    lasts: dict[str, timedelta] = field(default_factory=dict)
    """How long a certificate is good from the moment at which it is presented; 90 days."""

    # -- people -----------------------------------------------------------------------------------

    def certificate(self, cn: str) -> PeerCertificate:
        """Return the certificate that `cn` presents, always the same one."""
        return PeerCertificate(
            common_name=cn,
            serial=serial_of(cn),
            fingerprint="sha256:" + hashlib.sha256(cn.encode()).hexdigest(),
            not_valid_before=self.clock.now(),
            not_valid_after=self.clock.now() + self.lasts.get(cn, timedelta(days=90)),
            der=b"",
        )

    def who(self, cn: str) -> Principal:
        """Return the principal `cn`, identified now."""
        return self.pipeline.identify(self.certificate(cn))

    # -- what they do -----------------------------------------------------------------------------

    async def ask(
        self,
        operation: str = "git.pull",
        params: Mapping[str, JsonValue] = PULL,
        *,
        by: str = "deployer",
        reason: str | None = None,
        key: str | None = None,
        body: str | None = None,
        exchange_id: str | None = None,
        dry_run: bool = False,
    ) -> SubmitAnswer:
        """Ask for an operation. `body` stands for the bytes that came, for a key.

        A run that failed raises its error, as it does for a client.
        """
        text = body or json.dumps([operation, dict(params), reason])
        answer = await self.pipeline.asks.submit(
            self.who(by),
            Submission(
                operation=operation,
                params=params,
                exchange_id=exchange_id or secrets.token_hex(16),
                body_sha256=hashlib.sha256(text.encode()).hexdigest(),
                reason=reason,
                idempotency_key=key,
                dry_run=dry_run,
            ),
        )
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    async def held(self, *, by: str = "deployer", **asked: Any) -> Request:
        """Ask for what needs a person, and return the stored request."""
        answer = await self.ask(by=by, **asked)
        return await self.request(str(answer.body["request_id"]))

    async def decide(
        self, request: Request, verb: Verb = Verb.APPROVE, *, by: str = "alice", **named: Any
    ) -> RequestView:
        """Decide on a request, repeating its digest."""
        digest = named.pop("digest", request.digest)
        return await self.pipeline.decisions.decide(
            self.who(by),
            named.pop("request_id", request.id),
            decision=verb,
            digest=digest,
            reason=named.pop("reason", None),
            channel="http",
            grant=named.pop("grant", None),
            not_before=named.pop("not_before", None),
        )

    # -- what came of it --------------------------------------------------------------------------

    async def request(self, request_id: str) -> Request:
        """Return a stored request."""
        found = await self.store.get(request_id)
        if found is None:
            message = f"there is no request {request_id}"
            raise LookupError(message)
        return found

    async def state(self, request: Request) -> State:
        """Return the state in which a request is stored."""
        return (await self.request(request.id)).state

    async def settle(self) -> None:
        """Wait until nothing is under way any more."""
        if await self.context.tasks.drain(10):
            message = "something did not end"
            raise TimeoutError(message)

    def records(self) -> list[dict[str, Any]]:
        """Return the audit records so far."""
        lines = (self.directory / "state" / "audit.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    def events(self) -> list[str]:
        """Return the names of the audit events so far."""
        return [record["event"] for record in self.records()]

    def steps(self) -> list[str]:
        """Return the same without the inspections: what became of what was asked."""
        return [event for event in self.events() if event != Event.OPERATION_INSPECTED]

    def last(self, event: Event) -> dict[str, Any]:
        """Return the newest record of `event`."""
        return [record for record in self.records() if record["event"] == event][-1]

    # -- the world --------------------------------------------------------------------------------

    def reconfigure(self, **changed: str) -> None:
        """Let another configuration serve, as a reload does."""
        self.context.snapshot = Snapshot.of(configuration(self.directory, **changed))

    async def reload(self, **changed: str) -> None:
        """Let another configuration serve, and the book that belongs to it."""
        self.reconfigure(**changed)
        await refresh_contacts(self.context)

    def change_wrapper(self) -> None:
        """Put other bytes into the wrapper's file."""
        path = self.directory / "wrappers" / "git"
        path.write_text(path.read_text() + "# changed\n")


def serial_of(cn: str) -> int:
    """Return the serial number of the certificate of `cn`."""
    return int.from_bytes(hashlib.sha256(cn.encode()).digest()[:8], "big")


def configuration(
    directory: Path,
    *,
    rules: str = RULES,
    identities: str = IDENTITIES,
    limits: str = "",
    approvals: str = "",
    cooldowns: str = "[]",
    execution: str = "",
    people: str = "",
    git: str = f"""
[[git.repositories]]
path = "{REPOSITORY}"
remotes = ["origin"]
branches = ["main", "topic"]
""",
) -> Config:
    """Return a configuration of `directory`, in which the wrapper and the state are."""
    for folder in ("pki", "wrappers", "state"):
        (directory / folder).mkdir(mode=0o700, exist_ok=True)
    for file in ("server.crt", "server.key", "ca.crt", "hook", "bridge"):
        (directory / "pki" / file).touch(mode=0o600)
    wrapper = directory / "wrappers" / "git"
    if not wrapper.exists():
        wrapper.write_text("#!/bin/sh\n")
        wrapper.chmod(0o755)
    text = f"""
[limits]
{limits}
[approvals]
denial_cooldowns_seconds = {cooldowns}
{approvals}
[server]
certificate = "pki/server.crt"
private_key = "pki/server.key"
client_ca = "pki/ca.crt"
[execution]
runner = "direct"
wrapper_dir = "wrappers"
{execution}
{identities}
{rules}
{git}
{people}
"""
    return parse(tomllib.loads(text), base=directory)


@contextlib.asynccontextmanager
async def opened(
    directory: Path,
    *,
    clock: HeldClock | None = None,
    host: Host | None = None,
    **configured: str,
) -> AsyncIterator[Workbench]:
    """Open a workbench in `directory`; what an earlier one left there is still there."""
    config = configuration(directory, **configured)
    clock = clock or HeldClock()
    store = FaultyStore(config.store.path)
    audit = FaultyAudit(
        config.audit.path,
        max_bytes=config.audit.max_bytes,
        retain_days=config.audit.retain_days,
        clock=clock,
    )
    revocations = Revocations()
    host = host or Host()
    async with contextlib.AsyncExitStack() as exits:
        await audit.open()
        exits.push_async_callback(audit.close)
        await store.open()
        exits.push_async_callback(store.close)
        context = Context(
            snapshot=Snapshot.of(config),
            clock=clock,
            catalogue=CATALOGUE,
            revocation=revocations,
            limits=Limits(config.limits),
            store=store,
            runner=host,
            wrappers=WrapperDigests(config.execution.wrapper_dir),
            slots=Slots(config.execution.max_concurrent),
            audit=audit,
            metrics=Metrics(spec.name for spec in CATALOGUE),
        )
        bench = Workbench(
            directory=directory,
            clock=clock,
            host=host,
            revocations=revocations,
            store=store,
            audit=audit,
            context=context,
            pipeline=Pipeline(context),
        )
        await refresh_contacts(context)
        try:
            yield bench
        finally:
            for gate in host.gates.values():
                gate.set()
            await context.tasks.drain(5)
