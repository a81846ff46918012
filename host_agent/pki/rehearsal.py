"""The door asked before anybody stands at it: a handshake in memory with a certificate alone.

Whoever wants to know whether the door would take a certificate asks the very TLS context that the
door is made of, so that there is no second opinion. A client needs its private key only for the
signature that comes *after* its certificate (RFC 8446, 4.4): here that signature is noise, and how
the server refuses tells whether the certificate was taken. So no key is needed, neither the
client's nor, for a made-up certificate, the authority's.

The client below speaks only as much of TLS 1.3 as that takes, with no checks of the server. It
offers every suite and the usual groups: an administrator may have left the door few of them, in
openssl.cnf. It never leaves memory.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from host_agent.http.refusals import HandshakeRefusedError
from host_agent.http.tls import TlsContext, TlsSession

_HANDSHAKE, _APPLICATION_DATA = 22, 23
_CLIENT_HELLO, _SERVER_HELLO, _CERTIFICATE_REQUEST = 1, 2, 13
_CERTIFICATE, _CERTIFICATE_VERIFY = 11, 15
_SERVER_NAME_SCHEMES = bytes.fromhex(
    "0403050306030804080508060807080808090 80a080b".replace(" ", "")
)
_MAX_RECORD = 2**14
_SIGNATURE_ALGORITHMS, _SUPPORTED_GROUPS, _KEY_SHARE, _SUPPORTED_VERSIONS = 13, 10, 51, 43

_Cipher: TypeAlias = AESGCM | ChaCha20Poly1305


@dataclass(frozen=True, slots=True)
class _Suite:
    """A cipher suite: its cipher, the length of a key in bytes, and its hash by hashlib's name."""

    cipher: Callable[[bytes], _Cipher]
    key_length: int
    hash_name: str


_SUITES: Final[Mapping[int, _Suite]] = {
    0x1301: _Suite(AESGCM, 16, "sha256"),
    0x1302: _Suite(AESGCM, 32, "sha384"),
    0x1303: _Suite(ChaCha20Poly1305, 32, "sha256"),
}
"""The suites of TLS 1.3 that OpenSSL has without being told (RFC 8446, B.4)."""

_X25519: Final = 0x001D
_NIST_CURVES: Final[Mapping[int, ec.EllipticCurve]] = {
    0x0017: ec.SECP256R1(),
    0x0018: ec.SECP384R1(),
    0x0019: ec.SECP521R1(),
}
"""The other groups that a share is sent of (RFC 8446, 4.2.7)."""

_EDWARDS = {"1.3.101.112": (0x0807,), "1.3.101.113": (0x0808,)}
_ML_DSA = {
    "2.16.840.1.101.3.4.3.17": (0x0904,),
    "2.16.840.1.101.3.4.3.18": (0x0905,),
    "2.16.840.1.101.3.4.3.19": (0x0906,),
}
_RSA = {
    "1.2.840.113549.1.1.1": (0x0804, 0x0805, 0x0806),
    "1.2.840.113549.1.1.10": (0x0809, 0x080A, 0x080B),
}
_CURVES = {
    "secp256r1": 0x0403,
    "secp384r1": 0x0503,
    "secp521r1": 0x0603,
    "brainpoolP256r1": 0x081A,
    "brainpoolP384r1": 0x081B,
    "brainpoolP512r1": 0x081C,
}
"""Signature schemes of TLS 1.3 by the kind of key (RFC 8446, 4.2.3; RFC 8734; IANA's registry)."""


def refusal(context: TlsContext, chain: Sequence[x509.Certificate]) -> HandshakeRefusedError | None:
    """Return why a server with `context` would refuse a client that sends `chain`; None if not.

    The leaf comes first. The dates are judged by the clock of this host, as at the door.

    Raises:
        ValueError: the server says something that this client does not understand.
    """
    client = _Tls13Client()
    server = TlsSession(context)
    server.take(client.hello())
    _expect_more(server)
    schemes = client.read_flight(server.output())
    scheme = next((one for one in _schemes_of(chain[0]) if one in schemes), None)
    server.take(client.certificate([one.public_bytes(Encoding.DER) for one in chain], scheme))
    try:
        is_over = server.shake_hands()
    except HandshakeRefusedError as error:
        if error.verify_code is not None:
            return error
        # The certificate was taken, and the noise in the place of its signature was not.
        if scheme is None:
            return HandshakeRefusedError("its key is of a kind that cannot sign a handshake here")
        return None if error.reason == "bad signature" else error
    message = (
        "the server took a signature that is none"
        if is_over
        else "the server did not answer a certificate"
    )
    raise ValueError(message)


