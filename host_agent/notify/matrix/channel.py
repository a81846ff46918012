"""Matrix: prompts with a code to each approver's room, and what they answer there.

A sender is who the homeservers say. An answer counts in a room of two only, the agent and who
writes; whoever else could read there could read a code. The agent cannot decrypt: what it reads
and writes is in the clear to the homeserver, and it says so where a room is encrypted.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from host_agent.canonical import JsonValue
from host_agent.config.channels.matrix import MatrixSection, domain_of
from host_agent.notify.channel import ChannelError, Delivery, Hear, Message
from host_agent.notify.flood import Complaints, Manners
from host_agent.notify.matrix.events import Arrived, SyncReader, is_limited, next_batch
from host_agent.notify.matrix.homeserver import MAX_ROOMS, Homeserver, HomeserverError
from host_agent.notify.reply_parser import Chatter, read
from host_agent.requests.notification import Failure, Purpose

_log = logging.getLogger("host_agent.notify.matrix")

MAX_CHARACTERS = 4_000
"""What a phone shows of a message without folding it up; an event may have 64 KiB."""
MAX_REMEMBERED = 2_000
"""Event ids by which a message that comes twice is known."""
MAX_ANSWERS = 200
"""Answers that wait to be sent."""
EVENTS_EACH, FEWEST_EACH = 20, 1
"""Events of a room in one sync; fewer where the answer was too large."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
INVITATION_TRIES, MEMBERS_TRIES = 8, 3
"""How often a room is tried before it is left out."""
FINISH_SECONDS = 2.0
"""For answers that wait when listening ends."""
FILE_NAME = "matrix-since.json"
"""Beside the store: up to where the account's messages were heard."""
_MAX_FILE_BYTES = 8_192

IS_ENCRYPTED = (
    "Nothing was done: this room is encrypted, and the agent cannot read what you write here. "
    "Invite it to a room without encryption, with nobody else in it."
)
HAS_OTHERS = (
    "Nothing was done: there are others in this room. "
    "Invite the agent to a room without encryption, with nobody else in it."
)


