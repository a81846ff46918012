"""Authorities, certificates and lists as other programs make them, and as nobody should.

`SHAPES` are whole answers to one question: with these authorities and lists, does the door let this
client in, and if not, what is at fault. All of it is made anew for each run.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from host_agent.pki.profiles import key_usage
from tests.support.certificates import wall_clock

Key: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
Fault: TypeAlias = Literal["certificate", "authority", "list"]

DAY = timedelta(days=1)
NOW = wall_clock()
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
CN = "deployer"
POINT = "http://ca.example.org/1.0/crl"
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What stands in `client_ca` and `crl`, who comes, and whose fault it is if they stay out."""

    ca: bytes
    crl: bytes | None
    chain: bytes
    key: bytes
    fault: Fault | None = None


def curve(kind: ec.EllipticCurve | None = None) -> Key:
    return ec.generate_private_key(kind or ec.SECP256R1())


@cache
def long_key(bits: int = 2048) -> Key:
    """Return a key of RSA; one of a length is enough for a run."""
    return rsa.generate_private_key(65537, bits)


def named(text: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind)])


def pem(*what: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in what)


def key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def digest_for(key: Key) -> hashes.HashAlgorithm | None:
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return None if is_edwards else hashes.SHA256()


@dataclass(frozen=True, kw_only=True)
class Ca:
    """An authority, with one certificate of it."""

    certificate: x509.Certificate
    key: Key

    @property
    def name(self) -> x509.Name:
        return self.certificate.subject

    def leaf(
        self,
        *,
        key: Key | None = None,
        subject: x509.Name | None = None,
        issuer: x509.Name | None = None,
        purposes: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
        aki: Literal["key", "all"] | None = "key",
        ski: bool = True,
        begins: datetime = NOW - DAY,
        ends: datetime = NOW + 30 * DAY,
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
        pss: bool = False,
        digest: hashes.HashAlgorithm | None = None,
    ) -> "Leaf":
        """Issue a client's certificate."""
        own = key or curve()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or named(CN))
            .issuer_name(issuer or self.name)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
        )
        if ski:
            identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
            builder = builder.add_extension(identifier, critical=False)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if aki is not None:
            builder = builder.add_extension(self.identifier(whole=aki == "all"), critical=False)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(
            self.key,
            digest or digest_for(self.key),  # type: ignore[arg-type]
            rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else None,
        )
        return Leaf(certificate=certificate, key=own)

    def identifier(self, *, whole: bool = False) -> x509.AuthorityKeyIdentifier:
        key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        if not whole:
            return key
        return x509.AuthorityKeyIdentifier(
            key.key_identifier,
            [x509.DirectoryName(self.certificate.issuer)],
            self.certificate.serial_number,
        )

    def crl(
        self,
        *serials: int,
        issuer: x509.Name | None = None,
        number: int | None = 2,
        begins: datetime = NOW - DAY,
        ends: datetime = NOW + 30 * DAY,
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
        key: Key | None = None,
        aki: bool = True,
    ) -> x509.CertificateRevocationList:
        """Sign a revocation list."""
        entries = [
            x509.RevokedCertificateBuilder().serial_number(one).revocation_date(NOW - DAY).build()
            for one in serials
        ]
        signer = key or self.key
        builder = x509.CertificateRevocationListBuilder(
            issuer or self.name, begins, ends, [], entries
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        if aki:
            builder = builder.add_extension(self.identifier(), critical=False)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, digest_for(signer))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A client's certificate and its key."""

    certificate: x509.Certificate
    key: Key


