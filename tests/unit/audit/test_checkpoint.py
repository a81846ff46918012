"""A signed head of the audit log, and every way to forge one."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from jose import jwt

from host_agent.audit.checkpoint import ALGORITHM, EVENT, TYPE, Checkpoint, sign, verify

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
POINT = Checkpoint(host="storage-1", sequence=42, head="sha256:" + "ab" * 32, at=NOW)


def pair() -> tuple[bytes, bytes]:
    """Return a fresh P-256 key and a certificate for it, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "storage-1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, certificate.public_bytes(Encoding.PEM)


KEY, CERTIFICATE = pair()


def test_a_signed_head_is_read_back() -> None:
    assert verify(sign(POINT, KEY), CERTIFICATE) == POINT


def test_another_hosts_certificate_refuses_it() -> None:
    with pytest.raises(ValueError, match="not a checkpoint that this certificate"):
        verify(sign(POINT, KEY), pair()[1])


def test_a_changed_sequence_is_refused() -> None:
    head, body, signature = sign(POINT, KEY).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["events"][EVENT]["sequence"] = 41
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(ValueError, match="not a checkpoint that this certificate"):
        verify(f"{head}.{forged}.{signature}", CERTIFICATE)


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_algorithm_confusion_is_refused(algorithm: str) -> None:
    header = {"alg": algorithm, "typ": TYPE}
    body = sign(POINT, KEY).split(".")[1]
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    with pytest.raises(ValueError, match="not a checkpoint that this certificate"):
        verify(f"{encoded}.{body}.{'' if algorithm == 'none' else 'AAAA'}", CERTIFICATE)


def test_a_token_of_another_kind_is_refused() -> None:
    token = jwt.encode({"events": {}}, KEY.decode(), algorithm=ALGORITHM)
    with pytest.raises(ValueError, match="another kind"):
        verify(token, CERTIFICATE)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"sequence": 0, "hash": POINT.head},
        {"sequence": True, "hash": POINT.head},
        {"sequence": 1, "hash": "sha256:zz"},
        {"sequence": "1", "hash": POINT.head},
    ],
)
def test_a_signed_token_that_is_no_checkpoint_is_refused(event: dict[str, object]) -> None:
    claims = {"iss": "storage-1", "iat": 1, "events": {EVENT: event}}
    token = jwt.encode(claims, KEY.decode(), algorithm=ALGORITHM, headers={"typ": TYPE})
    with pytest.raises(ValueError, match="checkpoint"):
        verify(token, CERTIFICATE)


@pytest.mark.parametrize("text", ["", "a.b.c", "x" * 5000, "e30.e30."])
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        verify(text, CERTIFICATE)


def test_only_a_p256_key_signs() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="P-256"):
        sign(POINT, pem)
