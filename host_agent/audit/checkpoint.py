"""A signed statement of the audit log's head, to be kept where this host's root cannot change it.

The statement is a Security Event Token (RFC 8417): a JWT signed as a JWS (RFC 7515), always with
ES256 and the server's own key. It is checked with the server's certificate, never with a key that
the token names. Nothing that a caller sends is ever a token.
"""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jose import jwt
from jose.exceptions import JOSEError

from host_agent.text import DIGEST

ALGORITHM = "ES256"
TYPE = "secevent+jwt"
EVENT = "urn:host-agent:audit:head"
MAX_CHARACTERS = 4096
_HASH = re.compile(DIGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The head of one host's audit log: the newest record's sequence and hash, and when."""

    host: str
    sequence: int
    head: str
    at: datetime


def sign(checkpoint: Checkpoint, private_key_pem: bytes) -> str:
    """Return `checkpoint` as a compact JWS.

    Raises:
        ValueError: the key is not an ECDSA P-256 key.
    """
    claims = {
        "iss": checkpoint.host,
        "iat": int(checkpoint.at.timestamp()),
        "jti": str(uuid.uuid4()),
        "events": {EVENT: {"sequence": checkpoint.sequence, "hash": checkpoint.head}},
    }
    try:
        token: str = jwt.encode(
            claims, private_key_pem.decode("ascii"), algorithm=ALGORITHM, headers={"typ": TYPE}
        )
    except (JOSEError, UnicodeDecodeError) as error:
        message = "the key cannot sign a checkpoint; an ECDSA P-256 key is needed"
        raise ValueError(message) from error
    return token


def verify(token: str, certificate_pem: bytes) -> Checkpoint:
    """Return the checkpoint in `token` if the owner of `certificate_pem` signed it.

    Whether that certificate is to be believed, and is the right host's, is for the reader to know.

    Raises:
        ValueError: another signer, another algorithm, or not a checkpoint.
    """
    if len(token) > MAX_CHARACTERS:
        message = "it is too long for a checkpoint"
        raise ValueError(message)
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    public_pem = certificate.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    try:
        if jwt.get_unverified_header(token).get("typ") != TYPE:
            message = "it is a token of another kind"
            raise ValueError(message)
        claims = jwt.decode(token, public_pem.decode("ascii"), algorithms=[ALGORITHM])
        event = claims["events"][EVENT]
        head, sequence = event["hash"], event["sequence"]
        host, issued = claims["iss"], claims["iat"]
    except (JOSEError, KeyError, TypeError, AttributeError) as error:
        message = "it is not a checkpoint that this certificate's key signed"
        raise ValueError(message) from error
    is_whole = (
        isinstance(head, str)
        and _HASH.fullmatch(head) is not None
        and type(sequence) is int
        and sequence >= 1
        and isinstance(host, str)
        and type(issued) is int
    )
    if not is_whole:
        message = "it is signed, and is not a checkpoint"
        raise ValueError(message)
    return Checkpoint(
        host=host, sequence=sequence, head=head, at=datetime.fromtimestamp(issued, UTC)
    )