def a_ca(
    text: str | x509.Name = "Lab CA",
    *,
    key: Key | None = None,
    above: Ca | None = None,
    path_length: int | None = None,
    critical: bool = True,
    usage: x509.KeyUsage | None = None,
    has_usage: bool = True,
    ski: bool = True,
    aki: Literal["key", "all"] | None = "key",
    begins: datetime = NOW - 9 * DAY,
    ends: datetime = NOW + 90 * DAY,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    digest: hashes.HashAlgorithm | None = None,
) -> Ca:
    """Make an authority, by itself or below another."""
    own = key or curve()
    subject = named(text) if isinstance(text, str) else text
    signer = own if above is None else above.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if above is None else above.name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=critical)
    )
    if has_usage:
        wanted = usage or key_usage(key_cert_sign=True, crl_sign=True)
        builder = builder.add_extension(wanted, critical=True)
    if ski:
        identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if aki is not None:
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        if aki == "all":
            serial = builder._serial_number
            known = x509.AuthorityKeyIdentifier(
                known.key_identifier, [x509.DirectoryName(subject)], serial
            )
        builder = builder.add_extension(known, critical=False)
    for extension, is_critical in more:
        builder = builder.add_extension(extension, critical=is_critical)
    certificate = builder.sign(signer, digest or digest_for(signer))  # type: ignore[arg-type]
    return Ca(certificate=certificate, key=own)


def shape(
    *authorities: Ca,
    leaf: Leaf,
    lists: Sequence[x509.CertificateRevocationList] | bytes | None,
    fault: Fault | None = None,
    sent: Sequence[Ca] = (),
) -> Shape:
    crl = lists if isinstance(lists, bytes) or lists is None else pem(*lists)
    return Shape(
        ca=pem(*(one.certificate for one in authorities)),
        crl=crl,
        chain=pem(leaf.certificate, *(one.certificate for one in sent)),
        key=key_pem(leaf.key),
        fault=fault,
    )


def point(
    *names: str,
    users: bool = False,
    cas: bool = False,
    attributes: bool = False,
    indirect: bool = False,
    reasons: frozenset[x509.ReasonFlags] | None = None,
) -> tuple[x509.IssuingDistributionPoint, bool]:
    return (
        x509.IssuingDistributionPoint(
            full_name=[x509.UniformResourceIdentifier(name) for name in names] or None,
            relative_name=None,
            only_contains_user_certs=users,
            only_contains_ca_certs=cas,
            only_some_reasons=reasons,
            indirect_crl=indirect,
            only_contains_attribute_certs=attributes,
        ),
        True,
    )


def points(*names: str) -> tuple[x509.CRLDistributionPoints, bool]:
    return (
        x509.CRLDistributionPoints(
            [
                x509.DistributionPoint([x509.UniformResourceIdentifier(name)], None, None, None)
                for name in names
            ]
        ),
        False,
    )


# -- by one authority ------------------------------------------------------------------------------


def simple(fault: Fault | None = None, **bent: Any) -> Shape:
    """Return a client and an empty list of an authority that is bent so."""
    ca = a_ca(**bent)
    return shape(ca, leaf=ca.leaf(), lists=[ca.crl()], fault=fault)


def issued(fault: Fault | None = None, **bent: Any) -> Shape:
    """Return a client that is bent so, of a good authority with an empty list."""
    ca = a_ca()
    return shape(ca, leaf=ca.leaf(**bent), lists=[ca.crl()], fault=fault)


def listed(fault: Fault | None = None, **bent: Any) -> Shape:
    """Return a good client of a good authority whose list is bent so."""
    ca = a_ca()
    return shape(ca, leaf=ca.leaf(), lists=[ca.crl(**bent)], fault=fault)


def of_kind(make: Callable[[], Key]) -> Callable[[], Shape]:
    """Return what makes an authority and a client with keys of one kind."""

    def made() -> Shape:
        ca = a_ca(key=make())
        return shape(ca, leaf=ca.leaf(key=make()), lists=[ca.crl()])

    return made


def rsa_with_pss() -> Shape:
    ca = a_ca(key=long_key())
    return shape(ca, leaf=ca.leaf(pss=True), lists=[ca.crl()])


def vault() -> Shape:
    """The CA's name as PrintableString, the list's issuer written anew as UTF8String."""
    ca = a_ca(named("Lab CA", _ASN1Type.PrintableString))
    return shape(ca, leaf=ca.leaf(), lists=[ca.crl(issuer=named("Lab CA"))])


