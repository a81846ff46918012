"""The systemd wrappers, unmodified, against stand-ins for systemctl and journalctl."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import Output
from host_agent.operations.systemd.adapter import BROUGHT, PROTECTED
from tests.support.systemd_host import (
    CHANGES,
    NAMES,
    WRAPPERS,
    SystemdHost,
    done,
    operation,
    why_not,
)

NGINX = "nginx.service"
STATE = "0" * 64
SYSTEMCTL = ["--no-ask-password", "--no-pager"]
ALL = (*NAMES, *(f"systemd-{verb}" for verb in CHANGES))

stand_in = [
    pytest.mark.root,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or "can run"),
]


@pytest.fixture
def host(tmp_path: Path) -> SystemdHost:
    host = SystemdHost(tmp_path)
    host.unit(NGINX)
    return host


def arguments_of(wrapper: str, unit: str) -> tuple[str, ...]:
    """Return arguments that are good but for the unit."""
    return {
        "systemd-status": (unit,),
        "systemd-list": (unit,),
        "systemd-logs": (unit, "5"),
        "systemd-inspect": ("stop", unit),
    }.get(wrapper, (unit, STATE))


def refusal(output: Output) -> HostAgentError:
    return operation("systemd.stop", unit=NGINX).spec.failure(None, output)


class TestReads:
    pytestmark = stand_in

    @pytest.mark.parametrize("active", ["active", "inactive", "failed", "activating"])
    def test_a_unit_that_does_not_run_is_an_answer(self, host: SystemdHost, active: str) -> None:
        host.change(NGINX, ActiveState=active)
        asked = operation("systemd.status", unit=NGINX)
        output = host.perform(asked)
        assert output.exit_code == 0
        assert asked.spec.parse is not None
        data = asked.spec.parse(asked.params, output)
        assert isinstance(data, dict)
        assert (data["unit"], data["active"], data["main_pid"]) == (NGINX, active, 42)

    def test_a_unit_that_does_not_exist_is_told_apart(self, host: SystemdHost) -> None:
        output = host.run("systemd-status", "nosuch.service")
        assert (output.exit_code, output.stdout) == (66, "")
        assert isinstance(refusal(output), HostNotFoundError)

    def test_a_unit_that_runs_without_its_file_still_has_a_status(self, host: SystemdHost) -> None:
        host.change(NGINX, LoadState="not-found")
        assert host.run("systemd-status", NGINX).exit_code == 0

    def test_times_are_asked_for_in_utc(self, host: SystemdHost) -> None:
        host.run("systemd-status", NGINX)
        assert host.environments()[-1]["TZ"] == "UTC"

    def test_list_hands_the_pattern_on_behind_the_options(self, host: SystemdHost) -> None:
        host.answer("systemctl-list-units", 0, "nginx.service loaded active running A unit\n")
        assert host.run("systemd-list", "ngin*").stdout.startswith("nginx.service ")
        options = ["list-units", "--all", "--plain", "--no-legend", "--full", "--"]
        assert host.calls("systemctl") == [[*SYSTEMCTL, *options, "ngin*"]]

    def test_logs_are_of_the_unit_itself_and_not_of_a_slice(self, host: SystemdHost) -> None:
        host.answer("journalctl", 0, "{}\n")
        assert host.run("systemd-logs", NGINX, "7", "1763676000.5").stdout == "{}\n"
        (called,) = host.calls("journalctl")
        assert "--lines=7" in called
        assert "--since=@1763676000.5" in called
        assert called[called.index("--") + 1] == f"_SYSTEMD_UNIT={NGINX}"
        assert not [argument for argument in called if argument.startswith(("-u", "--unit"))]
        assert not any("_SYSTEMD_SLICE" in argument for argument in called)

    def test_logs_of_nothing_are_not_found(self, host: SystemdHost) -> None:
        assert host.run("systemd-logs", "nosuch.service", "7").exit_code == 66

    def test_logs_of_a_unit_that_is_gone_stay_readable(self, host: SystemdHost) -> None:
        host.answer("journalctl", 0, "said\n")
        assert host.run("systemd-logs", "nosuch.service", "7").exit_code == 0


class TestArguments:
    pytestmark = stand_in

    @pytest.mark.promise("c20", "c21")
    @pytest.mark.parametrize("wrapper", ALL)
    @pytest.mark.parametrize(
        "unit",
        [
            *("-H", "--root=/", "-.mount", "-M.service", "--host=x.service", "", " ", "."),
            *("nginx", "nginx.", ".service", "nginx.conf", "backup@.service", "@a.service"),
            *("/etc/x.service", "../x.service", "a/b.service", "ngin*.service/", "ngin[x].service"),
            *("a b.service", "a\tb.service", "a\nb.service", "nginx.service\n", "\x1b.service"),
            *("$(id).service", "`id`.service", "a;id.service", "{a,b}.service", "~.service"),
            *(
                "a\\x2db.service",
                "nginx.service nginx.service",
                "ng\u0456nx.service",
                "a" * 251 + ".path",
            ),
        ],
    )
    def test_hostile_units_reach_no_program(
        self, host: SystemdHost, wrapper: str, unit: str
    ) -> None:
        output = host.run(wrapper, *arguments_of(wrapper, unit))
        assert output.exit_code == 64
        assert host.calls() == []

    @pytest.mark.parametrize("wrapper", ALL)
    def test_another_number_of_arguments_is_refused(self, host: SystemdHost, wrapper: str) -> None:
        assert host.run(wrapper, *["start", NGINX, "x", "y"]).exit_code == 64
        if wrapper != "systemd-list":
            assert host.run(wrapper).exit_code == 64
        assert host.calls() == []

    @pytest.mark.promise("c21")
    @pytest.mark.parametrize("lines", ["0", "10001", "-1", "1e3", "a[$(id)]", "", "00", "٣", "+5"])
    def test_lines_are_no_arithmetic(self, host: SystemdHost, lines: str) -> None:
        assert host.run("systemd-logs", NGINX, lines).exit_code == 64
        assert host.calls() == []

    @pytest.mark.parametrize("since", ["", "yesterday", "-1", "@5", "1;id", "1.", "1.1234567"])
    def test_a_time_is_a_number_of_seconds(self, host: SystemdHost, since: str) -> None:
        assert host.run("systemd-logs", NGINX, "5", since).exit_code == 64
        assert host.calls() == []

    @pytest.mark.parametrize("state", ["", "0" * 63, "G" * 64, "0" * 64 + "\n", "*"])
    def test_a_state_is_a_hash(self, host: SystemdHost, state: str) -> None:
        assert host.run("systemd-stop", NGINX, state).exit_code == 64
        assert host.calls() == []

    @pytest.mark.parametrize("verb", ["isolate", "kill", "", "-h", "daemon-reload", "mask"])
    def test_inspect_knows_its_verbs_only(self, host: SystemdHost, verb: str) -> None:
        assert host.run("systemd-inspect", verb, NGINX).exit_code == 64
        assert host.run("systemd-inspect", "after", verb, NGINX).exit_code == 64
        assert host.calls() == []

    @pytest.mark.promise("c34")
    @pytest.mark.parametrize("wrapper", ALL)
    def test_nothing_of_the_environment_passes(self, host: SystemdHost, wrapper: str) -> None:
        canary = host.directory / "canary"
        script = host.directory / "script"
        script.write_text(f"touch {canary}\n")
        names = ("SYSTEMD_PAGER", "SYSTEMD_EDITOR", "SYSTEMD_LOG_LEVEL", "DBUS_SYSTEM_BUS_ADDRESS")
        hostile = {**dict.fromkeys(names, "x"), "BASH_ENV": str(script), "PATH": "/nonexistent"}
        hostile |= {"LD_PRELOAD": "", "IFS": "s", "SYSTEMD_LESS": "x", "SHELLOPTS": "xtrace"}
        host.run(wrapper, *arguments_of(wrapper, NGINX), environment=hostile)
        assert not canary.exists()
        assert host.environments()
        for environment in host.environments():
            assert set(environment) <= {"PATH", "LC_ALL", "TZ", "PWD", "SHLVL", "_", "OLDPWD"}
            assert environment["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"

    @pytest.mark.parametrize("wrapper", ALL)
    def test_what_is_done_is_logged_with_the_uid_that_sudo_tells(
        self, host: SystemdHost, wrapper: str
    ) -> None:
        arguments = arguments_of(wrapper, NGINX)
        host.run(wrapper, *arguments, environment={"SUDO_UID": "1000"})
        for _ in range(100):  # the logger is not waited for
            logged = host.calls("logger")
            if logged:
                break
            subprocess.run(["/bin/sleep", "0.05"], check=True)
        assert [call[-1] for call in logged] == [f"uid 1000: {wrapper} {' '.join(arguments)}"]

    def test_a_false_uid_is_not_logged(self, host: SystemdHost) -> None:
        host.run("systemd-status", NGINX, environment={"SUDO_UID": "0; id"})
        assert host.calls("logger") == []


class TestChanges:
    pytestmark = stand_in

    @pytest.mark.parametrize("verb", CHANGES)
    def test_a_change_runs_once_with_exact_arguments(self, host: SystemdHost, verb: str) -> None:
        asked = operation(f"systemd.{verb}", unit=NGINX)
        assert host.perform(asked).exit_code == 0
        assert host.changes() == [[*SYSTEMCTL, verb, "--", NGINX]]
        assert host.calls("systemd-run") == []

    @pytest.mark.promise("c36", "c39")
    @pytest.mark.parametrize("verb", CHANGES)
    def test_a_change_is_bounded_where_systemd_runs(self, host: SystemdHost, verb: str) -> None:
        host.is_booted = True
        assert host.perform(operation(f"systemd.{verb}", unit=NGINX)).exit_code == 0
        (bounded,) = host.calls("systemd-run")
        limits = {argument.partition("=")[0] for argument in bounded if "=" in argument}
        assert limits >= {"RuntimeMaxSec", "TasksMax", "MemoryMax"}
        assert "--scope" in bounded
        assert host.changes() == [[*SYSTEMCTL, verb, "--", NGINX]]

    @pytest.mark.promise("c27")
    @pytest.mark.parametrize("verb", CHANGES)
    def test_another_definition_is_another_target(self, host: SystemdHost, verb: str) -> None:
        asked = operation(f"systemd.{verb}", unit=NGINX)
        held = host.inspect(asked).precondition
        (host.directory / NGINX).write_text("[Service]\nExecStart=/bin/evil\n")
        output = host.perform(asked, held)
        assert output.exit_code == 75
        assert isinstance(refusal(output), TargetChangedError)
        assert host.changes() == []

    @pytest.mark.promise("c27")
    def test_a_drop_in_with_an_unusual_name_is_part_of_the_definition(
        self, host: SystemdHost
    ) -> None:
        drop_in = host.directory / 'a "b" $c.conf'
        drop_in.write_text("[Service]\nNice=1\n")
        quoted = str(drop_in).replace('"', '\\"').replace("$", "\\$")
        host.change(NGINX, DropInPaths=f'/nonexistent "{quoted}"')
        asked = operation("systemd.stop", unit=NGINX)
        held = host.inspect(asked).precondition
        assert host.inspect(asked).precondition == held
        drop_in.write_text("[Service]\nExecStop=/bin/evil\n")
        assert host.perform(asked, held).exit_code == 75
        assert host.changes() == []

    @pytest.mark.promise("c27")
    @pytest.mark.parametrize(
        "changed",
        [
            {"ActiveState": "inactive"},
            {"LoadState": "masked"},
            {"NeedDaemonReload": "yes"},
            {"RequiredBy": "app.service"},
        ],
        ids=str,
    )
    def test_what_is_bound_makes_an_approval_stale(
        self, host: SystemdHost, changed: dict[str, str]
    ) -> None:
        host.unit("app.service")
        asked = operation("systemd.stop", unit=NGINX)
        held = host.inspect(asked).precondition
        host.change(NGINX, **changed)
        assert host.perform(asked, held).exit_code == 75
        assert host.changes() == []

    @pytest.mark.parametrize(
        "changed",
        [
            {"SubState": "auto-restart", "ActiveState": "activating"},
            {"InvocationID": "b" * 32, "MainPID": "43"},
            {"UnitFileState": "disabled", "Description": "other words"},
            {"RequiredBy": "idle.service"},
        ],
        ids=str,
    )
    def test_what_changes_by_itself_keeps_an_approval(
        self, host: SystemdHost, changed: dict[str, str]
    ) -> None:
        host.unit("idle.service", ActiveState="inactive")
        asked = operation("systemd.stop", unit=NGINX)
        held = host.inspect(asked).precondition
        host.change(NGINX, **changed)
        assert host.perform(asked, held).exit_code == 0
        assert len(host.changes()) == 1

    def test_what_does_not_exist_is_said_when_it_is_asked_for(self, host: SystemdHost) -> None:
        with pytest.raises(HostNotFoundError):
            host.inspect(operation("systemd.start", unit="nosuch.service"))

    @pytest.mark.parametrize(
        ("verb", "changed"),
        [
            ("start", {"LoadState": "masked", "ActiveState": "inactive"}),
            ("restart", {"LoadState": "bad-setting"}),
            ("start", {"CanStart": "no"}),
            ("stop", {"CanStop": "no"}),
            ("reload", {"CanReload": "no"}),
            ("reload", {"ActiveState": "inactive"}),
        ],
        ids=str,
    )
    def test_what_systemd_would_refuse_is_never_held(
        self, host: SystemdHost, verb: str, changed: dict[str, str]
    ) -> None:
        host.change(NGINX, **changed)
        with pytest.raises(HostFailedError):
            host.inspect(operation(f"systemd.{verb}", unit=NGINX))

    @pytest.mark.parametrize(
        ("code", "stderr", "expected"),
        [
            (1, "Job for nginx.service failed because the control process exited", HostFailedError),
            (5, "Failed to stop nginx.service: Unit nginx.service not loaded.", HostNotFoundError),
            (1, "Requested transaction contradicts ... transaction is destructive", HostBusyError),
            (1, "Failed to connect to bus: Host is down", AdapterUnavailableError),
            (1, "something else", HostFailedError),
        ],
    )
    def test_a_failure_of_systemd_has_its_own_code(
        self, host: SystemdHost, code: int, stderr: str, expected: type[HostAgentError]
    ) -> None:
        host.answer("systemctl-start", code, stderr=stderr)
        output = host.perform(operation("systemd.start", unit=NGINX))
        assert output.exit_code == code
        assert type(refusal(output)) is expected


class TestAfter:
    pytestmark = stand_in

    @pytest.mark.parametrize("verb", ["start", "restart", "reload"])
    @pytest.mark.parametrize(("active", "is_seen"), [("active", True), ("failed", False)])
    def test_up_is_seen(self, host: SystemdHost, verb: str, active: str, is_seen: bool) -> None:
        host.change(NGINX, ActiveState=active)
        assert host.probe(operation(f"systemd.{verb}", unit=NGINX)) is is_seen

    @pytest.mark.parametrize(
        ("active", "is_seen"), [("inactive", True), ("failed", True), ("active", False)]
    )
    def test_down_is_seen(self, host: SystemdHost, active: str, is_seen: bool) -> None:
        host.change(NGINX, ActiveState=active)
        assert host.probe(operation("systemd.stop", unit=NGINX)) is is_seen

    @pytest.mark.parametrize(("result", "is_seen"), [("success", True), ("exit-code", False)])
    def test_a_one_shot_unit_ends_with_success(
        self, host: SystemdHost, result: str, is_seen: bool
    ) -> None:
        host.change(NGINX, ActiveState="inactive", Type="oneshot", Result=result)
        assert host.probe(operation("systemd.start", unit=NGINX)) is is_seen
        assert host.probe(operation("systemd.reload", unit=NGINX)) is False


class TestProtections:
    pytestmark = stand_in

    def refused(self, host: SystemdHost, verb: str, unit: str) -> None:
        for output in (
            host.run("systemd-inspect", verb, unit),
            host.run(f"systemd-{verb}", unit, STATE),
        ):
            assert output.exit_code == 77
            assert isinstance(refusal(output), ProtectedError)
        assert host.changes() == []

    @pytest.mark.promise("c50")
    @pytest.mark.parametrize("verb", CHANGES)
    @pytest.mark.parametrize(
        "unit",
        [
            *("ssh.service", "sshd.service", "ssh.socket", "host-agent.service", "dbus.service"),
            *("dbus-broker.service", "polkit.service", "systemd-journald.service"),
            *("networking.service", "NetworkManager.service", "ifup@eth0.service"),
            *("wpa_supplicant.service", "user@1000.service", "getty@tty1.service", "init.scope"),
            *("sysinit.target", "basic.target", "multi-user.target", "graphical.target"),
            *("default.target", "network.target", "network-online.target", "rescue.target"),
            *("emergency.target", "poweroff.target", "reboot.target", "halt.target"),
            *("kexec.target", "exit.target", "suspend.target", "suspend-then-hibernate.target"),
            *("hibernate.target", "hybrid-sleep.target", "ctrl-alt-del.target", "system.slice"),
        ],
    )
    def test_root_refuses_what_the_host_needs(
        self, host: SystemdHost, verb: str, unit: str
    ) -> None:
        host.unit(unit)
        self.refused(host, verb, unit)

    @pytest.mark.promise("c50")
    @pytest.mark.parametrize("verb", CHANGES)
    def test_root_refuses_another_name_of_it(self, host: SystemdHost, verb: str) -> None:
        host.unit("poweroff.target")
        host.alias("harmless.target", "poweroff.target")
        self.refused(host, verb, "harmless.target")

    @pytest.mark.promise("c50")
    @pytest.mark.parametrize("verb", CHANGES)
    def test_root_has_a_list_of_its_own(self, host: SystemdHost, verb: str) -> None:
        host.unit("vault-a.service")
        self.refused(host, verb, "vault-a.service")
        host.alias("a.service", "vault-a.service")
        self.refused(host, verb, "a.service")

    @pytest.mark.parametrize(
        ("verb", "relation"),
        [
            ("stop", "RequiredBy"),
            ("restart", "BoundBy"),
            ("stop", "ConsistsOf"),
            ("stop", "RequisiteOf"),
            ("stop", "PropagatesStopTo"),
            ("start", "Conflicts"),
            ("start", "ConflictedBy"),
            ("reload", "PropagatesReloadTo"),
        ],
    )
    def test_root_refuses_what_takes_a_protected_unit_along(
        self, host: SystemdHost, verb: str, relation: str
    ) -> None:
        host.unit("middle.service", RequiredBy="ssh.service", PropagatesReloadTo="ssh.service")
        host.unit("ssh.service")
        host.change(NGINX, **{relation: "middle.service"})
        self.refused(host, verb, NGINX)

    def test_a_protected_unit_that_is_down_hinders_nothing(self, host: SystemdHost) -> None:
        host.unit("shutdown.target", ActiveState="inactive")
        host.change(NGINX, Conflicts="shutdown.target")
        assert host.perform(operation("systemd.start", unit=NGINX)).exit_code == 0

    def test_units_that_depend_on_each_other_end_the_search(self, host: SystemdHost) -> None:
        host.unit("a.service", RequiredBy="b.service")
        host.unit("b.service", RequiredBy=f'a.service {NGINX} "x\\\\x2dy.service"')
        host.unit("x\\x2dy.service")
        host.change(NGINX, RequiredBy="a.service")
        found = host.inspect(operation("systemd.stop", unit=NGINX))
        assert found.precondition["affected"] == ["a.service", "b.service", "x\\x2dy.service"]
        assert "3 other units" in found.preview.summary

    def test_too_many_units_are_refused(self, host: SystemdHost) -> None:
        host.change(NGINX, RequiredBy=" ".join(f"u{n}.service" for n in range(600)))
        assert host.run("systemd-inspect", "stop", NGINX).exit_code == 77

    @pytest.mark.promise("c35")
    @pytest.mark.parametrize("verb", CHANGES)
    @pytest.mark.parametrize(
        "spoil", ["missing", "group", "others", "link", "directory", "owner", "pattern"]
    )
    def test_without_a_list_that_root_alone_writes_nothing_changes(
        self, host: SystemdHost, verb: str, spoil: str
    ) -> None:
        match spoil:
            case "group":
                host.protected.chmod(0o664)
            case "others":
                host.protected.chmod(0o646)
            case "owner":
                os.chown(host.protected, 65534, 65534)
            case "pattern":
                host.protected.write_text("systemd (\n")
            case _:
                kept = host.protected.rename(host.directory / "kept")
                if spoil == "link":
                    host.protected.symlink_to(kept)
                elif spoil == "directory":
                    host.protected.mkdir()
        self.refused(host, verb, NGINX)

    def test_reads_need_no_list(self, host: SystemdHost) -> None:
        host.protected.unlink()
        assert host.run("systemd-status", NGINX).exit_code == 0


@pytest.mark.parametrize(("name", "known"), [("protected", PROTECTED), ("brought", BROUGHT)])
def test_root_and_the_agent_protect_the_same_units(name: str, known: tuple[str, ...]) -> None:
    text = (WRAPPERS / "systemd-inspect").read_text()
    table = text.partition(f"\n{name}=(")[2].partition("\n)")[0]
    assert re.findall(r"'([^']+)'", table) == list(known)


@pytest.mark.parametrize("wrapper", ["systemd-status", "systemd-list", "systemd-logs"])
@pytest.mark.skipif(
    not Path("/usr/bin/systemctl").exists() or Path("/run/systemd/system").exists(),
    reason="needs a host that has systemctl and was not booted with systemd",
)
def test_a_host_without_a_running_systemd_says_so(tmp_path: Path, wrapper: str) -> None:
    ended = subprocess.run(
        [SystemdHost(tmp_path).wrappers / wrapper, *arguments_of(wrapper, NGINX)],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    output = done(ended.returncode, ended.stdout, ended.stderr)
    assert output.exit_code == 1
    assert isinstance(refusal(output), AdapterUnavailableError)


def test_a_unit_says_for_how_long_it_is_up_and_that_is_not_bound(host: SystemdHost) -> None:
    asked = operation("systemd.stop", unit=NGINX)
    before = host.inspect(asked)
    assert before.preview.summary.startswith("Running for 12 days. ")
    host.change(NGINX, ActiveEnterTimestamp="@1000000000")
    after = host.inspect(asked)
    assert after.preview.summary != before.preview.summary
    assert after.precondition == before.precondition
    host.change(NGINX, ActiveEnterTimestamp="")
    assert host.inspect(asked).preview.summary.startswith("Running. ")
