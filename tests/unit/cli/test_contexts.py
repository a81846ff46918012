"""Hosts come and go in `client.toml`, and what a person wrote there stays."""

import os
import threading
from pathlib import Path

import pytest

from host_agent.cli.contexts import AUTHORITY, IDENTITY, Contexts
from host_agent.errors import ConfigurationError


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    return Contexts(path=tmp_path / ".config" / "host-agent" / "client.toml")


def put(contexts: Contexts, name: str, *, url: str = "https://x:1", host: str = "x") -> None:
    with contexts.alone():
        contexts.put(name, url=url, host=host, identity=f"key of {name}\n", ca="ca\n")


def own(contexts: Contexts, text: str) -> None:
    contexts.path.parent.mkdir(parents=True)
    contexts.path.write_text(text)


def test_the_first_host_is_the_default_and_a_second_one_is_not(contexts: Contexts) -> None:
    put(contexts, "web-1")
    put(contexts, "web-2.example.org", url="https://y:2")
    found = contexts.read()
    assert list(found.hosts) == ["web-1", "web-2.example.org"]
    assert found.default_host == "web-1"
    assert found.of_host("web-2.example.org") == {
        "url": "https://y:2",
        "cert": str(contexts.directory / "web-2.example.org" / IDENTITY),
        "key": str(contexts.directory / "web-2.example.org" / IDENTITY),
        "ca": str(contexts.directory / "web-2.example.org" / AUTHORITY),
    }
    with contexts.alone():
        contexts.set_default("web-2.example.org")
    assert contexts.read().implied() == "web-2.example.org"
    with pytest.raises(ConfigurationError, match="there is no 'web-3'"):
        contexts.set_default("web-3")


def test_files_are_this_persons_alone_whatever_the_umask(contexts: Contexts) -> None:
    before = os.umask(0)
    try:
        put(contexts, "web-1")
    finally:
        os.umask(before)
    for path in (contexts.path, *(contexts.directory / "web-1").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600, path
    for path in (contexts.directory, contexts.directory / "web-1"):
        assert path.stat().st_mode & 0o777 == 0o700, path


def test_one_of_the_same_name_is_put_in_its_place(contexts: Contexts) -> None:
    put(contexts, "web-1")
    put(contexts, "web-2")
    put(contexts, "web-1", url="https://z:3", host="z")
    found = contexts.read()
    assert found.hosts["web-1"]["url"] == "https://z:3"
    assert found.default_host == "web-1"
    assert found.text.count("[hosts.web-1]") == 1


def test_removing_takes_the_keys_and_the_default_along(contexts: Contexts) -> None:
    for name in ("web-1", "web-2"):
        put(contexts, name)
    with contexts.alone():
        contexts.remove("web-1")
    found = contexts.read()
    assert list(found.hosts) == ["web-2"]
    assert found.default_host is None
    assert found.implied() == "web-2"
    assert [path.name for path in contexts.directory.iterdir()] == ["web-2"]
    with pytest.raises(ConfigurationError, match="there is no 'web-1'"):
        contexts.remove("web-1")


OWN = (
    "# mine\n"
    'url = "https://old:1"  # the old one\n'
    'cert = "me.crt"\nkey = "me.key"\nca = "ca.crt"\n'
    "\n"
    "# by hand, with keys of my own place\n"
    '[hosts."by.hand"]\n'
    'url = "https://hand:1"\ncert = "/k/h.crt"\nkey = "/k/h.key"\nca = "/k/ca.crt"\n'
)


def test_what_a_person_wrote_stays_and_stays_the_default(contexts: Contexts) -> None:
    own(contexts, OWN)
    put(contexts, "web-1")
    assert contexts.path.read_text().startswith(OWN)
    assert contexts.read().implied() is None  # the keys at the top
    with contexts.alone():
        contexts.set_default("web-1")
        contexts.set_default("by.hand")
        contexts.remove("web-1")
    assert contexts.read().implied() == "by.hand"
    with contexts.alone():
        contexts.remove("by.hand")
    assert "# the old one" in contexts.path.read_text()
    assert contexts.read().flat["url"] == "https://old:1"


def test_keys_that_login_did_not_store_are_not_removed(contexts: Contexts, tmp_path: Path) -> None:
    key = tmp_path / "mine.key"
    key.write_text("mine")
    own(contexts, f'[hosts.mine]\nurl = "https://x:1"\ncert = "{key}"\nkey = "{key}"\nca = "c"\n')
    with contexts.alone():
        contexts.remove("mine")
    assert key.read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        'hosts.web-1 = { url = "https://x:1" }\n',
        '[hosts]\nweb-1 = { url = "https://x:1" }\n',
        '[hosts.web-1]\nurl = "https://x:1"\n[hosts.web-2]\nurl = """\n[hosts.web-1]\n"""\n',
    ],
)
def test_a_form_that_cannot_be_edited_is_left_alone(contexts: Contexts, text: str) -> None:
    own(contexts, text)
    with pytest.raises(ConfigurationError, match="a form that this command cannot change"):
        put(contexts, "web-1")
    assert contexts.path.read_text() == text
    assert not contexts.directory.exists()


def test_a_broken_file_is_told_and_left_alone(contexts: Contexts) -> None:
    own(contexts, "url = ")
    with pytest.raises(ConfigurationError, match="not TOML"):
        put(contexts, "web-1")
    assert contexts.path.read_text() == "url = "


def test_a_link_to_a_file_elsewhere_stays_one(contexts: Contexts, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# elsewhere\n")
    contexts.path.parent.mkdir(parents=True)
    contexts.path.symlink_to(real)
    put(contexts, "web-1")
    assert contexts.path.is_symlink()
    assert "[hosts.web-1]" in real.read_text()


def test_two_at_once_lose_nothing(contexts: Contexts) -> None:
    names = [f"web-{number}" for number in range(12)]
    threads = [threading.Thread(target=put, args=(contexts, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(contexts.read().hosts) == sorted(names)
