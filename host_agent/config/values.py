"""The grammars of single configuration values, as annotated types.

Each refuses with one sentence that says what the value must be. Whole strings only, ASCII only.
"""

import ipaddress
import re
import warnings
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, ValidationInfo

from host_agent.config.patterns import to_extended
from host_agent.identity.registry import is_common_name

MAX_PATTERN_LENGTH = 256
"""Characters of a regular expression. Python's engine can take time exponential in the resource's
length for nested repeats such as `(a+)+`; the length, and the short grammars of resources, bound
what an administrator can do to himself by mistake."""


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


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return `pattern` compiled for a whole-string match over ASCII.

    Raises:
        ValueError: it does not compile, is ambiguous to Python's parser, or is not ASCII.
    """
    if not pattern.isascii():
        message = "holds a character that is not ASCII, which no resource can match"
        raise ValueError(message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return re.compile(pattern, re.ASCII)
        except (re.error, OverflowError, RecursionError, Warning) as error:
            message = f"is not a regular expression: {error}"
            raise ValueError(message) from None


def _check_pattern(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


def _check_listed(pattern: str) -> str:
    to_extended(pattern)
    return pattern


def _check_operation(pattern: str) -> str:
    """Accept an exact operation name, or `adapter.*` for all of one adapter's."""
    # Imported here: the adapters beside the catalogue import their configuration sections.
    from host_agent.operations.catalogue import CONTRACT_OPERATIONS

    adapter, dot, verb = pattern.partition(".")
    adapters = {name.partition(".")[0] for name in CONTRACT_OPERATIONS}
    if pattern in CONTRACT_OPERATIONS or (dot and verb == "*" and adapter in adapters):
        return pattern
    message = "is no operation, and no adapter with .* after it"
    raise ValueError(message)


def _check_repository_path(path: str) -> str:
    """Hold the form that a `repository` parameter is compared with, byte by byte."""
    first, *parts = path.split("/")
    if first or not parts or not {"", ".", ".."}.isdisjoint(parts):
        message = "must be absolute, without '.', '..', '//' or a '/' at the end"
        raise ValueError(message)
    if not path.isascii() or not path.isprintable():
        message = "must be visible ASCII characters and spaces"
        raise ValueError(message)
    return path


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


def grammar(pattern: str, sentence: str) -> AfterValidator:
    """Return a check that a whole string matches `pattern`, refused with `sentence`."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list: it would match nothing, and is easily read as "any"."""
    if not items:
        message = "must not be empty"
        raise ValueError(message)
    return items


NotEmpty = AfterValidator(_not_empty)
HostPath = Annotated[Path, AfterValidator(absolute)]
Bind = Annotated[str, AfterValidator(_check_bind)]
Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_PATTERN_LENGTH),
    AfterValidator(_check_pattern),
]
ListedPattern = Annotated[Pattern, AfterValidator(_check_listed)]
"""A pattern that root's own list has too, as the wrappers read it."""
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
Fingerprint = Annotated[
    str,
    grammar(
        r"sha256:[0-9a-f]{64}",
        "must be 'sha256:' and 64 hex digits in lower case",
    ),
]
RemoteName = Annotated[
    str,
    grammar(
        r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,99}", "must be the name of a remote, not a URL or pattern"
    ),
]
RepositoryPath = Annotated[str, AfterValidator(_check_repository_path)]
CommandName = Annotated[
    str,
    grammar(r"[a-z][a-z0-9-]{0,63}", "must be lower-case letters, digits and '-', a letter first"),
]
ArgumentName = Annotated[
    str,
    grammar(r"[a-z][a-z0-9_]{0,31}", "must be lower-case letters, digits and '_', a letter first"),
]
