"""The pure parts: what to do about a file, the record, datasets, what is rendered."""

import json
from pathlib import Path

import pytest

import host_agent
from host_agent.config import Config, parse
from host_agent.errors import ConfigurationError
from host_agent.host.install.datasets import datasets_of
from host_agent.host.install.file_plan import Deed, decide
from host_agent.host.install.manifest import Manifest, decode
from host_agent.host.install.rendering import own_paths, protected_list, unit
from host_agent.host.install.values import Found, InstallationError

RIGHT = (0o644, 0, 0)


def found(digest: str | None, mode: int = 0o644, uid: int = 0) -> Found:
    return Found(digest=digest, mode=mode, uid=uid, gid=0)


@pytest.mark.parametrize(
    ("there", "recorded", "deed"),
    [
        (None, None, Deed.CREATE),
        (None, "old", Deed.CREATE),
        (found("new"), None, Deed.LEAVE),
        (found("new"), "old", Deed.LEAVE),
        (found("new", mode=0o666), "new", Deed.ADJUST),
        (found("new", uid=1000), "new", Deed.ADJUST),
        (found("old"), "old", Deed.REPLACE),
        (found("old"), None, Deed.BESIDE),
        (found("mine"), "old", Deed.BESIDE),
        (found(None), None, Deed.BESIDE),
        (found(None), "old", Deed.BESIDE),
    ],
)
def test_what_is_done_about_a_file(there: Found | None, recorded: str | None, deed: Deed) -> None:
    assert decide("new", RIGHT, there, recorded) is deed


def test_a_record_is_read_as_it_was_written() -> None:
    manifest = Manifest(files={"/etc/a.conf": "0" * 64}, directories=["/etc/b"])

    assert decode(manifest.encode(), "here") == manifest


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"version": 2, "files": {}, "directories": []},
        {"version": 1, "files": {}},
        {"version": 1, "files": {"/etc/../shadow": "0" * 64}, "directories": []},
        {"version": 1, "files": {"etc/a": "0" * 64}, "directories": []},
        {"version": 1, "files": {"/etc/a": "0"}, "directories": []},
        {"version": 1, "files": {"/etc/a": None}, "directories": []},
        {"version": 1, "files": {}, "directories": ["/"]},
        {"version": 1, "files": {}, "directories": "x"},
    ],
)
def test_anything_else_is_no_record(table: object) -> None:
    with pytest.raises(ConfigurationError):
        decode(json.dumps(table).encode(), "here")


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - zfs rpool/ROOT/debian-1 rw,xattr
30 22 0:25 / /proc rw - proc proc rw
31 22 0:26 / /var rw - zfs rpool/var rw
32 31 8:1 / /var/lib/host-agent rw - ext4 /dev/sda1 rw
33 22 0:27 / /srv/a\\040b rw - fuse.zfs tank/a:b rw
34 22 0:28 / /mnt rw - fuse.sshfs user@host:/x rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "dataset"),
    [
        ("/etc/host-agent", ("rpool/ROOT/debian-1",)),
        ("/var/log", ("rpool/var",)),
        ("/variable", ("rpool/ROOT/debian-1",)),
        ("/var/lib/host-agent/audit.jsonl", ()),
        ("/srv/a b/c", ("tank/a:b",)),
        ("/mnt/x", ()),
        ("/proc/self", ()),
    ],
)
def test_the_dataset_of_a_path_is_that_of_the_deepest_mount(
    path: str, dataset: tuple[str, ...]
) -> None:
    assert datasets_of([path], MOUNTS) == dataset


def test_of_two_mounts_at_one_place_the_later_counts() -> None:
    text = "1 1 0:1 / / rw - zfs a/b rw\n2 1 0:2 / / rw - ext4 /dev/sda rw\n"

    assert datasets_of(["/etc"], text) == ()


def configuration(tmp_path: Path, **tables: object) -> Config:
    for name in ("a.crt", "a.key", "ca.crt"):
        (tmp_path / name).write_text("x")
    server = {"certificate": "a.crt", "private_key": "a.key", "client_ca": "ca.crt"}
    execution = {"wrapper_dir": str(tmp_path)}
    return parse({"server": server, "execution": execution, **tables}, base=tmp_path)


def test_roots_list_has_what_is_configured_and_what_the_agent_needs(tmp_path: Path) -> None:
    config = configuration(
        tmp_path, zfs={"datasets": ["tank/.*"], "protected": ["tank/vault(/.*)?"]}
    )

    text = protected_list(config, ["rpool/ROOT/debian-1", "rpool/v.r"]).decode()

    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        r"systemd host-agent\.service",
        "zfs rpool/ROOT/debian-1",
        r"zfs rpool/v\.r",
        "zfs tank/vault(/.*)?",
    ]


def test_the_agents_own_unit_is_protected_under_any_configuration(tmp_path: Path) -> None:
    assert b"systemd host-agent\\.service\n" in protected_list(configuration(tmp_path), [])


def test_datasets_that_hold_the_program_are_among_what_the_agent_needs(tmp_path: Path) -> None:
    program = str(Path(host_agent.__file__).parent)
    config = configuration(tmp_path)
    mounts = f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {program} rw - zfs rpool/program rw\n"

    assert datasets_of(own_paths(config), mounts) == ("rpool/program",)


def test_the_unit_starts_and_reloads_the_program_it_was_installed_from() -> None:
    text = b"[Service]\nExecStart=/old serve --config X\nExecReload=/old reload\n"

    assert unit(text, "/opt/x/bin/host-agent") == text.replace(b"/old", b"/opt/x/bin/host-agent")


def test_a_unit_without_a_program_is_refused() -> None:
    with pytest.raises(InstallationError):
        unit(b"[Service]\n", "/opt/x")
