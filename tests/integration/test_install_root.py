"""The commands `install` and `uninstall` on a host below another root, with the real tools."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.host.install import layout
from tests.support.installing import picture
from tests.support.pages import REPOSITORY

PROGRAM = "/opt/host-agent/bin/host-agent"
TOOLS = ("visudo", "systemd-sysusers", "userdel")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who installs"),
    pytest.mark.skipif(
        not all(shutil.which(tool, path="/usr/sbin:/usr/bin") for tool in TOOLS),
        reason=f"needs {', '.join(TOOLS)}",
    ),
]
ACCOUNT_LEFTOVERS = ("etc/.pwd.lock", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-")
"""What the tools for accounts leave behind, whatever they did."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc", "opt/host-agent/bin", "usr/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in {
        "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
        "group": "root:x:0:\nnogroup:x:65534:\n",
        "shadow": "root:*:1::::::\n",
        "gshadow": "root:*::\n",
    }.items():
        (tmp_path / "etc" / name).write_text(text)
    for script in (PROGRAM, "/usr/bin/python3"):
        (tmp_path / script[1:]).write_text("#!/usr/bin/python3\n")
        (tmp_path / script[1:]).chmod(0o755)
    tmp_path.chmod(0o755)
    return tmp_path


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    facts = picture(root)
    return {
        # The account files are written anew: their times differ, their content must not.
        name: (*facts[name][:3], *facts[name][4:]) if name.startswith("etc/") else facts[name]
        for name in facts
        if name not in ACCOUNT_LEFTOVERS
    }


def install(root: Path, *more: str) -> int:
    return main(["install", "--root", str(root), "--program", PROGRAM, *more])


def test_an_agent_is_installed_and_a_second_time_changes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(root, "--bootstrap") == 0
    told = capsys.readouterr().out
    assert f"made      {layout.SUDOERS} (root:root 0440)" in told
    assert "Move /root/host-agent-ca to another machine" in told
    passwd = (root / "etc/passwd").read_text().splitlines()
    agent = next(line.split(":") for line in passwd if line.startswith("host-agent:"))
    state, key = root / "var/lib/host-agent", root / "etc/host-agent/pki/server.key"
    assert [str(place.stat().st_uid) for place in (state, key)] == [agent[2], agent[2]]
    assert agent[-1] == "/usr/sbin/nologin"
    before = picture(root)

    assert install(root, "--bootstrap") == 0

    assert capsys.readouterr().out == "There is nothing to do: everything is as it should be.\n"
    assert picture(root) == before


def test_every_wrapper_is_roots_and_nobody_elses_to_write(root: Path) -> None:
    install(root, "--bootstrap")

    folder = root / layout.WRAPPER_DIR[1:]
    wrappers = [
        path
        for path in folder.iterdir()
        if path.name not in ("allowed", "protected", "audit", "manifest.json")
    ]
    assert len(wrappers) > 20
    assert {(p.stat().st_uid, p.stat().st_mode & 0o7777) for p in wrappers} == {(0, 0o755)}
    status = (folder / "allowed").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o644)