def issuer_in_capitals() -> Shape:
    ca = a_ca("Lab  CA")
    return shape(ca, leaf=ca.leaf(issuer=named("lab CA ")), lists=[ca.crl(issuer=named("LAB CA"))])


def cfssl() -> Shape:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Köln"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Beispiel Übung"),
            x509.NameAttribute(NameOID.COMMON_NAME, "cfssl CA"),
        ]
    )
    ca = a_ca(name, aki=None)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Beispiel Übung"),
            x509.NameAttribute(NameOID.COMMON_NAME, CN),
        ]
    )
    leaf = ca.leaf(subject=subject, purposes=(SERVER, CLIENT))
    return shape(ca, leaf=leaf, lists=[ca.crl(number=None)])


def certtool() -> Shape:
    ca = a_ca(key=long_key(), aki=None)
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=NOW.tzinfo)
    return shape(ca, leaf=ca.leaf(ends=never), lists=[ca.crl()])


# -- by several ------------------------------------------------------------------------------------


def renewed(*, old_has_ended: bool = False, old_first: bool = True) -> Callable[[], Shape]:
    """Return two certificates of one name and key, and the list of that key."""

    def made() -> Shape:
        key = curve()
        old = a_ca(key=key, ends=NOW - DAY if old_has_ended else NOW + 3 * DAY)
        new = a_ca(key=key, begins=NOW - DAY)
        both = (old, new) if old_first else (new, old)
        return shape(*both, leaf=new.leaf(), lists=[new.crl()])

    return made


def replaced(*, by_old: bool) -> Callable[[], Shape]:
    """Return two authorities of one name with two keys, each with its list."""

    def made() -> Shape:
        old, new = a_ca(), a_ca()
        leaf = (old if by_old else new).leaf()
        return shape(old, new, leaf=leaf, lists=[old.crl(), new.crl()])

    return made


def cross_signed(*, sends: bool) -> Callable[[], Shape]:
    """Return a new authority that the old one has signed too."""

    def made() -> Shape:
        old, key = a_ca("Old CA"), curve()
        new, cross = a_ca("New CA", key=key), a_ca("New CA", key=key, above=old)
        lists = [old.crl(), new.crl()]
        sent = [cross] if sends else []
        return shape(old, new, cross, leaf=new.leaf(), lists=lists, sent=sent)

    return made


def two_tier(
    *,
    trusted: str = "both",
    list_of: str = "issuing",
    sent: bool = False,
    fault: Fault | None = None,
    **bent: Any,
) -> Callable[[], Shape]:
    """Return a root, an authority below it that issues, and what of them is trusted and listed."""

    def made() -> Shape:
        root = a_ca("Root CA", path_length=bent.get("root_path_length", 1))
        below = {name: value for name, value in bent.items() if name != "root_path_length"}
        issuing = a_ca("Issuing CA", above=root, path_length=0, **below)
        who = {"both": (issuing, root), "root": (root,), "issuing": (issuing,)}[trusted]
        lists = {
            "issuing": [issuing.crl()],
            "root": [root.crl()],
            "both": [root.crl(), issuing.crl()],
            "none": None,
        }[list_of]
        return shape(
            *who, leaf=issuing.leaf(), lists=lists, fault=fault, sent=[issuing] if sent else []
        )

    return made


def step_ca(*, leaf_has_point: bool = True) -> Callable[[], Shape]:
    """A root and an issuing authority; the list says which point it is of, for users only."""

    def made() -> Shape:
        root = a_ca("Smallstep Root CA", path_length=1)
        issuing = a_ca("Smallstep Intermediate CA", above=root, path_length=0)
        provisioner = x509.UnrecognizedExtension(
            x509.ObjectIdentifier("1.3.6.1.4.1.37476.9000.64.1"), b"\x30\x03\x02\x01\x01"
        )
        more = [(provisioner, False), *([points(POINT)] if leaf_has_point else [])]
        crl = issuing.crl(more=[point(POINT, users=True)])
        fault: Fault | None = None if leaf_has_point else "certificate"
        leaf = issuing.leaf(purposes=(SERVER, CLIENT), more=more)
        return shape(issuing, root, leaf=leaf, lists=[crl], fault=fault)

    return made


