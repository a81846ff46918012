"""ntfy: prompts on a phone, with a button that can only deny.

Every subscriber of a topic reads the whole message, its buttons included, and the server keeps it
for a while. So there is no button that approves: Deny publishes a single-use token to a reply
topic, which the agent reads. No port of the agent is open for it.
"""

import asyncio
import json
import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from host_agent.canonical import JsonValue, canonical_json
from host_agent.config.channels.ntfy import PUBLIC_SERVER, NtfySection
from host_agent.notify.channel import (
    ChannelError,
    ChannelReply,
    Delivery,
    Hear,
    Message,
    Surroundings,
)
from host_agent.notify.outbound import Outbound, Response
from host_agent.notify.secret_files import read_token
from host_agent.requests import codes
from host_agent.requests.notification import Failure, Kind, Purpose

MAX_MESSAGE_BYTES = 4_096
"""A longer message becomes an attachment."""
MAX_BODY_BYTES = 8_192
"""The server reads no more of a JSON publication: twice its message limit."""
MAX_CHARACTERS = 3_500
MAX_ACTIONS = 3
SILENCE_SECONDS = 150.0
"""The server says something every 45 seconds unless it was told otherwise."""
LOOK_BACK = timedelta(hours=12)
"""How far before its start the channel asks for answers, unless it is told."""

_CUT = "\n... cut, look at the request"
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}", re.ASCII)
_MESSAGE_ID = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)
_DENY = re.compile(r"deny[ ]+([A-Za-z0-9 -]{1,64})", re.ASCII | re.IGNORECASE)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_REMEMBERED = 512
_PRIORITY = {Kind.PROMPT: 4, Kind.OUTCOME: 3}
_TAG = {Kind.PROMPT: "warning", Kind.OUTCOME: "information_source"}


class NtfyChannel:
    """Publishes to one ntfy server, and reads the reply topic there.

    Args:
        outbound: the way to the server's root.
        token_file: the agent's token: it may write the approvers' topics, and read the reply topic.
        reply_topic: where the button Deny publishes; without one there is no button.
        reply_token_file: a token that may only write the reply topic. Subscribers see it.
        review_url: where the button Review leads, with the request's id appended.
        since: from when on answers are asked for at first; `LOOK_BACK` before the first connection
            where it is None. An answer that was heard before is no harm: its token is spent.
        now: the wall clock.
        pause: waits before another connection.
        jitter: returns a part of 0 to 1, by which a pause is shortened.
    """

    name = NtfySection.name
    max_characters = MAX_CHARACTERS

    def __init__(
        self,
        outbound: Outbound,
        *,
        token_file: Path | None = None,
        reply_topic: str | None = None,
        reply_token_file: Path | None = None,
        review_url: str | None = None,
        since: datetime | None = None,
        now: Callable[[], datetime],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._outbound = outbound
        self._token_file = token_file
        self._reply_topic = reply_topic
        self._reply_token_file = reply_token_file
        self._review_url = review_url
        self._now = now
        self._pause = pause
        self._jitter = jitter
        self._since = since
        self._last_id: str | None = None
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._failures = 0

    @property
    def purpose(self) -> Purpose | None:
        """To deny, where a reply topic is configured; else there is no code."""
        return None if self._reply_topic is None else Purpose.DENY

    # -- out --------------------------------------------------------------------------------------

    async def send(self, message: Message) -> Delivery:
        """Publish one message to the owner's topic.

        Raises:
            ChannelError: it was not taken.
        """
        if message.address is None or not _TOPIC.fullmatch(message.address):
            text = "The owner has no topic that ntfy would take."
            raise ChannelError(Failure.NOT_ENROLLED, text, is_final=True)
        body = publication(message, topic=message.address, actions=self._actions(message))
        headers = {"Content-Type": "application/json", **self._authorization()}
        answer = await self._outbound.post(body, headers=headers, path="/")
        return Delivery(reference=_published_id(answer))

    def _actions(self, message: Message) -> list[JsonValue]:
        actions: list[JsonValue] = []
        if self._review_url is not None:
            url = self._review_url + message.request.id
            actions.append({"action": "view", "label": "Review", "url": url})
        if message.kind is Kind.PROMPT and message.code is not None and self._reply_topic:
            actions.append(self._deny(self._reply_topic, message.code))
        return actions[:MAX_ACTIONS]

    def _deny(self, topic: str, code: str) -> JsonValue:
        said = canonical_json({"topic": topic, "message": f"deny {code}"}).decode("ascii")
        headers = {"Content-Type": "application/json"}
        if self._reply_token_file is not None:
            headers["Authorization"] = f"Bearer {read_token(self._reply_token_file)}"
        target = self._outbound.target
        return {
            "action": "http",
            "label": "Deny",
            "url": f"{target.scheme}://{target.place}/",
            "method": "POST",
            "headers": headers,
            "body": said,
            "clear": True,
        }

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        return {"Authorization": f"Bearer {read_token(self._token_file)}"}

    # -- in ---------------------------------------------------------------------------------------

    async def listen(self, hear: Hear) -> None:
        """Hand every `deny TOKEN` of the reply topic to `hear`, until cancelled.

        The token is all the proof there is: `address` is empty, and whose answer it is follows from
        whom the token was made for.
        """
        if self._reply_topic is None:
            await asyncio.Event().wait()
            return
        while True:
            asked: float | None = None
            try:
                await self._follow(self._reply_topic, hear)
            except ChannelError as error:
                asked = error.retry_after_seconds
            longest = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE)
            self._failures += 1
            await self._pause(max(longest * self._jitter(), asked or 0.0, _FIRST_PAUSE / 10))

    async def _follow(self, topic: str, hear: Hear) -> None:
        async def take(line: bytes) -> None:
            await self._take(line, topic, hear)

        await self._outbound.follow(
            f"/{topic}/json?since={self._from()}",
            headers=self._authorization(),
            silence_seconds=SILENCE_SECONDS,
            take=take,
        )

    def _from(self) -> str:
        if self._last_id is not None:
            return self._last_id
        if self._since is None:
            self._since = self._now() - LOOK_BACK
        return str(int(self._since.timestamp()))

    async def _take(self, line: bytes, topic: str, hear: Hear) -> None:
        told = _object(line)
        if told is None:
            return
        self._failures = 0
        reply = heard_in(told, topic)
        identifier = told.get("id")
        if told.get("event") == "message" and isinstance(identifier, str):
            if identifier in self._heard:
                return
            if _MESSAGE_ID.fullmatch(identifier):
                self._remember(identifier)
        if reply is not None:
            await hear(reply)

    def _remember(self, identifier: str) -> None:
        self._last_id = identifier
        self._heard[identifier] = None
        if len(self._heard) > _REMEMBERED:
            self._heard.popitem(last=False)

    # -- the rest ---------------------------------------------------------------------------------

    async def probe(self) -> str:
        """Ask the server for its health, and who may read the reply topic.

        Raises:
            ChannelError: it does not answer, is not healthy, or lets the agent not read the topic.
        """
        health = _object((await self._outbound.get(headers={}, path="/v1/health")).body)
        place = self._outbound.target.place
        if health is None or health.get("healthy") is not True:
            message = f"{place} is not a healthy ntfy server."
            raise ChannelError(Failure.BAD_ANSWER, message)
        said = [f"{place} is a healthy ntfy server"]
        if self._outbound.target.host == PUBLIC_SERVER:
            said.append("WARNING: it is public, and whoever guesses a topic reads the prompts")
        if self._reply_topic is not None:
            path = f"/{self._reply_topic}/auth"
            await self._outbound.get(headers=self._authorization(), path=path)
            said.append("the agent may read the reply topic")
            if await self._is_open(path):
                said.append("WARNING: so may everybody; give the server access control")
        return f"{'; '.join(said)}."

    async def _is_open(self, path: str) -> bool:
        try:
            await self._outbound.get(headers={}, path=path)
        except ChannelError:
            return False
        return True

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        await self._outbound.close()


