"""Where the agent may send to: which URLs, and which addresses a name may lead to. Pure.

Services of a private network are allowed, since that is where many of them stand. Refused is what
no service of a person's has: link-local and metadata addresses, multicast, and whatever reaches
one of these in the guise of an IPv6 address. Loopback is reached only by a URL that says so.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias
from urllib.parse import urlsplit

Address: TypeAlias = IPv4Address | IPv6Address

MAX_URL_CHARACTERS = 2_048

_METADATA: frozenset[Address] = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",  # Amazon EC2, IPv6
            "fd20:ce::254",  # Google Compute Engine, IPv6
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure
        ),
    )
)
"""Where clouds tell a machine its own secrets; the usual 169.254.169.254 is link-local."""

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_PROTOCOLS = IPv4Network("192.0.0.0/24")
"""IETF protocol assignments (RFC 6890); Oracle's metadata service stood there."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator (RFC 6052)."""
_COMPATIBLE = IPv6Network("::/96")
"""The deprecated IPv4-compatible addresses (RFC 4291, section 2.5.5.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that may be sent to. `host` is lower case, without the brackets of IPv6."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether the host is `localhost` or a loopback address."""
        literal = _literal(self.host)
        return self.host == "localhost" if literal is None else literal.is_loopback

    @property
    def place(self) -> str:
        """Return host and port, which may be shown; the path may be a secret."""
        return f"{_bracketed(self.host)}:{self.port}"


def target_of(url: str) -> Target:
    """Return the parts of `url`.

    Raises:
        ValueError: it is not https (or http to a loopback address), or holds credentials, a
            fragment, or characters that do not belong there. The sentence does not repeat it.
    """
    is_text = len(url) <= MAX_URL_CHARACTERS and url.isascii() and url.isprintable()
    if not is_text or set(url) & set(' "\\<>^`{|}'):
        message = "it has characters that no URL has, or is too long"
        raise ValueError(message)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        message = "it is not a URL"
        raise ValueError(message) from None
    if not host or "@" in parts.netloc or "#" in url or port == 0:
        message = "it needs a host, and takes no user, password or fragment"
        raise ValueError(message)
    target = Target(
        scheme=parts.scheme,
        host=host.rstrip("."),
        port=port or (443 if parts.scheme == "https" else 80),
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )
    _require_scheme(target)
    return target


def _require_scheme(target: Target) -> None:
    if target.scheme != "https" and not (target.scheme == "http" and target.is_loopback):
        message = "it must begin with https:// (http:// only to a loopback address)"
        raise ValueError(message)
    if _literal(target.host) is not None and (fault := address_fault(target.host, target=target)):
        message = f"its address {fault}"
        raise ValueError(message)


def address_fault(address: str, *, target: Target) -> str | None:
    """Return why nothing is sent to `address`, which `target` led to, or None where it may be."""
    try:
        outer = ip_address(address.partition("%")[0])
    except ValueError:
        return "is not an IP address"
    if target.scheme == "http" and not outer.is_loopback:
        return "is not this machine's, and http is spoken here only"
    if fault := _fault(outer, may_be_loopback=target.is_loopback):
        return fault
    inner = _carried(outer)
    return None if inner is None else _fault(inner, may_be_loopback=target.is_loopback)


def _fault(address: Address, *, may_be_loopback: bool) -> str | None:
    if address.is_loopback:
        return None if may_be_loopback else "is this machine, which the URL does not say"
    if address in _METADATA:
        return "is a metadata service"
    if address.is_link_local:
        return "is link-local"
    if address.is_multicast:
        return "is multicast"
    if address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return "is no machine's"
    if (address.version == 4 and address in _PROTOCOLS) or (
        address.is_reserved and _carried(address) is None
    ):
        return "is reserved"
    return None


def _carried(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, or None."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
