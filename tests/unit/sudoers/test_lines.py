"""Logical lines and includes, as sudo reads them."""

import pytest

from host_agent.sudoers.lines import MAX_DEPTH, gather, logical_lines
from host_agent.sudoers.values import UNKNOWN
from tests.support.sudoers_cases import FakeSource


def starts(text: str) -> list[tuple[int, str]]:
    return [(line.origin.line, line.text) for line in logical_lines("/f", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", [(1, "a"), (2, "b")]),
        ("a \\\n b\nc", [(1, "a \\\n b"), (3, "c")]),
        ("a \\  \n b\nc", [(1, "a \\  \n b"), (3, "c")]),
        ("# a \\\nb", [(1, "# a \\"), (2, "b")]),
        ("#1000 ALL=ALL \\\n, b", [(1, "#1000 ALL=ALL \\\n, b")]),
        ("a \\\\\nb", [(1, "a \\\\"), (2, "b")]),
        ("a \\", [(1, "a \\")]),
        ("a # b \\\nc", [(1, "a # b \\"), (2, "c")]),
        ("a \\\n b # c \\\nd", [(1, "a \\\n b # c \\"), (3, "d")]),
        ("a \\# b \\\nc", [(1, "a \\# b \\\nc")]),
        ('a "# b" \\\nc', [(1, 'a "# b" \\\nc')]),
        ('a "b \\\n# c" \\\nd', [(1, 'a "b \\\n# c" \\\nd')]),
        ('a "\\"" # b \\\nc', [(1, 'a "\\"" # b \\'), (2, "c")]),
        ('a "\\\\" # b" \\\nc', [(1, 'a "\\\\" # b" \\\nc')]),
        ('a "\\\\" # b" # \\\nc', [(1, 'a "\\\\" # b" # \\'), (2, "c")]),
        ("a \\\\# b \\\nc", [(1, "a \\\\# b \\"), (2, "c")]),
        ("a, #10 \\\nc", [(1, "a, #10 \\\nc")]),
        ("a #x \\", [(1, "a #x \\")]),
        ("a\x0bb\x85c\u2028d", [(1, "a\x0bb\x85c\u2028d")]),
    ],
)
def test_a_logical_line_has_its_continuations(text: str, expected: list[tuple[int, str]]) -> None:
    assert starts(text) == expected


def test_comments_and_blanks_are_blank_and_numbers_of_users_are_not() -> None:
    blank = [
        line.is_blank for line in logical_lines("/f", "\n \n# c\n  #c\n#1 ALL=ALL\n#-1 ALL=ALL")
    ]

    assert blank == [True, True, True, True, False, False]


@pytest.mark.parametrize(
    "directive",
    [
        "@include /etc/other",
        "   @include /etc/other",
        "#include /etc/other",
        "@include other",
        '@include"/etc/other"',
        '@include "/etc/other" # why',
        "@include /etc/%hother",
        "@include /etc/ot\\her",
    ],
)
def test_an_include_is_followed(directive: str) -> None:
    source = FakeSource({"/etc/s": f"{directive}\n", "/etc/other": "x", "/etc/boxother": "x"})

    gathered = gather(source, "/etc/s", "box.example.org")

    assert [line.text for line in gathered.lines if not line.is_blank] == ["x"]
    assert not gathered.findings


@pytest.mark.parametrize(
    "text", [" #include /etc/other", "#include: x", "# @include /etc/other", "#includes /etc/other"]
)
def test_what_sudo_takes_for_a_comment_is_not_followed(text: str) -> None:
    gathered = gather(FakeSource({"/etc/s": text, "/etc/other": "x"}), "/etc/s", "box")

    assert gathered.files == ["/etc/s"]


def test_an_include_that_is_not_understood_stays_in_the_text() -> None:
    gathered = gather(FakeSource({"/etc/s": "@include /a b"}), "/etc/s", "box")

    assert [line.text for line in gathered.lines] == ["@include /a b"]


def test_an_include_of_itself_ends_and_is_unknown() -> None:
    gathered = gather(FakeSource({"/etc/s": "@include /etc/s\n"}), "/etc/s", "box")

    assert len(gathered.files) == MAX_DEPTH + 1
    assert {finding.rule for finding in gathered.findings} == {UNKNOWN}


def test_a_directory_is_read_in_the_order_of_bytes_without_dots_and_tildes() -> None:
    names = ("b", "a", "Z", "10", "9", "c.d", ".e", "f~")
    files = {f"/etc/d/{name}": name for name in names}

    gathered = gather(FakeSource({"/etc/s": "@includedir /etc/d/\n", **files}), "/etc/s", "box")

    assert gathered.files[1:] == [f"/etc/d/{name}" for name in ("10", "9", "Z", "a", "b")]


def test_a_missing_directory_is_passed_over_and_a_missing_file_is_unknown() -> None:
    source = FakeSource({"/etc/s": "@includedir /etc/none\n@include /etc/gone\n"})

    gathered = gather(source, "/etc/s", "box")

    assert [finding.origin.file for finding in gathered.findings] == ["/etc/gone"]