@pytest.mark.parametrize("what", ["file", "link", "directory"])
def test_an_installation_adopts_nothing_that_somebody_else_put_there(
    root: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    folder = root / layout.WRAPPER_DIR[1:]
    folder.mkdir(parents=True)
    place = folder / "zfs-list"
    if what == "link":
        place.symlink_to("/home/mallory/zfs-list")
    else:
        place.write_text("#!/bin/sh\nid >/tmp/owned\n")
        place.chmod(0o755)
    os.chown(folder if what == "directory" else place, 65534, 65534, follow_symlinks=False)
    before = seen(root)

    assert install(root, "--bootstrap") == 1

    said = capsys.readouterr().err
    named = folder if what == "directory" else place
    assert f"/{named.relative_to(root)} belongs to uid 65534" in said
    assert seen(root) == before
    assert not (root / layout.SUDOERS[1:]).exists()
    place.unlink()
    os.chown(folder, 0, 0)
    assert install(root, "--bootstrap") == 0


def test_a_dry_run_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = picture(root)

    assert install(root, "--bootstrap", "--dry-run") == 0

    assert picture(root) == before
    assert capsys.readouterr().out.startswith("Nothing was changed. This would be done:\n")


def test_a_fragment_that_visudo_refuses_is_not_installed_and_all_is_undone(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "host_agent.host.install.root_files.sudoers_fragment", lambda *_: "host-agent ALL=(root\n"
    )
    before = seen(root)

    assert install(root, "--bootstrap") == 1

    assert "The sudoers fragment failed: visudo failed: " in capsys.readouterr().err
    assert seen(root) == before


def test_a_program_below_a_private_home_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = root / "root/venv/bin"
    home.mkdir(parents=True)
    (root / "root").chmod(0o700)
    shutil.copy(root / PROGRAM[1:], home / "host-agent")
    before = picture(root)

    status = main(["install", "--root", str(root), "--program", "/root/venv/bin/host-agent"])

    assert status == 78
    assert "may not enter it (mode 0700); install the program for everybody" in (
        capsys.readouterr().err
    )
    assert picture(root) == before


def test_who_is_not_root_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert install(root) == 77
    assert main(["uninstall", "--root", str(root)]) == 77
    assert "only root can do this" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bootstrap", "--caller", "alice", "--approver", "alice"), "would ask and approve"),
        (("--bootstrap", "--caller", "Deployer"), "cannot name an identity"),
        (("--bootstrap", "--name", "*.example.org"), "stands for many names"),
        (("--bootstrap", "--address", "web-1"), "is not a name"),
        (("--caller", "deployer"), "--caller is for --bootstrap"),
    ],
)
def test_who_cannot_be_is_refused_before_anything_is_made(
    root: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    before = picture(root)

    assert install(root, *options) == 64

    assert said in capsys.readouterr().err
    assert picture(root) == before


def test_named_people_get_their_bundles(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = ("--caller", "deployer", "--caller", "alices-agent", "--approver", "alice")

    assert install(root, "--bootstrap", "--name", "web-1.example.org", *people) == 0

    told = capsys.readouterr().out
    bundles = root / layout.BUNDLE_DIR[1:]
    for cn in ("deployer", "alices-agent", "alice"):
        assert f"made      {layout.BUNDLE_DIR}/{cn}.bundle (root:root 0600)\n" in told
        status = (bundles / f"{cn}.bundle").stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o600)
    assert "host-agent login FILE" in told
    assert "PRIVATE KEY" not in told
    # Taking the authority away is the last thing that is said.
    assert told.rstrip().splitlines()[-1].startswith("- Move /root/host-agent-ca")


def test_a_root_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    assert main(["install", "--root", str(tmp_path / "none")]) == 64


def test_uninstalling_keeps_what_is_somebodys(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(root, "--bootstrap")
    (root / layout.LOGROTATE[1:]).write_text("# mine\n")
    capsys.readouterr()

    assert main(["uninstall", "--root", str(root)]) == 0

    told = capsys.readouterr().out
    assert f"removed   {layout.SUDOERS}\n" in told
    assert f"kept      {layout.LOGROTATE}: an administrator changed it\n" in told
    for path in (layout.CONFIGURATION_DIR, layout.STATE_DIR, layout.AUTHORITY_DIR):
        assert f"kept      {path}\n" in told
        assert (root / path[1:]).is_dir()
    assert not (root / layout.WRAPPER_DIR[1:]).exists()
    assert main(["uninstall", "--root", str(root)]) == 0
    assert "no installation is recorded here" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="needs systemd-tmpfiles")
def test_directories_that_are_gone_come_back_at_boot(root: Path) -> None:
    install(root, "--bootstrap")
    state = root / layout.STATE_DIR[1:]
    owner = state.stat().st_uid
    state.rmdir()

    subprocess.run(
        ["systemd-tmpfiles", f"--root={root}", "--create", "host-agent.conf"],
        check=True,
        capture_output=True,
    )

    assert (state.stat().st_uid, state.stat().st_mode & 0o7777) == (owner, 0o700)


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="needs logrotate")
def test_logrotate_understands_its_file(tmp_path: Path) -> None:
    shipped = REPOSITORY / "systemd" / "host-agent.logrotate"
    config = tmp_path / "host-agent"
    config.write_text(shipped.read_text().replace("su host-agent host-agent", "su root root"))
    done = subprocess.run(
        ["logrotate", "--debug", "--state", tmp_path / "state", config],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert "error" not in done.stderr
