"""Installing: whole or not at all, the same again changes nothing, nobody's changes are lost."""

from pathlib import Path

import pytest

from host_agent.errors import AdapterUnavailableError, ConfigurationError
from host_agent.host.install import layout
from host_agent.host.install.transaction import StepFailedError
from host_agent.host.install.values import FileKind, InstallationError, InstallReport
from tests.support.installing import PROGRAM, Stand, picture, source

WRAPPER = f"{layout.WRAPPER_DIR}/git"


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(root=tmp_path)


def lines(report: InstallReport, kind: FileKind) -> list[str]:
    return [change.what for change in report.changes if change.kind is kind]


def test_everything_is_in_place_with_its_mode(stand: Stand) -> None:
    report = stand.install()

    modes = {
        layout.CONFIGURATION_DIR: 0o750,
        layout.CONFIGURATION: 0o640,
        f"{layout.PKI_DIR}/server.key": 0o400,
        layout.SECRETS_DIR: 0o750,
        layout.STATE_DIR: 0o700,
        WRAPPER: 0o755,
        layout.PROTECTED: 0o644,
        layout.SUDOERS: 0o440,
        layout.UNIT: 0o644,
        layout.AUTHORITY_DIR: 0o700,
        f"{layout.AUTHORITY_DIR}/ca.key": 0o600,
    }
    assert {path: stand.at(path).stat().st_mode & 0o777 for path in modes} == modes
    assert ("systemd-sysusers", f"--root={stand.root}", "host-agent.conf") in stand.calls
    assert [call[0] for call in stand.calls].count("visudo") == 1
    assert "ExecStart=/opt/host-agent/bin/host-agent serve " in stand.at(layout.UNIT).read_text()
    assert any("ca.key" in line for line in report.later)


def test_the_units_that_renew_are_there_and_not_started(stand: Stand) -> None:
    stand.install()
    for path, name in layout.RENEWING.items():
        text = stand.at(path).read_text()
        assert stand.at(path).stat().st_mode & 0o777 == 0o644
        assert name.endswith(".timer") or f"ExecStart={PROGRAM} pki " in text
    assert not [call for call in stand.calls if "enable" in call or "start" in call]


def test_the_authority_key_is_not_where_the_agent_looks(stand: Stand) -> None:
    stand.install()

    assert not list(stand.at(layout.CONFIGURATION_DIR).rglob("ca.key"))


def test_a_second_time_changes_nothing_and_says_so(stand: Stand) -> None:
    stand.install()
    before = picture(stand.root)

    report = stand.install()

    assert report.is_unchanged
    assert report.changes == []
    assert picture(stand.root) == before
    assert stand.changes == 0


def test_a_dry_run_changes_nothing_and_names_what_it_would(stand: Stand) -> None:
    report = stand.install(is_dry=True)

    assert picture(stand.root) == {}
    assert stand.calls == []
    assert f"{WRAPPER} (root:root 0755)" in lines(report, FileKind.MADE)


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_a_failure_at_any_change_leaves_the_host_as_it_was(tmp_path: Path, is_late: bool) -> None:
    trial, stand = Stand(root=tmp_path / "trial"), Stand(root=tmp_path / "root")
    for one in (trial, stand):
        one.at("/etc").mkdir(parents=True)
    trial.install()
    before = picture(stand.root)
    for at in range(1, trial.changes + 1):
        with pytest.raises(StepFailedError, match="as it was before"):
            stand.install(fail_at=at, is_late=is_late)

        assert picture(stand.root) == before
        assert not stand.has_account


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_a_failure_at_any_change_of_an_upgrade_leaves_the_old_version(
    tmp_path: Path, is_late: bool
) -> None:
    newer = source(git=b"newer\n", pct=b"new\n")

    def installed(name: str) -> Stand:
        stand = Stand(root=tmp_path / name)
        stand.root.mkdir()
        stand.install()
        stand.at(layout.TMPFILES).write_text("# mine\n")
        stand.at(layout.PROTECTED).chmod(0o600)
        return stand

    trial, stand = installed("trial"), installed("root")
    trial.install(given=newer, program="/opt/other/bin/host-agent")
    assert trial.changes > 5
    before = picture(stand.root)
    for at in range(1, trial.changes + 1):
        with pytest.raises(StepFailedError):
            stand.install(
                given=newer, program="/opt/other/bin/host-agent", fail_at=at, is_late=is_late
            )

        assert picture(stand.root) == before