class MatrixChannel:
    """The channel `matrix` over one account.

    Args:
        homeserver: the account.
        domains: the homeservers whose users are believed.
        state: the directory where it is kept up to where messages were heard.
        pause: waits before another try.
        jitter: returns a part of 0 to 1, by which a pause is shortened.
        monotonic: the clock by which answers and complaints are counted.
    """

    name = MatrixSection.name
    purpose: Purpose | None = Purpose.CONFIRM
    max_characters = MAX_CHARACTERS

    def __init__(
        self,
        homeserver: Homeserver,
        *,
        domains: Collection[str],
        state: Path,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._homeserver = homeserver
        self._domains = frozenset(domains)
        self._pause = pause
        self._jitter = jitter
        self._reader = SyncReader(user=homeserver.user, domains=self._domains)
        self._since = Since(state, account=f"{homeserver.user} at {homeserver.place}")
        self._complaints = Complaints(_log, monotonic)
        self._manners = Manners(self._complaints, monotonic)
        self._answers: asyncio.Queue[tuple[Arrived, str]] = asyncio.Queue(MAX_ANSWERS)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._rooms: dict[str, str] = {}
        self._invited: dict[str, int] = {}
        """Rooms to join, with how often that was tried in vain."""
        self._unread: dict[str, int] = {}
        """Rooms whose members could not be read, with how often."""
        self._events_each = EVENTS_EACH
        self._is_heard = False

    # -- out --------------------------------------------------------------------------------------

    async def send(self, message: Message) -> Delivery:
        """Send a text, and after it what is to be sent back to approve, as a message of its own.

        Their event ids are the references.

        Raises:
            ChannelError: it was not taken.
        """
        address = message.address or ""
        if domain_of(address) not in self._domains:
            text = "This approver has no user id of a homeserver that is believed."
            raise ChannelError(Failure.NOT_ENROLLED, text, is_final=True)
        await self._homeserver.require_account()
        room = await self._room_of(address)
        prompt = message.prompt
        content = _content(prompt.text, reply_to=message.reply_to)
        reference = await self._homeserver.send(room, content, of=message.id)
        if prompt.answer is None:
            return Delivery(reference=reference)
        second = await self._homeserver.send(room, _content(prompt.answer), of=message.id)
        return Delivery(reference=reference, answer_reference=second)

    async def _room_of(self, user: str) -> str:
        """Return the room that the agent and `user` are in alone, where it can write.

        The one that they wrote in last, or else the first by its id.
        """
        encrypted = False
        unread: ChannelError | None = None
        last = [self._rooms.pop(user)] if user in self._rooms else []
        for room in (*last, *await self._homeserver.rooms()):
            try:
                is_of_two = await self._is_of_two(room, user)
            except ChannelError as error:
                unread = error  # perhaps another one is theirs
                continue
            if not is_of_two:
                continue
            if not await self._homeserver.is_encrypted(room):
                self._rooms[user] = room
                return room
            encrypted = True
        if unread is not None:
            raise unread
        text = "This approver shares no room with the agent alone: they have to invite it."
        if encrypted:
            text = "This approver's room is encrypted, so the agent cannot be answered there."
        raise ChannelError(Failure.NOT_ENROLLED, text, is_final=True)

    async def _is_of_two(self, room: str, user: str) -> bool:
        try:
            return await self._homeserver.members(room) == {self._homeserver.user, user}
        except HomeserverError as error:
            if error.code in {"M_FORBIDDEN", "M_NOT_FOUND"}:
                return False  # the account has left it, or was put out
            raise

    # -- in ---------------------------------------------------------------------------------------

    async def listen(self, hear: Hear) -> None:
        """Bring what people write, until cancelled.

        What was written while the agent was away comes at its start. Where it is not known up to
        where it had heard, it begins with what is written from now on.
        """
        answering = asyncio.create_task(self._answer_forever(), name="matrix answers")
        try:
            await self._follow_forever(hear)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FINISH_SECONDS):
                    await self._answers.join()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _follow_forever(self, hear: Hear) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            asked, self._is_heard = 0.0, False
            try:
                await self._follow(hear)
            except ChannelError as error:
                asked = error.retry_after_seconds or 0.0
                self._complaints.add(f"Matrix is not heard ({error}); trying again")
            except Exception as error:  # noqa: BLE001 - or nobody would be heard any more
                _log.error("Matrix is not heard: a defect, %s", type(error).__name__)
            if self._is_heard:
                pause = FIRST_PAUSE_SECONDS
            await self._pause(max(pause * (0.5 + self._jitter() / 2), asked))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _follow(self, hear: Hear) -> None:
        """Follow the account; what is not heard to its end comes again."""
        await self._homeserver.require_account()
        since = self._since.read()
        while True:
            try:
                sync = await self._sync(since)
            except HomeserverError as error:
                if since is None or error.status != HTTPStatus.BAD_REQUEST:
                    raise
                _log.warning("it is not known any more up to where Matrix was heard: begun anew")
                since = None
                continue
            token = next_batch(sync)
            if token is None:
                message = f"{self._homeserver.place} does not answer as a Matrix homeserver."
                raise ChannelError(Failure.BAD_ANSWER, message)
            self._is_heard = True
            for room in self._reader.invitations(sync):
                self._invited.setdefault(room, 0)
            await self._join()
            if since is not None:
                await self._take(sync, hear)
            if token != since:
                self._since.write(token)
            since = token

    async def _sync(self, since: str | None) -> Mapping[str, Any]:
        try:
            sync = await self._homeserver.sync(since, limit=self._events_each)
        except ChannelError as error:
            if error.failure is Failure.BAD_ANSWER:
                self._events_each = max(self._events_each // 4, FEWEST_EACH)
            raise
        self._events_each = EVENTS_EACH
        return sync

    async def _join(self) -> None:
        """Take invitations, the least tried first; one that cannot be taken is forgotten.

        One that may be taken later is tried `INVITATION_TRIES` times, and only one such a sync:
        a homeserver that does not answer holds up neither other invitations nor what is written.
        """
        for room in sorted(self._invited, key=lambda room: (self._invited[room], room)):
            if len(await self._homeserver.rooms()) >= MAX_ROOMS:
                self._invited.clear()
                self._complaints.add("the account is in too many rooms: invitations are not taken")
                return
            try:
                await self._homeserver.join(room)
            except ChannelError as error:
                self._invited[room] += 1
                if not error.is_final and self._invited[room] < INVITATION_TRIES:
                    self._complaints.add(f"an invitation waits ({error})")
                    return
                self._complaints.add(f"an invitation was not taken ({error})")
            del self._invited[room]

    async def _take(self, sync: Mapping[str, Any], hear: Hear) -> None:
        if is_limited(sync):
            self._complaints.add("more is written over Matrix than is read; the oldest is left out")
        members: dict[str, frozenset[str]] = {}
        for arrived in self._reader.arrived(sync):
            if arrived.event in self._known:
                continue
            if arrived.room not in members:
                members[arrived.room] = await self._members(arrived.room)
            answer = await self._heard(arrived, members[arrived.room], hear)
            self._remember(arrived.event)
            if answer is not None and self._manners.may_answer(arrived.sender):
                self._answer(arrived, answer)

    async def _members(self, room: str) -> frozenset[str]:
        """Return who is in a room; nobody where that cannot be read again and again.

        A room of two is read at once. One with too many people, or whose homeserver is gone, must
        not have everybody else's words come again for ever.

        Raises:
            ChannelError: it could not be read this time.
        """
        try:
            members = await self._homeserver.members(room)
        except ChannelError as error:
            self._unread[room] = self._unread.get(room, 0) + 1
            if self._unread[room] < MEMBERS_TRIES:
                raise
            self._complaints.add(f"a room is left out: its members cannot be read ({error})")
            members = frozenset()
        self._unread.pop(room, None)
        return members

    async def _heard(self, arrived: Arrived, members: Collection[str], hear: Hear) -> str | None:
        is_of_two = set(members) == {self._homeserver.user, arrived.sender}
        if arrived.reply is None:
            return IS_ENCRYPTED if is_of_two else None
        if not is_of_two:
            return None if isinstance(read(arrived.reply.text), Chatter) else HAS_OTHERS
        self._rooms[arrived.sender] = arrived.room
        while len(self._rooms) > MAX_ROOMS:
            self._rooms.pop(next(iter(self._rooms)))
        return await hear(arrived.reply)

    def _remember(self, event: str) -> None:
        self._known[event] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _answer(self, arrived: Arrived, answer: str) -> None:
        if self._answers.full():
            self._answers.get_nowait()
            self._answers.task_done()
            self._complaints.add("answers over Matrix do not get out; the oldest was dropped")
        self._answers.put_nowait((arrived, answer))

    async def _answer_forever(self) -> None:
        while True:
            arrived, answer = await self._answers.get()
            content = _content(answer, reply_to=arrived.event, kind="m.notice")
            try:
                await self._homeserver.send(arrived.room, content, of=arrived.event)
            except ChannelError as error:
                self._complaints.add(f"an answer over Matrix was not sent: {error}")
            except Exception as error:  # noqa: BLE001 - or nobody would be answered any more
                _log.error("an answer over Matrix was not sent: a defect, %s", type(error).__name__)
            finally:
                self._answers.task_done()

    # -- the rest ---------------------------------------------------------------------------------

    async def probe(self) -> str:
        """Return who answers, as whom, and what the rooms are like.

        Raises:
            ChannelError: nobody does, or the token is not the account's.
        """
        version = await self._homeserver.version()
        await self._homeserver.require_account()
        rooms = await self._homeserver.rooms()
        encrypted = [await self._homeserver.is_encrypted(room) for room in rooms[:MAX_ROOMS]]
        said = [
            f"{self._homeserver.place} is a Matrix homeserver ({version})",
            f"the account is in {len(rooms)} room(s)",
        ]
        if any(encrypted):
            said.append(f"WARNING: {sum(encrypted)} encrypted, where the agent cannot read")
        return f"{'; '.join(said)}."

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        await self._homeserver.close()


class Since:
    """The token of one account's newest sync. Without a file that says it, it is not known."""

    def __init__(self, state: Path, *, account: str) -> None:
        self._file = state / FILE_NAME
        self._account = account

    def read(self) -> str | None:
        """Return the token, or None where none is kept for this account."""
        try:
            with self._file.open("rb") as stream:
                told = json.loads(stream.read(_MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(told, dict) or told.get("account") != self._account:
            return None
        token = told.get("since")
        return token if isinstance(token, str) and token else None

    def write(self, token: str) -> None:
        """Keep a token in place of the one before; a failure is logged, not raised."""
        new = self._file.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600), "w", encoding="utf-8") as stream:  # noqa: PTH123
                json.dump({"account": self._account, "since": token}, stream)
            new.replace(self._file)
        except OSError as error:
            _log.warning("up to where Matrix was heard cannot be kept: %s", error.strerror)


def _content(
    body: str, *, reply_to: str | None = None, kind: str = "m.text"
) -> dict[str, JsonValue]:
    """Return the content of a message. Phones ring for `m.text`, not for `m.notice`."""
    content: dict[str, JsonValue] = {"msgtype": kind, "body": body}
    if reply_to is not None:
        content["m.relates_to"] = {"m.in_reply_to": {"event_id": reply_to}}
    return content
