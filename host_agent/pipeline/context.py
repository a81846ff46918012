"""What the pipeline works with: its services, and the configuration as one frozen value.

Everything below `pipeline` meets here and nowhere else. Concrete classes are named in `agent`.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from host_agent.audit.recent import Recent
from host_agent.audit.record import Event
from host_agent.canonical import JsonValue, canonical_json
from host_agent.clock import Clock
from host_agent.config import Config, IdentityEntry
from host_agent.errors import AuditUnavailableError, HostAgentError
from host_agent.execution.runner import Runner
from host_agent.execution.slots import Slots
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Principal, Registry
from host_agent.metrics import Metrics
from host_agent.operations.catalogue import Catalogue, OperationSpec
from host_agent.pipeline.contacts import Contacts
from host_agent.policy.limits import Limits
from host_agent.policy.rules import Rules
from host_agent.requests.model import Decision, Request
from host_agent.store.store import RequestStore
from host_agent.text import sha256_digest

_T = TypeVar("_T")
_log = logging.getLogger("host_agent.pipeline")


class AuditPort(Protocol):
    """The audit log as the pipeline uses it: a record is on disk when `append` returns."""

    @property
    def healthy(self) -> bool:
        """Return whether the last record could be written."""
        ...

    @property
    def head(self) -> str:
        """Return the newest hash of the chain."""
        ...

    @property
    def sequence(self) -> int: ...

    async def append(self, event: Event, **fields: Any) -> int:
        """Write one record and return its sequence.

        Raises:
            AuditUnavailableError: it is not on disk.
        """
        ...

    async def recent(self) -> Recent:
        """Return the newest records, as far back as a start has to look for what is missing.

        Raises:
            AuditUnavailableError: they cannot be read.
        """
        ...


class RevocationPort(Protocol):
    """Asked about every request, and again right before an approved one runs."""

    def check(self, certificate: PeerCertificate, now: datetime) -> Credential:
        """Return a certificate as it is to be remembered, or raise an `IdentityError`."""
        ...

    def recheck(self, credential: Credential, now: datetime) -> None:
        """Return if a certificate that is remembered would still be let in, or raise."""
        ...

    def is_over(self, credential: Credential, now: datetime) -> bool:
        """Return whether it is over for good: it has ended, or its authority is replaced."""
        ...


class WrapperPort(Protocol):
    """Hashes of the wrapper files as they are now."""

    def digest_all(self, wrappers: Sequence[str]) -> str:
        """Return `sha256:` and the hash of the file, or over the hashes of several.

        Raises:
            AdapterUnavailableError: it is missing or unsafe.
        """
        ...


class PluginPort(Protocol):
    """Asked before a yes counts. It can only refuse."""

    async def require(self, request: Request, decision: Decision) -> None:
        """Return if the approver may approve this.

        Raises:
            RoleRequiredError: the plugin refuses, or gives no clear answer in time.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One configuration and what is made of it; an ask sees exactly one."""

    config: Config
    registry: Registry
    rules: Rules
    identities: Mapping[str, IdentityEntry]

    @classmethod
    def of(cls, config: Config) -> "Snapshot":
        """Return what the pipeline judges by under `config`."""
        return cls(
            config=config,
            registry=Registry(config.identities),
            rules=Rules(config.rules),
            identities={identity.cn: identity for identity in config.identities},
        )

    def section(self, spec: OperationSpec) -> BaseModel | None:
        """Return the adapter's configuration section, or None where it is not configured."""
        section: BaseModel | None = getattr(self.config, spec.adapter, None)
        return section

    def identity(self, cn: str) -> IdentityEntry | None:
        """Return the configuration's entry for `cn`."""
        return self.identities.get(cn)


class Changes:
    """Who waits for the change of a request, by its id. Nothing is kept where nobody waits."""

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


class Tasks:
    """Work that outlives the exchange that started it, and is waited for at shutdown.

    A client that goes away cancels its handler, not this. An error that nobody awaits is logged.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Start `work` and keep it until it ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def shielded(self, work: Coroutine[Any, Any, _T], *, name: str) -> _T:
        """Return the result of `work`; if the caller is cancelled, `work` goes on to its end."""
        return await asyncio.shield(self.start(work, name=name))

    async def drain(self, seconds: float) -> int:
        """Wait up to `seconds` for everything; cancel the rest and return how many those were."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        # What runs may start more, as a decision starts its run: that has its time too.
        while self._running and (rest := end - clock()) > 0:
            await asyncio.wait(set(self._running), timeout=rest)
        left = set(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=5)
        return len(left)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, HostAgentError):
            _log.error("%s failed", task.get_name(), exc_info=error)


