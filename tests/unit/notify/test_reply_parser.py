"""What people type: three verbs, a code, and nothing that merely looks like them."""

from datetime import time, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from host_agent.notify.reply_parser import (
    APPROVES,
    DENIES,
    MAX_CHARACTERS,
    MAX_REASON,
    ApproveReaction,
    Chatter,
    Confirm,
    Denial,
    Enrol,
    Unclear,
    Words,
    read,
    read_reaction,
)
from host_agent.requests import codes

CODE = "ABCDEFGH23456789"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"CONFIRM {CODE}", Confirm(CODE)),
        (f"confirm {CODE.lower()}", Confirm(CODE)),
        (f"  Confirm:  {CODE}.\n", Confirm(CODE)),
        ("Confirm abcd-efgh 2345 6789", Confirm(CODE)),
        ("confirm a b c d e f g h 2 3 4 5 6 7 8 9", Confirm(CODE)),
        (f"ENROL {CODE}", Enrol(CODE)),
        (f"enroll {CODE}", Enrol(CODE)),
        (f"DENY {CODE}", Denial(CODE)),
        (f"deny {CODE} not on a friday", Denial(CODE, "not on a friday")),
        (f"deny {CODE}: not on a friday", Denial(CODE, "not on a friday")),
        (f"deny {CODE}\nnot on a friday", Denial(CODE, "not on a friday")),
        ("Deny ABCD-EFGH-2345-6789 - too late", Denial(CODE, "too late")),
        ("DENY", Denial()),
        ("deny.", Denial()),
        ("deny, not on a friday", Denial(None, "not on a friday")),
    ],
)
def test_answers(text: str, words: Words) -> None:
    assert read(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "CONFIRM",
        "CONFIRM it",
        f"CONFIRM {CODE[:-1]}",
        f"CONFIRM {CODE}A",
        f"CONFIRM {CODE} but only tomorrow",
        f"CONFIRM {CODE} {CODE}",
        "CONFIRM ABCDEFGH2345678O",  # the letter O, which no code has
        "CONFIRM ABCDEFGH23456781",
        f"CONFIRM {CODE}_",
        "ENROL",
        "yes",
        "ok",
        "Approve it",
    ],
)
def test_what_was_meant_for_us_and_is_no_answer(text: str) -> None:
    assert read(text) == Unclear()


@pytest.mark.parametrize("text", ["", " ", "hello", "👍", f"please confirm {CODE}", CODE, "123"])
def test_chatter(text: str) -> None:
    assert read(text) == Chatter()


@pytest.mark.parametrize(
    "text",
    [
        f"\N{FULLWIDTH LATIN CAPITAL LETTER C}ONFIRM {CODE}",
        f"CONF\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}RM {CODE}",
        f"CON\N{LATIN SMALL LIGATURE FI}RM {CODE}",
        f"confirm\N{LATIN SMALL LETTER E WITH ACUTE} {CODE}",
        "CONFIRM \N{GREEK CAPITAL LETTER ALPHA}BCDEFGH23456789",
        "CONFIRM \N{CYRILLIC CAPITAL LETTER A}BCDEFGH23456789",
        "CONFIRM \N{FULLWIDTH LATIN CAPITAL LETTER A}BCDEFGH23456789",
        "CONFIRM ABCDEFGH\N{ARABIC-INDIC DIGIT TWO}3456789",
        "CONFIRM ABCDEFGH\N{ZERO WIDTH SPACE}23456789",
        "CONFIRM ABCDEFGH\N{EN DASH}23456789",
        "CONFIRM \N{RIGHT-TO-LEFT OVERRIDE}98765432HGFEDCBA",
    ],
)
def test_nothing_is_folded_into_a_verb_or_a_code(text: str) -> None:
    assert read(text) in (Chatter(), Unclear())


@pytest.mark.parametrize(
    ("words", "wait", "reason"),
    [
        ("2h", timedelta(hours=2), None),
        ("30m not now", timedelta(minutes=30), "not now"),
        ("1 d: busy", timedelta(days=1), "busy"),
        ("45 MIN", timedelta(minutes=45), None),
        ("not before 18:00", time(18), None),
        ("Until 9:05Z, we deploy", time(9, 5), "we deploy"),
        ("until 23:59 UTC", time(23, 59), None),
        ("2hours", None, "2hours"),
        ("0h", None, "0h"),
        ("99999h", None, "99999h"),
        ("2h-long outage", None, "2h-long outage"),
        ("2", None, "2"),
        ("not before noon", None, "not before noon"),
        ("until 24:00", None, "until 24:00"),
        ("until 18:00:30", None, "until 18:00:30"),
        ("until 18:00+02:00", None, "until 18:00+02:00"),
        ("until 18:00 +0200", None, "until 18:00 +0200"),
        ("until 18:00 UTC+2", None, "until 18:00 UTC+2"),
        ("until 6:00 pm", None, "until 6:00 pm"),
        ("until 6:00pm", None, "until 6:00pm"),
        ("until 6:00 p.m", None, "until 6:00 p.m"),
        ("until 9:00 amend it", time(9), "amend it"),
        ("until 9:00. Then we see", time(9), "Then we see"),
        ("until 9:00 - we deploy", time(9), "we deploy"),
        ("\N{ARABIC-INDIC DIGIT TWO}h", None, "\N{ARABIC-INDIC DIGIT TWO}h"),
        ("why? 2h", None, "why? 2h"),
    ],
)
def test_how_long_to_wait_stands_first(
    words: str, wait: timedelta | time | None, reason: str | None
) -> None:
    assert read(f"DENY {CODE} {words}") == Denial(CODE, reason, wait)
    assert read(f"DENY {words}") == Denial(None, reason, wait)


