"""A PKI for tests: a CA, servers and clients of every good and hostile kind, made in memory.

`make_pki(directory)` writes what it makes as files (keys 0600); `make_pki()` keeps it in memory.
Nothing here expires on disk: every test makes what it needs, which takes well under a millisecond
a certificate.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from host_agent.pki.profiles import (
    BACKDATED,
    KeyPair,
    RevokedSerial,
    Usage,
    authority_identifier,
    key_usage,
    new_ca,
    new_crl,
    new_leaf,
)

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH


def wall_clock() -> datetime:
    """Return the present as aware UTC, whole seconds (X.509 has no finer ones)."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One certificate of the test PKI, as values and (with a directory) as files."""

    credential: KeyPair
    issuer: x509.Certificate
    directory: Path | None
    name: str

    @property
    def certificate(self) -> x509.Certificate:
        return self.credential.certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.credential.certificate_pem()

    @property
    def key_pem(self) -> bytes:
        return self.credential.key_pem()

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def fingerprint(self) -> str:
        return "sha256:" + hashlib.sha256(self.der).hexdigest()

    @property
    def certificate_path(self) -> Path:
        return self._folder() / f"{self.name}.crt"

    @property
    def key_path(self) -> Path:
        return self._folder() / f"{self.name}.key"

    def _folder(self) -> Path:
        if self.directory is None:
            message = "this PKI lives in memory; make it with make_pki(directory)"
            raise RuntimeError(message)
        return self.directory


