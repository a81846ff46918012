"""What a sync tells, as far as it is an answer or an invitation. Pure.

The forms are those of the client-server API v1.11. All of it is a stranger's word but for `sender`,
which the sender's homeserver vouches for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from host_agent.config.channels.matrix import MatrixSection, domain_of
from host_agent.notify.channel import ChannelReply

MAX_HEARD_CHARACTERS = 1_200
"""Of a longer message only the beginning is handed on, still too long for a consent."""
MAX_ID_BYTES = 255
_MAX_KEY = 16
_LATEST = 253_402_300_799_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An event of a room that is to be answered. `reply` is None where it is encrypted."""

    room: str
    event: str
    sender: str
    reply: ChannelReply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReader:
    """Reads syncs of the account `user`, which believes users of `domains`."""

    user: str
    domains: Collection[str]

    def arrived(self, sync: Mapping[str, Any]) -> Iterator[Arrived]:
        """Yield what people wrote, room by room, in each in the room's order."""
        for room, told in _rooms(sync, "join"):
            events = _mapping(told.get("timeline")).get("events")
            for event in events if isinstance(events, Sequence) else ():
                found = self._arrived(room, event)
                if found is not None:
                    yield found

    def invitations(self, sync: Mapping[str, Any]) -> Iterator[str]:
        """Yield the rooms that somebody who is believed to be somebody invites the account to.

        What comes along with an invitation is whatever its homeserver sent, so where several
        events say who invites, all of them have to be believed.
        """
        for room, told in _rooms(sync, "invite"):
            events = _mapping(told.get("invite_state")).get("events")
            ours = [
                event
                for event in (events if isinstance(events, Sequence) else ())
                if isinstance(event, Mapping)
                and event.get("type") == "m.room.member"
                and event.get("state_key") == self.user
            ]
            if ours and all(self._is_invitation(event) for event in ours):
                yield room

    def _is_invitation(self, event: Mapping[str, Any]) -> bool:
        is_one = _mapping(event.get("content")).get("membership") == "invite"
        return is_one and self._is_believed(event.get("sender"))

    def _is_believed(self, sender: object) -> TypeGuard[str]:
        return _is_id(sender, "@") and sender != self.user and domain_of(sender) in self.domains

    def _arrived(self, room: str, event: object) -> Arrived | None:
        """Return what one person wrote, or None where it is nothing to act on.

        Nothing of the account itself, of other homeservers, no state, no edits, no notices (bots
        write those), nothing that was redacted.
        """
        if not isinstance(event, Mapping) or "state_key" in event:
            return None
        sender, event_id = event.get("sender"), event.get("event_id")
        if not self._is_believed(sender) or not _is_id(event_id, "$"):
            return None
        unsigned = _mapping(event.get("unsigned"))
        if "redacted_because" in unsigned or "m.replace" in _mapping(unsigned.get("m.relations")):
            return None
        kind, content = event.get("type"), _mapping(event.get("content"))
        sent_at = _instant(event.get("origin_server_ts"))
        if kind == "m.room.encrypted":
            return Arrived(room=room, event=event_id, sender=sender, reply=None)
        said = _message(content) if kind == "m.room.message" else None
        said = _reaction(content) if kind == "m.reaction" else said
        if said is None or sent_at is None:
            return None
        text, quotes, reaction = said
        reply = ChannelReply(
            channel=MatrixSection.name,
            address=sender,
            text=text,
            sent_at=sent_at,
            reference=event_id,
            quotes=quotes,
            reaction=reaction,
        )
        return Arrived(room=room, event=event_id, sender=sender, reply=reply)


def next_batch(sync: Mapping[str, Any]) -> str | None:
    """Return the token that the next sync begins at."""
    token = sync.get("next_batch")
    return token if isinstance(token, str) and 0 < len(token) <= 4096 else None


def is_limited(sync: Mapping[str, Any]) -> bool:
    """Return whether a room had more than it was asked for: the oldest were left out."""
    return any(
        _mapping(told.get("timeline")).get("limited") is True for _, told in _rooms(sync, "join")
    )


_Said = tuple[str, str | None, str | None]


def _message(content: Mapping[str, Any]) -> _Said | None:
    """Return text and what it answers; None: no text of a person, or an edit of an earlier one."""
    body, relation = content.get("body"), _mapping(content.get("m.relates_to"))
    if content.get("msgtype") != "m.text" or not isinstance(body, str):
        return None
    if relation.get("rel_type") == "m.replace" or "m.new_content" in content:
        return None
    quotes = _mapping(relation.get("m.in_reply_to")).get("event_id")
    if relation.get("is_falling_back") is True or not _is_id(quotes, "$"):
        quotes = None
    text = _without_fallback(body) if quotes is not None else body
    return (_whole(text[:MAX_HEARD_CHARACTERS]), quotes, None) if text.strip() else None


def _reaction(content: Mapping[str, Any]) -> _Said | None:
    relation = _mapping(content.get("m.relates_to"))
    key, event = relation.get("key"), relation.get("event_id")
    if relation.get("rel_type") != "m.annotation" or not _is_id(event, "$"):
        return None
    return ("", event, _whole(key[:_MAX_KEY])) if isinstance(key, str) and key else None


def _without_fallback(body: str) -> str:
    """Return a reply without the quoted lines that clients before v1.13 put above it."""
    lines = body.split("\n")
    quoted = next((at for at, line in enumerate(lines) if not line.startswith("> ")), len(lines))
    if quoted and quoted < len(lines) and not lines[quoted].strip():
        return "\n".join(lines[quoted + 1 :])
    return body


def _rooms(sync: Mapping[str, Any], membership: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rooms = _mapping(_mapping(sync.get("rooms")).get(membership))
    for room, told in rooms.items():
        if _is_id(room, "!") and isinstance(told, Mapping):
            yield room, told


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_id(value: object, sigil: str) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and value.startswith(sigil)
        and value.isprintable()
        and len(value.encode("utf-8", "replace")) <= MAX_ID_BYTES
    )


def _instant(value: object) -> datetime | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LATEST:
        return None
    return datetime.fromtimestamp(value / 1000, UTC)


def _whole(text: str) -> str:
    """Return the text without halves of characters, which JSON can carry and nothing else can."""
    return text.encode("utf-8", "replace").decode("utf-8")