@dataclass(slots=True, kw_only=True)
class Context:
    """The collaborators of the pipeline. `snapshot` is replaced whole on reload.

    `contacts` says where people are reached, `wake_outbox` that there is something to send, and
    `bridge_secrets` holds the secrets that each bridge signs with, by its common name.
    """

    snapshot: Snapshot
    clock: Clock
    catalogue: Catalogue
    revocation: RevocationPort
    limits: Limits
    store: RequestStore
    runner: Runner
    wrappers: WrapperPort
    slots: Slots
    audit: AuditPort
    metrics: Metrics
    contacts: Contacts = field(default_factory=Contacts)
    contacts_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from reading who is enrolled until `contacts` has it: no older look comes later."""
    plugin: PluginPort | None = None
    bridge_secrets: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    wake_outbox: Callable[[], None] = field(default=lambda: None)
    changes: Changes = field(default_factory=Changes)
    tasks: Tasks = field(default_factory=Tasks)
    is_draining: bool = False


def audit_fields(
    *,
    request_id: str | None = None,
    caller: str | None = None,
    fingerprint: str | None = None,
    owner: str | None = None,
    operation: str | None = None,
    resource: str | None = None,
    params: Mapping[str, JsonValue] | None = None,
    digest: str | None = None,
    grant: str | None = None,
) -> dict[str, JsonValue]:
    """Return the audit fields that say who asked, what, and under which id, as far as is known."""
    fields: dict[str, JsonValue] = {
        "request_id": request_id,
        "caller": caller,
        "fingerprint": fingerprint,
        "owner": owner,
        "operation": operation,
        "resource": resource,
        "params": params,
        "digest": digest,
        "grant": grant,
    }
    return {name: value for name, value in fields.items() if value is not None}


def identify_request(request: Request) -> dict[str, JsonValue]:
    """Return the audit fields that name a stored request."""
    return audit_fields(
        request_id=request.id,
        caller=request.caller,
        fingerprint=request.fingerprint,
        owner=request.owner,
        operation=request.operation,
        resource=request.resource,
        params=request.params,
        digest=request.digest,
    )


def preview_hash(request: Request) -> str | None:
    """Return `sha256:` and the hash of the preview that people were shown, in canonical form."""
    if request.preview is None:
        return None
    return sha256_digest(canonical_json(request.preview))


def welcome(context: Context, credential: Credential) -> Principal:
    """Return whose certificate `credential` is, if it would be let in as things are now.

    The one question for whatever somebody did or began with a certificate: requests, consents,
    grants, streams. Authority, end, revocation, registration and pin are asked.

    Raises:
        IdentityError: it would not be let in, or that cannot be asked.
    """
    context.revocation.recheck(credential, context.clock.wall())
    return context.snapshot.registry.recall(credential)


_NOTHING_HAPPENED = frozenset(
    {
        *(Event.IDENTITY_REFUSED, Event.POLICY_DENIED, Event.REQUEST_REFUSED),
        *(Event.DECISION_REFUSED, Event.SUDOERS_CHANGED),
    }
)
"""Nobody's step is lost where one of these is: that is an error, any other is critical."""


async def record(context: Context, event: Event, what: str, /, **fields: JsonValue) -> bool:
    """Record what stands whether or not the audit log takes it; return whether it did.

    Where it did not, the agent's own log says that `what` is missing. What must not happen
    unrecorded is appended to `context.audit` itself, which raises.
    """
    try:
        await context.audit.append(event, **fields)
    except AuditUnavailableError:
        level = logging.ERROR if event in _NOTHING_HAPPENED else logging.CRITICAL
        _log.log(level, "%s is not in the audit log", what)
        return False
    return True


async def refresh_contacts(context: Context) -> None:
    """Read anew who is enrolled, after a change of that or of the configuration.

    Raises:
        StoreUnavailableError: that cannot be read; the contacts stay as they were.
    """
    async with context.contacts_lock:
        contacts = await context.store.contacts()
        context.contacts = Contacts.of(context.snapshot.config, contacts)