class Pki:
    """A CA and what it signs. `now` is the instant at which everything is made."""

    def __init__(self, directory: Path | None, *, name: str, now: datetime) -> None:
        self.directory = directory
        self.now = now
        self.ca = new_ca(name, now=now, days=3650)
        self.revoked: list[RevokedSerial] = []
        self.crl_number = 0
        self.crl_pem = b""
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            _write(directory / "ca.crt", self.ca_pem)
            _write(directory / "ca.key", self.ca.key_pem(), mode=0o600)
        self.sign_crl()

    @property
    def ca_certificate(self) -> x509.Certificate:
        return self.ca.certificate

    @property
    def ca_pem(self) -> bytes:
        return self.ca.certificate_pem()

    @property
    def ca_path(self) -> Path:
        return self._folder() / "ca.crt"

    @property
    def crl_path(self) -> Path:
        return self._folder() / "ca.crl"

    # -- good ones ----------------------------------------------------------------------------

    def server(
        self,
        cn: str = "localhost",
        *,
        names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        days: int = 90,
        file_name: str | None = None,
    ) -> Leaf:
        """Make a server certificate for host names and addresses."""
        credential = new_leaf(
            self.ca,
            common_name=cn,
            usage=Usage.SERVER,
            names=[_general_name(name) for name in names],
            now=self.now,
            days=days,
        )
        return self._leaf(credential, file_name or "server")

    def client(
        self,
        cn: str | Sequence[str] = "librarian",
        *,
        usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT_AUTH,),
        ca: bool | None = False,
        digital_signature: bool = True,
        key_cert_sign: bool = False,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        one_rdn: bool = False,
        authority_key_identifier: bool = True,
        serial: int | None = None,
        extra: Iterable[x509.UnrecognizedExtension] = (),
        file_name: str | None = None,
    ) -> Leaf:
        """Make a client certificate; the keywords bend it.

        `cn`: one name, or any number of them (`one_rdn` puts them into one set). `usages=None`
        leaves extendedKeyUsage out, `ca=None` basicConstraints. Files are named after the first
        common name unless `file_name` is given.
        """
        common_names = (cn,) if isinstance(cn, str) else tuple(cn)
        private_key = ec.generate_private_key(ec.SECP256R1())
        public_key = private_key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_names, one_rdn=one_rdn))
            .issuer_name(self.ca_certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number() if serial is None else serial)
            .not_valid_before(not_before or self.now - BACKDATED)
            .not_valid_after(not_after or self.now + timedelta(days=90))
            .add_extension(
                key_usage(
                    digital_signature=digital_signature,
                    key_cert_sign=key_cert_sign,
                    crl_sign=not digital_signature,  # OpenSSL cannot load one without any bit
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        if authority_key_identifier:
            builder = builder.add_extension(
                authority_identifier(self.ca_certificate), critical=False
            )
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if ca is not None:
            builder = builder.add_extension(
                x509.BasicConstraints(ca=ca, path_length=None), critical=True
            )
        for extension in extra:
            builder = builder.add_extension(extension, critical=True)
        credential = KeyPair(
            certificate=builder.sign(self.ca.private_key, hashes.SHA256()),
            private_key=private_key,
        )
        return self._leaf(credential, file_name or (common_names[0] if common_names else "no-cn"))

    def expired_client(self, cn: str = "librarian", *, file_name: str | None = None) -> Leaf:
        """Make a client certificate that ended an hour ago."""
        return self.client(
            cn,
            not_before=self.now - timedelta(days=2),
            not_after=self.now - timedelta(hours=1),
            file_name=file_name,
        )

    def future_client(self, cn: str = "librarian", *, file_name: str | None = None) -> Leaf:
        """Make a client certificate that begins tomorrow."""
        return self.client(cn, not_before=self.now + timedelta(days=1), file_name=file_name)

    def v1_client(self, cn: str = "librarian", *, file_name: str | None = None) -> Leaf:
        """Make an X.509 version 1 certificate: no extensions at all, well signed."""
        modern = self.client(cn, file_name=file_name or f"{cn}-v1")
        body = _children(modern.certificate.tbs_certificate_bytes)
        old = _sequence(b"".join(part for part in body if part[0] not in (0xA0, 0xA3)))
        signature = self.ca.private_key.sign(old, ec.ECDSA(hashes.SHA256()))
        algorithm = body[2]
        der = _sequence(old + algorithm + _tlv(0x03, b"\0" + signature))
        credential = KeyPair(
            certificate=x509.load_der_x509_certificate(der),
            private_key=modern.credential.private_key,
        )
        return self._leaf(credential, modern.name)

    # -- revocation ---------------------------------------------------------------------------

    def revoke(self, leaf: Leaf) -> None:
        """Put `leaf` on the CRL and sign the next one."""
        self.revoked.append(RevokedSerial(serial=leaf.serial, at=self.now))
        self.sign_crl()

    def sign_crl(
        self, *, number: int | None = None, days: int = 30, now: datetime | None = None
    ) -> bytes:
        """Sign a CRL (the next number unless given), write it, and return its PEM."""
        self.crl_number = self.crl_number + 1 if number is None else number
        self.crl_pem = self.make_crl(number=self.crl_number, days=days, now=now)
        if self.directory is not None:
            _replace(self.crl_path, self.crl_pem)
        return self.crl_pem

    def make_crl(
        self,
        revoked: Iterable[RevokedSerial] | None = None,
        *,
        number: int,
        days: int = 30,
        now: datetime | None = None,
    ) -> bytes:
        """Return a CRL's PEM without writing it anywhere."""
        crl = new_crl(
            self.ca,
            self.revoked if revoked is None else revoked,
            number=number,
            now=now or self.now,
            days=days,
        )
        return crl.public_bytes(serialization.Encoding.PEM)

    # -- inside -------------------------------------------------------------------------------

    def _leaf(self, credential: KeyPair, name: str) -> Leaf:
        leaf = Leaf(
            credential=credential,
            issuer=self.ca_certificate,
            directory=self.directory,
            name=name.replace("/", "%").replace("\0", "%00"),
        )
        if self.directory is not None:
            _write(leaf.certificate_path, leaf.pem)
            _write(leaf.key_path, leaf.key_pem, mode=0o600)
        return leaf

    def _folder(self) -> Path:
        if self.directory is None:
            message = "this PKI lives in memory; make it with make_pki(directory)"
            raise RuntimeError(message)
        return self.directory


def make_pki(
    directory: Path | None = None, *, name: str = "host-agent test CA", now: datetime | None = None
) -> Pki:
    """Make a CA with an empty CRL; in `directory` (made where missing) or in memory.

    Two calls with one name give two CAs of the same name: the second one is the foreign CA whose
    certificates look right and are not.
    """
    return Pki(directory, name=name, now=now or wall_clock())


HOSTILE_SHAPES: Mapping[str, Callable[[Pki], Leaf]] = {
    "no common name": lambda pki: pki.client((), file_name="no-cn"),
    "two common names": lambda pki: pki.client(("librarian", "admin"), file_name="two-cn"),
    "two common names in one set": lambda pki: pki.client(
        ("librarian", "admin"), one_rdn=True, file_name="two-cn-set"
    ),
    "the same common name twice": lambda pki: pki.client(
        ("librarian", "librarian"), file_name="same-cn"
    ),
    "NUL in the common name": lambda pki: pki.client("librarian\0.evil", file_name="nul"),
    "Cyrillic letter": lambda pki: pki.client("libr\u0430rian", file_name="cyrillic"),
    "fullwidth letters": lambda pki: pki.client("\uff4cibrarian", file_name="fullwidth"),
    "right-to-left override": lambda pki: pki.client("lib\u202erarian", file_name="bidi"),
    "zero-width space": lambda pki: pki.client("lib\u200brarian", file_name="zero-width"),
    "trailing newline": lambda pki: pki.client("librarian\n", file_name="newline"),
    "space": lambda pki: pki.client("libra rian", file_name="space"),
    "trailing space": lambda pki: pki.client("librarian ", file_name="trailing-space"),
    "capital": lambda pki: pki.client("Librarian", file_name="capital"),
    "empty": lambda pki: pki.client("", file_name="empty"),
    "number 0": lambda pki: pki.client("0", file_name="zero"),
    "number with sign": lambda pki: pki.client("-1", file_name="minus"),
    "option": lambda pki: pki.client("--user=root", file_name="option"),
    "root": lambda pki: pki.client("root", file_name="root"),
    "path": lambda pki: pki.client("../x", file_name="path"),
    "wildcard": lambda pki: pki.client("*", file_name="wildcard"),
    "65 letters": lambda pki: pki.client("a" * 65, file_name="long"),
    "CA:true": lambda pki: pki.client(ca=True, file_name="ca-true"),
    "CA:true with certSign": lambda pki: pki.client(
        ca=True, key_cert_sign=True, file_name="ca-true-sign"
    ),
    "certSign without CA": lambda pki: pki.client(key_cert_sign=True, file_name="sign"),
    "no digitalSignature": lambda pki: pki.client(
        digital_signature=False, file_name="no-digital-signature"
    ),
    "serverAuth only": lambda pki: pki.client(usages=(SERVER_AUTH,), file_name="server-auth"),
    "anyExtendedKeyUsage only": lambda pki: pki.client(
        usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,), file_name="any-usage"
    ),
    "no extendedKeyUsage": lambda pki: pki.client(usages=None, file_name="no-usage"),
    "version 1": lambda pki: pki.v1_client(file_name="v1"),
}
"""Every well-signed certificate whose shape is refused (`identity:invalid`), by name."""

REFUSED_BY_TLS = frozenset(
    {
        "certSign without CA",
        "no digitalSignature",
        "serverAuth only",
        "anyExtendedKeyUsage only",
    }
)
"""Those of them that OpenSSL's strict mode ends in the handshake; the others get through."""


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_names: Sequence[str], *, one_rdn: bool) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of lengths that X.520 forbids
        attributes = [
            x509.NameAttribute(NameOID.COMMON_NAME, cn, _validate=False) for cn in common_names
        ]
    if not attributes:
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nobody")])
    if one_rdn:
        return x509.Name([x509.RelativeDistinguishedName(attributes)])
    return x509.Name(attributes)


def _write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    path.touch(mode=mode)
    path.write_bytes(data)


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(path)


def _tlv(tag: int, content: bytes) -> bytes:
    """Return one DER element."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def _sequence(content: bytes) -> bytes:
    return _tlv(0x30, content)


def _children(der: bytes) -> list[bytes]:
    """Return the elements of a DER sequence, each whole."""
    start, end = _content(der, 0)
    parts: list[bytes] = []
    while start < end:
        _, stop = _content(der, start)
        parts.append(der[start:stop])
        start = stop
    return parts


def _content(der: bytes, offset: int) -> tuple[int, int]:
    length = der[offset + 1]
    start = offset + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[start : start + size], "big")
        start += size
    return start, start + length