def ad_cs() -> Shape:
    """An enterprise authority: templates, points in a directory, extensions of Microsoft's own."""
    root = a_ca("corp-root", aki=None)
    version = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.311.21.1"), b"\x02\x01\x00"
    )
    issuing = a_ca("corp-issuing", above=root, more=[(version, False)])
    ldap = "ldap:///CN=corp-issuing,CN=CDP,DC=corp?certificateRevocationList?base"
    template = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2"), b"\x1e\x08\x00U\x00s\x00e\x00r"
    )
    leaf = issuing.leaf(more=[(template, False), points(ldap, "http://pki.corp/a.crl")])
    fresh = x509.FreshestCRL(
        [
            x509.DistributionPoint(
                [x509.UniformResourceIdentifier("http://pki.corp/a+.crl")], None, None, None
            )
        ]
    )
    crl = issuing.crl(more=[(version, False), (fresh, False)])
    return shape(issuing, root, leaf=leaf, lists=[crl])


def many(*, lists_of: Sequence[int], issuer: int, fault: Fault | None = None) -> Shape:
    authorities = [a_ca(f"CA {number}") for number in range(3)]
    lists = [authorities[number].crl() for number in lists_of]
    return shape(*authorities, leaf=authorities[issuer].leaf(), lists=lists, fault=fault)


# -- lists -----------------------------------------------------------------------------------------


def revoked() -> Shape:
    ca = a_ca()
    leaf = ca.leaf()
    return shape(ca, leaf=leaf, lists=[ca.crl(leaf.certificate.serial_number)], fault="certificate")


def list_in_der() -> Shape:
    ca = a_ca()
    crl = ca.crl().public_bytes(serialization.Encoding.DER)
    return shape(ca, leaf=ca.leaf(), lists=crl)


def twice_listed() -> Shape:
    ca = a_ca()
    return shape(ca, leaf=ca.leaf(), lists=[ca.crl(), ca.crl(number=3)], fault="list")


def no_list() -> Shape:
    ca = a_ca()
    return shape(ca, leaf=ca.leaf(), lists=None)


def list_of_the_point(mine: str) -> Callable[[], Shape]:
    def made() -> Shape:
        ca = a_ca()
        fault: Fault | None = None if mine == POINT else "certificate"
        crl = ca.crl(more=[point(POINT)])
        return shape(ca, leaf=ca.leaf(more=[points(mine)]), lists=[crl], fault=fault)

    return made


def list_without_the_right() -> Shape:
    ca = a_ca(usage=key_usage(key_cert_sign=True))
    return shape(ca, leaf=ca.leaf(), lists=[ca.crl()], fault="list")


def constrained() -> Shape:
    """Names that the authority may not sign; only a client's certificate shows it."""
    allowed = x509.NameConstraints([x509.DirectoryName(named("somebody"))], None)
    ca = a_ca(more=[(allowed, True)])
    return shape(ca, leaf=ca.leaf(), lists=[ca.crl()], fault="certificate")


