"""Typed HTTPS client of the agent's API, blocking (`Client`) and for asyncio (`AsyncClient`).

It knows docs/reference/http.md and nothing of the server's rooms. The server's certificate is
always verified; there is no switch against it. What can go wrong is `ProblemError` (the agent
answered with a problem), `ConnectionFailedError` (no answer), `InvalidAnswerError` (an answer that
is not this service's) and `ConfigurationError` (certificate files that cannot be used).
"""

from host_agent.api.wire.dry_run import DryRun
from host_agent.api.wire.events import EventView, MissedEvents
from host_agent.api.wire.host import Readiness
from host_agent.api.wire.operations import (
    ApprovalsNeeded,
    Held,
    OperationCase,
    OperationInfo,
    Outcome,
    PreviewView,
    Ran,
)
from host_agent.api.wire.people import (
    ApproverView,
    ContactView,
    Enrolment,
    GrantBody,
    GrantView,
    OwnIdentity,
)
from host_agent.api.wire.requests import (
    ApprovalsView,
    DecisionView,
    HistoryView,
    RequestPage,
    RequestProblem,
    RequestView,
)
from host_agent.api.wire.tools import (
    REASON,
    ToolForm,
    takes_reason,
    tool_description,
    tool_input,
)
from host_agent.client.events import AgentEvent
from host_agent.client.transport import AsyncClient, Client
from host_agent.errors import (
    CertificateRefusedError,
    ConnectionFailedError,
    Fault,
    FaultPlace,
    InvalidAnswerError,
    ProblemError,
    Recovery,
    RecoveryKind,
)

__all__ = [
    "REASON",
    "AgentEvent",
    "ApprovalsNeeded",
    "ApprovalsView",
    "ApproverView",
    "AsyncClient",
    "CertificateRefusedError",
    "Client",
    "ConnectionFailedError",
    "ContactView",
    "DecisionView",
    "DryRun",
    "Enrolment",
    "EventView",
    "Fault",
    "FaultPlace",
    "GrantBody",
    "GrantView",
    "Held",
    "HistoryView",
    "InvalidAnswerError",
    "MissedEvents",
    "OperationCase",
    "OperationInfo",
    "Outcome",
    "OwnIdentity",
    "PreviewView",
    "ProblemError",
    "Ran",
    "Readiness",
    "Recovery",
    "RecoveryKind",
    "RequestPage",
    "RequestProblem",
    "RequestView",
    "ToolForm",
    "takes_reason",
    "tool_description",
    "tool_input",
]