def _expect_more(server: TlsSession) -> None:
    try:
        server.shake_hands()
    except HandshakeRefusedError as error:
        message = f"the server does not begin: {error}"
        raise ValueError(message) from error


def _schemes_of(leaf: x509.Certificate) -> tuple[int, ...]:
    """Return the signature schemes that the key of `leaf` could sign a handshake with."""
    kind = leaf.public_key_algorithm_oid.dotted_string
    for schemes in (_RSA, _EDWARDS, _ML_DSA):
        if kind in schemes:
            return schemes[kind]
    try:
        key = leaf.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return ()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return (_CURVES[key.curve.name],)
    return ()


class _Tls13Client:
    """A client of TLS 1.3 up to its certificate (RFC 8446, sections 4 and 7)."""

    def __init__(self) -> None:
        self._x25519 = X25519PrivateKey.generate()
        self._nist = {
            group: ec.generate_private_key(curve) for group, curve in _NIST_CURVES.items()
        }
        self._transcript = b""
        self._suite = _SUITES[0x1301]
        self._sealing: tuple[_Cipher, bytes] | None = None

    def hello(self) -> bytes:
        """Return the first record."""
        shares = {_X25519: self._x25519.public_key().public_bytes_raw()}
        shares |= {
            group: key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            for group, key in self._nist.items()
        }
        groups = b"".join(group.to_bytes(2) for group in shares)
        entries = b"".join(group.to_bytes(2) + _vector(key, 2) for group, key in shares.items())
        extensions = b"".join(
            (
                _extension(_SUPPORTED_VERSIONS, _vector(b"\x03\x04", 1)),
                _extension(_SUPPORTED_GROUPS, _vector(groups, 2)),
                _extension(_SIGNATURE_ALGORITHMS, _vector(_SERVER_NAME_SCHEMES, 2)),
                _extension(_KEY_SHARE, _vector(entries, 2)),
            )
        )
        body = b"".join(
            (
                b"\x03\x03",
                os.urandom(32),
                _vector(b"", 1),  # no session id
                _vector(b"".join(suite.to_bytes(2) for suite in _SUITES), 2),
                _vector(b"\x00", 1),  # no compression
                _vector(extensions, 2),
            )
        )
        self._transcript = _message(_CLIENT_HELLO, body)
        return _record(_HANDSHAKE, self._transcript)

    def read_flight(self, data: bytes) -> frozenset[int]:
        """Take the server's hello; return the signature schemes that it takes of a client."""
        records = list(_records(data))
        if not records or records[0][0] != _HANDSHAKE:
            message = "the server says no hello"
            raise ValueError(message)
        hello = records[0][1]
        self._transcript += hello
        reading = self._agree(*_chosen(hello))
        plain = b""
        sealed = [body for kind, body in records[1:] if kind == _APPLICATION_DATA]
        for number, body in enumerate(sealed):
            plain += _open(reading, body, number)
        for kind, body in _messages(plain):
            if kind == _CERTIFICATE_REQUEST:
                return _schemes_in(body)
        message = "the server asks for no certificate"
        raise ValueError(message)

    def certificate(self, chain: Sequence[bytes], scheme: int | None) -> bytes:
        """Return the records with the client's certificate and a signature that is none."""
        entries = b"".join(_vector(der, 3) + _vector(b"", 2) for der in chain)
        body = _message(_CERTIFICATE, _vector(b"", 1) + _vector(entries, 3))
        shown = (scheme or 0x0403).to_bytes(2)
        body += _message(_CERTIFICATE_VERIFY, shown + _vector(os.urandom(64), 2))
        pieces = [body[at : at + _MAX_RECORD] for at in range(0, len(body), _MAX_RECORD)]
        return b"".join(self._seal(piece, number) for number, piece in enumerate(pieces))

    def _agree(self, suite: int, group: int, share: bytes) -> tuple[_Cipher, bytes]:
        """Derive the keys of the handshake; return those that the server writes with."""
        self._suite = _SUITES[suite]
        nothing = b"\0" * hashlib.new(self._suite.hash_name).digest_size
        early = hmac.digest(nothing, nothing, self._suite.hash_name)
        secret = hmac.digest(
            self._derive(early, b"derived", self._hash(b"")),
            self._shared(group, share),
            self._suite.hash_name,
        )
        heard = self._hash(self._transcript)
        self._sealing = self._keys(self._derive(secret, b"c hs traffic", heard))
        return self._keys(self._derive(secret, b"s hs traffic", heard))

    def _shared(self, group: int, share: bytes) -> bytes:
        if group == _X25519:
            return self._x25519.exchange(X25519PublicKey.from_public_bytes(share))
        curve = _NIST_CURVES[group]
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(curve, share)
        return self._nist[group].exchange(ec.ECDH(), theirs)

    def _keys(self, secret: bytes) -> tuple[_Cipher, bytes]:
        key = self._derive(secret, b"key", b"", self._suite.key_length)
        return self._suite.cipher(key), self._derive(secret, b"iv", b"", 12)

    def _hash(self, data: bytes) -> bytes:
        return hashlib.new(self._suite.hash_name, data).digest()

    def _derive(
        self, secret: bytes, label: bytes, context: bytes, length: int | None = None
    ) -> bytes:
        """Return HKDF-Expand-Label of RFC 8446, 7.1; one block of the hash is enough for it."""
        size = hashlib.new(self._suite.hash_name).digest_size if length is None else length
        info = size.to_bytes(2) + _vector(b"tls13 " + label, 1) + _vector(context, 1)
        return hmac.digest(secret, info + b"\x01", self._suite.hash_name)[:size]

    def _seal(self, plain: bytes, number: int) -> bytes:
        if self._sealing is None:
            message = "nothing is agreed yet"
            raise RuntimeError(message)
        cipher, iv = self._sealing
        head = b"\x17\x03\x03" + (len(plain) + 17).to_bytes(2)
        return head + cipher.encrypt(_nonce(iv, number), plain + bytes((_HANDSHAKE,)), head)


