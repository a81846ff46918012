"""Signatures of webhooks, both ways, as Standard Webhooks 1.0 has them. Pure.

A message is signed as `ID.TIMESTAMP.BODY` with HMAC-SHA256; while a secret is being replaced there
are two, and a signature for each. Whoever checks is told that it is wrong, never what of it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import NoReturn

from host_agent.errors import BadSignatureError

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

TOLERANCE_SECONDS = 300
"""How far the sender's clock may be from ours, either way."""
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 1_024
MAX_SIGNATURES = 16
"""More than these in one header are not looked at."""

_PREFIX = b"whsec_"
_VERSION = "v1,"
_ID = re.compile(r"[!-\-/-~]{1,256}", re.ASCII)
"""Visible ASCII without the dot that separates what is signed."""
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)


def read_secret(data: bytes) -> bytes:
    """Return the key that a secret's file holds: `whsec_` and base64, or text that is the key.

    White space around it does not count.

    Raises:
        ValueError: it is no such text, or has fewer than 24 bytes; the sentence says nothing of it.
    """
    text = data.strip()
    key = text
    if text.startswith(_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            message = "what follows whsec_ is not base64"
            raise ValueError(message) from None
    elif not text.isascii() or not text.decode("ascii").isprintable():
        message = "it is not one line of visible characters"
        raise ValueError(message)
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        message = f"it has not {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES:,} bytes"
        raise ValueError(message)
    return key


def sign(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each secret, in their order.

    Raises:
        RuntimeError: there is no secret, or the id has not its grammar: a defect of the caller.
    """
    if not secrets or not _ID.fullmatch(message_id):
        message = "a message is signed with a secret, and has an id of visible characters"
        raise RuntimeError(message)
    return " ".join(_signature(key, message_id, str(timestamp), body) for key in secrets)


def verify(
    secrets: Sequence[bytes],
    *,
    message_id: str | None,
    timestamp: str | None,
    signature: str | None,
    body: bytes,
    now: datetime,
) -> None:
    """Make sure that `body` came with a signature by one of `secrets`, made within 300 seconds.

    The strings are the headers as they came, None where they are missing. That the message is new
    is another question: the id has to be spent after this.

    Raises:
        BadSignatureError: anything of it is missing, malformed, too old, too new or wrong; it does
            not say which.
    """
    if message_id is None or timestamp is None or signature is None:
        _refuse()
    if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
        _refuse()
    offered = [text.encode("utf-8", "replace") for text in signature.split(" ")[:MAX_SIGNATURES]]
    is_signed = False
    for key in secrets:
        expected = _signature(key, message_id, timestamp, body).encode("ascii")
        for candidate in offered:
            is_signed |= hmac.compare_digest(candidate, expected)
    is_timely = abs(now.timestamp() - int(timestamp)) <= TOLERANCE_SECONDS
    if not (is_signed and is_timely):
        _refuse()


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((message_id.encode("ascii"), timestamp.encode("ascii"), body))
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return _VERSION + base64.b64encode(digest).decode("ascii")


def _refuse() -> NoReturn:
    message = "The message is not signed as this bridge's have to be; nothing was decided."
    raise BadSignatureError(message)
