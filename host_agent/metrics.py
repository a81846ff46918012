"""What the agent counts and measures, for Prometheus: docs/reference/metrics.md.

Labels come from closed sets only: a value outside its set is counted under one fixed word, so that
no caller can make a series. Ages and days left are computed when somebody looks.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from host_agent import __version__
from host_agent.config.channels.registry import CHANNELS as DECLARED
from host_agent.errors import BY_CODE
from host_agent.http.refusals import TlsRejection
from host_agent.operations import CATALOGUE
from host_agent.requests.model import TRANSITIONS, State, Verb

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `Metrics.render`."""
UNKNOWN = "unknown"
"""Stands for an operation that is not in the catalogue."""
OTHER = "other"
"""Stands for a value outside every other closed set."""

OUTCOMES = frozenset(state.value for state in TRANSITIONS[State.RUNNING])
DECISIONS = frozenset(verb.value for verb in Verb)
NOTIFIED_CHANNELS = frozenset(DECLARED)
CHANNELS = NOTIFIED_CHANNELS | {"http"}
NOTIFICATION_RESULTS = frozenset({"delivered", "retried", "failed", "withdrawn"})
EVENT_SINKS = frozenset({"sse"})
EVENT_RESULTS = frozenset({"delivered", "dropped"})
TLS_REASONS = frozenset(reason.value for reason in TlsRejection)
CERTIFICATES = frozenset({"server", "client_ca"})

_RUN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_HUMAN_SECONDS = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)


