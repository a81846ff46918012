"""Nothing that a host or a caller wrote reaches a terminal as anything but visible text."""

import ctypes
import io
import json
import locale

import pytest
from rich.cells import cell_len

from host_agent.cli.terminal import render

HOSTILE = [*range(0x20), 0x7F, *range(0x80, 0xA0)]


@pytest.mark.promise("c31")
@pytest.mark.parametrize("code", HOSTILE, ids=hex)
def test_every_control_character_is_shown_escaped(code: int) -> None:
    shown = render.visible(f"a{chr(code)}b")

    assert shown == f"a\\u{{{code:x}}}b"


@pytest.mark.promise("c30")
@pytest.mark.parametrize(
    "code",
    [
        0x00AD,
        0x061C,
        0x180E,
        0x200B,
        0x200C,
        0x200D,
        0x200E,
        0x200F,
        0x2028,
        0x2029,
        0x202A,
        0x202E,
        0x2060,
        0x2066,
        0x2069,
        0x2800,
        0x3000,
        0x3164,
        0xD800,
        0xE000,
        0xFE0F,
        0xFEFF,
        0xFFF9,
        0xE0001,
        0xE0061,
        0xE0100,
        0x10FFFF,
    ],
    ids=hex,
)
def test_what_cannot_be_seen_is_shown_escaped(code: int) -> None:
    shown = render.visible(f"tank{chr(code)}data")

    assert chr(code) not in shown
    assert f"{code:x}" in shown


def test_plain_and_foreign_letters_stay_as_they_are() -> None:
    assert render.visible("before upgrade, für Jürgen, 数据 [bold]x[/bold]") == (
        "before upgrade, für Jürgen, 数据 [bold]x[/bold]"
    )


def test_text_cannot_pretend_to_be_an_escape() -> None:
    assert render.visible("\\u{202e}") == "\\u{5c}u{202e}"
    assert render.visible("\\x1b") == "\\x1b"
    assert render.visible("C:\\temp") == "C:\\temp"


def test_piled_up_marks_are_escaped() -> None:
    shown = render.visible("e" + "\u0301" * 50)

    assert shown.count("\u0301") == 2
    assert shown.count("\\u{301}") == 48


@pytest.mark.promise("c31")
def test_long_text_is_cut_and_its_hash_told() -> None:
    first, second = "a" * 5000 + "x", "a" * 5000 + "y"

    shown = render.visible(first, limit=100)

    assert shown.startswith("a" * 100 + " ... [4901 more characters; sha256 of all: ")
    assert shown != render.visible(second, limit=100)
    assert len(shown) < 250


def test_lines_keep_newlines_and_tabs_and_nothing_else() -> None:
    shown = render.visible_lines("a\tb\r\n\x1b[2Jc\n")

    assert shown == "a\tb\\u{d}\n\\u{1b}[2Jc"


def test_too_many_lines_are_counted() -> None:
    shown = render.visible_lines("1\n2\n3\n4\n", max_lines=2)

    assert shown == "1\n2\n... [2 more lines; --json shows all]"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/srv/app", "/srv/app"),
        ("two words", '"two words"'),
        ("", '""'),
        ("true", '"true"'),
        ("12", '"12"'),
        (12, "12"),
        (True, "true"),
        (None, "null"),
        (["a", 1], '["a", 1]'),
        ("a\nstate: approved", '"a\\nstate: approved"'),
    ],
)
def test_a_value_is_told_apart_from_its_look_alike(value: object, shown: str) -> None:
    assert render.value_text(value) == shown  # type: ignore[arg-type]


def test_json_is_printable_ascii_and_says_the_same() -> None:
    value = {"reason": "\x1b[2J\x7f\x9b\u202e", "list": ["\ud800"]}

    text = render.json_text(value)

    assert text.replace("\n", "").isprintable()
    assert text.isascii()
    assert json.loads(text) == value


def test_markup_in_data_is_not_markup() -> None:
    target = io.StringIO()

    render.console(target).print(
        render.fields([("reason", "[red]approved[/red] :smile: [link=https://x]y[/link]")])
    )

    assert "[red]approved[/red] :smile: [link=https://x]y[/link]" in target.getvalue()


def test_a_folded_value_stays_in_its_column() -> None:
    from rich.console import Console

    target = io.StringIO()
    console = Console(file=target, width=40, markup=False, emoji=False, highlight=False)

    console.print(render.fields([("reason", "x" * 45 + "\nstate approved")]))

    lines = target.getvalue().splitlines()
    assert lines[0].startswith("reason  xxx")
    assert len(lines) > 2
    assert all(line.startswith(" " * 8) for line in lines[1:])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_time_spans(seconds: float, shown: str) -> None:
    assert render.duration_text(seconds) == shown


@pytest.mark.promise("c31")
def test_nothing_takes_more_columns_than_are_counted() -> None:
    """Spacing marks, emoji modifiers and the like, which a terminal draws one or two wide."""
    libc = ctypes.CDLL(None)
    libc.wcwidth.argtypes = [ctypes.c_uint32]
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        points = (n for n in range(0x20, 0x110000) if not 0xD800 <= n < 0xE000)
        wider = [
            hex(point)
            for point in points
            if render.visible(chr(point)) == chr(point)
            and libc.wcwidth(point) > cell_len(chr(point))
        ]
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert wider == []
    assert render.visible("a\u093e") == "a\\u{93e}"
    assert render.visible("\U0001f44d\U0001f3fd") == "\U0001f44d\\u{1f3fd}"
