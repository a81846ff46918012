"""Names of patterns without those of others: whether there are any, which, and as a pattern."""

import re

import pytest

from host_agent.operations.languages import (
    EMPTY,
    Language,
    LanguageTooLargeError,
    Machine,
    alternatives,
    shown,
)
from host_agent.operations.patterns import expression
from host_agent.operations.pct.section import range_patterns


def language(*within: str, without: tuple[str, ...] = ()) -> Language:
    return Language([machine(one) for one in within], [machine(one) for one in without])


def machine(*patterns: str) -> Machine:
    return Machine([expression(pattern) for pattern in patterns])


@pytest.mark.parametrize(
    ("within", "without", "names"),
    [
        (["nginx[.]service"], [], ("nginx.service",)),
        (["(a|b)c?", ".*c"], [], ("ac", "bc")),
        (["a{1,3}(b|)"], ["aa+", "ab"], ("a", "aab", "aaab")),
        (["[a-c]"], ["b"], ("a", "c")),
        (["(a?){2}"], [], ("", "a", "aa")),
        (["tank/.*"], ["tank/.*"], ()),
        (["a", "b"], [], ()),
        ([".*", "on|off"], ["o.*f"], ("on",)),
        (["", "a|"], [], ("",)),
        (["x*", "x{0,2}"], [], ("", "x", "xx")),
    ],
)
def test_few_names_are_told(within: list[str], without: list[str], names: tuple[str, ...]) -> None:
    found = language(*within, without=tuple(without))
    assert found.names(9) == tuple(sorted(names))
    assert found.is_empty() is (not names)


@pytest.mark.parametrize("within", ["tank/.*", "[a-z]{2}", "(ab)+c", "[0-9]"])
def test_many_names_are_not_told(within: str) -> None:
    assert language(within).names(9) is None
    assert not language(within).is_empty()


def test_what_is_too_large_is_said_to_be() -> None:
    large = "(a|b)*a(a|b){14}"  # a deterministic machine for it has 2 to the 15 states
    with pytest.raises(LanguageTooLargeError):
        language(large, without=("(a|b)*",)).is_empty()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"nginx\.service", r"nginx\.service"),
        (r"\Atank/.*\Z", "tank/.*"),
        ("(?P<kind>a|bc)d+", "(?:a|bc)d+"),
        ("x(?:ab)?y{2,}z{3}w{0,4}", "x(?:ab)?y{2,}z{3}w{0,4}"),
        (r"[a-c\-_]\d", r"[\-_a-c][0-9]"),
        (r"[A-Za-z0-9_.:-]+", r"[\w\-.:]+"),
        (r"[^a]\D", "[^a][^0-9]"),
        ("[]^]", r"[\]\^]"),
        (r"a\+\{b", r"a\+\{b"),
        ("a|", "a|"),
    ],
)
def test_a_pattern_is_shown_as_javascript_and_python_read_it(pattern: str, text: str) -> None:
    assert shown(expression(pattern)) == text
    words = (
        "nginx.service",
        "tank/a",
        "bcdd",
        "xababyyzzz",
        "xyyyzzz",
        "-1.",
        "]",
        "a+{b",
        "a",
        "",
    )
    for word in words:
        is_named = re.fullmatch(pattern, word, re.ASCII) is not None
        assert (re.fullmatch(text, word, re.ASCII) is not None) is is_named


def test_a_pattern_is_taken_apart() -> None:
    def parts(pattern: str, limit: int = 9) -> list[str]:
        return [shown(part) for part in alternatives(expression(pattern), limit)]

    assert parts("tank/(a|b)/(c|d.*)") == ["tank/a/c", "tank/a/d.*", "tank/b/c", "tank/b/d.*"]
    assert parts("tank/(a|b)/(c|d.*)", 3) == ["tank/(?:a|b)/(?:c|d.*)"]
    assert parts("a*[xy]") == ["a*x", "a*y"]
    assert parts("[0-9]", 3) == ["[0-9]"]
    assert alternatives(EMPTY, 1) == (EMPTY,)


@pytest.mark.parametrize(
    ("first", "last"), [(100, 199), (100, 100), (195, 1204), (100, 999_999_999), (107, 342)]
)
def test_numbers_have_patterns(first: int, last: int) -> None:
    patterns = range_patterns(first, last)
    for number in {*range(90, 1300), last - 1, last, last + 1, 10**9}:
        found = [one for one in patterns if re.fullmatch(one, str(number))]
        assert len(found) == (first <= number <= last), number
    assert not any(re.fullmatch(one, "0100") for one in patterns)
