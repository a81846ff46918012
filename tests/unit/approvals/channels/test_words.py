"""What a message says, and the many that say nothing."""

import pytest

from host_agent.approvals import codes
from host_agent.approvals.channels.words import (
    APPROVES,
    DENIES,
    MAX_REASON,
    ApproveReaction,
    Chatter,
    Confirm,
    Deny,
    Enrol,
    Unclear,
    read,
    read_reaction,
)

CODE = "ABCDEFGHJKLMNPQR"


@pytest.mark.parametrize(
    "text",
    [
        f"CONFIRM {CODE}",
        f"confirm {CODE.lower()}",
        f"  Confirm:  {CODE}  ",
        "CONFIRM ABCD EFGH JKLM NPQR",
        "CONFIRM ABCD-EFGH-JKLM-NPQR",
        f"CONFIRM\n{CODE}\n",
    ],
)
def test_a_confirmation_is_read_however_it_is_typed(text: str) -> None:
    assert read(text) == Confirm(CODE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DENY", Deny()),
        ("deny not today", Deny(reason="not today")),
        (f"DENY {CODE}", Deny(CODE)),
        (f"DENY {CODE} not today", Deny(CODE, "not today")),
        ("DENY abcd efgh jklm npqr - not today", Deny(CODE, "not today")),
        (f"DENY {CODE[:-1]}", Deny(reason=CODE[:-1])),
        (f"DENY {CODE}X", Deny(reason=f"{CODE}X")),
    ],
)
def test_a_denial_is_read_with_and_without_code_and_reason(text: str, said: Deny) -> None:
    assert read(text) == said


@pytest.mark.parametrize("verb", ["ENROL", "enroll", "Enrol"])
def test_an_enrolment_is_read(verb: str) -> None:
    assert read(f"{verb} {CODE}") == Enrol(CODE)


@pytest.mark.parametrize(
    "text",
    [
        "CONFIRM",
        f"CONFIRM {CODE[:-1]}",
        f"CONFIRM {CODE}X",
        f"CONFIRM {CODE} and more",
        f"CONFIRM {CODE} {CODE}",
        "CONFIRM 0000000000000000",
        f"ENROL {CODE} x",
        "yes",
        "ok",
        "approve",
    ],
)
def test_what_is_meant_for_us_and_is_no_answer_is_unclear(text: str) -> None:
    assert read(text) == Unclear()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hello",
        CODE,
        f"I would CONFIRM {CODE}",
        f"DENYING {CODE}",
        "\N{FULLWIDTH LATIN CAPITAL LETTER C}ONFIRM " + CODE,
        "\N{CYRILLIC CAPITAL LETTER ES}ONFIRM " + CODE,
        "con\N{LATIN SMALL LETTER LONG S}irm " + CODE,
        "\N{ZERO WIDTH SPACE}CONFIRM " + CODE,
        "\N{NO-BREAK SPACE}",
    ],
)
def test_anything_else_is_not_for_us(text: str) -> None:
    assert read(text) == Chatter()


@pytest.mark.parametrize(
    "letter",
    ["\N{FULLWIDTH LATIN CAPITAL LETTER A}", "\N{GREEK CAPITAL LETTER ALPHA}", "\u017f", "\u212a"],
)
def test_letters_beyond_ascii_are_never_part_of_a_code(letter: str) -> None:
    assert read(f"CONFIRM {letter}{CODE[1:]}") == Unclear()
    assert read(f"DENY {letter}{CODE[1:]}") == Deny(reason=f"{letter}{CODE[1:]}")


def test_long_messages_are_cut() -> None:
    said = read("DENY " + "x" * 100_000)
    assert isinstance(said, Deny)
    assert len(said.reason or "") == MAX_REASON
    assert read("CONFIRM " + " " * 100_000 + CODE) == Unclear()


def test_every_code_that_is_made_is_read() -> None:
    for _ in range(200):
        code = codes.make()
        assert read(f"CONFIRM {code}") == Confirm(code)


def test_reactions_are_a_closed_set_and_none_of_them_is_both() -> None:
    assert APPROVES.isdisjoint(DENIES)
    assert all(read_reaction(emoji) == Deny() for emoji in DENIES)
    assert all(read_reaction(emoji) == ApproveReaction() for emoji in APPROVES)


@pytest.mark.parametrize(
    ("emoji", "said"),
    [
        ("\N{THUMBS DOWN SIGN}\U0001f3fd", Deny()),
        ("\N{THUMBS UP SIGN}\U0001f3fb", ApproveReaction()),
        ("\N{HEAVY CHECK MARK}\ufe0f", ApproveReaction()),
        ("\u2764\ufe0f", Chatter()),
        ("", Chatter()),
        ("\N{THUMBS DOWN SIGN}\N{THUMBS UP SIGN}", Chatter()),
        (f"CONFIRM {CODE}", Chatter()),
    ],
)
def test_a_reaction_says_no_or_asks_how_to_say_yes(emoji: str, said: object) -> None:
    assert read_reaction(emoji) == said
