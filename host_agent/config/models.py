"""The configuration as frozen models: one class a TOML table, attributes named as the keys.

Strict and closed: unknown keys, `"3"` for 3 and `true` for 1 are refused. Models check one table
at a time; what needs two tables, the host's users or its files is checked in `loading`. The
reference page is rendered from these descriptions.
"""

import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from host_agent.config.approvers import Approver, Bridge, check_plugin
from host_agent.config.channels.declaration import ChannelTable, FileMark
from host_agent.config.channels.registry import Channels
from host_agent.config.values import (
    Bind,
    CommonName,
    HostPath,
    NotEmpty,
    OperationPattern,
    Owner,
    RuleName,
    UnixUser,
    absolute,
    is_loopback,
    split_bind,
)
from host_agent.identity.registry import Autonomy, Role, owner_of
from host_agent.operations import CATALOGUE
from host_agent.operations.section import Fingerprint, ListedPattern, Section

SQLITE_PREFIX = "sqlite:///"
DEFAULT_STORE_URL = f"{SQLITE_PREFIX}state/host-agent.db"
DEFAULT_WRAPPER_DIR = "/usr/local/lib/host-agent"


class RunnerKind(StrEnum):
    """How wrappers get their user: through sudo, or not at all."""

    SUDO = "sudo"
    DIRECT = "direct"


class VerdictKind(StrEnum):
    """What a rule says."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class _Table(BaseModel):
    """A TOML table: frozen, strict, nothing unknown, no NaN or infinity."""

    model_config = ConfigDict(
        defer_build=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
    )


class Server(_Table):
    """The door: where the agent listens, and which certificates it shows and believes."""

    bind: Bind = Field(
        default="127.0.0.1:8443",
        description="Address and port of the API. Loopback unless you say otherwise; `0.0.0.0` is "
        "every address of IPv4, `[::]` those of IPv6 too. Port 0 takes any free one.",
    )
    certificate: HostPath = Field(description="The server's certificate chain, PEM.")
    private_key: HostPath = Field(
        description="The server's private key, PEM. Gives nothing to group or others."
    )
    client_ca: HostPath = Field(
        description="The authorities that client certificates must come from, PEM: every one that "
        "issues, and the roots above them."
    )
    crl: HostPath | None = Field(
        default=None,
        description="Revocation lists of these authorities: one in PEM or DER, or one for each, "
        "PEM, in one file. Where it is set, an authority without a current list lets nobody in.",
    )
    max_connections: int = Field(
        default=2000,
        ge=1,
        le=100_000,
        description="Connections at once. At the limit, unfinished handshakes are dropped first.",
    )
    drain_seconds: float = Field(
        default=10,
        ge=0,
        le=600,
        description="How long running operations may still be answered after SIGTERM.",
    )

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of `bind`."""
        return split_bind(self.bind)


class LimitsSection(_Table):
    """Token buckets, one for asking and one for deciding per certificate identity."""

    asks_per_second: float = Field(
        default=50, ge=1, le=1_000_000, description="Asks that one identity may make a second."
    )
    ask_burst: int = Field(
        default=100, ge=1, le=1_000_000, description="Asks that it may make at once."
    )
    decisions_per_second: float = Field(
        default=50, ge=1, le=1_000_000, description="Decisions that one identity may make a second."
    )
    decision_burst: int = Field(
        default=100, ge=1, le=1_000_000, description="Decisions that it may make at once."
    )
    held_off_after: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="Denied or expired asks of one caller within an hour, after which its asks "
        "that need approval are refused.",
    )


