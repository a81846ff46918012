"""Renewals of certificates at the door: checked, recorded, and laid where the authority takes them.

The agent cannot sign: the authority's key is not within its reach. What it believes of a renewal
the authority asks anew, so nothing is lost where somebody has the agent's own user.
"""

import asyncio
import logging
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from host_agent.api.wire.people import RenewalAnswer
from host_agent.audit.record import Event
from host_agent.errors import (
    AdapterUnavailableError,
    InvalidParameterError,
    RenewalConflictError,
    RenewalNotOfferedError,
    correct,
)
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal
from host_agent.pipeline import Context
from host_agent.pki.door import load_certificates
from host_agent.pki.mailbox import INBOX, Mailbox, MailboxFullError, OtherKeyError
from host_agent.pki.renewal import Renewal, RenewalEntry

_log = logging.getLogger("host_agent.agent")
FULL_RETRY_SECONDS = 3600
"""Room comes when the authority signs: no program gives up for good before."""


class Renewals:
    """Takes renewals for as long as the agent lives, as the configuration that serves has it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def ask(
        self, principal: Principal, peer: PeerCertificate, request: str, proof: str
    ) -> RenewalAnswer:
        """Return the certificate that was made, or let the renewal wait for the authority.

        Raises:
            RenewalNotOfferedError: no directory is configured, or the identity is pinned.
            InvalidParameterError: request or proof are not good for this certificate.
            RenewalConflictError: it was renewed for another key.
            AuditUnavailableError: it could not be recorded; nothing was stored.
            AdapterUnavailableError: it could not be stored, or too many wait.
        """
        mailbox = self._mailbox(principal)
        entry = _entry(peer, request, proof)
        renewal = await asyncio.to_thread(_checked, entry)
        try:
            certificate = await asyncio.to_thread(mailbox.collect, renewal)
            if certificate is not None:
                await self._record(Event.RENEWAL_DELIVERED, principal, renewal)
                await asyncio.to_thread(mailbox.forget, renewal)
                return RenewalAnswer(state="signed", certificate=certificate.decode("ascii"))
            if not await asyncio.to_thread(mailbox.is_waiting, renewal, entry):
                await asyncio.to_thread(mailbox.require_room, renewal)
                await self._record(Event.RENEWAL_ASKED, principal, renewal)
                await asyncio.to_thread(mailbox.put, renewal, entry)
        except OtherKeyError as error:
            message = "This certificate was renewed for another key already."
            raise RenewalConflictError(message) from error
        except MailboxFullError as error:
            message = "Too many renewals wait for the authority."
            raise AdapterUnavailableError(
                message, retry_after_seconds=FULL_RETRY_SECONDS
            ) from error
        except OSError as error:
            _log.error("a renewal cannot be stored: %s", error.strerror)
            message = "The renewal cannot be stored on this host now."
            raise AdapterUnavailableError(message, retry_after_seconds=60) from error
        return RenewalAnswer(state="waiting", certificate=None)

    def _mailbox(self, principal: Principal) -> Mailbox:
        config = self._context.snapshot.config
        issued: Path | None = config.renewals.issued
        if issued is None:
            message = "This host takes no renewals of certificates."
            raise RenewalNotOfferedError(message)
        if any(one.cn == principal.cn and one.fingerprint for one in config.identities):
            message = "This identity is pinned to one certificate, so another would not be let in."
            raise RenewalNotOfferedError(message)
        return Mailbox(inbox=config.store.path.parent / INBOX, issued=issued)

    async def _record(self, event: Event, principal: Principal, renewal: Renewal) -> None:
        await self._context.audit.append(
            event,
            caller=principal.cn,
            owner=principal.owner,
            fingerprint=renewal.old.fingerprint,
            sha256=renewal.key,
        )


def _entry(peer: PeerCertificate, request: str, proof: str) -> RenewalEntry:
    (certificate,) = load_certificates(peer.der)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
    return RenewalEntry(certificate=pem, request=request, proof=proof)


def _checked(entry: RenewalEntry) -> Renewal:
    try:
        return entry.renewal()
    except ValueError as error:
        message = f"request: {error}."
        raise InvalidParameterError(message, recovery=correct(str(error), "request")) from error
