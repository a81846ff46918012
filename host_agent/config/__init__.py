"""The administrator's configuration: TOML in, frozen values out, every fault by its dotted key.

`load` is the only reader. `check_permissions` says what is wrong with the modes and owners of the
files that a configuration names.
"""

from host_agent.config.approvers import Approver, Bridge
from host_agent.config.channels.registry import CHANNELS, Channels
from host_agent.config.loading import CONFIGURATION_LIMIT_BYTES, load, parse
from host_agent.config.models import (
    Approvals,
    Audit,
    Config,
    Execution,
    IdentityEntry,
    LimitsSection,
    MetricsSection,
    RenewalsSection,
    Rule,
    RunnerKind,
    Server,
    Store,
    VerdictKind,
)
from host_agent.config.permissions import check_permissions
from host_agent.config.values import split_bind
from host_agent.operations.section import MAX_PATTERN_LENGTH, compile_pattern

__all__ = [
    "CHANNELS",
    "CONFIGURATION_LIMIT_BYTES",
    "MAX_PATTERN_LENGTH",
    "Approvals",
    "Approver",
    "Audit",
    "Bridge",
    "Channels",
    "Config",
    "Execution",
    "IdentityEntry",
    "LimitsSection",
    "MetricsSection",
    "RenewalsSection",
    "Rule",
    "RunnerKind",
    "Server",
    "Store",
    "VerdictKind",
    "check_permissions",
    "compile_pattern",
    "load",
    "parse",
    "split_bind",
]