class Store(_Table):
    """The durable queue of requests."""

    url: str = Field(
        default=DEFAULT_STORE_URL,
        validate_default=True,
        description="`sqlite:///` and the path of the database file.",
    )

    @field_validator("url")
    @classmethod
    def _anchor(cls, url: str, info: ValidationInfo) -> str:
        path = url.removeprefix(SQLITE_PREFIX)
        if not url.startswith(SQLITE_PREFIX) or path.startswith(":") or "?" in url:
            message = "must be sqlite:/// and the path of a file, without options"
            raise ValueError(message)
        return SQLITE_PREFIX + str(absolute(Path(path), info))

    @property
    def path(self) -> Path:
        """Return the database file."""
        return Path(self.url.removeprefix(SQLITE_PREFIX))


class Audit(_Table):
    """The audit log."""

    path: HostPath = Field(
        default=cast("Path", "state/audit.jsonl"),  # validated, and anchored, as from a file
        validate_default=True,
        description="The file that records are appended to.",
    )
    append_only: bool = Field(
        default=False,
        description="The directory of the log is root's, and the agent may append to the live "
        "file and nothing else: root's wrapper finishes it and begins the next. Needs runner "
        "`sudo`, and `host-agent install` after each change of this table.",
    )
    max_bytes: int = Field(
        default=104_857_600,
        ge=4096,
        le=2**40,
        description="Size at which a new file is begun. A new day begins one too.",
    )
    retain_days: int = Field(
        default=90,
        ge=1,
        le=36_500,
        description="Rotated files younger than this are never deleted: a full disk refuses "
        "operations instead.",
    )


