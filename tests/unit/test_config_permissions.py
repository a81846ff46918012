"""C13: owners and modes of what the agent trusts or must keep secret, one matrix."""

import os
from pathlib import Path

import pytest

from host_agent.config import check_permissions, load
from tests.support.configurations import MINIMAL, write

FOREIGN = 12345


def faults(path: Path, *, uid: int | None = None) -> list[str]:
    return check_permissions(load(path), uid=os.geteuid() if uid is None else uid)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = write(tmp_path)
    write(tmp_path, "[limits]\nask_burst = 7\n", name="conf.d/10.toml")
    for name in ("state/host-agent.db", "state/host-agent.db-wal", "state/audit.jsonl"):
        (tmp_path / name).touch(mode=0o600)
    (tmp_path / "wrappers" / "git").touch(mode=0o755)
    return path


@pytest.mark.promise("c13")
def test_a_tight_site_has_no_fault(site: Path) -> None:
    assert faults(site) == []


@pytest.mark.promise("c13")
def test_missing_state_is_no_fault(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "state").rmdir()
    assert faults(path) == []


SECRETS = {
    "pki/server.key": "server.private_key",
    "state": "store.url",
    "state/host-agent.db": "store.url",
    "state/host-agent.db-wal": "store.url",
    "state/audit.jsonl": "audit.path",
}


