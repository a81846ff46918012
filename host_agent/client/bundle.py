"""A bundle: the one file by which one person or program reaches one host, written as TOML.

`install --bootstrap` and `pki bundle` write it, `host-agent login` takes it. It holds a private
key: whoever has the file is that person there. The form is in docs/reference/client.md.
"""

import ipaddress
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

FORMAT = 1
"""The number of this form. A reader refuses every other."""

MAX_BYTES = 65_536
MAX_URLS = 16
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""What can name a host, here and in `client.toml`. It names a directory too."""

_CN = re.compile(r"[a-z_][a-z0-9_.-]{0,63}", re.ASCII)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_URL = re.compile(
    rf"https://(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)|\[(?P<address>[0-9A-Fa-f:.]{{2,45}})\])"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
KEYS = ("format", "host", "cn", "urls", "certificate", "private_key", "ca")


class BundleError(Exception):
    """A bundle that cannot be used; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Who somebody is on one host, and how that host is reached.

    `host` is the host's own name, `cn` the name in the certificate, `urls` where the agent listens,
    the first one first. `certificate`, `private_key` and `ca` are PEM; the key is not encrypted.
    """

    host: str
    cn: str
    urls: tuple[str, ...]
    certificate: str
    private_key: str = field(repr=False)
    ca: str

    def check(self, now: datetime) -> None:
        """Refuse what could not be used at `now`.

        Raises:
            BundleError: the key is not the certificate's, the certificate is another person's or
                another authority's, or is not valid at `now`.
        """
        certificate, authority = _certificate(self.certificate), _certificate(self.ca)
        try:
            self._require_one(certificate, authority)
        except (UnsupportedAlgorithm, ValueError):
            message = "one of its keys or names is of a kind that cannot be used"
            raise BundleError(message) from None
        if now >= (end := min(certificate.not_valid_after_utc, authority.not_valid_after_utc)):
            message = f"it expired at {end:%Y-%m-%d %H:%M} UTC; ask the administrator for a new one"
            raise BundleError(message)
        if now < (begin := certificate.not_valid_before_utc):
            message = (
                f"it is not valid before {begin:%Y-%m-%d %H:%M} UTC; see that the clock is right"
            )
            raise BundleError(message)

    def _require_one(self, certificate: x509.Certificate, authority: x509.Certificate) -> None:
        """Refuse pieces that do not belong together.

        Raises:
            BundleError: they do not.
            UnsupportedAlgorithm, ValueError: something in them cannot be read.
        """
        try:
            key = serialization.load_pem_private_key(self.private_key.encode(), password=None)
        except (TypeError, ValueError):
            message = "its `private_key` is no PEM key, or is encrypted"
            raise BundleError(message) from None
        if key.public_key() != certificate.public_key():
            message = "its `private_key` is not the key of its `certificate`"
            raise BundleError(message)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if [name.value for name in names] != [self.cn]:
            message = f"its `certificate` is not that of {self.cn}"
            raise BundleError(message)
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, TypeError, ValueError):
            message = "its `certificate` was not issued by its `ca`"
            raise BundleError(message) from None

    def encode(self) -> bytes:
        urls = "".join(f'  "{url}",\n' for url in self.urls)
        return (
            f"# host-agent bundle: how {self.cn} reaches {self.host}. SECRET: it holds a private"
            f" key, and\n# whoever has this file is {self.cn} there. Hand it to {self.cn} alone,"
            " over a channel that nobody else\n# reads; delete it after"
            f" `host-agent login FILE`.\n"
            f"format = {FORMAT}\n"
            f'host = "{self.host}"\n'
            f'cn = "{self.cn}"\n'
            f"urls = [\n{urls}]\n"
            f"\n# Public.\ncertificate = '''\n{self.certificate.strip()}\n'''\n"
            f"ca = '''\n{self.ca.strip()}\n'''\n"
            f"\n# The secret.\nprivate_key = '''\n{self.private_key.strip()}\n'''\n"
        ).encode("ascii")


def decode(data: bytes) -> Bundle:
    """Return the bundle that `data` is.

    Raises:
        BundleError: it is none: not TOML, another version, or a key that is missing, unknown or of
            another form.
    """
    if len(data) > MAX_BYTES:
        message = f"it is larger than {MAX_BYTES} bytes"
        raise BundleError(message)
    try:
        table = tomllib.loads(data.decode("ascii"))
    except (ValueError, RecursionError):  # ValueError: not ASCII, no TOML, a number of 5,000 digits
        message = "it is no bundle: not TOML, or cut off"
        raise BundleError(message) from None
    form = table.get("format")
    if type(form) is not int or form != FORMAT:
        message = f"it has no `format = {FORMAT}`: no bundle, or one of another version"
        raise BundleError(message)
    faults = list(_faults(table))
    if faults:
        raise BundleError("; ".join(faults))
    return Bundle(
        host=table["host"],
        cn=table["cn"],
        urls=tuple(table["urls"]),
        certificate=table["certificate"],
        private_key=table["private_key"],
        ca=table["ca"],
    )


def url_of(name: str, port: int) -> str:
    """Return where an agent listens that is reached by a DNS name or an address."""
    return f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}"


def is_url(text: str) -> bool:
    """Return whether `text` is `https://HOST` or `https://HOST:PORT` that could be connected to."""
    found = _URL.fullmatch(text)
    if found is None or not 1 <= int(found["port"] or 443) <= 65_535:
        return False
    if found["address"] is None:
        return len(found["name"]) <= 253
    try:
        return ipaddress.ip_address(found["address"]).version == 6
    except ValueError:
        return False


def _faults(table: dict[str, Any]) -> Iterator[str]:
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        yield "it has keys that no bundle has: " + ", ".join(ascii(key[:64]) for key in unknown)
    for key in ("host", "cn", "certificate", "private_key", "ca"):
        if not (isinstance(table.get(key), str) and table[key]):
            yield f"`{key}` is missing"
    if isinstance(table.get("host"), str) and HOST_NAME.fullmatch(table["host"]) is None:
        yield "`host` is no name of a host"
    if isinstance(table.get("cn"), str) and _CN.fullmatch(table["cn"]) is None:
        yield "`cn` is no name of an identity"
    urls = table.get("urls")
    if not (isinstance(urls, list) and 1 <= len(urls) <= MAX_URLS):
        yield f"`urls` is not a list of 1 to {MAX_URLS}"
    elif not all(isinstance(url, str) and is_url(url) for url in urls):
        yield "`urls` are not all https://HOST or https://HOST:PORT"


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, x509.InvalidVersion):
        message = "one of its certificates is no PEM certificate"
        raise BundleError(message) from None
