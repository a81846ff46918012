"""Certificates and the revocation list: whether they serve, and how long they will."""

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from host_agent.clock import span
from host_agent.config import Config
from host_agent.host.doctor.values import Check, instant, is_well, ok, problem, warning
from host_agent.identity.files import read_plain
from host_agent.identity.revocation import Revocation
from host_agent.pki.mailbox import INBOX, Mailbox
from host_agent.pki.verification import (
    authorities_end,
    check_authorities,
    check_server_pair,
    reason_of_clients,
)

SOON = timedelta(days=14)
_RENEW = "issue another one and reload: docs/how-to/rotate-certificates.md"
LONG_SECONDS = 86_400.0
"""A renewal that waits longer has been forgotten, or was refused."""
_SIGN_RENEWALS = "run `host-agent pki renewals`, and see why: docs/how-to/renew-certificates.md"
_READABLE = "let the agent's user read it, and enter every directory above it"
_SIGN = "sign it again with `host-agent pki crl` and copy it here: docs/how-to/revoke.md"


def certificate_checks(
    config: Config, now: datetime, fault_of: Callable[..., str | None] = lambda *_: None
) -> Iterator[Check]:
    """Yield the checks of the server's pair, the clients' authority and the revocation list.

    `fault_of` returns why the agent's own user cannot use the file of one of some dotted keys: what
    is good for who looks now may be out of its reach.
    """
    for name, keys, checks in (
        (
            "server certificate",
            ("server.certificate", "server.private_key"),
            [_server(config, now)],
        ),
        ("client authority", ("server.client_ca",), list(_authorities(config, now))),
        ("revocation list", ("server.crl",), list(_lists(config, now))),
    ):
        fault = fault_of(*keys)
        if fault is not None and is_well(checks):
            yield problem(name, f"The agent cannot use it: {fault.rstrip('.')}.", _READABLE)
        else:
            yield from checks
    if config.renewals.issued is not None:
        yield _renewals(config.store.path.parent / INBOX, config.renewals.issued, now)


def _renewals(inbox: Path, issued: Path, now: datetime) -> Check:
    name = "renewals"
    if not issued.is_dir():
        sentence = f"There is no directory {issued}: nobody's certificate is renewed."
        return problem(name, sentence, f"make it as root: install -d -m 0755 {issued}")
    try:
        count, since = Mailbox(inbox=inbox, issued=issued).oldest()
    except OSError as error:
        return warning(name, f"{inbox} cannot be read: {error.strerror}.", "look as root")
    if since is None:
        return ok(name, "None waits for the authority.")
    waits = now.timestamp() - since
    sentence = f"{count} wait for the authority, the oldest for {span(waits)}."
    if waits < LONG_SECONDS:
        return ok(name, sentence)
    return warning(name, sentence, _SIGN_RENEWALS)


def _server(config: Config, now: datetime) -> Check:
    name = "server certificate"
    try:
        certificate = _content(config.server.certificate)
        end = check_server_pair(certificate, _content(config.server.private_key), now)
        refused = reason_of_clients(certificate, _content(config.server.client_ca), now)
    except ValueError as error:
        return problem(name, f"It cannot serve: {error}.", _RENEW)
    if refused is not None:
        return warning(name, f"Clients of the same authority refuse it: {refused}.", _RENEW)
    return _lasting(name, end, now, _RENEW)


def _authorities(config: Config, now: datetime) -> Iterator[Check]:
    name = "client authority"
    remedy = "put another authority's certificate there: docs/how-to/certificates.md"
    try:
        data = _content(config.server.client_ca)
        findings = check_authorities(data, now)
        end = authorities_end(data)
    except ValueError as error:
        yield problem(name, f"It cannot be used: {error}.", remedy)
        return
    for finding in findings:
        yield problem(name, f"None of its clients will get in: {finding}.", remedy)
    if not findings:
        yield _lasting(name, end, now, remedy)


def _lists(config: Config, now: datetime) -> Iterator[Check]:
    name = "revocation list"
    if config.server.crl is None:
        yield warning(
            name,
            "None is set, so a lost key is good until its certificate ends.",
            "set `crl` in [server]: docs/how-to/revoke.md",
        )
        return
    revocation = Revocation(config.server.crl, config.server.client_ca)
    try:
        revocation.load(now)
    except (OSError, ValueError) as error:
        yield problem(name, f"Nobody gets in: {error}.", _SIGN)
        return
    for authority in revocation.uncovered():
        sentence = f"None of the clients of {authority.name!a} will get in: it has no list."
        yield problem(
            name, sentence, "give one list for each CA in one file: docs/how-to/revoke.md"
        )
    if revocation.next_update is not None:
        yield _lasting(name, revocation.next_update, now, _SIGN)


def _lasting(name: str, end: datetime, now: datetime, remedy: str) -> Check:
    left = end - now
    sentence = f"It is good for {left.days} days, until {instant(end)}."
    if left <= timedelta(0):
        return problem(name, f"It ended at {instant(end)}.", remedy)
    return warning(name, sentence, remedy) if left <= SOON else ok(name, sentence)


def _content(path: Path) -> bytes:
    """Return a file's content; links are followed, as the agent follows them."""
    return read_plain(Path(os.path.realpath(path)))