@pytest.mark.parametrize("tool", ["systemd-sysusers", "visudo"])
def test_a_tool_that_fails_is_named_and_all_is_undone(stand: Stand, tool: str) -> None:
    stand.failing.add(tool)

    with pytest.raises(StepFailedError, match=f"{tool} failed: {tool}: no\\. Everything"):
        stand.install()

    assert picture(stand.root) == {}


def test_what_cannot_be_undone_is_said(stand: Stand) -> None:
    stand.failing.update(("visudo", "userdel"))

    with pytest.raises(StepFailedError, match="could not be undone at: the user and group"):
        stand.install()


def test_an_upgrade_replaces_what_nobody_changed(stand: Stand) -> None:
    stand.install()

    report = stand.install(given=source(git=b"newer\n"))

    assert stand.at(WRAPPER).read_bytes() == b"newer\n"
    assert lines(report, FileKind.REPLACED) == [f"{WRAPPER} (root:root 0755)"]
    assert lines(report, FileKind.REMOVED) == [f"{layout.WRAPPER_DIR}/zfs-list"]
    assert stand.install(given=source(git=b"newer\n")).is_unchanged


@pytest.mark.parametrize("path", [WRAPPER, layout.UNIT, layout.SUDOERS, layout.LOGROTATE])
def test_what_an_administrator_changed_stays_and_the_new_one_goes_beside(
    stand: Stand, path: str
) -> None:
    stand.install()
    shipped = stand.at(path).read_bytes()
    stand.at(path).chmod(0o600)
    stand.at(path).write_bytes(b"# mine\n")

    report = stand.install()

    assert stand.at(path).read_bytes() == b"# mine\n"
    beside = stand.at(layout.beside(path))
    assert beside.read_bytes() == shipped
    assert beside.stat().st_mode & 0o111 == 0
    assert any(path in line and beside.name in line for line in lines(report, FileKind.KEPT))
    again = stand.install()
    assert again.is_unchanged
    assert len(lines(again, FileKind.KEPT)) == 1


def test_the_new_one_goes_when_the_file_is_in_order_again(stand: Stand) -> None:
    stand.install()
    shipped = stand.at(WRAPPER).read_bytes()
    stand.at(WRAPPER).write_bytes(b"# mine\n")
    stand.install()
    stand.at(WRAPPER).write_bytes(shipped)

    report = stand.install()

    assert lines(report, FileKind.REMOVED) == [f"{WRAPPER}.new"]
    assert not stand.at(f"{WRAPPER}.new").exists()


def test_a_file_beside_that_is_not_ours_is_not_overwritten(stand: Stand) -> None:
    stand.install()
    stand.at(WRAPPER).write_bytes(b"# mine\n")
    stand.at(f"{WRAPPER}.new").write_bytes(b"# mine too\n")

    stand.install()

    assert stand.at(f"{WRAPPER}.new").read_bytes() == b"# mine too\n"


def test_a_file_of_somebody_else_at_our_place_is_kept(stand: Stand) -> None:
    stand.at(layout.LOGROTATE).parent.mkdir(parents=True)
    stand.at(layout.LOGROTATE).write_text("# theirs\n")

    stand.install()

    assert stand.at(layout.LOGROTATE).read_text() == "# theirs\n"


def test_a_masked_unit_stays_masked(stand: Stand) -> None:
    stand.at(layout.UNIT).parent.mkdir(parents=True)
    stand.at(layout.UNIT).symlink_to("/dev/null")

    stand.install()

    assert stand.at(layout.UNIT).is_symlink()


def pack(stand: Stand, path: str, content: bytes | None = None) -> Path:
    """Put what a package has of the file at `path` into the package's own place."""
    place = stand.at(layout.PACKAGED[path])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(source().service_file(path, PROGRAM).content if content is None else content)
    return place


