"""Confirmation codes: what an approver types where no certificate speaks for them.

A code is 16 characters of an alphabet without look-alikes (80 bits), shown in groups of four. It is
copied, not typed, so its length costs nobody anything; and 80 bits cannot be guessed, however many
try how often, where the 40 of a shorter one would rest on counting wrong ones. Only its hash is
stored, in the row of the request and the approver it was made for; so a code says yes to one
request, by one approver, and dies with the decision.
"""

import hmac
import re
import secrets

from host_agent.text import sha256_digest

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""32 characters: no I, O, 0 or 1."""
LENGTH = 16
GROUP = 4
MAX_INPUT = 64
"""Longer input is no code, however many spaces and dashes it has."""

_CODE = re.compile(rf"[{ALPHABET}]{{{LENGTH}}}")
_TYPED = re.compile(
    rf"(?<![A-Za-z0-9])(?:[{ALPHABET}]{{16}}"
    rf"|(?=[^0-9]*[0-9])(?:[{ALPHABET}]{{4}}[ -]){{3}}[{ALPHABET}]{{4}}"
    rf"|(?=[^0-9]*[0-9])[{ALPHABET}]{{8}}[ -][{ALPHABET}]{{8}})(?![A-Za-z0-9])",
    re.IGNORECASE | re.ASCII,
)
"""Words in the form of a code, in one piece, or in even ones with a digit in them."""
_DOMAIN = b"host-agent confirmation code\0"


def make() -> str:
    """Return a new code from the system's secure randomness, at least one digit in it.

    So its groups are told from words, and kept out of what is written down (`masked`). One draw in
    a hundred is drawn again, which costs a seventieth of a bit.
    """
    while True:
        code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        if any(map(str.isdigit, code)):
            return code


def spaced(code: str) -> str:
    """Return a code as people see it: `SP5A QXNL B7PJ BFYY`."""
    return " ".join(code[at : at + GROUP] for at in range(0, LENGTH, GROUP))


def normalise(text: str) -> str | None:
    """Return the code that a person typed, or None where it cannot be one.

    Case, spaces and dashes do not matter. Letters beyond ASCII are never folded into it.
    """
    if len(text) > MAX_INPUT or not text.isascii():
        return None
    code = text.replace(" ", "").replace("-", "").upper()
    return code if _CODE.fullmatch(code) else None


def masked(text: str) -> str:
    """Return `text` without what could be a code: people mistype, and reasons are written down."""
    return _TYPED.sub("[code]", text)


def hash_code(code: str) -> str:
    """Return what is stored of a code that `make` made: `sha256:` and hexadecimal digits.

    80 random bits need no slow hash: they cannot be searched through.
    """
    return sha256_digest(_DOMAIN + code.encode("ascii"))


def matches(text: str, hashed: str) -> bool:
    """Return whether `text` is the code that `hashed` was made of, in constant time.

    Text that is no code is compared as well, with a hash that nothing has.
    """
    code = normalise(text)
    offered = hash_code("") if code is None else hash_code(code)
    return hmac.compare_digest(offered.encode(), hashed.encode()) and code is not None
