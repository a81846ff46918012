"""The administrator's configuration: TOML in, frozen values out, every fault by its dotted key.

`load` is the only reader. `check_permissions` says what is wrong with the modes and owners of the
files that a configuration names.
"""

from host_agent.config.adapters import (
    Argument,
    Command,
    ExecSection,
    PctSection,
    SystemdSection,
    ZfsSection,
)
from host_agent.config.channels import (
    AppriseChannel,
    Approver,
    Bridge,
    ChannelName,
    Channels,
    NtfyChannel,
    SignalChannel,
    SignalDriver,
    WebhookChannel,
)
from host_agent.config.loading import CONFIGURATION_LIMIT_BYTES, load, parse
from host_agent.config.models import (
    Approvals,
    Audit,
    Config,
    Execution,
    GitSection,
    Identity,
    Limits,
    Metrics,
    Repository,
    Rule,
    RunnerKind,
    Server,
    Store,
    VerdictKind,
)
from host_agent.config.patterns import to_extended
from host_agent.config.permissions import check_permissions
from host_agent.config.values import MAX_PATTERN_LENGTH, compile_pattern, split_bind

__all__ = [
    "CONFIGURATION_LIMIT_BYTES",
    "MAX_PATTERN_LENGTH",
    "AppriseChannel",
    "Approvals",
    "Approver",
    "Argument",
    "Audit",
    "Bridge",
    "ChannelName",
    "Channels",
    "Command",
    "Config",
    "ExecSection",
    "Execution",
    "GitSection",
    "Identity",
    "Limits",
    "Metrics",
    "NtfyChannel",
    "PctSection",
    "Repository",
    "Rule",
    "RunnerKind",
    "Server",
    "SignalChannel",
    "SignalDriver",
    "Store",
    "SystemdSection",
    "VerdictKind",
    "WebhookChannel",
    "ZfsSection",
    "check_permissions",
    "compile_pattern",
    "load",
    "parse",
    "split_bind",
    "to_extended",
]
