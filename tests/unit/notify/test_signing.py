"""Signatures: the published example, two secrets at once, and a twin for every refusal."""

import base64
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.errors import BadSignatureError
from host_agent.notify.signing import (
    MAX_SIGNATURES,
    TOLERANCE_SECONDS,
    read_secret,
    sign,
    verify,
)

KEY = b"k" * 32
OTHER = b"o" * 32
NOW = datetime(2026, 11, 20, 21, 0, 0, tzinfo=UTC)
STAMP = int(NOW.timestamp())
BODY = b'{"decision":"deny"}'


@dataclass(frozen=True)
class Signed:
    """A message with its headers as they arrive."""

    message_id: str | None = "2f1c"
    timestamp: str | None = str(STAMP)
    signature: str | None = sign([KEY], "2f1c", STAMP, BODY)
    body: bytes = BODY

    def check(self, *secrets: bytes, now: datetime = NOW) -> None:
        verify(
            secrets or [KEY],
            message_id=self.message_id,
            timestamp=self.timestamp,
            signature=self.signature,
            body=self.body,
            now=now,
        )


GOOD = Signed()


def test_the_example_of_the_specification() -> None:
    key = read_secret(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    header = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert header == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_good_signature_is_taken() -> None:
    GOOD.check()


def test_while_rotating_both_secrets_sign_and_either_is_enough() -> None:
    both = replace(GOOD, signature=sign([OTHER, KEY], "2f1c", STAMP, BODY))
    assert both.signature is not None
    assert both.signature.count("v1,") == 2
    both.check(KEY)
    both.check(OTHER)
    GOOD.check(OTHER, KEY)
    with pytest.raises(BadSignatureError):
        both.check(b"third" * 8)


def test_signatures_of_other_versions_are_passed_over() -> None:
    assert GOOD.signature is not None
    replace(GOOD, signature=f"v1a,AAAA {GOOD.signature} v2,BBBB").check()


def test_forged_signature_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        GOOD.check(OTHER)


@pytest.mark.parametrize("seconds", [-TOLERANCE_SECONDS, 0, TOLERANCE_SECONDS])
def test_a_clock_within_the_tolerance_is_taken(seconds: int) -> None:
    GOOD.check(now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1, 10**8])
def test_shifted_clock_is_refused_both_ways(seconds: int) -> None:
    with pytest.raises(BadSignatureError):
        GOOD.check(now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "changed",
    [
        {"message_id": None},
        {"timestamp": None},
        {"signature": None},
        {"message_id": "2f1d"},
        {"timestamp": str(STAMP + 1)},
        {"body": BODY + b" "},
        {"body": b""},
        {"signature": ""},
        {"signature": "v1,"},
        {"signature": sign([KEY], "2f1c", STAMP, BODY).removeprefix("v1,")},
        {"signature": sign([KEY], "2f1c", STAMP, BODY).replace("v1,", "v2,")},
        {"signature": sign([KEY], "2f1c", STAMP, BODY).replace("v1,", "V1,")},
        {"signature": sign([KEY], "2f1c", STAMP, BODY).rstrip("=")},
        {"signature": sign([KEY], "2f1c", STAMP, BODY) + "\n"},
        {"signature": "v1,\u0430"},
        {"signature": "\ud800"},
        {"signature": "v1,AAAA " * MAX_SIGNATURES + sign([KEY], "2f1c", STAMP, BODY)},
    ],
)
def test_anything_changed_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadSignatureError):
        replace(GOOD, **changed).check()  # type: ignore[arg-type]


def signed_with(message_id: str, timestamp: str) -> Signed:
    """Return a message whose signature is right, whatever its id and time are."""
    import hashlib
    import hmac

    content = f"{message_id}.{timestamp}.".encode() + BODY
    digest = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    return Signed(message_id, timestamp, f"v1,{digest}", BODY)


@pytest.mark.parametrize("message_id", ["a", "!", "~", "-_/", "a" * 256])
def test_ids_that_are_taken(message_id: str) -> None:
    signed_with(message_id, str(STAMP)).check()


@pytest.mark.parametrize("message_id", ["", "a.b", ".", "a b", "a\n", "\u00e9", "a" * 257, "\x7f"])
def test_ids_that_are_refused_however_well_they_are_signed(message_id: str) -> None:
    with pytest.raises(BadSignatureError):
        signed_with(message_id, str(STAMP)).check()


@pytest.mark.parametrize(
    "timestamp",
    ["", f"+{STAMP}", f" {STAMP}", f"{STAMP} ", f"0{STAMP}", f"{STAMP}.0", f"{STAMP}\n", "-1",
     "1_795_208_400", hex(STAMP), f"{STAMP}e0", "\u0661\u0667", "9" * 5000],
)  # fmt: skip
def test_times_that_are_refused_however_well_they_are_signed(timestamp: str) -> None:
    with pytest.raises(BadSignatureError):
        signed_with("a", timestamp).check()


def test_without_a_secret_nothing_is_taken() -> None:
    with pytest.raises(BadSignatureError):
        verify(
            [],
            message_id="2f1c",
            timestamp=str(STAMP),
            signature=GOOD.signature,
            body=BODY,
            now=NOW,
        )


def test_the_refusal_says_nothing_of_what_was_wrong() -> None:
    said = set()
    for wrong in (
        replace(GOOD, signature=None),
        replace(GOOD, message_id="a.b"),
        replace(GOOD, body=b"x"),
        replace(GOOD, timestamp="0"),
    ):
        with pytest.raises(BadSignatureError) as caught:
            wrong.check()
        said.add((caught.value.detail, str(caught.value.members)))
    assert len(said) == 1


def test_nothing_is_signed_without_a_secret_or_with_a_bad_id() -> None:
    for secrets, message_id in (([], "a"), ([KEY], "a.b"), ([KEY], "")):
        with pytest.raises(RuntimeError):
            sign(secrets, message_id, STAMP, BODY)


@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=80), st.binary(max_size=50))
def test_no_text_is_taken_or_fails_otherwise(
    message_id: str, timestamp: str, signature: str, body: bytes
) -> None:
    with pytest.raises(BadSignatureError):
        Signed(message_id, timestamp, signature, body).check()


# -- secrets ---------------------------------------------------------------------------------------


def test_a_secret_in_either_form() -> None:
    encoded = base64.b64encode(bytes(range(32)))
    assert read_secret(b"whsec_" + encoded + b"\n") == bytes(range(32))
    assert read_secret(b"  just twenty-four letters \r\n") == b"just twenty-four letters"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a" * 23,
        b"whsec_",
        b"whsec_" + base64.b64encode(b"a" * 23),
        b"whsec_" + base64.b64encode(b"a" * 32)[:-1],
        b"whsec_" + b"*" * 40,
        b"whsec_" + base64.b64encode(b"a" * 32) + b"\nsecond",
        b"a" * 30 + b"\n" + b"b" * 30,
        b"\xff" * 30,
        b"a" * 1025,
    ],
)
def test_what_is_no_secret_is_refused_without_repeating_it(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(it|what)") as caught:
        read_secret(data)
    assert "aaa" not in str(caught.value)
