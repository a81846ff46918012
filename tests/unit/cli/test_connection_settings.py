"""Each setting comes from the arguments, else the environment, else the file."""

import argparse
import os
from pathlib import Path

import pytest

from host_agent.cli import connection_settings
from host_agent.errors import ConfigurationError

NOTHING = argparse.Namespace(host=None, url=None, cert=None, key=None, ca=None)


def write(home: Path, text: str) -> Path:
    path = home / ".config" / "host-agent" / "client.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


WHOLE = 'url = "https://file:1"\ncert = "me.crt"\nkey = "/k/me.key"\nca = "ca.crt"\n'


def test_the_first_place_that_has_a_setting_wins(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    args = argparse.Namespace(host=None, url="https://argument:1", cert=None, key=None, ca=None)
    environ = {
        "HOST_AGENT_URL": "https://environment:1",
        "HOST_AGENT_CERT": "/e.crt",
        "HOST_AGENT_CA": "",
    }

    found = connection_settings.read(args, environ, tmp_path)

    assert found == connection_settings.ConnectionSettings(
        url="https://argument:1",
        cert=Path("/e.crt"),
        key=Path("/k/me.key"),
        ca=path.parent / "ca.crt",
    )


def test_a_whole_environment_needs_no_file(tmp_path: Path) -> None:
    write(tmp_path, "broken")
    environ = {f"HOST_AGENT_{key.upper()}": f"/{key}" for key in connection_settings.KEYS}

    assert connection_settings.read(NOTHING, environ, tmp_path).key == Path("/key")


def test_every_missing_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connection_settings.read(NOTHING, {"HOST_AGENT_URL": "https://x"}, tmp_path)

    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["cert", "key", "ca"]
    with pytest.raises(ConfigurationError, match="host-agent login BUNDLE"):
        connection_settings.read(NOTHING, {}, tmp_path)
    assert "client.toml" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("url = ", "not TOML"),
        ("url = " + "1" * 5000, "not TOML"),
        ("url = 1", "`url` is a string"),
        ('url = ""', "`url` is a string"),
        ("verify = false", "unknown key `verify`"),
        ("insecure = true", "unknown key `insecure`"),
        ("hosts = 1", "`hosts` is made of tables"),
        ("[hosts]\nx = 1", "`hosts` is made of tables"),
        ("[hosts.x]\nverify = false", "unknown key `hosts.x.verify`"),
        ("[hosts.x]\nurl = 1", "`hosts.x.url` is a string"),
        ('default_host = "y"\n[hosts.x]\nurl = "u"', "`default_host` names 'y'"),
        ("#" * 70_000, "larger than"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigurationError) as caught:
        connection_settings.read(NOTHING, {}, tmp_path)

    assert word in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.promise("c43")
def test_a_fifo_or_a_directory_does_not_hang_the_client(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        connection_settings.read(NOTHING, {}, tmp_path)

    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match="directory"):
        connection_settings.read(NOTHING, {}, tmp_path)


HOSTS = "".join(
    f'[hosts.{name}]\nurl = "https://{name}:1"\ncert = "{name}.crt"\nkey = "k"\nca = "ca"\n'
    for name in ("one", "two")
)


def named(host: str | None = None, url: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(host=host, url=url, cert=None, key=None, ca=None)


def test_a_host_is_named_by_option_by_environment_or_by_default(tmp_path: Path) -> None:
    path = write(tmp_path, f'default_host = "two"\n{WHOLE}{HOSTS}')

    assert connection_settings.read(NOTHING, {}, tmp_path).url == "https://two:1"
    environ = {"HOST_AGENT_HOST": "one"}
    found = connection_settings.read(NOTHING, environ, tmp_path)
    assert (found.url, found.cert, found.host) == (
        "https://one:1",
        path.parent / "one.crt",
        "one",
    )
    assert connection_settings.read(named("two"), environ, tmp_path).url == "https://two:1"
    assert (
        connection_settings.read(named("two", "https://tunnel:1"), {}, tmp_path).url
        == "https://tunnel:1"
    )


def test_a_named_host_never_gets_another_ones_settings(tmp_path: Path) -> None:
    write(tmp_path, WHOLE + HOSTS.replace('key = "k"\n', "", 1))
    environ = {
        f"HOST_AGENT_{key.upper()}": f"https://env/{key}" for key in connection_settings.KEYS
    }

    assert connection_settings.read(named("two"), environ, tmp_path).url == "https://two:1"
    with pytest.raises(ConfigurationError, match=r"^key: not set"):
        connection_settings.read(named("one"), environ, tmp_path)
    with pytest.raises(ConfigurationError, match=r"HOST_AGENT_URL.* are both set"):
        connection_settings.read(NOTHING, {**environ, "HOST_AGENT_HOST": "two"}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"there is no 'three'.*there are: one, two"):
        connection_settings.read(named("three"), environ, tmp_path)
    # The environment alone goes on to count as before.
    assert connection_settings.read(NOTHING, environ, tmp_path).url == "https://env/url"


def test_among_several_hosts_none_is_guessed(tmp_path: Path) -> None:
    write(tmp_path, HOSTS)
    with pytest.raises(ConfigurationError, match=r"which host\?.*one, two"):
        connection_settings.read(NOTHING, {}, tmp_path)


def test_the_only_host_needs_no_name(tmp_path: Path) -> None:
    write(tmp_path, HOSTS[: HOSTS.index("[hosts.two]")])
    assert connection_settings.read(NOTHING, {}, tmp_path).url == "https://one:1"


def test_keys_at_the_top_go_on_to_count_beside_hosts(tmp_path: Path) -> None:
    write(tmp_path, WHOLE + HOSTS)
    found = connection_settings.read(NOTHING, {}, tmp_path)
    assert (found.url, found.host) == ("https://file:1", None)


def test_there_is_no_switch_against_verification() -> None:
    parser = argparse.ArgumentParser()
    connection_settings.add_arguments(parser)

    text = parser.format_help().lower()

    assert "insecure" not in text
    assert "verify" not in text