@pytest.mark.promise("c13")
@pytest.mark.parametrize("extra", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
@pytest.mark.parametrize(("name", "key"), SECRETS.items())
def test_a_secret_gives_nothing_away(site: Path, name: str, key: str, extra: int) -> None:
    path = site.parent / name
    mode = 0o700 if path.is_dir() else 0o600
    path.chmod(mode | extra)
    found = [fault for fault in faults(site) if fault.startswith(f"{key}: {path} is mode")]
    told = "must give nothing to group or others (chmod go=)"
    assert found == [f"{key}: {path} is mode {mode | extra:04o} and {told}"]


TRUSTED = {
    "pki/ca.crt": "server.client_ca",
    "conf.d": "configuration",
    "wrappers": "execution.wrapper_dir",
    "wrappers/git": "execution.wrapper_dir",
}


@pytest.mark.promise("c13")
@pytest.mark.parametrize(("name", "key"), TRUSTED.items())
def test_what_is_trusted_is_not_written_by_others(site: Path, name: str, key: str) -> None:
    path = site.parent / name
    path.chmod(0o757)
    assert f"{key}: {path} is mode 0757 and must not be writable by others (chmod go-w)" in faults(
        site
    )


@pytest.mark.promise("c13")
@pytest.mark.parametrize("name", ["pki/ca.crt", "conf.d"])
def test_what_is_trusted_is_not_written_by_its_group(site: Path, name: str) -> None:
    path = site.parent / name
    path.chmod(0o770)
    assert any(
        f"{path} is mode 0770 and must not be writable by its group" in f for f in faults(site)
    )


@pytest.mark.promise("c13")
@pytest.mark.parametrize("name", ["wrappers", "wrappers/git"])
def test_wrappers_of_a_group_are_accepted_under_direct_only(site: Path, name: str) -> None:
    path = site.parent / name
    path.chmod(0o775)
    assert faults(site) == []
    site.write_text(MINIMAL.replace('runner = "direct"', 'runner = "sudo"'))
    assert any(f"{path} is mode 0775 and must not be writable" in fault for fault in faults(site))


@pytest.mark.promise("c13")
def test_readable_configuration_is_accepted(site: Path) -> None:
    site.chmod(0o644)
    (site.parent / "conf.d").chmod(0o755)
    (site.parent / "pki" / "ca.crt").chmod(0o644)
    assert faults(site) == []


@pytest.mark.promise("c13")
def test_a_directory_above_that_others_write_is_a_fault(tmp_path: Path) -> None:
    above = tmp_path / "above"
    path = write(above / "site")
    above.chmod(0o777)
    found = faults(path)
    assert found
    assert all(f"{above}, above " in fault for fault in found)


@pytest.mark.promise("c13")
@pytest.mark.root
def test_a_sticky_directory_of_root_above_is_accepted(tmp_path: Path) -> None:
    above = tmp_path / "above"
    path = write(above / "site")
    above.chmod(0o1777)
    assert faults(path) == []


@pytest.mark.promise("c13")
@pytest.mark.root
def test_a_sticky_directory_of_somebody_else_above_is_a_fault(tmp_path: Path) -> None:
    above = tmp_path / "above"
    path = write(above / "site")
    above.chmod(0o1777)
    os.chown(above, FOREIGN, -1)
    assert any(f"belongs to uid {FOREIGN}" in fault for fault in faults(path))


@pytest.mark.promise("c13")
def test_a_link_does_not_hide_where_it_leads(tmp_path: Path) -> None:
    path = write(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    key = path.parent / "pki" / "server.key"
    key.rename(elsewhere / "key.pem")
    key.symlink_to(elsewhere / "key.pem")
    assert faults(path) == []
    elsewhere.chmod(0o707)
    assert any(f"{elsewhere}, above {key}," in fault for fault in faults(path))
    elsewhere.chmod(0o700)
    (elsewhere / "key.pem").chmod(0o644)
    assert any(f"{key} is mode 0644" in fault for fault in faults(path))


@pytest.mark.promise("c13")
@pytest.mark.root
@pytest.mark.parametrize("name", [*SECRETS, *TRUSTED])
def test_a_file_of_another_user_is_a_fault(site: Path, name: str) -> None:
    path = site.parent / name
    os.chown(path, FOREIGN, -1)
    found = [fault for fault in faults(site) if f"{path} belongs to uid {FOREIGN}" in fault]
    assert len(found) == 1


@pytest.mark.promise("c13")
@pytest.mark.root
def test_files_of_the_agents_user_and_of_root_are_accepted(site: Path) -> None:
    os.chown(site.parent / "pki" / "server.key", FOREIGN, -1)
    config = load(site)
    assert check_permissions(config, uid=FOREIGN) == []


@pytest.mark.promise("c13")
def test_a_path_that_cannot_be_looked_at_is_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[audit]\npath = "pki/ca.crt/audit.jsonl"\n')
    assert any("cannot be looked at (Not a directory)" in fault for fault in faults(path))


@pytest.mark.promise("c13")
def test_every_fault_is_said_once(site: Path) -> None:
    site.parent.chmod(0o707)
    found = faults(site)
    assert len(found) == len(set(found))


@pytest.mark.promise("c13")
def test_an_audit_log_in_a_shared_directory_is_accepted(tmp_path: Path) -> None:
    logs = tmp_path / "log"
    path = write(tmp_path, MINIMAL + '[audit]\npath = "log/audit.jsonl"\n')
    logs.mkdir(mode=0o755)
    assert faults(path) == []
    logs.chmod(0o777)
    assert any(fault.startswith(f"audit.path: {logs} is mode 0777") for fault in faults(path))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A site whose audit log root keeps."""
    log = tmp_path / "log"
    log.mkdir(mode=0o750)
    (log / "audit.jsonl").touch()
    (log / "audit.jsonl").chmod(0o660)
    text = MINIMAL.replace('"direct"', '"sudo"')
    return write(tmp_path, f'{text}\n[audit]\npath = "log/audit.jsonl"\nappend_only = true\n')


@pytest.mark.promise("c13")
@pytest.mark.root
def test_a_log_that_root_keeps_may_be_its_groups_to_write(kept: Path) -> None:
    assert faults(kept, uid=FOREIGN) == [
        fault for fault in faults(kept, uid=FOREIGN) if not fault.startswith("audit.path")
    ]


@pytest.mark.promise("c13")
@pytest.mark.root
@pytest.mark.parametrize("name", ["log", "log/audit.jsonl"])
def test_a_log_that_root_keeps_is_not_the_agents_own(kept: Path, name: str) -> None:
    os.chown(kept.parent / name, FOREIGN, -1)
    (fault,) = [f for f in faults(kept, uid=FOREIGN) if f.startswith("audit.path")]
    assert "with append_only it must be root's" in fault


@pytest.mark.promise("c13")
@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "mode"), [("log", 0o770), ("log", 0o757), ("log/audit.jsonl", 0o662)]
)
def test_a_log_that_root_keeps_is_not_others_to_write(kept: Path, name: str, mode: int) -> None:
    (kept.parent / name).chmod(mode)
    assert [f for f in faults(kept, uid=FOREIGN) if f.startswith("audit.path")] != []


# -- the socket of Signal's daemon -----------------------------------------------------------------

SIGNAL = """[channels.signal]
socket = "run/signal/socket"
account = "+431234567"
user = "nobody"
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run/signal"
    run.mkdir(parents=True)
    return run


@pytest.mark.promise("c13")
def test_the_place_of_signals_socket(tmp_path: Path, run: Path) -> None:
    path = write(tmp_path, MINIMAL + SIGNAL)
    assert faults(path) == []
    (run / "socket").touch(0o666)  # who may speak to it is the daemon's to say
    assert faults(path) == []
    run.chmod(0o777)
    place = f"channels.signal.socket: {run}, above {run / 'socket'}, is mode 0777"
    assert [fault.startswith(place) for fault in faults(path)] == [True]


@pytest.mark.promise("c13")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_the_place_of_signals_socket_is_the_daemons_or_ours(tmp_path: Path, run: Path) -> None:
    path = write(tmp_path, MINIMAL + SIGNAL)
    os.chown(run, 65534, 65534)
    assert faults(path) == []
    os.chown(run, FOREIGN, FOREIGN)
    (fault,) = faults(path)
    assert f"{run}, above {run / 'socket'}, belongs to uid {FOREIGN}" in fault