def make_channel(section: NtfySection, surroundings: Surroundings) -> NtfyChannel:
    """Return the channel of a section; nothing is read or connected.

    Raises:
        ValueError: its URL may not be sent to.
    """
    return NtfyChannel(
        Outbound(section.url, ca_file=section.ca_file, now=surroundings.now),
        token_file=section.token_file,
        reply_topic=section.reply_topic,
        reply_token_file=section.reply_token_file,
        review_url=section.review_url,
        now=surroundings.now,
    )


def publication(message: Message, *, topic: str, actions: list[JsonValue]) -> bytes:
    """Return the JSON body that publishes `message`, its text cut where ntfy takes no more."""
    text = message.prompt.text
    room = MAX_MESSAGE_BYTES
    while True:
        body = canonical_json(
            {
                "topic": topic,
                "title": message.prompt.title,
                "message": _cut(text, room),
                "priority": _PRIORITY[message.kind],
                "tags": [_TAG[message.kind]],
                "actions": actions,
            }
        )
        over = len(body) - MAX_BODY_BYTES
        if over <= 0 or room <= len(_CUT):
            return body
        room = max(min(room, len(text.encode())) - over, len(_CUT))


def _cut(text: str, room: int) -> str:
    data = text.encode("utf-8")
    if len(data) <= room:
        return text
    return data[: room - len(_CUT)].decode("utf-8", "ignore") + _CUT


def heard_in(told: Mapping[str, object], topic: str) -> ChannelReply | None:
    """Return what a line of the reply topic says, or None where it is nothing of ours."""
    text, identifier, instant = (told.get(name) for name in ("message", "id", "time"))
    if told.get("event") != "message" or told.get("topic") != topic:
        return None
    if not isinstance(text, str) or not isinstance(identifier, str) or type(instant) is not int:
        return None
    said = _DENY.fullmatch(text.strip())
    code = None if said is None else codes.normalise(said[1])
    if code is None or not _MESSAGE_ID.fullmatch(identifier) or not 0 <= instant < 2**33:
        return None
    return ChannelReply(
        channel=NtfyChannel.name,
        address="",
        text=f"DENY {code}",
        sent_at=datetime.fromtimestamp(instant, UTC),
        reference=identifier,
    )


def _published_id(answer: Response) -> str:
    told = _object(answer.body)
    identifier = None if told is None else told.get("id")
    if not isinstance(identifier, str) or not _MESSAGE_ID.fullmatch(identifier):
        message = "The answer is not that of an ntfy server."
        raise ChannelError(Failure.BAD_ANSWER, message)
    return identifier


def _object(data: bytes) -> Mapping[str, object] | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None
