"""The calls of the Matrix client-server API (v1.11) that the channel makes, and how they fail."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from host_agent.canonical import JsonValue
from host_agent.notify.channel import ChannelError
from host_agent.notify.outbound import MAX_RETRY_AFTER_SECONDS, Outbound, Response
from host_agent.notify.secret_files import read_token
from host_agent.requests.notification import Failure

MAX_ANSWER_BYTES = 8_388_608
"""Room for `MAX_ROOMS` rooms with an event of 64 KiB each, and what is around them."""
MAX_ROOMS = 100
"""So many rooms the account may be in: whoever is believed to be somebody may invite it."""
WAIT_SECONDS = 30.0
"""How long the server holds a sync for something to tell."""

_TOKEN_REFUSED = frozenset({"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED"})
_NOTHING = {"not_types": ["*"]}
_TYPES = ["m.room.message", "m.room.encrypted", "m.reaction"]


class HomeserverError(ChannelError):
    """A refusal of the homeserver: its status, and its `errcode`, which is a peer's word."""

    status: int = 0
    code: str = ""


class Homeserver:
    """One account of a homeserver; the token is read anew for every call.

    Args:
        outbound: the way to the homeserver.
        base: the path that `/_matrix` is below.
        user: the account's user id.
        token_file: its access token.
    """

    def __init__(self, outbound: Outbound, *, base: str, user: str, token_file: Path) -> None:
        self._outbound = outbound
        self._base = base
        self.user = user
        self._token_file = token_file
        self._proven_token: str | None = None

    @property
    def place(self) -> str:
        """Host and port of the homeserver."""
        return self._outbound.target.place

    async def require_account(self) -> None:
        """Ask once for each token whether it is the configured account's.

        Raises:
            ChannelError: it is another's, or the homeserver does not tell.
        """
        token = read_token(self._token_file)
        if token == self._proven_token:
            return
        if (await self._get("/v3/account/whoami")).get("user_id") != self.user:
            message = f"The token for {self.place} is of another account than the configured one."
            raise ChannelError(Failure.NOT_CONFIGURED, message)
        self._proven_token = token

    async def version(self) -> str:
        """Return the newest version of the specification that the homeserver speaks.

        Raises:
            ChannelError: it does not answer.
        """
        versions = (await self._get("/versions")).get("versions")
        newest = versions[-1] if isinstance(versions, list) and versions else None
        is_plain = isinstance(newest, str) and newest.isascii() and newest.isprintable()
        return str(newest)[:16] if is_plain else "of unknown version"

    async def sync(self, since: str | None, *, limit: int) -> Mapping[str, Any]:
        """Return what is new since a token, at most `limit` events a room; wait where nothing is.

        Without a token it returns at once.

        Raises:
            ChannelError: there is no such answer.
        """
        room = {
            "timeline": {"types": _TYPES, "limit": limit},
            "state": _NOTHING,
            "ephemeral": _NOTHING,
            "account_data": _NOTHING,
        }
        told = {"room": room, "presence": _NOTHING, "account_data": _NOTHING}
        query = {"filter": json.dumps(told, separators=(",", ":")), "set_presence": "offline"}
        wait = 0.0 if since is None else WAIT_SECONDS
        if since is not None:
            query |= {"since": since, "timeout": str(int(wait * 1000))}
        return await self._get(f"/v3/sync?{urlencode(query)}", wait_seconds=wait)

    async def rooms(self) -> tuple[str, ...]:
        """Return the rooms that the account is in, in the order of their ids.

        Raises:
            ChannelError: there is no such answer.
        """
        rooms = (await self._get("/v3/joined_rooms")).get("joined_rooms")
        if not isinstance(rooms, list):
            raise self._not_understood()
        return tuple(sorted(room for room in rooms if isinstance(room, str)))

    async def members(self, room: str) -> frozenset[str]:
        """Return who has joined a room.

        Raises:
            ChannelError: there is no such answer.
        """
        joined = (await self._get(f"/v3/rooms/{_part(room)}/joined_members")).get("joined")
        if not isinstance(joined, Mapping):
            raise self._not_understood()
        return frozenset(joined)

    async def is_encrypted(self, room: str) -> bool:
        """Return whether what people write in a room is encrypted end to end.

        Raises:
            ChannelError: there is no such answer.
        """
        try:
            await self._get(f"/v3/rooms/{_part(room)}/state/m.room.encryption/")
        except HomeserverError as error:
            if error.code == "M_NOT_FOUND":
                return False
            raise
        return True

    async def join(self, room: str) -> None:
        """Take an invitation.

        Raises:
            ChannelError: the homeserver did not let the account in.
        """
        await self._call("POST", f"/v3/rooms/{_part(room)}/join", {})

    async def send(self, room: str, content: Mapping[str, JsonValue], *, of: str) -> str:
        """Send a message and return its event id.

        The same content sent again for the same `of` is one message (`txnId`).

        Raises:
            ChannelError: it was not taken.
        """
        body = json.dumps(content, sort_keys=True)
        transaction = hashlib.sha256(f"{of}\n{room}\n{body}".encode()).hexdigest()[:32]
        path = f"/v3/rooms/{_part(room)}/send/m.room.message/{transaction}"
        event = (await self._call("PUT", path, content)).get("event_id")
        if not isinstance(event, str) or not event:
            raise self._not_understood()
        return event

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._outbound.close()

    # -- one call -------------------------------------------------------------------------------

    async def _get(self, path: str, *, wait_seconds: float = 0.0) -> Mapping[str, Any]:
        answer = await self._outbound.get(
            headers=self._headers(),
            path=self._path(path),
            explain=self._explain,
            wait_seconds=wait_seconds,
        )
        return self._parsed(answer)

    async def _call(
        self, method: str, path: str, body: Mapping[str, JsonValue]
    ) -> Mapping[str, Any]:
        answer = await self._outbound.post(
            json.dumps(body).encode(),
            method=method,
            headers={**self._headers(), "Content-Type": "application/json"},
            path=self._path(path),
            explain=self._explain,
        )
        return self._parsed(answer)

    def _path(self, path: str) -> str:
        return f"{self._base}/_matrix/client{path}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {read_token(self._token_file)}"}

    def _parsed(self, answer: Response) -> Mapping[str, Any]:
        told = _object(answer.body)
        if told is None:
            raise self._not_understood()
        return told

    def _not_understood(self) -> ChannelError:
        message = f"{self.place} does not answer as a Matrix homeserver."
        return ChannelError(Failure.BAD_ANSWER, message)

    def _explain(self, answer: Response) -> ChannelError | None:
        """Return the error of a refusal by its `errcode`; None leaves it to the status."""
        if 200 <= answer.status < 300:
            return None
        told = _object(answer.body) or {}
        code = told.get("errcode")
        if not isinstance(code, str):
            return None
        if code in _TOKEN_REFUSED:
            self._proven_token = None
            message = f"{self.place} does not take the access token ({code}): log in anew."
            error = HomeserverError(Failure.NOT_CONFIGURED, message)
        elif code == "M_LIMIT_EXCEEDED" or answer.status == 429:
            message = f"{self.place} asks for fewer messages."
            error = HomeserverError(
                Failure.RATE_LIMITED, message, retry_after_seconds=_seconds(told, answer.headers)
            )
        else:
            is_final = 400 <= answer.status < 500
            message = f"{self.place} answered with status {answer.status}."
            error = HomeserverError(Failure.REFUSED, message, is_final=is_final)
        error.status, error.code = answer.status, code
        return error


def _seconds(told: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a rate limit: of the header (v1.10), or of the older key."""
    after, millis = headers.get("retry-after", ""), told.get("retry_after_ms")
    if after.isascii() and after.isdecimal() and len(after) < 10:
        return min(float(after), MAX_RETRY_AFTER_SECONDS)
    if isinstance(millis, int) and not isinstance(millis, bool) and millis >= 0:
        return min(millis / 1000, MAX_RETRY_AFTER_SECONDS)
    return None


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _part(text: str) -> str:
    return quote(text, safe="")
