"""Names and extensions of certificates and revocation lists, read so that they can be compared."""

import re
import string
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cryptography import x509

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)

_BLANKS = " \t\n\v\f\r"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def extension_of(
    holder: x509.Certificate | x509.CertificateRevocationList, kind: type[ExtensionT]
) -> ExtensionT | None:
    """Return the value of an extension, None where there is none.

    Raises:
        ValueError: the extensions cannot be read.
    """
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        message = "its extensions cannot be read"
        raise ValueError(message) from error


def canonical_name(name: x509.Name) -> bytes:
    """Return what two names that mean the same have in common (RFC 5280, 7.1).

    As OpenSSL has it: types of strings, case of ASCII letters and runs of blanks do not count.
    """
    parts: list[list[str]] = [
        sorted(f"{one.oid.dotted_string}={_canonical_value(one.value)}" for one in rdn)
        for rdn in name.rdns
    ]
    return repr(parts).encode("utf-8", "backslashreplace")


def _canonical_value(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return f"#{value.hex()}"
    return re.sub(f"[{_BLANKS}]+", " ", value.strip(_BLANKS)).translate(_LOWER)


def point_names(
    full: Iterable[x509.GeneralName] | None,
    relative: x509.RelativeDistinguishedName | None,
    issuer: x509.Name,
) -> Iterator[str]:
    """Yield the names of a distribution point (RFC 5280, 4.2.1.13), to be compared."""
    for name in full or ():
        if isinstance(name, x509.DirectoryName):
            yield f"DirectoryName:{canonical_name(name.value).hex()}"
        else:
            yield f"{type(name).__name__}:{name.value}"
    if relative is not None:
        whole = x509.Name([*issuer.rdns, relative])
        yield f"DirectoryName:{canonical_name(whole).hex()}"


def points_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the names of the lists that would cover `certificate`, for whatever reason.

    Raises:
        ValueError: its extensions cannot be read.
    """
    points = extension_of(certificate, x509.CRLDistributionPoints)
    return frozenset(
        name
        for point in points or ()
        if point.reasons is None and point.crl_issuer is None
        for name in point_names(point.full_name, point.relative_name, certificate.issuer)
    )
