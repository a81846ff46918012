"""Each configured channel is asked whether it answers, and what it says is a sentence."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from host_agent.agent.build_channels import make_channels
from host_agent.config import Config, load
from host_agent.errors import ConfigurationError
from host_agent.host.doctor.channels import channel_checks
from host_agent.host.doctor.values import CheckState
from host_agent.notify.channel import (
    Channel,
    ChannelError,
    Delivery,
    Hear,
    Message,
)
from host_agent.requests.notification import Failure, Purpose
from tests.support.configurations import MINIMAL, write

SIGNAL = '[channels.signal]\nsocket = "{socket}"\naccount = "+431234567"\n'
ALICE = '[[approvers]]\nowner = "alice"\nchannels = ["signal"]\n'


class Answering:
    """A channel that answers so."""

    name = "signal"
    purpose: Purpose | None = Purpose.CONFIRM
    max_characters = 1000

    def __init__(self, said: str | Exception) -> None:
        self._said = said
        self.is_closed = False

    async def send(self, message: Message) -> Delivery:
        raise AssertionError(message)

    async def listen(self, hear: Hear) -> None:
        raise AssertionError(hear)

    async def probe(self) -> str:
        if isinstance(self._said, Exception):
            raise self._said
        return self._said

    async def close(self) -> None:
        self.is_closed = True


def config(directory: Path, text: str) -> Config:
    return load(write(directory, MINIMAL + text.format(socket=directory / "none")))


def made(channel: Channel) -> Mapping[str, Channel]:
    return {"signal": channel}


def test_a_channel_that_answers_is_well(tmp_path: Path) -> None:
    channel = Answering("signal-cli 0.14 answers on its socket")
    (check,) = channel_checks(config(tmp_path, SIGNAL + ALICE), lambda _: made(channel))
    assert check.state is CheckState.OK
    assert check.sentence == "Signal-cli 0.14 answers on its socket."
    assert channel.is_closed


@pytest.mark.parametrize(
    "failure", [ChannelError(Failure.UNREACHABLE, "Nobody is there."), TimeoutError()]
)
def test_a_channel_that_does_not_answer_is_a_problem(tmp_path: Path, failure: Exception) -> None:
    channel = Answering(failure)
    (check,) = channel_checks(config(tmp_path, SIGNAL + ALICE), lambda _: made(channel))
    assert check.state is CheckState.PROBLEM
    assert check.remedy == "docs/how-to/approve-over-signal.md"
    assert channel.is_closed


def test_a_channel_that_nobody_lists_is_said(tmp_path: Path) -> None:
    checks = list(channel_checks(config(tmp_path, SIGNAL), lambda _: made(Answering("it answers"))))
    assert [check.state for check in checks] == [CheckState.OK, CheckState.WARNING]


def test_without_channels_nothing_is_made(tmp_path: Path) -> None:
    def never(_config: Config) -> Mapping[str, Channel]:
        raise AssertionError

    assert list(channel_checks(config(tmp_path, ""), never)) == []


def test_a_channel_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    def broken(_config: Config) -> Mapping[str, Channel]:
        raise ConfigurationError(["channels.signal.url: is no place to send to"])

    (check,) = channel_checks(config(tmp_path, SIGNAL + ALICE), broken)
    assert (check.name, check.state) == ("channels", CheckState.PROBLEM)


def test_the_real_channel_says_that_nobody_listens(tmp_path: Path) -> None:
    (check,) = channel_checks(config(tmp_path, SIGNAL + ALICE), make_channels)
    assert check.state is CheckState.PROBLEM
    assert "no such file" in check.sentence
