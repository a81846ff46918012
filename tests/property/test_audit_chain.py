"""Whatever is written verifies; whatever is changed afterwards does not."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.audit.record import ORIGIN, Event, build, link, read
from host_agent.audit.verify import verify
from host_agent.canonical import JsonValue
from host_agent.text import visible
from tests.support.audit_files import joined, lines

ANY_TEXT = st.text(st.characters(), max_size=40)
"""Surrogates, control characters and all."""

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), ANY_TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["caller", "operation", "resource", "params", "outcome", "reason", "hashes"]),
    VALUES,
)
_ESCAPE = re.compile(r"\\u\{([0-9a-f]+)\}")


def restored(text: str) -> str:
    """Return the text that `visible` was given."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def found_in(content: bytes) -> int:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return verify([Path(file.name)]).found


@given(st.text(st.characters()))
def test_visible_text_can_be_told_from_any_other(text: str) -> None:
    assert restored(visible(text)) == text


@pytest.mark.promise("c32")
@given(st.lists(st.tuples(st.sampled_from(Event), MEMBERS), min_size=1, max_size=6))
def test_whatever_is_told_makes_one_readable_line_each(
    told: list[tuple[Event, dict[str, JsonValue]]],
) -> None:
    made, after = [], ORIGIN
    for event, members in told:
        line, after = link(build(event, "2026-11-20T22:00:00.000000Z", members), after)
        made.append(line)
        assert json.loads(line)["event"] == event.value
        assert read(line).link == after
    content = joined(made)
    assert len(content.decode().splitlines()) == len(told)
    if told[0][0] is not Event.AUDIT_RECOVERED:
        assert found_in(content) == sum(
            event is Event.AUDIT_RECOVERED for event, _ in told
        )  # which tells of torn bytes, and there are none


LINES, _ = lines(12)
CONTENT = joined(LINES)


@pytest.mark.promise("c7")
@given(
    st.integers(0, len(CONTENT) - 2),
    st.integers(0, 60),
    st.binary(max_size=60),
)
def test_any_other_bytes_in_the_place_of_any_bytes_are_found(
    at: int, length: int, put: bytes
) -> None:
    length = min(length, len(CONTENT) - 1 - at)
    changed = CONTENT[:at] + put + CONTENT[at + length :]
    if changed != CONTENT:
        assert found_in(changed) > 0


@pytest.mark.promise("c7")
@given(st.permutations(LINES))
def test_no_other_order_passes(order: list[bytes]) -> None:
    assert (found_in(joined(order)) == 0) == (order == LINES)


@pytest.mark.promise("c7")
@given(st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_lines_left_out_are_found_unless_they_are_an_end(left_out: set[int]) -> None:
    kept = [line for number, line in enumerate(LINES) if number not in left_out]
    first, last = LINES.index(kept[0]), LINES.index(kept[-1])
    is_one_piece = kept == LINES[first : last + 1]
    assert (found_in(joined(kept)) == 0) == is_one_piece