class MetricsSection(_Table):
    """The plain listener for monitoring."""

    bind: Bind = Field(
        default="127.0.0.1:9464",
        description="Plain HTTP with `/metrics`, `/health` and `/ready`. Loopback only: it asks "
        "for no certificate.",
    )

    @field_validator("bind")
    @classmethod
    def _loopback(cls, bind: str) -> str:
        if not is_loopback(split_bind(bind)[0]):
            message = "must be a loopback address: this listener asks for no certificate"
            raise ValueError(message)
        return bind

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of `bind`."""
        return split_bind(self.bind)


class Execution(_Table):
    """How wrappers are run."""

    runner: RunnerKind = Field(
        default=RunnerKind.SUDO,
        description="`sudo` changes to the wrapper's user. `direct` changes nothing: everything "
        "runs as the agent's own user, for development and demonstrations.",
    )
    wrapper_dir: HostPath = Field(
        default=Path(DEFAULT_WRAPPER_DIR), description="The directory of the wrappers."
    )
    timeout_seconds: float = Field(
        default=60, gt=0, le=86_400, description="Time that one run may take."
    )
    max_output_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=67_108_864,
        description="Bytes kept of each of standard output and standard error.",
    )
    max_concurrent: int = Field(
        default=8, ge=1, le=1000, description="Wrappers that may run at once."
    )


class Approvals(_Table):
    """Requests that wait for a person."""

    ttl_seconds: int = Field(
        default=1800,
        ge=60,
        le=86_400,
        description="How long a request waits, where its rule does not say.",
    )
    max_pending: int = Field(
        default=500, ge=1, le=100_000, description="Requests that may be pending in all."
    )
    max_pending_per_caller: int = Field(
        default=20, ge=1, le=100_000, description="Requests of one caller that may be pending."
    )
    cooldown_seconds: int = Field(
        default=600,
        ge=0,
        le=86_400,
        description="How long an effect that was denied is refused through another operation.",
    )
    denial_cooldowns_seconds: Annotated[
        tuple[Annotated[int, Field(ge=1, le=86_400)], ...], Field(max_length=10)
    ] = Field(
        default=(60, 300, 1800),
        description="How long people are not asked for the same again after its first denial "
        "within a day, its second and so on; after one more it is a day. Empty: not at all.",
    )
    escalate_seconds: int = Field(
        default=120,
        ge=5,
        le=86_400,
        description="How long an approver's next channel waits for an answer over the one before.",
    )
    prompts_per_minute: int = Field(
        default=10,
        ge=1,
        le=600,
        description="Prompts to one approver over one channel. More wait their turn.",
    )
    plugin: Annotated[str, AfterValidator(check_plugin)] | None = Field(
        default=None,
        description="What is asked before a yes counts: `command:` and the absolute path of a "
        "program of root, or an https URL. It can only refuse.",
    )
    command_line: bool = Field(
        default=True,
        description="Whether approvers with a certificate count as reachable: they look into the "
        "queue by themselves. Off, only who is told over a channel counts.",
    )


class IdentityEntry(_Table):
    """One certificate name that may come in, and whom it stands for."""

    cn: CommonName = Field(description="The certificate's common name, exact.")
    unix_user: UnixUser | None = Field(
        default=None,
        description="The user its operations run as. It must exist and is never uid 0. May be left "
        "out with runner `direct`, and by who has not the role `caller`.",
    )
    owner: Owner | None = Field(
        default=None,
        description="The person or team it acts for, compared without regard to case. Left out: "
        "its own `cn`. Nobody approves for their own owner.",
    )
    roles: Annotated[tuple[Role, ...], NotEmpty] = Field(
        default=(Role.CALLER,), description="What it may do here."
    )
    autonomy: Autonomy = Field(
        default=Autonomy.SUPERVISED,
        description="`read_only` refuses every effect but read, whatever the rules say.",
    )
    skip_ask: bool = Field(
        default=False,
        description="With autonomy `full`: an `ask` rule without `always_ask` becomes allow.",
    )
    fingerprint: Fingerprint | None = Field(
        default=None,
        description="`sha256:` and the hex digest of the one certificate that is accepted, in "
        "lower case.",
    )

    @property
    def acts_for(self) -> str:
        """Return the owner, case-folded; the CN where none is named."""
        return owner_of(self)


class RenewalsSection(_Table):
    """Renewals of client certificates: programs ask here, the authority signs elsewhere."""

    issued: HostPath | None = Field(
        default=None,
        description="The directory where the authority puts certificates that it has renewed. Only "
        "root writes it. Left out: the agent takes no renewals.",
    )


_ASK_ONLY = ("approvals", "approvers", "approver_role", "always_ask", "ttl_seconds")


class Rule(_Table):
    """One rule: the first that matches operation, resource and identity decides."""

    name: RuleName = Field(description="What people see in answers and in the audit log.")
    operations: Annotated[tuple[OperationPattern, ...], NotEmpty] = Field(
        description="Operation names, exact, or all of an adapter: `git.*`."
    )
    resources: Annotated[tuple[ListedPattern, ...], NotEmpty] | None = Field(
        default=None,
        description="Regular expressions over the whole resource. Left out: any, also none.",
    )
    identities: Annotated[tuple[CommonName, ...], NotEmpty] | None = Field(
        default=None, description="Common names, exact. Left out: every caller."
    )
    verdict: VerdictKind = Field(description="What the rule says.")
    approvals: int = Field(
        default=1, ge=1, le=100, description="How many different owners must say yes."
    )
    approvers: Annotated[tuple[Owner, ...], NotEmpty] | None = Field(
        default=None,
        description="The owners who may say yes. Left out: everyone with the role.",
    )
    approver_role: Literal["approver", "admin"] = Field(
        default="approver", description="The role they need; an admin is an approver too."
    )
    always_ask: bool = Field(
        default=False, description="Full autonomy with `skip_ask` does not skip this rule."
    )
    require_reason: bool = Field(default=False, description="An ask without a reason is refused.")
    ttl_seconds: int | None = Field(
        default=None,
        ge=60,
        le=86_400,
        description="How long a request waits. Left out: as `[approvals]` says.",
    )

    @model_validator(mode="after")
    def _only_where_it_counts(self) -> Self:
        """Refuse keys that this verdict would never consult."""
        idle = [key for key in _ASK_ONLY if key in self.model_fields_set]
        if self.verdict is VerdictKind.DENY and "require_reason" in self.model_fields_set:
            idle.append("require_reason")
        if self.verdict is not VerdictKind.ASK and idle:
            message = f"{', '.join(idle)}: has no meaning with verdict {self.verdict.value}"
            raise ValueError(message)
        return self


_ConfigT = TypeVar("_ConfigT", bound=BaseModel)
_SectionT = TypeVar("_SectionT", bound=Section)


def _with_adapters(model: type[_ConfigT]) -> type[_ConfigT]:
    """Return `model` with an optional table for each adapter of this build, by its name."""
    tables: dict[str, Any] = {
        adapter.name: (
            adapter.section | None,
            Field(default=None, description=adapter.section.__doc__),
        )
        for adapter in CATALOGUE.adapters
    }
    return create_model(
        model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **tables
    )


@_with_adapters
class Config(_Table):
    """A whole configuration, checked. Paths are absolute.

    Every adapter of the catalogue has a table under its name; `section` returns it by its type.
    """

    server: Server = Field(description=Server.__doc__)
    limits: LimitsSection = Field(default=LimitsSection(), description=LimitsSection.__doc__)
    store: Store = Field(description=Store.__doc__)
    audit: Audit = Field(description=Audit.__doc__)
    metrics: MetricsSection = Field(default=MetricsSection(), description=MetricsSection.__doc__)
    renewals: RenewalsSection = Field(
        default=RenewalsSection(), description=RenewalsSection.__doc__
    )
    execution: Execution = Field(default=Execution(), description=Execution.__doc__)
    approvals: Approvals = Field(default=Approvals(), description=Approvals.__doc__)
    channels: Channels = Field(default=Channels(), description=Channels.__doc__)
    approvers: tuple[Approver, ...] = Field(default=(), description=Approver.__doc__)
    bridges: tuple[Bridge, ...] = Field(default=(), description=Bridge.__doc__)
    identities: tuple[IdentityEntry, ...] = Field(default=(), description=IdentityEntry.__doc__)
    rules: tuple[Rule, ...] = Field(default=(), description=Rule.__doc__)

    _files: tuple[Path, ...] = PrivateAttr(default=())
    _host: str = PrivateAttr(default="")

    def section(self, model: type[_SectionT]) -> _SectionT | None:
        """Return the table that an adapter declares as `model`; None where it is not configured."""
        tables = (getattr(self, adapter.name) for adapter in CATALOGUE.adapters)
        return next((table for table in tables if isinstance(table, model)), None)

    def approver(self, owner: str) -> Approver | None:
        """Return how `owner`, case-folded, is reached, where that is configured."""
        return next((entry for entry in self.approvers if entry.acts_for == owner), None)

    def bridge(self, cn: str) -> Bridge | None:
        """Return the bridge of this common name."""
        return next((bridge for bridge in self.bridges if bridge.cn == cn), None)

    @property
    def secret_files(self) -> tuple[tuple[str, Path], ...]:
        """Return the files that hold secrets of channels and bridges, each with its dotted key."""
        sections: list[tuple[str, ChannelTable]] = [
            (f"channels.{section.name}", section) for section in self.channels.sections
        ]
        sections += [(f"bridges[{index}]", bridge) for index, bridge in enumerate(self.bridges)]
        return tuple(
            (f"{key}.{name}", file)
            for key, section in sections
            for name in section.files(FileMark.SECRET)
            if isinstance(file := getattr(section, name), Path)
        )

    @property
    def fingerprint(self) -> str:
        """Return the hash of all that is configured, in hexadecimal digits; comments do not count.

        Files that it names count by name, not by content.
        """
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files this was read from: the main one, then those of `conf.d`."""
        return self._files

    @property
    def host(self) -> str:
        """Return this host's name, as it was when the configuration was read."""
        return self._host

    def named(self, host: str) -> Self:
        """Return the same for a host that is called `host`, as a simulation is."""
        copy = self.model_copy()
        copy._host = host  # noqa: SLF001 - of the same class
        return copy
