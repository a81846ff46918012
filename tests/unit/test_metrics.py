"""The metrics, read back with Prometheus' own parser."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from host_agent import __version__
from host_agent.errors import BY_CODE
from host_agent.metrics import DECISIONS, OUTCOMES, TLS_REASONS, Metrics
from host_agent.requests.model import State, Verb

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["git.status", "git.pull"], now=lambda: NOW)


def samples(metrics: Metrics) -> Iterator[Sample]:
    for family in text_string_to_metric_families(metrics.render().decode()):
        yield from family.samples


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found = [s.value for s in samples(metrics) if s.name == name and s.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def test_an_operation_is_counted_by_its_outcome_and_timed(metrics: Metrics) -> None:
    metrics.operation_finished("git.status", "succeeded", 0.02)
    metrics.operation_finished("git.status", "failed", 3)
    name = "host_agent_operations_total"
    assert value(metrics, name, operation="git.status", outcome="succeeded") == 1
    assert value(metrics, name, operation="git.status", outcome="failed") == 1
    assert value(metrics, "host_agent_operation_seconds_count", operation="git.status") == 2
    assert value(metrics, "host_agent_operation_seconds_sum", operation="git.status") == 3.02


def test_a_refusal_is_counted_by_its_code(metrics: Metrics) -> None:
    metrics.refused("policy:denied")
    assert value(metrics, "host_agent_refusals_total", code="policy:denied") == 1
    assert value(metrics, "host_agent_refusals_total", code="policy:no-rule") == 0


def test_a_decision_is_counted_and_timed_by_its_channel(metrics: Metrics) -> None:
    metrics.decided("approve", "http", 90)
    assert value(metrics, "host_agent_decisions_total", decision="approve", channel="http") == 1
    assert value(metrics, "host_agent_decision_seconds_sum", channel="http") == 90


def test_a_notification_is_counted_by_channel_and_result(metrics: Metrics) -> None:
    name = "host_agent_notifications_total"
    assert value(metrics, name, channel="signal", result="failed") == 0
    metrics.notified("signal", "delivered")
    metrics.notified("somebody's", "own words")
    assert value(metrics, name, channel="signal", result="delivered") == 1
    assert value(metrics, name, channel="other", result="other") == 1
    assert value(metrics, name, channel="signal", result="failed") == 0


def test_what_waits_is_told_for_every_channel(metrics: Metrics) -> None:
    name = "host_agent_notifications_waiting"
    metrics.notifications_waiting({"signal": 3, "pigeon": 2, "owl": 1})
    assert value(metrics, name, channel="signal") == 3
    assert value(metrics, name, channel="other") == 3
    metrics.notifications_waiting({"ntfy": 1})
    assert value(metrics, name, channel="signal") == 0
    assert value(metrics, name, channel="ntfy") == 1


def test_an_event_is_counted_by_sink_and_result(metrics: Metrics) -> None:
    name = "host_agent_events_total"
    metrics.event_sent("sse", "dropped")
    metrics.event_sent("pigeon", "lost")
    assert value(metrics, name, sink="sse", result="dropped") == 1
    assert value(metrics, name, sink="sse", result="delivered") == 0
    assert value(metrics, name, sink="other", result="other") == 1


def test_what_is_pending_is_told(metrics: Metrics) -> None:
    metrics.pending(3, 61.5)
    assert value(metrics, "host_agent_requests_pending") == 3
    assert value(metrics, "host_agent_requests_oldest_pending_seconds") == 61.5


def test_audit_records_and_failures_are_counted(metrics: Metrics) -> None:
    metrics.audit_recorded(1)
    metrics.audit_recorded(2)
    metrics.audit_write_failed()
    assert value(metrics, "host_agent_audit_records_total") == 3
    assert value(metrics, "host_agent_audit_write_failures_total") == 1


def test_the_audit_sequence_can_be_followed(metrics: Metrics) -> None:
    sequence = 7
    metrics.audit_follows(lambda: sequence)
    assert value(metrics, "host_agent_audit_sequence") == 7
    sequence = 8
    assert value(metrics, "host_agent_audit_sequence") == 8


def test_time_left_is_counted_from_the_scrape() -> None:
    now = NOW
    metrics = Metrics(now=lambda: now)
    metrics.certificate_expires("server", NOW + timedelta(days=1))
    metrics.crl_expires(NOW + timedelta(hours=1))
    assert value(metrics, "host_agent_certificate_expiry_seconds", certificate="server") == 86400
    assert value(metrics, "host_agent_crl_expiry_seconds") == 3600
    now += timedelta(hours=2)
    assert value(metrics, "host_agent_crl_expiry_seconds") == -3600


def test_without_a_revocation_list_its_time_is_not_told(metrics: Metrics) -> None:
    metrics.crl_expires(NOW)
    metrics.crl_expires(None)
    assert value(metrics, "host_agent_crl_expiry_seconds") is None
    assert value(metrics, "host_agent_certificate_expiry_seconds", certificate="server") is None


def test_a_rejected_reload_shows_until_one_is_accepted(metrics: Metrics) -> None:
    assert value(metrics, "host_agent_config_reload_ok") == 1
    metrics.reload_rejected()
    assert value(metrics, "host_agent_config_reload_ok") == 0
    metrics.reload_accepted()
    assert value(metrics, "host_agent_config_reload_ok") == 1


def test_the_build_is_told(metrics: Metrics) -> None:
    (build,) = (s for s in samples(metrics) if s.name == "host_agent_build_info")
    assert build.value == 1
    assert build.labels.keys() == {"version", "python"}
    assert build.labels["version"] == __version__


def test_a_rejected_handshake_is_counted_by_its_reason(metrics: Metrics) -> None:
    metrics.tls_rejected("expired")
    assert value(metrics, "host_agent_tls_rejections_total", reason="expired") == 1


def test_the_closed_sets_are_those_of_the_rooms() -> None:
    assert "plain_http" in TLS_REASONS
    assert set(Verb) == DECISIONS
    assert {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.UNKNOWN} == OUTCOMES


def test_two_agents_in_one_process_do_not_share_counts(metrics: Metrics) -> None:
    metrics.refused("policy:denied")
    assert value(Metrics(), "host_agent_refusals_total", code="policy:denied") == 0


def test_no_series_but_those_of_this_agent_and_none_of_creation_times(metrics: Metrics) -> None:
    metrics.operation_finished("git.status", "succeeded", 0.02)
    names = {sample.name for sample in samples(metrics)}
    assert all(name.startswith("host_agent_") for name in names)
    assert not any(name.endswith("_created") for name in names)


def test_every_code_has_its_series_from_the_start(metrics: Metrics) -> None:
    codes = {s.labels["code"] for s in samples(metrics) if s.name == "host_agent_refusals_total"}
    assert codes == set(BY_CODE)


HOSTILE = ['a"} 1\nhost_agent_forged 1', "a\nb", "\\", "", "é\u202e", "x" * 10_000]


@pytest.mark.promise("c47")
@pytest.mark.parametrize("text", HOSTILE)
def test_a_newline_in_a_name_makes_no_line_and_no_series(metrics: Metrics, text: str) -> None:
    touch_everything(metrics, text)
    rendered = metrics.render().decode()
    assert "forged" not in rendered
    assert text not in rendered or not text or text == "\\"
    for sample in samples(metrics):
        assert not set(sample.labels.values()) & {text}


@pytest.mark.promise("c47")
def test_a_hundred_thousand_names_add_no_series(metrics: Metrics) -> None:
    touch_everything(metrics, "name")
    before = metrics.render().count(b"\n")
    for number in range(20_000):  # five labels each
        touch_everything(metrics, f"name{number}")
    assert metrics.render().count(b"\n") == before
    unknown = {"operation": "unknown", "outcome": "other"}
    assert value(metrics, "host_agent_operations_total", **unknown) == 20_001


def touch_everything(metrics: Metrics, text: str) -> None:
    """Give `text` as every label there is."""
    metrics.operation_finished(text, text, 0.1)
    metrics.refused(text)
    metrics.decided(text, text, 1)
    metrics.tls_rejected(text)
    metrics.certificate_expires(text, NOW)
