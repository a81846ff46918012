"""Apprise: a word to any of the services that the package of that name knows. Nothing comes back.

The package is optional (the extra `notify`). It blocks, so it runs on a thread of its own; its URLs
are secrets, so neither it nor what it stands on writes a line into the log.
"""

import asyncio
import importlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from host_agent.config.channels.apprise import AppriseSection
from host_agent.notify.blocking_calls import BusyError, Detached
from host_agent.notify.channel import ChannelError, Delivery, Hear, Message, Surroundings
from host_agent.notify.secret_files import read_bytes
from host_agent.requests.notification import Failure, Purpose

DEADLINE_SECONDS = 15.0
MAX_CHARACTERS = 2_000
"""What most services take in one message."""
MAX_URLS = 32

_THREADS = 2
_LOUD = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib")
"""Loggers that would write URLs, or parts of them that are secrets."""


class AppriseChannel:
    """Notifies the services in a file: one URL a line, `#` for comments, read at each sending."""

    name = AppriseSection.name
    purpose: Purpose | None = None
    max_characters = MAX_CHARACTERS

    def __init__(self, urls_file: Path, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._urls_file = urls_file
        self._deadline_seconds = deadline_seconds
        self._threads = Detached(limit=_THREADS, name="host-agent-apprise")

    async def send(self, message: Message) -> Delivery:
        """Hand one message to every service.

        Raises:
            ChannelError: one of them did not take it, or not in time. At another try those that
                did get it again.
        """
        title, text = message.prompt.title, message.prompt.text

        def notify() -> None:
            if not _notified(_services(self._urls_file), title, text):
                refused = "Not every service took the message."
                raise ChannelError(Failure.REFUSED, refused)

        await self._within_deadline(notify)
        return Delivery()

    async def listen(self, hear: Hear) -> None:  # noqa: ARG002 - nothing is heard here
        """Wait to be cancelled: nothing comes back."""
        await asyncio.Event().wait()

    async def probe(self) -> str:
        """Look whether the package is there and knows every URL; nothing is sent.

        Raises:
            ChannelError: it is not, or does not.
        """
        found: list[int] = []
        await self._within_deadline(lambda: found.append(len(_services(self._urls_file))))
        return f"apprise knows {found[0]} service(s); nothing was sent."

    async def close(self) -> None:
        """Do nothing: there are no connections between two messages."""

    async def _within_deadline(self, work: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self._threads.call(work)
        except TimeoutError:
            message = "The services did not take the message in time."
            raise ChannelError(Failure.TIMED_OUT, message) from None
        except BusyError:
            message = "The services still hold earlier messages."
            raise ChannelError(Failure.TIMED_OUT, message) from None


def make_channel(section: AppriseSection, _surroundings: Surroundings) -> AppriseChannel:
    """Return the channel of a section; nothing is read or connected."""
    return AppriseChannel(section.urls_file)


def _services(urls_file: Path) -> Any:  # noqa: ANN401 - a foreign object without types
    apprise = _package()
    asset = apprise.AppriseAsset(async_mode=False, secure_logging=True)
    if hasattr(asset, "http_redirects"):
        asset.http_redirects = False  # newer versions; a URL may say `redirect=yes` for itself
    services = apprise.Apprise(asset=asset)
    for number, url in _urls(urls_file):
        if not _guarded(partial(services.add, url)):
            message = f"Line {number} of {urls_file} is not a URL that apprise knows."
            raise ChannelError(Failure.NOT_CONFIGURED, message)
    return services


def _notified(services: Any, title: str, text: str) -> bool:  # noqa: ANN401
    kind = {"notify_type": "warning", "body_format": "text"}
    return bool(_guarded(partial(services.notify, title=title, body=text, **kind)))


def _guarded(call: Callable[[], object]) -> object:
    """Return what foreign code returns, and False where it fails: its words may be secrets."""
    try:
        return call()
    except Exception:  # noqa: BLE001 - plugins of many hands raise what they like
        return False


def _package() -> Any:  # noqa: ANN401
    try:
        package = importlib.import_module("apprise")
    except ImportError:
        message = "The package apprise is missing: install host-agent with the extra notify."
        raise ChannelError(Failure.NOT_CONFIGURED, message) from None
    except Exception:  # noqa: BLE001 - whatever it imports may fail in its own way
        message = "The package apprise cannot be loaded: install it again."
        raise ChannelError(Failure.NOT_CONFIGURED, message) from None
    for name in _LOUD:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    return package


def _urls(file: Path) -> Iterator[tuple[int, str]]:
    found = 0
    for number, line in enumerate(read_bytes(file).decode("utf-8", "replace").splitlines(), 1):
        url = line.strip()
        if url and not url.startswith("#"):
            found += 1
            yield number, url
        if found > MAX_URLS:
            break
    if not 0 < found <= MAX_URLS:
        message = f"{file} has no URL in it, or more than {MAX_URLS}."
        raise ChannelError(Failure.NOT_CONFIGURED, message)
