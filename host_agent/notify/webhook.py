"""The webhook: requests that wait, and what became of them, as signed CloudEvents.

It carries no code. Whoever shows it to people brings their answers back through a certificate of
its own (role `bridge`) and `POST /webhook/decision`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from host_agent.canonical import JsonValue, canonical_json
from host_agent.clock import rfc3339
from host_agent.config.channels.webhook import WebhookSection
from host_agent.notify import signing
from host_agent.notify.channel import ChannelError, Delivery, Hear, Message, Surroundings
from host_agent.notify.outbound import Outbound
from host_agent.notify.secret_files import read_bytes
from host_agent.requests.facts import request_view
from host_agent.requests.model import Request
from host_agent.requests.notification import Failure, Kind, Purpose

HELD = "host_agent.request.held"
OUTCOME = "host_agent.request.outcome"
TYPES: Mapping[Kind, str] = {Kind.PROMPT: HELD, Kind.OUTCOME: OUTCOME}
SCHEMAS: Mapping[str, str] = {
    HELD: "urn:host-agent:schema:request-held:1",
    OUTCOME: "urn:host-agent:schema:request-outcome:1",
}
"""The `dataschema` of each type: a name, not a place. docs/reference/events.md leads to them."""

CONTENT_TYPE = "application/cloudevents+json"
MAX_CHARACTERS = 16_384


class WebhookChannel:
    """Posts events to one URL. Its secrets are read anew for every message.

    Args:
        outbound: the way to the receiver.
        secret_file: the secret that messages are signed with.
        previous_secret_file: the one before, while receivers change over: both sign then.
        host: the name of this host, as the digest has it.
        now: the wall clock, by which receivers judge the age of a message.
    """

    name = WebhookSection.name
    purpose: Purpose | None = None
    max_characters = MAX_CHARACTERS

    def __init__(
        self,
        outbound: Outbound,
        *,
        secret_file: Path,
        previous_secret_file: Path | None = None,
        host: str,
        now: Callable[[], datetime],
    ) -> None:
        self._outbound = outbound
        self._files = [file for file in (secret_file, previous_secret_file) if file is not None]
        self._host = host
        self._now = now

    async def send(self, message: Message) -> Delivery:
        """Post one event. Its `webhook-id` is the same at every try, so a repeat can be told.

        Raises:
            ChannelError: it was not taken.
        """
        body = _canonical(event(message, host=self._host, now=self._now()))
        timestamp = int(self._now().timestamp())
        await self._outbound.post(
            body,
            headers={
                "Content-Type": CONTENT_TYPE,
                signing.ID_HEADER: message.id,
                signing.TIMESTAMP_HEADER: str(timestamp),
                signing.SIGNATURE_HEADER: signing.sign(
                    self._secrets(), message.id, timestamp, body
                ),
            },
        )
        return Delivery(reference=message.id)

    async def listen(self, hear: Hear) -> None:  # noqa: ARG002 - nothing is heard here
        """Wait to be cancelled: answers come through a bridge."""
        await asyncio.Event().wait()

    async def probe(self) -> str:
        """Look at the secrets, connect and shake hands; nothing is posted.

        Raises:
            ChannelError: a secret is no secret, or nobody is there.
        """
        self._secrets()
        return f"{await self._outbound.reach()}; nothing was posted."

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        await self._outbound.close()

    def _secrets(self) -> Sequence[bytes]:
        return [_secret(file) for file in self._files]


def make_channel(section: WebhookSection, surroundings: Surroundings) -> WebhookChannel:
    """Return the channel of a section; nothing is read or connected.

    Raises:
        ValueError: its URL may not be sent to.
    """
    return WebhookChannel(
        Outbound(section.url, ca_file=section.ca_file, now=surroundings.now),
        secret_file=section.secret_file,
        previous_secret_file=section.previous_secret_file,
        host=surroundings.host,
        now=surroundings.now,
    )


def _secret(file: Path) -> bytes:
    try:
        return signing.read_secret(read_bytes(file))
    except ValueError as error:
        message = f"{file} is not a secret to sign with: {error}."
        raise ChannelError(Failure.NOT_CONFIGURED, message) from None


def _canonical(value: JsonValue) -> bytes:
    try:
        return canonical_json(value)
    except ValueError:
        message = "The request has no canonical form."
        raise ChannelError(Failure.DEFECT, message, is_final=True) from None


def event(message: Message, *, host: str, now: datetime) -> Mapping[str, JsonValue]:
    """Return the CloudEvent (1.0, structured) of a message.

    The envelope is ours throughout; what a caller wrote is inside `data.request` and, made visible,
    inside `data.prompt.text`. `now` is used where an outcome has no time of its own.
    """
    kind = TYPES[message.kind]
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": f"/host-agent/{quote(host, safe='')}",
        "type": kind,
        "time": rfc3339(_happened(message.kind, message.request, now)),
        "subject": message.request.id,
        "datacontenttype": "application/json",
        "dataschema": SCHEMAS[kind],
        "data": _data(message),
    }


def _happened(kind: Kind, request: Request, now: datetime) -> datetime:
    return request.created_at if kind is Kind.PROMPT else request.finished_at or now


def _data(message: Message) -> Mapping[str, JsonValue]:
    request = message.request
    data: dict[str, JsonValue] = {
        "approver": message.owner,
        "audit": {"sequence": message.audit.sequence, "head": message.audit.head},
        "digest": request.digest,
        "expires_at": rfc3339(request.expires_at),
        "prompt": {
            "title": message.prompt.title,
            "text": message.prompt.text,
            "is_whole": message.prompt.is_whole,
        },
        "request": request_view(message.facts, with_output=False).as_json(),
    }
    if message.kind is Kind.OUTCOME:
        data["reply_to"] = message.reply_to
    return data
