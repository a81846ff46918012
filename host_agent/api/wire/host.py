"""The state of the host and of the agent."""

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
)
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.model import Instant, WireAnswer, WireModel, one_of


class SudoersEntry(WireModel):
    """Something that sudo grants and that is not known to be safe."""

    file: str
    line: int
    rule: str
    severity: Annotated[str, one_of("Severity")]
    reason: str
    remedy: str


class SudoersReport(WireAnswer):
    """What sudo grants that is not known to be safe; `scan_ok`: everything could be read."""

    model_config = ConfigDict(title="Sudoers")

    scan_ok: bool
    entries: tuple[SudoersEntry, ...]
    scanned_at: Instant


class Health(WireAnswer):
    """That the agent lives: whoever reads it knows that it answers."""

    status: Literal["ok"]
    version: str


class Serving(WireModel):
    """What tells the files that serve from those that lie there now."""

    configuration_sha256: str
    certificate_sha256: str
    client_ca_sha256: str
    crl_sha256: str | None
    crl_numbers: tuple[int | None, ...]


class Readiness(WireAnswer):
    """The state of each part of the agent: `ok`, or why not.

    `restart_needed` and `crl_file` are there only where something is to be said.
    """

    store: str
    audit: str
    crl: str
    certificate: str
    configuration: str
    restart_needed: bool | SkipJsonSchema[None] = None
    crl_file: str | SkipJsonSchema[None] = None
    serving: Serving
    sudoers: str
    root_list: str
    audit_sequence: int
    audit_head: str

    @property
    def is_ready(self) -> bool:
        """Return whether nothing keeps the agent from its work."""
        return {self.store, self.audit, self.crl, self.certificate} == {"ok"}