def test_what_a_package_of_this_version_has_is_not_put_there_twice(stand: Stand) -> None:
    for path in layout.PACKAGED:
        pack(stand, path)

    stand.install()

    assert not any(stand.at(path).exists() for path in layout.PACKAGED)
    assert ("systemd-sysusers", *stand.calls[0][1:-1], layout.SYSUSERS_NAME) == stand.calls[0]
    assert stand.install().is_unchanged


def test_a_package_takes_the_place_of_what_an_environment_put_there(stand: Stand) -> None:
    stand.install()
    for path in layout.PACKAGED:
        pack(stand, path)

    report = stand.install()

    assert lines(report, FileKind.REMOVED) == list(dict.fromkeys(lines(report, FileKind.REMOVED)))
    assert set(lines(report, FileKind.REMOVED)) == set(layout.PACKAGED)
    assert stand.install().is_unchanged


def test_what_a_package_of_another_version_has_goes_after_ours(stand: Stand) -> None:
    place = pack(stand, layout.UNIT, b"# another\n")

    stand.install()

    assert stand.at(layout.UNIT).exists()
    assert place.read_bytes() == b"# another\n"


def test_an_administrators_unit_stays_before_the_packages(stand: Stand) -> None:
    stand.install()
    stand.at(layout.UNIT).write_text("# mine\n")
    pack(stand, layout.UNIT)

    stand.install()

    assert stand.at(layout.UNIT).read_text() == "# mine\n"


def test_where_sudo_is_sudo_rs_its_own_visudo_is_asked(stand: Stand) -> None:
    stand.missing.add("visudo")

    stand.install()

    assert stand.at(layout.SUDOERS).exists()
    assert [call[:2] for call in stand.calls if "visudo" in call[0]] == [("visudo-rs", "-cqf")]


def test_what_no_visudo_has_seen_is_not_granted(stand: Stand) -> None:
    stand.missing.update(("visudo", "visudo-rs"))

    with pytest.raises(AdapterUnavailableError, match=r"^visudo is not installed"):
        stand.install()

    assert picture(stand.root) == {}


def test_a_mode_that_was_loosened_is_put_right(stand: Stand) -> None:
    stand.install()
    stand.at(WRAPPER).chmod(0o777)
    stand.at(layout.STATE_DIR).chmod(0o755)

    report = stand.install()

    assert stand.at(WRAPPER).stat().st_mode & 0o777 == 0o755
    assert stand.at(layout.STATE_DIR).stat().st_mode & 0o777 == 0o700
    assert len(lines(report, FileKind.ADJUSTED)) == 2


def test_without_a_configuration_nothing_is_granted(stand: Stand) -> None:
    report = stand.install(is_first=False)

    assert not stand.at(layout.SUDOERS).exists()
    assert not stand.at(layout.PROTECTED).exists()
    assert not stand.at(layout.ALLOWED).exists()
    assert len(lines(report, FileKind.SKIPPED)) == 3


def test_a_configuration_with_faults_stops_it_before_anything_is_done(stand: Stand) -> None:
    stand.at(layout.CONFIGURATION).parent.mkdir(parents=True)
    stand.at(layout.CONFIGURATION).write_text("[serve]\n")
    stand.has_account = True
    before = picture(stand.root)

    with pytest.raises(ConfigurationError, match="serve"):
        stand.install()

    assert picture(stand.root) == before


def test_a_configuration_that_is_there_is_not_touched_by_a_bootstrap(stand: Stand) -> None:
    stand.install()
    mine = stand.at(layout.CONFIGURATION).read_text() + "# mine\n"
    stand.at(layout.CONFIGURATION).write_text(mine)

    assert stand.install().is_unchanged
    assert stand.at(layout.CONFIGURATION).read_text() == mine


