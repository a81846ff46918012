"""Every declared channel is made of its section, by the module of its name; nothing connects."""

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from host_agent.config import CHANNELS
from host_agent.notify.channel import Surroundings
from host_agent.requests.notification import Purpose

SECTIONS: list[tuple[str, dict[str, Any]]] = [
    ("signal", {"socket": Path("/run/signal-cli/socket"), "account": "+431234567"}),
    (
        "signal",
        {
            "driver": "rest",
            "url": "https://signal.example",
            "account": "+431234567",
            "client_certificate": Path("/etc/pair.crt"),
            "client_key_file": Path("/etc/pair.key"),
        },
    ),
    (
        "signal",
        {
            "driver": "rest",
            "url": "http://127.0.0.1:8080",
            "account": "+431234567",
            "trusts_local_users": True,
        },
    ),
    ("webhook", {"url": "https://chat.example/hook", "secret_file": Path("/etc/secret")}),
    ("ntfy", {"url": "https://ntfy.example", "reply_topic": "replies"}),
    ("ntfy", {"url": "https://ntfy.example"}),
    ("apprise", {"urls_file": Path("/etc/urls")}),
    (
        "matrix",
        {
            "url": "https://matrix.example/home",
            "user": "@host-agent:home.example",
            "token_file": Path("/etc/token"),
            "domains": ("home.example",),
        },
    ),
]


def surroundings(folder: Path) -> Surroundings:
    return Surroundings(host="host", state=folder, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))


def made(name: str, keys: dict[str, Any], folder: Path) -> Any:  # noqa: ANN401 - of any channel
    section = CHANNELS[name].model_validate(keys, strict=False)
    return importlib.import_module(f"host_agent.notify.{name}").make_channel(
        section, surroundings(folder)
    )


def test_every_channel_is_tried() -> None:
    assert {name for name, _ in SECTIONS} == set(CHANNELS)


@pytest.mark.parametrize(("name", "keys"), SECTIONS)
async def test_a_channel_can_what_its_declaration_says(
    tmp_path: Path, name: str, keys: dict[str, Any]
) -> None:
    declared, channel = CHANNELS[name], made(name, keys, tmp_path)
    assert channel.name == name
    assert (channel.purpose is Purpose.CONFIRM) == declared.carries_codes
    assert channel.purpose is not Purpose.DENY or declared.has_buttons
    await channel.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["webhook", "ntfy", "matrix"])
def test_a_section_whose_url_may_not_be_sent_to_makes_none(tmp_path: Path, name: str) -> None:
    keys = next(keys for known, keys in SECTIONS if known == name)
    with pytest.raises(ValueError, match=r"."):
        made(name, {**keys, "url": "https://169.254.169.254/latest"}, tmp_path)
