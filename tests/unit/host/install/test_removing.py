"""Uninstalling: what was installed goes, what is somebody's stays, and a failure undoes it."""

from pathlib import Path

import pytest

from host_agent.host.install import layout
from host_agent.host.install.transaction import StepFailedError
from host_agent.host.install.values import FileKind
from tests.support.installing import Stand, picture


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    stand = Stand(root=tmp_path)
    stand.install()
    return stand


def test_state_configuration_and_authority_stay_and_the_rest_goes(stand: Stand) -> None:
    state = stand.at(layout.STATE_DIR) / "audit.jsonl"
    state.write_text("{}\n")

    report = stand.uninstall()

    left = [path for path in picture(stand.root) if stand.root.joinpath(path).is_file()]
    kept = (
        *(layout.CONFIGURATION_DIR, layout.STATE_DIR, layout.LOG_DIR),
        *(layout.AUTHORITY_DIR, layout.BUNDLE_DIR),
    )
    assert left
    assert all(f"/{path}".startswith(kept) for path in left)
    assert not stand.at(layout.WRAPPER_DIR).exists()
    assert stand.has_account
    told = [change.what for change in report.changes if change.kind is FileKind.KEPT]
    assert told[: len(kept)] == list(kept)


def test_a_log_that_root_keeps_elsewhere_is_said_to_stay(stand: Stand) -> None:
    text = stand.at(layout.CONFIGURATION).read_text()
    stand.at(layout.CONFIGURATION).write_text(text.replace(layout.LOG_DIR, "/srv/records"))
    stand.install()
    stand.at("/srv/records/audit.jsonl").write_text("{}\n")

    told = [c.what for c in stand.uninstall().changes if c.kind is FileKind.KEPT]

    assert "/srv/records" in told
    assert stand.at("/srv/records/audit.jsonl").exists()


def test_the_way_in_is_closed_first(stand: Stand) -> None:
    removed = [c.what for c in stand.uninstall().changes if c.kind is FileKind.REMOVED]

    assert removed[0] == layout.SUDOERS


def test_what_an_administrator_changed_stays(stand: Stand) -> None:
    stand.at(layout.LOGROTATE).write_text("# mine\n")

    report = stand.uninstall()

    assert stand.at(layout.LOGROTATE).read_text() == "# mine\n"
    assert any(c.kind is FileKind.KEPT and layout.LOGROTATE in c.what for c in report.changes)


def test_what_was_put_beside_goes_too(stand: Stand) -> None:
    stand.at(layout.UNIT).write_text("# mine\n")
    stand.install()

    stand.uninstall()

    assert not stand.at(f"{layout.UNIT}.new").exists()


def test_a_dry_run_removes_nothing(stand: Stand) -> None:
    before = picture(stand.root)

    stand.uninstall(is_dry=True)

    assert picture(stand.root) == before


def test_installing_again_takes_up_what_was_kept(stand: Stand) -> None:
    before = picture(stand.root)
    stand.uninstall()

    stand.install()

    files = {name: facts[-1] for name, facts in before.items() if len(facts) > 3}
    after = {name: facts[-1] for name, facts in picture(stand.root).items() if len(facts) > 3}
    assert {k: v for k, v in after.items() if "manifest" not in k} == {
        k: v for k, v in files.items() if "manifest" not in k
    }


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_a_failure_at_any_change_leaves_the_agent_installed(tmp_path: Path, is_late: bool) -> None:
    trial, stand = Stand(root=tmp_path / "trial"), Stand(root=tmp_path / "root")
    for one in (trial, stand):
        one.root.mkdir()
        one.install()
    trial.uninstall()
    before = picture(stand.root)
    for at in range(1, trial.changes + 1):
        with pytest.raises(StepFailedError):
            stand.uninstall(fail_at=at, is_late=is_late)

        assert picture(stand.root) == before


def test_the_units_that_renew_go_too(stand: Stand) -> None:
    stand.at(list(layout.RENEWING)[1]).write_text("# mine\n")
    report = stand.uninstall()
    left = [path for path in layout.RENEWING if stand.at(path).exists()]
    assert left == list(layout.RENEWING)[1:2]
    assert report.changes