class Metrics:
    """All metrics of one agent, in a registry of their own.

    `operations` are the names that the label `operation` may have; `now` gives the instant from
    which ages and times left are counted.
    """

    def __init__(
        self,
        operations: Iterable[str] = CATALOGUE.names,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # A second series for each counter that nobody asks for. Process-wide, and untyped there.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._operation_names = frozenset(operations)
        self._declare_running()
        self._declare_deciding()
        self._declare_telling()
        self._declare_audit()
        self._declare_host(now)
        self._start_at_zero()

    def _declare_running(self) -> None:
        self._operations = Counter(
            "host_agent_operations_total",
            "Operations that were started, by how they ended.",
            ["operation", "outcome"],
            registry=self.registry,
        )
        self._operation_seconds = Histogram(
            "host_agent_operation_seconds",
            "How long the wrapper of an operation ran.",
            ["operation"],
            buckets=_RUN_SECONDS,
            registry=self.registry,
        )
        self._refusals = Counter(
            "host_agent_refusals_total",
            "Requests that were answered with a problem, by its code.",
            ["code"],
            registry=self.registry,
        )
        self._tls_rejections = Counter(
            "host_agent_tls_rejections_total",
            "Connections that ended before their handshake did.",
            ["reason"],
            registry=self.registry,
        )

    def _declare_deciding(self) -> None:
        self._pending = Gauge(
            "host_agent_requests_pending",
            "Requests that wait for a decision.",
            registry=self.registry,
        )
        self._oldest_pending = Gauge(
            "host_agent_requests_oldest_pending_seconds",
            "How long the oldest pending request has waited; 0 without one.",
            registry=self.registry,
        )
        self._decisions = Counter(
            "host_agent_decisions_total",
            "Decisions that people made, by the channel they came through.",
            ["decision", "channel"],
            registry=self.registry,
        )
        self._decision_seconds = Histogram(
            "host_agent_decision_seconds",
            "How long a request waited for a decision.",
            ["channel"],
            buckets=_HUMAN_SECONDS,
            registry=self.registry,
        )

    def _declare_telling(self) -> None:
        self._notifications = Counter(
            "host_agent_notifications_total",
            "Prompts and outcomes for approvers, by the channel and what became of the sending.",
            ["channel", "result"],
            registry=self.registry,
        )
        self._notifications_waiting = Gauge(
            "host_agent_notifications_waiting",
            "Prompts and outcomes that wait to be sent, now or later.",
            ["channel"],
            registry=self.registry,
        )
        self._events = Counter(
            "host_agent_events_total",
            "Events for those who follow them, by where they went and what became of them.",
            ["sink", "result"],
            registry=self.registry,
        )

    def _declare_audit(self) -> None:
        self._audit_records = Counter(
            "host_agent_audit_records_total",
            "Audit records that reached the disk since the agent started.",
            registry=self.registry,
        )
        self._audit_failures = Counter(
            "host_agent_audit_write_failures_total",
            "Audit records that could not be written.",
            registry=self.registry,
        )
        self._audit_sequence = Gauge(
            "host_agent_audit_sequence",
            "The number of the newest audit record.",
            registry=self.registry,
        )

    def _declare_host(self, now: Callable[[], datetime]) -> None:
        self._expiries = _Expiries(now)
        self.registry.register(self._expiries)
        self._reload_ok = Gauge(
            "host_agent_config_reload_ok",
            "1 if the configuration on disk is the one that is used, 0 if it was rejected.",
            registry=self.registry,
        )
        self._reload_ok.set(1)
        self._crl_file_ok = Gauge(
            "host_agent_crl_file_ok",
            "1 if the revocation list on disk is the one that serves, 0 if it cannot be used.",
            registry=self.registry,
        )
        self._crl_file_ok.set(1)
        self._sudoers_risky = Gauge(
            "host_agent_sudoers_risky_entries",
            "Entries of sudoers that are not known to be safe, those that are not understood too.",
            registry=self.registry,
        )
        self._sudoers_ok = Gauge(
            "host_agent_sudoers_scan_ok",
            "1 if all that sudo reads could be read and understood, 0 if not, or not yet.",
            registry=self.registry,
        )
        Info("host_agent_build", "The version that runs.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()}
        )

    def _start_at_zero(self) -> None:
        """Make the series of small sets exist, so that a first event is seen as an increase."""
        for code in BY_CODE:
            self._refusals.labels(code)
        for reason in TLS_REASONS:
            self._tls_rejections.labels(reason)
        for channel in NOTIFIED_CHANNELS:
            for result in NOTIFICATION_RESULTS:
                self._notifications.labels(channel, result)
        for sink in EVENT_SINKS:
            for result in EVENT_RESULTS:
                self._events.labels(sink, result)
        self.notifications_waiting({})

    # -- what happened ----------------------------------------------------------------------------

    def operation_finished(self, name: str, outcome: str, seconds: float) -> None:
        """Count an operation that was started; `outcome` is the final state's name."""
        operation = name if name in self._operation_names else UNKNOWN
        self._operations.labels(operation, outcome if outcome in OUTCOMES else OTHER).inc()
        self._operation_seconds.labels(operation).observe(seconds)

    def refused(self, code: str) -> None:
        """Count a problem answer; a `code` that no error has is counted as another."""
        self._refusals.labels(code if code in BY_CODE else OTHER).inc()

    def decided(self, decision: str, channel: str, seconds: float) -> None:
        """Count a decision that came `seconds` after its request was made."""
        known = channel if channel in CHANNELS else OTHER
        self._decisions.labels(decision if decision in DECISIONS else OTHER, known).inc()
        self._decision_seconds.labels(known).observe(max(seconds, 0.0))

    def pending(self, count: int, oldest_seconds: float) -> None:
        """Tell how many requests are pending, and the age of the oldest."""
        self._pending.set(count)
        self._oldest_pending.set(max(oldest_seconds, 0.0))

    def notified(self, channel: str, result: str) -> None:
        """Count what became of one sending: delivered, retried, failed or withdrawn."""
        known = channel if channel in NOTIFIED_CHANNELS else OTHER
        self._notifications.labels(known, result if result in NOTIFICATION_RESULTS else OTHER).inc()

    def notifications_waiting(self, by_channel: Mapping[str, int]) -> None:
        """Tell how many notifications wait on each channel; one that is not named has none."""
        counts = dict.fromkeys((*NOTIFIED_CHANNELS, OTHER), 0)
        for channel, count in by_channel.items():
            counts[channel if channel in NOTIFIED_CHANNELS else OTHER] += count
        for channel, count in counts.items():
            self._notifications_waiting.labels(channel).set(count)

    def event_sent(self, sink: str, result: str) -> None:
        """Count an event for `sse` or `webhook`: delivered, dropped or failed."""
        known = sink if sink in EVENT_SINKS else OTHER
        self._events.labels(known, result if result in EVENT_RESULTS else OTHER).inc()

    def tls_rejected(self, reason: str) -> None:
        """Count a connection that never got through its handshake."""
        self._tls_rejections.labels(reason if reason in TLS_REASONS else OTHER).inc()

    def audit_recorded(self, count: int) -> None:
        """Count records that have come to the disk."""
        self._audit_records.inc(count)

    def audit_follows(self, sequence: Callable[[], int]) -> None:
        """Read the newest sequence from `sequence` at each scrape."""
        self._audit_sequence.set_function(sequence)

    def audit_write_failed(self) -> None:
        """Count a record that could not be written."""
        self._audit_failures.inc()

    # -- what is ----------------------------------------------------------------------------------

    def certificate_expires(self, certificate: str, at: datetime) -> None:
        """Tell when a certificate in use expires: `server` or `client_ca`."""
        name = certificate if certificate in CERTIFICATES else OTHER
        self._expiries.certificates[name] = at

    def crl_expires(self, at: datetime | None) -> None:
        """Tell the revocation list's `nextUpdate`; None where none is configured."""
        self._expiries.crl = at

    def crl_file(self, *, is_used: bool) -> None:
        """Tell whether the revocation list on disk is the one that serves."""
        self._crl_file_ok.set(1 if is_used else 0)

    def reload_accepted(self) -> None:
        """Tell that the configuration on disk is the one in use."""
        self._reload_ok.set(1)

    def reload_rejected(self) -> None:
        """Tell that a new configuration was refused and the old one serves on."""
        self._reload_ok.set(0)

    def sudoers_scanned(self, risky: int, *, is_ok: bool) -> None:
        """Tell how many entries a scan found, and whether it could read and understand all."""
        self._sudoers_risky.set(risky)
        self._sudoers_ok.set(1 if is_ok else 0)

    def render(self) -> bytes:
        """Return everything in the Prometheus text format, with `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class _Expiries(Collector):
    """Seconds left of certificates and the revocation list; absent where there is none."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.certificates: dict[str, datetime] = {}
        self.crl: datetime | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield both families, negative where the instant is past."""
        now = self._now()
        certificates = GaugeMetricFamily(
            "host_agent_certificate_expiry_seconds",
            "Seconds until a certificate in use expires; negative when it has.",
            labels=["certificate"],
        )
        for name, at in self.certificates.items():
            certificates.add_metric([name], (at - now).total_seconds())
        yield certificates
        crl = GaugeMetricFamily(
            "host_agent_crl_expiry_seconds",
            "Seconds until the revocation list must have been replaced; negative when it is late.",
        )
        if self.crl is not None:
            crl.add_metric([], (self.crl - now).total_seconds())
        yield crl
