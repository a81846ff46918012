"""C42: whatever the bytes of a configuration, loading ends in a whole one or in named faults."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_agent.config import Config, load, parse
from host_agent.errors import ConfigurationError
from tests.support.configurations import MINIMAL, write

GOOD = (
    MINIMAL
    + """
[[identities]]
cn = "librarian"
owner = "alice"
[[rules]]
name = "r"
operations = ["git.*"]
resources = ["/srv/.*"]
verdict = "ask"
ttl_seconds = 600
[[git.repositories]]
path = "/srv/app"
branches = ["main"]
"""
).encode()

SECTIONS = sorted(Config.model_fields)

edits = st.lists(
    st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.binary(max_size=6)),
    min_size=1,
    max_size=3,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("site"))


def outcome(read: Callable[[], Config]) -> Config | list[str]:
    """Return the configuration or its faults; any other exception fails the test."""
    try:
        return read()
    except ConfigurationError as error:
        return error.faults


def assert_whole_or_refused(found: Config | list[str]) -> None:
    if isinstance(found, Config):
        again = Config.model_validate(found.model_dump(), strict=False)
        assert again.model_dump() == found.model_dump()
    else:
        assert found
        assert all(fault and "\n" not in fault for fault in found)


@pytest.mark.promise("c42")
@given(edits)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_edited_file_is_whole_or_refused(
    site: Path, changes: list[tuple[int, int, bytes]]
) -> None:
    data = GOOD
    for at, length, replacement in changes:
        data = data[:at] + replacement + data[at + length :]
    site.write_bytes(data)
    assert_whole_or_refused(outcome(lambda: load(site)))


@pytest.mark.promise("c42")
@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_refused(site: Path, data: bytes) -> None:
    site.write_bytes(data)
    found = outcome(lambda: load(site))
    assert isinstance(found, list)
    assert_whole_or_refused(found)


@pytest.mark.promise("c42")
@given(st.integers(0, len(GOOD)))
@settings(max_examples=100, deadline=None)
def test_a_partial_file_is_whole_or_refused(site: Path, length: int) -> None:
    site.write_bytes(GOOD[:length])
    assert_whole_or_refused(outcome(lambda: load(site)))


@pytest.mark.promise("c42")
@given(st.sampled_from(SECTIONS), values)
@settings(max_examples=300, deadline=None)
def test_a_section_of_any_shape_is_whole_or_refused(
    site: Path, section: str, value: object
) -> None:
    table = {**tomllib.loads(MINIMAL), section: value}
    assert_whole_or_refused(outcome(lambda: parse(table, base=site.parent)))
