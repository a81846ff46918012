"""The grammars of single configuration values, as annotated types.

Each refuses with one sentence that says what the value must be. Whole strings only, ASCII only.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, ValidationInfo

from host_agent.identity.registry import is_common_name
from host_agent.operations import CATALOGUE
from host_agent.operations.section import grammar


def split_bind(bind: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 host stands in brackets, `[::1]:8443`.

    Raises:
        ValueError: it is something else, or the port is over 65535.
    """
    found = re.fullmatch(
        r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9.-]{1,253})):(?P<port>[0-9]{1,5})",
        bind,
        re.ASCII,
    )
    if found is None or int(found["port"]) > 65535:
        message = "must be host:port, an IPv6 address in brackets, as in [::1]:8443"
        raise ValueError(message)
    if found["six"] is not None:
        return str(ipaddress.IPv6Address(found["six"])), int(found["port"])
    if re.fullmatch(r"[0-9.]+", found["host"]):
        return str(ipaddress.IPv4Address(found["host"])), int(found["port"])
    return found["host"], int(found["port"])


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_bind(bind: str) -> str:
    split_bind(bind)
    return bind


def absolute(path: Path, info: ValidationInfo) -> Path:
    """Anchor a relative path at the directory of the configuration file."""
    if path == Path():
        message = "must name a file"
        raise ValueError(message)
    base = info.context.get("base") if isinstance(info.context, dict) else None
    return path if base is None else base / path


def _check_operation(pattern: str) -> str:
    """Accept an exact operation name, or `adapter.*` for all of one adapter's."""
    adapter, dot, verb = pattern.partition(".")
    adapters = {declared.name for declared in CATALOGUE.adapters}
    if pattern in CATALOGUE.names or (dot and verb == "*" and adapter in adapters):
        return pattern
    message = "is no operation, and no adapter with .* after it"
    raise ValueError(message)


def _check_printable(text: str) -> str:
    """Refuse what approvers could not see: invisible and direction-changing characters."""
    if not text.isprintable() or text != text.strip():
        message = "must be visible characters and inner spaces only"
        raise ValueError(message)
    return text


def _check_common_name(name: str) -> str:
    if not is_common_name(name):
        message = (
            "must be 1 to 64 of a-z, 0-9, '_', '.', '-', begin with a letter or '_',"
            " and not be root"
        )
        raise ValueError(message)
    return name


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list: it would match nothing, and is easily read as "any"."""
    if not items:
        message = "must not be empty"
        raise ValueError(message)
    return items


NotEmpty = AfterValidator(_not_empty)
HostPath = Annotated[Path, AfterValidator(absolute)]
Bind = Annotated[str, AfterValidator(_check_bind)]
OperationPattern = Annotated[str, AfterValidator(_check_operation)]
RuleName = Annotated[
    str, StringConstraints(min_length=1, max_length=100), AfterValidator(_check_printable)
]
CommonName = Annotated[str, AfterValidator(_check_common_name)]
Owner = Annotated[
    str,
    grammar(
        r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}",
        "must begin with a letter or digit, then letters, digits, '.', '_', '@', '+', '-',"
        " at most 64",
    ),
]
UnixUser = Annotated[
    str, grammar(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "must be the name of a unix user")
]