def test_a_consent_that_is_too_long_to_be_seen_whole_is_none() -> None:
    consent = f"CONFIRM {CODE}"
    assert read(consent.ljust(MAX_CHARACTERS)) == Confirm(CODE)
    assert read(consent.ljust(MAX_CHARACTERS + 1)) == Unclear()


def test_a_reason_is_bounded_and_can_be_stored() -> None:
    words = read(f"deny {CODE} " + "x" * 5_000)
    assert words == Denial(CODE, "x" * MAX_REASON)
    assert read(f"deny {CODE} a\0b\ud800c") == Denial(CODE, "a b?c")


@pytest.mark.parametrize(
    "reason", ["these rules lead nowhere", "that was never agreed upon", "let us wait", "ABCD-EFGH"]
)
def test_the_first_words_of_a_reason_are_no_code(reason: str) -> None:
    """An answer to a prompt may leave the code out; a reason must not make it a wrong one."""
    assert read(f"DENY {reason}") == Denial(None, reason)


@pytest.mark.parametrize(
    ("words", "hours", "reason"),
    [
        ("2h the backup needs rest", 2, "the backup needs rest"),
        ("3d we are at sea then", 72, "we are at sea then"),
        ("2 h the data team has it", 2, "the data team has it"),
    ],
)
def test_the_words_after_a_time_are_no_code(words: str, hours: int, reason: str) -> None:
    """With the time's digit they have the length of one, and the denial would be lost."""
    assert read(f"DENY {words}") == Denial(None, reason, timedelta(hours=hours))
    assert read(f"DENY {CODE} {words}") == Denial(CODE, reason, timedelta(hours=hours))


@pytest.mark.parametrize(
    "typed",
    [
        "ABCDE-FGH23-456789",
        "ABCD EFGH JKLM NPQR",
        "abcdefghjklmnpqr",
        "2HAB CDEF GHJK LMNP",
        "2H-ABCDEF-GHJKLMNP",
    ],
)
def test_a_denial_takes_codes_in_pieces(typed: str) -> None:
    assert read(f"DENY {typed} no") == Denial(codes.normalise(typed), "no")


@given(
    st.sampled_from(["CONFIRM", "confirm", "Confirm"]),
    st.text(codes.ALPHABET, min_size=16, max_size=16),
    st.lists(st.sampled_from(["", " ", "-"]), min_size=16, max_size=16),
)
def test_every_code_is_read_however_it_is_typed(
    verb: str, code: str, separators: list[str]
) -> None:
    typed = "".join(f"{letter}{gap}" for letter, gap in zip(code, separators, strict=True))
    assert read(f"{verb} {typed}") == Confirm(code)
    assert read(f"{verb} {typed.lower()}") == Confirm(code)


@given(st.text(max_size=80))
@example("DENY \ud800")
def test_whatever_is_typed_a_code_is_a_code(text: str) -> None:
    for verb in ("", "CONFIRM ", "DENY ", "ENROL "):
        words = read(verb + text)
        if isinstance(words, Confirm | Enrol | Denial) and words.code is not None:
            assert codes.normalise(words.code) == words.code
        if isinstance(words, Confirm | Enrol):
            assert (verb + text).isascii() or (verb + text).strip()[0].isascii()
        if isinstance(words, Denial) and words.reason is not None:
            assert 0 < len(words.reason) <= MAX_REASON
            words.reason.encode()


@pytest.mark.parametrize("emoji", [*sorted(DENIES), "❌", "✖️", "👎🏿", "🚫", "⛔", "🛑"])
def test_reactions_that_deny(emoji: str) -> None:
    assert read_reaction(emoji) == Denial()


@pytest.mark.parametrize("emoji", [*sorted(APPROVES), "👍🏽", "✅", "✔️"])
def test_no_reaction_approves(emoji: str) -> None:
    assert read_reaction(emoji) == ApproveReaction()


@pytest.mark.parametrize("emoji", ["", "❤️", "😂", "👎👎", "👎👍", "no", "\ufe0f", "👍" * 900])
def test_other_reactions_say_nothing(emoji: str) -> None:
    assert read_reaction(emoji) == Chatter()


def test_no_reaction_is_both() -> None:
    assert not APPROVES & DENIES
