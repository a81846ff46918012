"""Attacks by callers with an ordinary rule, through the API of an installed agent.

What an operation would lose or show beyond its effect is refused by root's wrapper, or by the one
that runs as the repository's owner; nothing of it is left to rules. Each has its twin.
"""

import hashlib
import shlex

import pytest

from tests.support.installed import WRAPPERS, Host

SECRET = "machine git.example.org login ann password Tr0ub4dor"
REPOSITORY = "/srv/app"


def snapshots(host: Host) -> list[str]:
    return host.machine.must("zfs", "list", "-H", "-t", "snapshot", "-o", "name").split()


@pytest.mark.parametrize("dataset", ["tank/vault", "tank/media"])
def test_no_rule_for_releases_lets_a_caller_destroy_a_snapshot(host: Host, dataset: str) -> None:
    machine, snapshot = host.machine, f"{dataset}@deferred"
    machine.must("zfs", "snapshot", snapshot)
    machine.must("zfs", "hold", "keep", snapshot)
    machine.must("zfs", "destroy", "-d", snapshot)
    try:
        answer = host.ask("zfs.release", {"dataset": snapshot, "tag": "keep"})
        assert (answer.status_code, answer.json()["code"]) == (403, "policy:protected")
        guid = machine.must("zfs", "get", "-H", "-p", "-o", "value", "guid", snapshot).strip()
        past = machine.run(f"{WRAPPERS}/zfs-release", snapshot, "keep", guid)
        assert past.exit_code == 77, past.stderr
        assert snapshot in snapshots(host)
        if dataset == "tank/vault":
            return
        assert "ask for zfs.destroy" in answer.json()["detail"]
        held = host.held("zfs.destroy", dataset=snapshot, release="keep")
        assert snapshot in snapshots(host)
        assert host.decide(held).status_code == 200
        done = host.ended(held)
        assert (done["state"], done["outcome"]["verified"]) == ("succeeded", True)
        assert snapshot not in snapshots(host)
    finally:
        machine.run("zfs", "release", "keep", snapshot)


def owner_of(host: Host) -> str:
    return host.machine.must("stat", "-c", "%U", REPOSITORY).strip()


def as_owner(host: Host, script: str) -> None:
    host.machine.must("runuser", "-u", owner_of(host), "--", "bash", "-euc", script)


@pytest.fixture
def kept(host: Host) -> object:
    """Keep the repository's `.git`, and put it back."""
    host.machine.must("cp", "-a", f"{REPOSITORY}/.git", "/root/kept.git")
    yield None
    host.machine.must("rm", "-rf", f"{REPOSITORY}/.git")
    host.machine.must("mv", "/root/kept.git", f"{REPOSITORY}/.git")


def hostile_index(name: bytes) -> str:
    """Return the octal words of an index with one entry of this name, of an empty file."""
    empty = bytes.fromhex("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    entry = bytes(24) + (0o100644).to_bytes(4) + bytes(12) + empty + len(name).to_bytes(2) + name
    content = b"DIRC" + (2).to_bytes(4) + (1).to_bytes(4)
    content += entry + bytes(8 - len(entry) % 8)
    content += hashlib.sha1(content, usedforsecurity=False).digest()
    return "".join(f"\\x{byte:02x}" for byte in content)


@pytest.mark.usefixtures("kept")
def test_no_index_of_a_stranger_shows_a_file_of_the_user(host: Host) -> None:
    twin = host.ask("git.diff", {"repository": REPOSITORY})
    assert twin.status_code == 200, twin.text
    host.machine.must("bash", "-c", f"echo {shlex.quote(SECRET)} >/srv/netrc; chmod 644 /srv/netrc")
    index = hostile_index(b"../netrc")
    as_owner(
        host,
        f"cd {REPOSITORY}; git hash-object -w --stdin </dev/null; printf '{index}' >.git/index",
    )
    shown = host.machine.must("git", "-c", "safe.directory=*", "-C", REPOSITORY, "diff")
    assert SECRET in shown  # git alone does show it
    answer = host.ask("git.diff", {"repository": REPOSITORY})
    assert (answer.status_code, answer.json()["code"]) == (403, "policy:denied")
    assert "names a file outside of the working tree" in answer.json()["detail"]
    assert SECRET not in answer.text


@pytest.mark.usefixtures("kept")
def test_no_link_in_git_lets_a_fetch_write_a_file_of_the_user(host: Host) -> None:
    asked = {"repository": REPOSITORY, "remote": "origin"}
    assert host.done("git.fetch", asked)
    log = f"{REPOSITORY}/.git/logs/refs/remotes/origin/main"
    as_owner(
        host,
        f"echo umask 022 >/tmp/profile; mkdir -p {log.rpartition('/')[0]}; rm -f {log};"
        f" ln -s /tmp/profile {log}; rm -f {REPOSITORY}/.git/refs/remotes/origin/main",
    )
    answer = host.ask("git.fetch", asked)
    assert (answer.status_code, answer.json()["code"]) == (403, "policy:denied")
    assert "logs/refs/remotes/origin/main is a symbolic link" in answer.json()["detail"]
    assert host.machine.must("cat", "/tmp/profile") == "umask 022\n"


@pytest.mark.parametrize("name", ["Host-Agent", "%HOST-AGENT"])
def test_a_grant_by_another_case_of_the_name_is_found(host: Host, name: str) -> None:
    machine, fragment = host.machine, "/etc/sudoers.d/by-case"
    script = f"echo '{name} ALL=(ALL) NOPASSWD: /usr/bin/id' >{fragment}; chmod 440 {fragment}"
    machine.must("bash", "-c", script)
    try:
        shell = ("runuser", "-u", "host-agent", "--", "sudo", "-n", "/usr/bin/id", "-u")
        assert machine.must(*shell) == "0\n"
        told = machine.run("host-agent", "sudoers", "check")
        assert told.exit_code == 1
        assert f"{fragment}:1" in told.stdout
    finally:
        machine.must("rm", fragment)
