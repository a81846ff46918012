"""The page of hooks has every key, every host, every program and what ends a hook."""

import pytest

from host_agent.hooks.hook import DEADLINE_SECONDS, MAX_EVENT_BYTES
from host_agent.hooks.hosts import NAMES
from host_agent.hooks.mention import ELEVATORS, PROGRAMS
from host_agent.hooks.settings import KEYS, MAX_FILE_BYTES
from host_agent.integration.command import BOUND_SECONDS
from host_agent.integration.hosts.openclaw import PLUGIN
from tests.support.pages import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*KEYS, *NAMES, *PROGRAMS, *ELEVATORS])
def test_every_name_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize(
    "words",
    [
        f"after {DEADLINE_SECONDS} seconds",
        f"at most {MAX_EVENT_BYTES // 1024**2} MiB",
        f"at most {MAX_FILE_BYTES // 1024} KiB",
        f"timeout -k 1 {BOUND_SECONDS} ",
        f"extensions/{PLUGIN}`",
    ],
)
def test_every_figure_is_on_the_page(words: str) -> None:
    assert words in PAGE
