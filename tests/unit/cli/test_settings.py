"""Each setting comes from the arguments, else the environment, else the file."""

import argparse
import os
from pathlib import Path

import pytest

from host_agent.cli import settings
from host_agent.errors import ConfigurationError

NOTHING = argparse.Namespace(url=None, cert=None, key=None, ca=None)


def write(home: Path, text: str) -> Path:
    path = home / ".config" / "host-agent" / "client.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


WHOLE = 'url = "https://file:1"\ncert = "me.crt"\nkey = "/k/me.key"\nca = "ca.crt"\n'


def test_the_first_place_that_has_a_setting_wins(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    args = argparse.Namespace(url="https://argument:1", cert=None, key=None, ca=None)
    environ = {
        "HOST_AGENT_URL": "https://environment:1",
        "HOST_AGENT_CERT": "/e.crt",
        "HOST_AGENT_CA": "",
    }

    found = settings.read(args, environ, tmp_path)

    assert found == settings.Settings(
        url="https://argument:1",
        cert=Path("/e.crt"),
        key=Path("/k/me.key"),
        ca=path.parent / "ca.crt",
    )


def test_a_whole_environment_needs_no_file(tmp_path: Path) -> None:
    write(tmp_path, "broken")
    environ = {f"HOST_AGENT_{key.upper()}": f"/{key}" for key in settings.KEYS}

    assert settings.read(NOTHING, environ, tmp_path).key == Path("/key")


def test_every_missing_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.read(NOTHING, {"HOST_AGENT_URL": "https://x"}, tmp_path)

    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["cert", "key", "ca"]
    assert "client.toml" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("url = ", "not TOML"),
        ("url = 1", "`url` is a string"),
        ('url = ""', "`url` is a string"),
        ("verify = false", "unknown key `verify`"),
        ("insecure = true", "unknown key `insecure`"),
        ("#" * 70_000, "larger than"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigurationError) as caught:
        settings.read(NOTHING, {}, tmp_path)

    assert word in str(caught.value)
    assert str(path) in str(caught.value)


def test_c43_a_fifo_or_a_directory_does_not_hang_the_client(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        settings.read(NOTHING, {}, tmp_path)

    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match="directory"):
        settings.read(NOTHING, {}, tmp_path)


def test_there_is_no_switch_against_verification() -> None:
    parser = argparse.ArgumentParser()
    settings.add_arguments(parser)

    text = parser.format_help().lower()

    assert "insecure" not in text
    assert "verify" not in text
