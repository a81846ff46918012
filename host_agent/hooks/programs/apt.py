"""Command lines of apt, apt-get and aptitude."""

import re
from collections.abc import Sequence

from host_agent.hooks.shell import names
from host_agent.hooks.translation import (
    READ,
    UNKNOWN,
    Suggestion,
    Translation,
    options,
    parse,
)

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{0,126}[a-z0-9+]", re.ASCII)
_SIMULATED = ("-s", "--simulate", "--just-print", "--dry-run", "--recon", "--no-act")
_KNOWN = options(
    "-y --yes --assume-yes -q -qq --quiet --no-install-recommends --only-upgrade --installed"
    " --upgradable --upgradeable -a --all-versions -v --version -h --help -V --verbose-versions"
    f" --no-pager {' '.join(_SIMULATED)}"
)
_READS = names(
    "list search show policy depends rdepends changelog download moo help madison showsrc"
)


def translate(words: Sequence[str]) -> Translation:
    """Return what the command line does."""
    parsed = parse(words, _KNOWN)
    if parsed is None:
        return UNKNOWN
    if parsed.has("-h", "--help", "--version") or not parsed.operands:
        return READ
    verb, *packages = parsed.operands
    if parsed.has(*_SIMULATED):
        return READ
    if verb == "list":
        return READ._replace(
            suggestions=(_listed(is_upgradable=parsed.has("--upgradable", "--upgradeable")),)
        )
    if verb == "show":
        return Translation(True, _each("apt.show", packages))
    if verb in _READS:
        return READ
    if verb == "install":
        operation = "apt.upgrade" if parsed.has("--only-upgrade") else "apt.install"
        return Translation(suggestions=_each(operation, packages))
    return UNKNOWN


def _listed(*, is_upgradable: bool) -> Suggestion:
    return Suggestion("apt.list", {"state": "upgradable"} if is_upgradable else {})


def _each(operation: str, packages: Sequence[str]) -> tuple[Suggestion, ...]:
    """Return a suggestion for each package; none where one is not a plain name."""
    if not all(_PACKAGE.fullmatch(package) for package in packages):
        return ()
    return tuple(Suggestion(operation, {"package": package}) for package in packages)
