"""The webhook against a receiver: signed, repeated under one id, refused where it must be."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from host_agent.canonical import canonical_json
from host_agent.errors import BadSignatureError
from host_agent.notify import signing
from host_agent.notify.channel import Channel, ChannelError, ChannelReply
from host_agent.notify.outbound import Outbound
from host_agent.notify.webhook import CONTENT_TYPE, WebhookChannel
from host_agent.requests.model import Digest
from host_agent.requests.notification import Failure
from tests.support import webhook_receiver
from tests.support.messages import CODE, a_message, an_outcome
from tests.support.stored_requests import a_request
from tests.support.webhook_receiver import Received, Receiver

KEY, NEXT_KEY = b"first-secret-of-the-webhook", b"second-secret-of-the-webhook"


def wall() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def channel(
    url: str, folder: Path, *, rotating: bool = False, deadline_seconds: float = 15.0
) -> WebhookChannel:
    (folder / "secret").write_bytes(KEY)
    (folder / "next").write_bytes(NEXT_KEY)
    return WebhookChannel(
        Outbound(url, deadline_seconds=deadline_seconds),
        secret_file=folder / ("next" if rotating else "secret"),
        previous_secret_file=folder / "secret" if rotating else None,
        host="host",
        now=wall,
    )


def check(got: Received, *secrets: bytes) -> None:
    signing.verify(
        secrets,
        message_id=got.headers["webhook-id"],
        timestamp=got.headers["webhook-timestamp"],
        signature=got.headers["webhook-signature"],
        body=got.body.encode(),
        now=wall(),
    )


async def test_a_message_is_signed_over_canonical_bytes(receiver: Receiver, tmp_path: Path) -> None:
    hook: Channel = channel(receiver.url, tmp_path)
    delivery = await hook.send(a_message(code=CODE))
    await hook.close()
    (got,) = receiver.received
    assert delivery.reference == got.headers["webhook-id"] == a_message().id
    assert got.headers["content-type"] == CONTENT_TYPE
    assert canonical_json(json.loads(got.body)) == got.body.encode()
    assert json.loads(got.body)["id"] == got.headers["webhook-id"]
    check(got, KEY)
    with pytest.raises(BadSignatureError):
        check(got, NEXT_KEY)
    assert CODE not in got.body + json.dumps(dict(got.headers))


async def test_a_repeat_has_the_same_id_and_body(receiver: Receiver, tmp_path: Path) -> None:
    hook = channel(receiver.url, tmp_path)
    receiver.mode = "500"
    with pytest.raises(ChannelError):
        await hook.send(a_message())
    receiver.mode = "ok"
    await hook.send(a_message())
    await hook.close()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    check(second, KEY)


async def test_two_secrets_while_rotating(receiver: Receiver, tmp_path: Path) -> None:
    hook = channel(receiver.url, tmp_path, rotating=True)
    await hook.send(an_outcome())
    await hook.close()
    (got,) = receiver.received
    check(got, KEY)
    check(got, NEXT_KEY)
    assert got.headers["webhook-signature"].count("v1,") == 2


async def test_a_replaced_secret_counts_without_a_restart(
    receiver: Receiver, tmp_path: Path
) -> None:
    hook = channel(receiver.url, tmp_path)
    await hook.send(a_message())
    (tmp_path / "secret").write_bytes(NEXT_KEY)
    await hook.send(a_message())
    await hook.close()
    first, second = receiver.received
    check(first, KEY)
    check(second, NEXT_KEY)
    with pytest.raises(BadSignatureError):
        check(second, KEY)


@pytest.mark.promise("c44")
async def test_redirected_webhook_reaches_nobody_else(receiver: Receiver, tmp_path: Path) -> None:
    receiver.mode = "redirect-home"
    hook = channel(receiver.url, tmp_path)
    with pytest.raises(ChannelError, match="redirects") as caught:
        await hook.send(a_message())
    await hook.close()
    assert caught.value.failure is Failure.REFUSED
    assert [got.path for got in receiver.received] == ["/hook"]


@pytest.mark.promise("c44")
@pytest.mark.parametrize("mode", ["hang", "drop", "garbage", "500", "redirect", "big", "slow"])
async def test_every_failure_is_a_channel_error_and_the_next_message_goes_out(
    receiver: Receiver, tmp_path: Path, mode: str
) -> None:
    hook = channel(receiver.url, tmp_path, deadline_seconds=0.4)
    receiver.mode = mode
    with pytest.raises(ChannelError) as caught:
        await hook.send(a_message())
    assert not caught.value.is_final
    receiver.mode = "ok"
    await hook.send(a_message())
    await hook.close()


@pytest.mark.parametrize("content", [b"", b"short", b"whsec_" + b"*" * 40])
async def test_without_a_secret_nothing_is_sent(
    receiver: Receiver, tmp_path: Path, content: bytes
) -> None:
    hook = channel(receiver.url, tmp_path)
    (tmp_path / "secret").write_bytes(content)
    for use in (hook.send(a_message()), hook.probe()):
        with pytest.raises(ChannelError) as caught:
            await use
        assert caught.value.failure is Failure.NOT_CONFIGURED
    (tmp_path / "secret").unlink()
    with pytest.raises(ChannelError):
        await hook.send(a_message())
    assert not receiver.received


async def test_a_secret_that_is_a_fifo_is_not_waited_for(
    receiver: Receiver, tmp_path: Path
) -> None:
    hook = channel(receiver.url, tmp_path)
    (tmp_path / "secret").unlink()
    os.mkfifo(tmp_path / "secret")
    with pytest.raises(ChannelError) as caught:
        await hook.send(a_message())
    assert caught.value.failure is Failure.NOT_CONFIGURED
    assert not receiver.received


async def test_what_has_no_canonical_form_is_not_sent(receiver: Receiver, tmp_path: Path) -> None:
    hook = channel(receiver.url, tmp_path)
    request = a_request(params={"x": 1.5}, digest=Digest("sha256:" + "0" * 64))
    with pytest.raises(ChannelError) as caught:
        await hook.send(a_message(request=request))
    assert (caught.value.failure, caught.value.is_final) == (Failure.DEFECT, True)
    assert not receiver.received


async def test_probe_posts_nothing(receiver: Receiver, tmp_path: Path) -> None:
    hook = channel(receiver.url, tmp_path)
    assert "nothing was posted" in await hook.probe()
    assert not receiver.received


async def test_listening_waits_to_be_cancelled(receiver: Receiver, tmp_path: Path) -> None:
    async def hear(heard: ChannelReply) -> str | None:
        pytest.fail("nothing is heard on a webhook")

    task = asyncio.create_task(channel(receiver.url, tmp_path).listen(hear))
    done, _ = await asyncio.wait({task}, timeout=0.05)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_receiver_stands_alone(tmp_path: Path) -> None:
    """As on a host where nothing of this project is installed."""
    record = tmp_path / "record.jsonl"
    command = [sys.executable, "-I", webhook_receiver.__file__, "--record", str(record)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            url = (await asyncio.to_thread(started.stdout.readline)).strip()
            hook = channel(url, tmp_path)
            await hook.send(a_message())
            await hook.close()
        finally:
            started.terminate()
    kept: list[dict[str, Any]] = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["headers"]["webhook-id"] for line in kept] == [a_message().id]
