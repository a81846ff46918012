"""One stream of events over httpx, blocking and on asyncio, and staying with it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing

import httpx

from host_agent.client.connection import Received, headers_of, is_stream, timeout_of, translating
from host_agent.client.events import AgentEvent, EventParser, Position
from host_agent.client.exchange import Call, refused_stream
from host_agent.errors import ConnectionFailedError, ProblemError

MAX_REFUSAL_BYTES = 64 * 1024


def follow(
    http: Callable[[], httpx.Client], url: str, position: Position
) -> Generator[AgentEvent, None, None]:
    """Yield events from `position` on, over as many streams as it takes."""
    while True:
        ended: Exception | None = None
        try:
            yield from _one(http(), url, position)
        except (ConnectionFailedError, ProblemError) as error:
            ended = error
        time.sleep(position.lost(ended))


def _one(http: httpx.Client, url: str, position: Position) -> Generator[AgentEvent, None, None]:
    call, parser = position.call(), EventParser()
    with (
        translating(url, call),
        http.stream(
            call.method, url + call.target, headers=headers_of(call), timeout=timeout_of(call)
        ) as response,
    ):
        refusal = _received(response, call)
        if not is_stream(response):
            for chunk in response.iter_raw():
                refusal.add(chunk)
            raise refused_stream(refusal.reply())
        position.opened()
        for chunk in response.iter_raw():
            for event in parser.feed(chunk):
                position.seen(event)
                yield event


async def follow_async(
    http: Callable[[], httpx.AsyncClient], url: str, position: Position
) -> AsyncGenerator[AgentEvent, None]:
    """Yield events from `position` on, over as many streams as it takes."""
    while True:
        ended: Exception | None = None
        try:
            async with aclosing(_one_async(http(), url, position)) as events:
                async for event in events:
                    yield event
        except (ConnectionFailedError, ProblemError) as error:
            ended = error
        await asyncio.sleep(position.lost(ended))


async def _one_async(
    http: httpx.AsyncClient, url: str, position: Position
) -> AsyncGenerator[AgentEvent, None]:
    call, parser = position.call(), EventParser()
    with translating(url, call):
        async with http.stream(
            call.method, url + call.target, headers=headers_of(call), timeout=timeout_of(call)
        ) as response:
            refusal = _received(response, call)
            if not is_stream(response):
                async for chunk in response.aiter_raw():
                    refusal.add(chunk)
                raise refused_stream(refusal.reply())
            position.opened()
            async for chunk in response.aiter_raw():
                for event in parser.feed(chunk):
                    position.seen(event)
                    yield event


def _received(response: httpx.Response, call: Call) -> Received:
    deadline = time.monotonic() + call.seconds
    return Received(response, limit=MAX_REFUSAL_BYTES, deadline=deadline)
