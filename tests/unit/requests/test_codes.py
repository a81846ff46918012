"""Confirmation codes: hard to guess, easy to type, worthless anywhere else (fault C28)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.requests import codes

CODE = "ABCDEFGH23456789"
HASHED = codes.hash_code(CODE)


def test_made_codes_are_80_bits_of_the_alphabet() -> None:
    made = {codes.make() for _ in range(500)}
    assert len(made) == 500
    assert all(len(code) == codes.LENGTH and set(code) <= set(codes.ALPHABET) for code in made)
    assert len(set(codes.ALPHABET)) ** codes.LENGTH == 2**80


def test_every_character_occurs() -> None:
    assert {character for _ in range(200) for character in codes.make()} == set(codes.ALPHABET)


@pytest.mark.parametrize(
    "typed",
    [CODE, CODE.lower(), "abcd-efgh-2345-6789", " ABCD EFGH 2345 6789 ", "AbCd-eFgH23456789"],
)
def test_case_spaces_and_dashes_do_not_matter(typed: str) -> None:
    assert codes.normalise(typed) == CODE
    assert codes.matches(typed, HASHED)


@pytest.mark.promise("c28")
@pytest.mark.parametrize(
    "typed",
    [
        "",
        CODE[:-1],
        CODE + "A",
        CODE + "\n",
        "ABCDEFGH23456780",
        "ABCDEFGH2345678I",
        "ABCDEFGHI3456789",
        "\uff21BCDEFGH23456789",
        "ABCDEFGH2345678\u0131",
        "\u0410BCDEFGH23456789",
        "ABCD_EFGH_2345_6789",
        "-" * 100 + CODE,
        HASHED,
        "\0" + CODE,
    ],
)
def test_what_is_no_code_never_matches(typed: str) -> None:
    assert codes.normalise(typed) is None
    assert not codes.matches(typed, HASHED)
    assert not codes.matches(typed, codes.hash_code(""))


@pytest.mark.promise("c28")
@given(st.text(alphabet=codes.ALPHABET, min_size=16, max_size=16))
def test_only_the_code_itself_matches(other: str) -> None:
    assert codes.matches(other, codes.hash_code(other))
    assert codes.matches(other, HASHED) is (other == CODE)


@pytest.mark.promise("c28")
@given(st.text())
def test_no_text_breaks_the_comparison(text: str) -> None:
    assert not codes.matches(text, HASHED) or codes.normalise(text) == CODE


@pytest.mark.promise("c28")
@given(st.text(alphabet=codes.ALPHABET, min_size=16, max_size=16), st.integers(0, 15))
def test_truncated_or_altered_code_is_none(code: str, position: int) -> None:
    hashed = codes.hash_code(code)
    assert not codes.matches(code[:position], hashed)
    other = codes.ALPHABET[(codes.ALPHABET.index(code[position]) + 1) % 32]
    assert not codes.matches(code[:position] + other + code[position + 1 :], hashed)


def test_hash_says_nothing_of_the_code() -> None:
    assert CODE not in HASHED
    assert HASHED.startswith("sha256:")


def test_a_code_as_it_is_shown_is_kept_out_of_what_is_written_down() -> None:
    for _ in range(2_000):
        code = codes.make()
        shown = codes.spaced(code)
        assert codes.normalise(shown) == code
        assert codes.masked(f"no, not {shown} again") == "no, not [code] again"
