"""What signal-cli tells of an arriving message, as far as it is an answer. Pure.

The form is that of signal-cli 0.14 (its classes `JsonMessageEnvelope` and below); the REST service
hands it on as it is. All of it is a stranger's word but for `sourceUuid`, which Signal proves.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from host_agent.config.channels.signal import SignalSection
from host_agent.notify.channel import ChannelReply

MAX_HEARD_CHARACTERS = 1_200
"""Of a longer message only the beginning is handed on, still too long for a consent."""

Params: TypeAlias = Mapping[str, object]
"""The `params` of one `receive` notification: `envelope` and `account`."""

_ACI = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OTHERS = (
    "syncMessage",
    "editMessage",
    "storyMessage",
    "receiptMessage",
    "typingMessage",
    "callMessage",
)
"""Envelopes that are no message from a person to us. The first is our own account's devices."""
_ELSEWHERE = ("groupInfo", "storyContext", "remoteDelete")
"""Parts of a message that make it one to a group, about a story, or one that takes back another."""
_MAX_EMOJI = 16
_LATEST = 253_402_300_799_000


def is_aci(address: str | None) -> bool:
    """Return whether this is an account identifier: a UUID in lower case."""
    return address is not None and _ACI.fullmatch(address) is not None


def read_envelope(params: Params, *, account: str) -> ChannelReply | None:
    """Return what one person sent to `account`, or None where it is nothing to act on.

    Only messages straight to the account count: nothing of groups, of its own devices, no edits,
    stories or receipts. A quote or a reaction counts only where it is of our own message. A sender
    whose ACI is not told is nobody: numbers can be absent, and are given to others in time.
    """
    envelope = params.get("envelope")
    if params.get("account") not in (None, account) or not isinstance(envelope, Mapping):
        return None
    if params.get("exception") is not None:  # not decrypted, or from a key that is not trusted
        return None
    if any(envelope.get(kind) is not None for kind in _OTHERS):
        return None
    aci, data = envelope.get("sourceUuid"), envelope.get("dataMessage")
    stamp = _stamp(envelope.get("timestamp"))
    if not isinstance(aci, str) or not isinstance(data, Mapping) or stamp is None:
        return None
    aci = aci.lower()
    if not is_aci(aci) or account in (envelope.get("sourceNumber"), envelope.get("source")):
        return None
    if any(data.get(part) is not None for part in _ELSEWHERE):
        return None
    if data.get("reaction") is not None:
        return _reaction(data["reaction"], account, aci, stamp)
    text = data.get("message")
    if not isinstance(text, str) or not text.strip():
        return None
    return _heard(aci, stamp, text=text, quotes=_quoted(data.get("quote"), account))


def _heard(
    aci: str, stamp: int, *, text: str, quotes: str | None, reaction: str | None = None
) -> ChannelReply:
    return ChannelReply(
        channel=SignalSection.name,
        address=aci,
        text=_whole(text[:MAX_HEARD_CHARACTERS]),
        sent_at=datetime.fromtimestamp(stamp / 1000, UTC),
        reference=f"{aci}:{stamp}",
        quotes=quotes,
        reaction=reaction,
    )


def _reaction(reaction: object, account: str, aci: str, stamp: int) -> ChannelReply | None:
    if not isinstance(reaction, Mapping) or reaction.get("isRemove") is not False:
        return None
    emoji, target = reaction.get("emoji"), _stamp(reaction.get("targetSentTimestamp"))
    is_ours = account in (reaction.get("targetAuthorNumber"), reaction.get("targetAuthor"))
    if not is_ours or target is None or not isinstance(emoji, str) or not emoji:
        return None
    return _heard(aci, stamp, text="", quotes=str(target), reaction=_whole(emoji[:_MAX_EMOJI]))


def _quoted(quote: object, account: str) -> str | None:
    if not isinstance(quote, Mapping):
        return None
    quoted = _stamp(quote.get("id"))
    is_ours = account in (quote.get("authorNumber"), quote.get("author"))
    return str(quoted) if is_ours and quoted is not None else None


def _stamp(value: object) -> int | None:
    """Return a timestamp of Signal, milliseconds since 1970, where it is one."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LATEST:
        return None
    return value


def _whole(text: str) -> str:
    """Return the text without halves of characters, which JSON can carry and nothing else can."""
    return text.encode("utf-8", "replace").decode("utf-8")
