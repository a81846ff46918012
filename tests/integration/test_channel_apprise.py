"""Apprise: every service or an error, in time, and not a word of a URL anywhere."""

import asyncio
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from host_agent.notify.apprise import MAX_URLS, AppriseChannel
from host_agent.notify.channel import Channel, ChannelError, ChannelReply
from host_agent.requests.notification import Failure
from tests.support.messages import CODE, a_message
from tests.support.patience import PATIENCE
from tests.support.webhook_receiver import Receiver

is_installed = importlib.util.find_spec("apprise") is not None
needs_apprise = pytest.mark.skipif(not is_installed, reason="needs the extra notify")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def channel(folder: Path, *lines: str, deadline_seconds: float = 15.0) -> AppriseChannel:
    file = folder / "urls"
    file.write_text("\n".join(lines) + "\n")
    return AppriseChannel(file, deadline_seconds=deadline_seconds)


async def failure(sender: AppriseChannel) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        await sender.send(a_message())
    assert caught.value.__cause__ is None
    return caught.value


class StandIn(ModuleType):
    """A package of that name, which does as it is told."""

    def __init__(self) -> None:
        super().__init__("apprise")
        self.told: list[dict[str, Any]] = []
        self.answer: Any = True
        self.release = threading.Event()
        stand_in = self

        class AppriseAsset:
            http_redirects = True

            def __init__(self, **settings: object) -> None:
                self.settings = settings

        class Apprise:
            def __init__(self, *, asset: AppriseAsset) -> None:
                self.redirects = getattr(asset, "http_redirects", None)
                self.urls: list[str] = []

            def add(self, url: str) -> bool:
                self.urls.append(url)
                return "://" in url

            def notify(self, **told: object) -> bool:
                stand_in.told.append({**told, "urls": self.urls, "redirects": self.redirects})
                if isinstance(stand_in.answer, Exception):
                    raise stand_in.answer
                if stand_in.answer == "hang":
                    stand_in.release.wait(PATIENCE)
                return bool(stand_in.answer)

            def __len__(self) -> int:
                return len(self.urls)

        self.AppriseAsset = AppriseAsset
        self.Apprise = Apprise


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "apprise", module)
    yield module
    module.release.set()


async def test_every_url_of_the_file_is_told(stand_in: StandIn, tmp_path: Path) -> None:
    sender: Channel = channel(
        tmp_path, "# people", "", " json://a/secret ", "json://b # not a mark"
    )
    delivery = await sender.send(a_message(code=CODE))
    assert delivery.reference is None
    (told,) = stand_in.told
    assert told["urls"] == ["json://a/secret", "json://b # not a mark"]
    assert (told["title"], told["body"]) == (a_message().prompt.title, a_message().prompt.text)
    assert told["body_format"] == "text"
    assert CODE not in str(told)
    assert "2 service(s)" in await sender.probe()
    assert len(stand_in.told) == 1


async def test_a_service_that_refuses_is_an_error(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer = False
    error = await failure(channel(tmp_path, "json://a"))
    assert (error.failure, error.is_final) == (Failure.REFUSED, False)


async def test_what_a_plugin_raises_is_not_repeated(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer = ValueError("json://token@secret")
    error = await failure(channel(tmp_path, "json://a"))
    assert error.failure is Failure.REFUSED
    assert "secret" not in str(error)
    assert error.__context__ is None or "secret" not in str(error.__context__)


@pytest.mark.promise("c44")
async def test_hangs(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer = "hang"
    sender = channel(tmp_path, "json://a", deadline_seconds=0.1)
    for _ in range(5):
        error = await failure(sender)
        assert (error.failure, error.is_final) == (Failure.TIMED_OUT, False)
    assert len(stand_in.told) == 2
    stand_in.release.set()


@pytest.mark.parametrize(
    "lines",
    [[], ["# nothing"], ["json://a", "no url"], [f"json://{n}" for n in range(MAX_URLS + 1)]],
)
async def test_a_file_that_cannot_be_used(
    stand_in: StandIn, tmp_path: Path, lines: list[str]
) -> None:
    sender = channel(tmp_path, *lines)
    assert (await failure(sender)).failure is Failure.NOT_CONFIGURED
    with pytest.raises(ChannelError) as caught:
        await sender.probe()
    assert "no url" not in str(caught.value)
    assert not stand_in.told


async def test_a_missing_file(stand_in: StandIn, tmp_path: Path) -> None:
    error = await failure(AppriseChannel(tmp_path / "missing"))
    assert error.failure is Failure.NOT_CONFIGURED


async def test_a_missing_package_is_said_clearly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    error = await failure(channel(tmp_path, "json://a"))
    assert error.failure is Failure.NOT_CONFIGURED
    assert str(error) == (
        "The package apprise is missing: install host-agent with the extra notify."
    )


async def test_an_older_package_has_nothing_to_tell_about_redirects(
    stand_in: StandIn, tmp_path: Path
) -> None:
    del stand_in.AppriseAsset.http_redirects
    await channel(tmp_path, "json://a").send(a_message())
    assert [told["redirects"] for told in stand_in.told] == [None]


async def test_a_package_that_would_follow_redirects_is_told_not_to(
    stand_in: StandIn, tmp_path: Path
) -> None:
    await channel(tmp_path, "json://a").send(a_message())
    assert [told["redirects"] for told in stand_in.told] == [False]


async def test_a_package_that_cannot_be_loaded_is_said_without_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "apprise.py").write_text("raise RuntimeError('words of a package')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apprise", raising=False)
    error = await failure(channel(tmp_path, "json://a"))
    assert error.failure is Failure.NOT_CONFIGURED
    assert str(error) == "The package apprise cannot be loaded: install it again."


async def test_listening_waits_to_be_cancelled(stand_in: StandIn, tmp_path: Path) -> None:
    async def hear(heard: ChannelReply) -> str | None:
        pytest.fail("nothing comes back")

    sender = channel(tmp_path, "json://a")
    task = asyncio.create_task(sender.listen(hear))
    done, _ = await asyncio.wait({task}, timeout=0.05)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sender.close()
    await sender.close()


# -- the package itself ----------------------------------------------------------------------------


@needs_apprise
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_package_itself_tells_a_service(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        sender = channel(tmp_path, f"json://127.0.0.1:{receiver.port}/secret-path/")
        await sender.send(a_message())
    assert receiver.received[0].path == "/secret-path/"
    assert a_message().prompt.title in receiver.received[0].body
    assert "secret-path" not in caplog.text


@pytest.mark.promise("c44")
@needs_apprise
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", ["500", "redirect", "drop"])
async def test_the_package_itself_with_a_service_that_fails(
    receiver: Receiver, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.mode = mode
    with caplog.at_level(logging.DEBUG):
        error = await failure(channel(tmp_path, f"json://127.0.0.1:{receiver.port}/secret-path/"))
    assert error.failure is Failure.REFUSED
    assert "secret-path" not in caplog.text + str(error)


@needs_apprise
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_package_itself_names_no_url_that_it_does_not_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        error = await failure(channel(tmp_path, "nonsense://secret-token@host"))
    assert error.failure is Failure.NOT_CONFIGURED
    assert "secret-token" not in caplog.text + str(error)