SHAPES: Mapping[str, Callable[[], Shape]] = {
    "P-256": of_kind(curve),
    "P-384": of_kind(lambda: curve(ec.SECP384R1())),
    "P-521": of_kind(lambda: curve(ec.SECP521R1())),
    "Ed25519": of_kind(ed25519.Ed25519PrivateKey.generate),
    "Ed448": of_kind(ed448.Ed448PrivateKey.generate),
    "RSA": of_kind(long_key),
    "RSA, signs with PSS": rsa_with_pss,
    "Vault: list's issuer in another string type": vault,
    "issuer in other capitals and blanks": issuer_in_capitals,
    "cfssl": cfssl,
    "certtool": certtool,
    "AD CS": ad_cs,
    "step-ca": step_ca(),
    "step-ca, client without the list's point": step_ca(leaf_has_point=False),
    "easy-rsa: basicConstraints not critical": lambda: simple(
        key=long_key(), critical=False, aki="all"
    ),
    "basicConstraints not critical, P-256": lambda: simple(critical=False),
    "req -x509: no keyUsage": lambda: simple("authority", has_usage=False),
    "may not sign certificates": lambda: simple("authority", usage=key_usage(crl_sign=True)),
    "CA without subjectKeyIdentifier": lambda: simple("authority", ski=False, aki=None),
    "CA with RSA 1024": lambda: simple("authority", key=long_key(1024)),
    "CA has ended": lambda: simple("authority", ends=NOW - DAY),
    "CA begins tomorrow": lambda: simple("authority", begins=NOW + DAY),
    "CA for servers only": lambda: simple(
        "authority", more=[(x509.ExtendedKeyUsage([SERVER]), False)]
    ),
    "CA with an unknown critical extension": lambda: simple("authority", more=[(UNKNOWN, True)]),
    "CA with names that it may not sign": constrained,
    "renewed": renewed(),
    "renewed, new one first": renewed(old_first=False),
    "renewed, old one has ended": renewed(old_has_ended=True),
    "replaced, client of the old one": replaced(by_old=True),
    "replaced, client of the new one": replaced(by_old=False),
    "cross-signed": cross_signed(sends=False),
    "cross-signed, client sends it": cross_signed(sends=True),
    "two tiers": two_tier(),
    "two tiers, client sends its CA": two_tier(sent=True),
    "two tiers, list of each": two_tier(list_of="both"),
    "two tiers, no list": two_tier(list_of="none"),
    "two tiers, root's list only": two_tier(list_of="root", fault="list"),
    "two tiers, root alone trusted": two_tier(
        trusted="root", list_of="root", sent=True, fault="certificate"
    ),
    "two tiers, root alone, no list": two_tier(
        trusted="root", list_of="none", sent=True, fault="certificate"
    ),
    "two tiers, root alone with the other's list": two_tier(
        trusted="root", sent=True, fault="list"
    ),
    "two tiers, issuing CA alone trusted": two_tier(trusted="issuing", fault="authority"),
    "two tiers, root allows none below": two_tier(root_path_length=0, fault="authority"),
    "two tiers, issuing CA not critical": two_tier(critical=False),
    "three CAs, a list of each": lambda: many(lists_of=(0, 1, 2), issuer=2),
    "three CAs, none of the client's": lambda: many(lists_of=(0, 1), issuer=2, fault="list"),
    "client without authorityKeyIdentifier": lambda: issued("certificate", aki=None),
    "client with the whole authorityKeyIdentifier": lambda: issued(aki="all"),
    "client without subjectKeyIdentifier": lambda: issued(ski=False),
    "client for servers": lambda: issued("certificate", purposes=(SERVER,)),
    "client for nothing": lambda: issued("certificate", purposes=None),
    "client for both": lambda: issued(purposes=(SERVER, CLIENT)),
    "client with RSA 1024": lambda: issued("certificate", key=long_key(1024)),
    "client with secp256k1": lambda: issued("certificate", key=curve(ec.SECP256K1())),
    "client has ended": lambda: issued("certificate", ends=NOW - timedelta(hours=1)),
    "client begins tomorrow": lambda: issued("certificate", begins=NOW + DAY),
    "client with an unknown critical extension": lambda: issued(
        "certificate", more=[(UNKNOWN, True)]
    ),
    "client with two names": lambda: issued(
        "certificate",
        subject=x509.Name([*named(CN), x509.NameAttribute(NameOID.COMMON_NAME, "root-admin")]),
    ),
    "revoked": revoked,
    "no list": no_list,
    "list in DER": list_in_der,
    "list without number": lambda: listed(number=None),
    "list without authorityKeyIdentifier": lambda: listed(aki=False),
    "list for users only": lambda: listed(more=[point(users=True)]),
    "list of the client's point": list_of_the_point(POINT),
    "list of another point": list_of_the_point("http://ca.example.org/2.0/crl"),
    "list of the CA's certificates only": lambda: listed("list", more=[point(cas=True)]),
    "list of attributes only": lambda: listed("list", more=[point(attributes=True)]),
    "list of some reasons": lambda: listed(
        "list", more=[point(reasons=frozenset({x509.ReasonFlags.key_compromise}))]
    ),
    "indirect list": lambda: listed("list", more=[point(indirect=True)]),
    "delta": lambda: listed("list", more=[(x509.DeltaCRLIndicator(1), True)]),
    "list with an unknown critical extension": lambda: listed("list", more=[(UNKNOWN, True)]),
    "list with another key": lambda: listed("list", key=curve()),
    "list of another name": lambda: listed("list", issuer=named("Another CA")),
    "list has ended": lambda: listed("list", begins=NOW - 3 * DAY, ends=NOW - DAY),
    "list begins tomorrow": lambda: listed("list", begins=NOW + DAY),
    "two lists of one CA": twice_listed,
    "list of a CA that may not sign lists": list_without_the_right,
}