def _open(keys: tuple[_Cipher, bytes], sealed: bytes, number: int) -> bytes:
    cipher, iv = keys
    head = b"\x17\x03\x03" + len(sealed).to_bytes(2)
    try:
        inner = cipher.decrypt(_nonce(iv, number), sealed, head)
    except InvalidTag as error:
        message = "the server's answer cannot be read"
        raise ValueError(message) from error
    return inner.rstrip(b"\0")[:-1]


def _nonce(iv: bytes, number: int) -> bytes:
    return (int.from_bytes(iv) ^ number).to_bytes(12)


def _vector(content: bytes, size: int) -> bytes:
    return len(content).to_bytes(size) + content


def _extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + _vector(content, 2)


def _message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + _vector(body, 3)


def _record(kind: int, body: bytes) -> bytes:
    return bytes((kind, 3, 1)) + _vector(body, 2)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 5 <= len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5])
        yield data[at], data[at + 5 : end]
        at = end


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at + 1 : at + 4])
        yield data[at], data[at + 4 : end]
        at = end


def _extensions(data: bytes) -> dict[int, bytes]:
    """Return what the extensions in a vector hold, by their numbers."""
    found: dict[int, bytes] = {}
    at = 2
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4])
        found[int.from_bytes(data[at : at + 2])] = data[at + 4 : end]
        at = end
    return found


def _chosen(hello: bytes) -> tuple[int, int, bytes]:
    """Return the suite, the group and the server's public key of it, from the server's hello."""
    at = 4 + 2 + 32 + 1 + hello[38]
    suite = int.from_bytes(hello[at : at + 2])
    share = _extensions(hello[at + 3 :]).get(_KEY_SHARE, b"")
    group = int.from_bytes(share[:2])
    is_known = suite in _SUITES and (group == _X25519 or group in _NIST_CURVES)
    if hello[0] != _SERVER_HELLO or not is_known or len(share) < 5:
        message = "the server takes no part in this handshake"
        raise ValueError(message)
    return suite, group, share[4:]


def _schemes_in(request: bytes) -> frozenset[int]:
    """Return the signature schemes in a CertificateRequest."""
    listed = _extensions(request[1 + request[0] :]).get(_SIGNATURE_ALGORITHMS, b"")[2:]
    return frozenset(int.from_bytes(listed[at : at + 2]) for at in range(0, len(listed), 2))
