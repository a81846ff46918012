"""Whatever is asked of pct and exec, what reaches a command line of root is of its grammar."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidParameterError
from host_agent.operations.catalogue import Catalogue
from host_agent.operations.exec.adapter import ADAPTER as EXEC_ADAPTER
from host_agent.operations.pct.adapter import ADAPTER
from host_agent.operations.pct.section import PctSection, vmid_ranges

CATALOGUE = Catalogue((ADAPTER, EXEC_ADAPTER))
HELD: dict[str, JsonValue] = {
    "config": "sha256:" + "a" * 64,
    "snapshot": "sha256:" + "b" * 64,
    "sha256": "sha256:" + "c" * 64,
}
TEMPLATE = "local:vztmpl/debian.tar.zst"
ALPHABET = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "C"))
NEAR_MISSES = st.text(st.sampled_from("0123456789aZ-_.:/= \n$;"), max_size=12)
TEXTS = st.one_of(st.text(ALPHABET, max_size=12), NEAR_MISSES)
VALUES = st.one_of(TEXTS, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))
SAFE = re.compile(r"[A-Za-z0-9][!-~]*", re.ASCII)


def arguments(name: str, params: dict[str, JsonValue]) -> tuple[str, ...] | None:
    """Return what the wrapper would get, or None where it is refused."""
    try:
        asked = CATALOGUE.parse(name, params)
    except InvalidParameterError:
        return None
    return asked.spec.invoke(asked.params, HELD).arguments


@given(vmid=VALUES)
def test_a_vmid_is_three_to_nine_digits_or_refused(vmid: JsonValue) -> None:
    got = arguments("pct.status", {"vmid": vmid})
    text = str(vmid) if isinstance(vmid, int) and not isinstance(vmid, bool) else vmid
    is_vmid = isinstance(text, str) and re.fullmatch("[1-9][0-9]{2,8}", text, re.ASCII)
    assert (got is None) == (not is_vmid)
    assert got is None or got == (text,)


@given(number=st.integers(min_value=100, max_value=999_999_999))
def test_digits_and_integer_are_one_operation(number: int) -> None:
    assert arguments("pct.stop", {"vmid": number}) == arguments("pct.stop", {"vmid": str(number)})


@pytest.mark.promise("c20")
@given(
    options=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("template", "hostname", "memory", "cores", "rootfs", "swap", "name"), VALUES
        ),
    )
)
def test_no_argument_of_create_is_an_option_or_two_words(options: dict[str, JsonValue]) -> None:
    got = arguments("pct.create", {"vmid": 101, "template": TEMPLATE, **options})
    assert got is None or all(SAFE.fullmatch(argument) for argument in got)


@pytest.mark.promise("c20")
@given(name=TEXTS)
def test_no_snapshot_name_is_an_option_or_two_words(name: str) -> None:
    got = arguments("pct.snapshot", {"vmid": 101, "name": name})
    assert got is None or re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]+", got[1], re.ASCII)


@pytest.mark.promise("c20", "c21")
@given(name=TEXTS, given_arguments=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_no_argument_of_a_command_is_an_option_or_two_words(
    name: str, given_arguments: dict[str, JsonValue]
) -> None:
    got = arguments("exec.run", {"name": name, "arguments": given_arguments})
    if got is not None:
        assert all(SAFE.fullmatch(argument) for argument in got)
        assert all(not pair.partition("=")[2].startswith("-") for pair in got[3:])


@given(
    ranges=st.lists(st.tuples(st.integers(100, 999), st.integers(0, 50)), min_size=1, max_size=4),
    vmid=st.integers(100, 1100),
)
def test_an_allow_list_covers_its_ranges_and_nothing_else(
    ranges: list[tuple[int, int]], vmid: int
) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    section = PctSection(vmids=text)
    assert section.covers(str(vmid)) == any(first <= vmid <= first + more for first, more in ranges)
    assert len(vmid_ranges(text)) == len(ranges)


@pytest.mark.parametrize("vmids", ["", "99", "100-", "-100", "200-100", "100,,101", "100-200-300"])
def test_another_allow_list_is_a_fault(vmids: str) -> None:
    with pytest.raises(ValueError):
        PctSection(vmids=vmids)
