"""The metrics page and the metrics agree, name by name and label by label."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from host_agent.metrics import TLS_REASONS, Metrics

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"
_SECTION = re.compile(
    r"^## `(\w+)`\n\n(Counter|Gauge|Histogram)(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)


def described() -> dict[str, tuple[str, frozenset[str]]]:
    """Return kind and labels of each metric as the page tells them."""
    found = {}
    for name, kind, text in _SECTION.findall(PAGE.read_text()):
        labels = re.match(r", labels? ((?:`\w+`(?:, )?)+)", text)
        found[name] = (
            kind.lower(),
            frozenset(re.findall(r"`(\w+)`", labels[1])) if labels else frozenset[str](),
        )
    return found


def rendered() -> dict[str, tuple[str, frozenset[str]]]:
    """Return kind and labels of each metric as a scrape shows them after every kind of event."""
    metrics = Metrics()
    now = datetime.now(UTC)
    metrics.operation_finished("git.status", "succeeded", 1)
    metrics.decided("approve", "http", 1)
    metrics.certificate_expires("server", now)
    metrics.crl_expires(now)
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, frozenset(labels))
    return found


def test_every_metric_has_its_section_and_every_section_its_metric() -> None:
    assert described().keys() == rendered().keys()


@pytest.mark.parametrize("name", sorted(rendered()))
def test_a_section_tells_kind_and_labels(name: str) -> None:
    assert described()[name] == rendered()[name]


@pytest.mark.parametrize("reason", sorted(TLS_REASONS))
def test_the_page_names_every_reason(reason: str) -> None:
    assert f"`{reason}`" in PAGE.read_text()