def test_what_follows_from_the_configuration_follows_it(stand: Stand) -> None:
    stand.install()
    with stand.at(layout.CONFIGURATION).open("a") as stream:
        stream.write('\n[zfs]\ndatasets = ["tank/.*"]\nprotected = ["tank/vault(/.*)?"]\n')

    report = stand.install()

    assert "zfs tank/vault(/.*)?\n" in stand.at(layout.PROTECTED).read_text()
    assert "/zfs-destroy\n" in stand.at(layout.SUDOERS).read_text()
    assert "names zfs tank/.*\n" in stand.at(layout.ALLOWED).read_text()
    assert len(lines(report, FileKind.REPLACED)) == 3


def test_another_directory_of_wrappers_is_a_fault(stand: Stand) -> None:
    stand.install()
    with stand.at(layout.CONFIGURATION).open("a") as stream:
        stream.write('\n[execution]\nwrapper_dir = "/usr"\n')

    with pytest.raises(ConfigurationError, match="wrapper_dir"):
        stand.install()


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    stand = Stand(root=tmp_path / "root")
    outside = tmp_path / "outside"
    outside.mkdir()
    stand.root.mkdir()
    stand.at("/etc").symlink_to(outside)

    with pytest.raises((StepFailedError, InstallationError), match="leads out of"):
        stand.install()

    assert not list(outside.iterdir())


def test_a_state_directory_that_is_a_link_is_refused(stand: Stand, tmp_path: Path) -> None:
    stand.at(layout.STATE_DIR).parent.mkdir(parents=True)
    stand.at(layout.STATE_DIR).symlink_to("/")
    before = picture(stand.root)

    with pytest.raises(StepFailedError, match="is no directory"):
        stand.install()

    assert picture(stand.root) == before


def test_a_damaged_record_of_the_installation_is_named(stand: Stand) -> None:
    stand.install()
    stand.at(layout.MANIFEST).write_text('{"version": 1, "files": {"/etc/../shadow": "x"}}')

    with pytest.raises(ConfigurationError, match="manifest"):
        stand.install()


def test_root_learns_which_commands_are_registered(stand: Stand) -> None:
    stand.install()
    whole = stand.at(layout.CONFIGURATION).read_text()
    stand.at(layout.CONFIGURATION).write_text(f"{whole}\n[exec]\n")

    stand.install()

    assert stand.at(layout.COMMANDS).read_text().startswith("# ")
    stand.at(layout.CONFIGURATION).write_text(whole)
    stand.install()
    assert not stand.at(layout.COMMANDS).exists()


def direct(configuration: str) -> str:
    """Return the same configuration with a runner that does not ask sudo."""
    without = configuration.replace("append_only = true", "append_only = false")
    return f'{without}\n[execution]\nrunner = "direct"\n'


def test_what_sudo_grants_goes_with_the_runner_that_asks_it(stand: Stand) -> None:
    stand.install()
    granted = stand.at(layout.SUDOERS).read_bytes()
    whole = stand.at(layout.CONFIGURATION).read_text()
    stand.at(layout.CONFIGURATION).write_text(direct(whole))

    report = stand.install()

    assert layout.SUDOERS in lines(report, FileKind.REMOVED)
    assert not stand.at(layout.SUDOERS).exists()
    assert stand.install().is_unchanged

    stand.at(layout.CONFIGURATION).write_text(whole)
    stand.install()
    assert stand.at(layout.SUDOERS).read_bytes() == granted


def test_but_not_what_an_administrator_grants(stand: Stand) -> None:
    stand.install()
    own = stand.at(layout.SUDOERS).read_text() + "# ours\n"
    stand.at(layout.SUDOERS).write_text(own)
    whole = stand.at(layout.CONFIGURATION).read_text()
    stand.at(layout.CONFIGURATION).write_text(direct(whole))

    report = stand.install()

    assert f"{layout.SUDOERS}: an administrator changed it" in lines(report, FileKind.KEPT)
    assert stand.at(layout.SUDOERS).read_text() == own


def test_an_interrupt_undoes_it_too(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_tool: str, *_arguments: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stand, "__call__", lambda *_: interrupt(""))
    with pytest.raises(KeyboardInterrupt):
        stand.install()

    assert picture(stand.root) == {}