# -- made by the openssl command -------------------------------------------------------------------

_RSA = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
_CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
_LEAF = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    "extendedKeyUsage=clientAuth\n"
)
_KEYS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the command makes: kind of keys, hashes, and whether the issuer stands below a root."""

    keys: tuple[str, ...] = _RSA
    ca_digest: str | None = None
    leaf_digest: str = "-sha256"
    fault: Fault | None = None


RECIPES: Mapping[str, Recipe] = {
    "openssl, RSA": Recipe(),
    "openssl, RSA-PSS": Recipe(keys=("-algorithm", "RSA-PSS", *_RSA[2:])),
    "openssl, P-521": Recipe(keys=("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521")),
    "openssl, Ed448": Recipe(keys=("-algorithm", "ED448")),
    "openssl, two tiers": Recipe(ca_digest="-sha256"),
    "openssl, issuing CA signed with SHA-1": Recipe(ca_digest="-sha1", fault="authority"),
    "openssl, client signed with SHA-1": Recipe(leaf_digest="-sha1", fault="certificate"),
}
"""Key kinds that `cryptography` cannot make, and hashes that it does not sign with, too."""


def by_openssl(recipe: Recipe, directory: Path) -> Shape:
    """Make authorities and a client with the command, without a list."""
    directory.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    def issue(name: str, by: str, cn: str, extensions: str, digest: str) -> None:
        (directory / f"{name}.cnf").write_text(extensions + _KEYS)
        openssl("genpkey", *recipe.keys, "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={cn}", "-out", f"{name}.csr")
        # Ed448 has its hash inside, and takes no other.
        hashing = () if "ED448" in recipe.keys else (digest,)
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key"),
            *("-days", "9", "-extfile", f"{name}.cnf", "-out", f"{name}.pem", *hashing),
        )

    openssl("genpkey", *recipe.keys, "-out", "root.key")
    openssl(
        *("req", "-x509", "-key", "root.key", "-out", "root.pem", "-days", "30"),
        *("-subj", "/CN=root", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    trusted, issuer = (directory / "root.pem").read_bytes(), "root"
    if recipe.ca_digest is not None:
        issue("issuing", "root", "issuing", _CA, recipe.ca_digest)
        trusted, issuer = (directory / "issuing.pem").read_bytes() + trusted, "issuing"
    issue("leaf", issuer, CN, _LEAF, recipe.leaf_digest)
    return Shape(
        ca=trusted,
        crl=None,
        chain=(directory / "leaf.pem").read_bytes(),
        key=(directory / "leaf.key").read_bytes(),
        fault=recipe.fault,
    )
