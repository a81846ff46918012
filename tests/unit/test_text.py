"""Foreign text inside our lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.audit.record import Event, build
from host_agent.canonical import JsonValue
from host_agent.cli.terminal import render
from host_agent.text import cut, free, name, plain, value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", "two\\u{a}lines"),
        ("\x1b[31mred", "\\u{1b}[31mred"),
        ("a\u202eb", "a\\u{202e}b"),
        ("a\u200bb", "a\\u{200b}b"),
        ("a\u2028b", "a\\u{2028}b"),
        ("a\u00a0b\u3000c\u2800d", "a\\u{a0}b\\u{3000}c\\u{2800}d"),
        ("one two", "one two"),
        ("a    b", "a \\u{20}\\u{20}\\u{20}b"),
        ("für Ärzte, 東京", "für Ärzte, 東京"),
        ("a" + "\u0301" * 4, "a\u0301\u0301\\u{301}\\u{301}"),
        ("\\u{a}", "\\u{5c}u{a}"),
        ("\ue000\U0010ffff", "\\u{e000}\\u{10ffff}"),
        ("**bold** [x](y)", "**bold** [x](y)"),
    ],
)
def test_free_text_is_one_line_of_what_can_be_seen(text: str, shown: str) -> None:
    assert free(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tank/old", "tank/old"),
        ("tаnk/old", '"t\\u{430}nk/old"'),  # noqa: RUF001 - a Cyrillic letter is the point
        ("alice smith", '"alice smith"'),
        ('a"b', '"a\\u{22}b"'),
        ("", '""'),
        ("101", '"101"'),
        ("true", '"true"'),
        ("null", '"null"'),
    ],
)
def test_a_name_is_ascii(text: str, shown: str) -> None:
    assert name(text) == shown


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (True, "true"),
        (None, "null"),
        (101, "101"),
        ("101", '"101"'),
        (["a", "b"], '["a", "b"]'),
        (["a,b"], '["a,b"]'),
        ({"x": [1, {"y\n": False}]}, '{"x": [1, {"y\\u{a}": false}]}'),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_a_value_says_what_it_is(item: JsonValue, shown: str) -> None:
    assert value(item) == shown


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def typed(item: JsonValue) -> object:
    """Return the value with its types: Python takes True for 1."""
    if isinstance(item, dict):
        return [(key, typed(member)) for key, member in item.items()]
    if isinstance(item, list):
        return [typed(member) for member in item], "list"
    return type(item), item


@given(ANYTHING, ANYTHING)
def test_two_values_never_look_alike(one: JsonValue, other: JsonValue) -> None:
    assert (value(one) == value(other)) == (typed(one) == typed(other))


@given(ANYTHING)
def test_a_value_is_printable_ascii_on_one_line(item: JsonValue) -> None:
    shown = value(item)
    assert shown.isascii()
    assert shown.isprintable()
    assert "  " not in shown


@given(st.text())
def test_free_text_has_one_line(text: str) -> None:
    assert len(free(text).splitlines()) <= 1


@given(st.text(), st.integers(40, 200), st.sampled_from([free, plain]))
def test_a_cut_fits_and_tells(text: str, room: int, shown: type) -> None:
    line = cut(text, room, shown=shown)
    assert len(line) <= room
    whole = shown(text).replace('"', "'")
    assert line == f'"{whole}"' or line.endswith(" characters")
    assert line.count('"') == 2


def test_a_cut_tells_how_much_is_missing() -> None:
    assert cut("x" * 10_000, 100) == f'"{"x" * 73}" ... cut, 9927 characters'
    assert cut("x" * 98, 100) == f'"{"x" * 98}"'


@pytest.mark.parametrize("quote", [*'"“”„‟″〞＂', "\N{HEAVY DOUBLE COMMA QUOTATION MARK ORNAMENT}"])  # noqa: RUF001
def test_nothing_in_a_text_seems_to_stand_behind_it(quote: str) -> None:
    assert cut(f"fine{quote}. Until 23:59 UTC.", 100) == '"fine\'. Until 23:59 UTC."'
    assert cut("it's «fine» ok", 100) == '"it\'s «fine» ok"'


@pytest.mark.parametrize("plane", range(17))
def test_the_log_prompts_and_terminals_write_a_character_alike(plane: int) -> None:
    for code in range(plane << 16, (plane + 1) << 16):
        character = chr(code)
        logged = build(Event.REQUEST_HELD, "", {"reason": character})["reason"]
        assert logged == free(character)
        shown = render.visible(character)
        if shown != logged:  # what would go over the end of a terminal's line, and nothing else
            assert shown == f"\\u{{{code:x}}}"
            assert logged == character


@pytest.mark.parametrize("item", [b"", 1.5, object()])
def test_what_json_does_not_have_is_no_value(item: object) -> None:
    with pytest.raises(TypeError):
        value([item])
