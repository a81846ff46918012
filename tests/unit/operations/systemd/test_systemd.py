"""The systemd adapter's declarations and pure functions; no process is started here."""

import hashlib

import pytest

from host_agent.canonical import JsonValue, canonical_json
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import (
    Catalogue,
    Effect,
    Inspection,
    Operation,
    OperationSpec,
    Output,
    PreviewAccuracy,
    RunAs,
)
from host_agent.operations.systemd.adapter import ADAPTER, SPECS, is_protected
from host_agent.operations.systemd.output import SHOWN, split_list
from host_agent.operations.systemd.section import SystemdSection

CATALOGUE = Catalogue((ADAPTER,))
NGINX: JsonValue = "nginx.service"
GOOD: dict[str, dict[str, JsonValue]] = {
    "systemd.status": {"unit": NGINX},
    "systemd.logs": {"unit": NGINX, "lines": 5, "since": "2026-11-20T22:00:00Z"},
    "systemd.list": {"pattern": "nginx*"},
    **{f"systemd.{verb}": {"unit": NGINX} for verb in ("start", "restart", "reload", "stop")},
}
CHANGES = [spec for spec in SPECS if spec.effect is not Effect.READ]
SECTION = SystemdSection(units=(r"nginx\.service", r"backup-.*\.service", r"ssh\.service"))
STATE = "a" * 64
HELD: dict[str, JsonValue] = {"state": STATE}


def parse(name: str, /, **changed: JsonValue) -> Operation:
    return CATALOGUE.parse(name, {**GOOD[name], **changed})


def admit(asked: Operation, section: SystemdSection = SECTION) -> None:
    asked.spec.admit(asked.params, section)


def done(
    stdout: str = "", *, exit_code: int = 0, stderr: str = "", truncated: bool = False
) -> Output:
    return Output(exit_code=exit_code, stdout=stdout, stderr=stderr, truncated=truncated)


def data(name: str, output: Output) -> JsonValue:
    asked = parse(name)
    assert asked.spec.parse is not None
    return asked.spec.parse(asked.params, output)


def facts(*more: tuple[str, str], **changed: str | None) -> Output:
    """Return what `systemd-inspect` prints; a fact that is None is left out."""
    lines: dict[str, str | None] = {
        "Description": "A web server",
        "UnitFileState": "enabled",
        "SubState": "running",
        "TriggeredBy": "",
        "Id": "nginx.service",
        "LoadState": "loaded",
        "ActiveState": "active",
        "NeedDaemonReload": "no",
        "CanStart": "yes",
        "CanStop": "yes",
        "CanReload": "yes",
        "activity": "up",
        "definition": "d" * 64,
        "name": "nginx.service",
        "state": STATE,
        **changed,
    }
    pairs = [(name, value) for name, value in lines.items() if value is not None]
    return done("".join(f"{name}\t{value}\n" for name, value in (*pairs, *more)))


def inspected(verb: str, output: Output) -> Inspection:
    asked = parse(f"systemd.{verb}")
    assert asked.spec.parse_inspection is not None
    return asked.spec.parse_inspection(asked.params, output)


# -- the table -------------------------------------------------------------------------------------


def test_effects_are_those_of_the_contract() -> None:
    effects = {spec.name.removeprefix("systemd."): spec.effect for spec in SPECS}
    assert effects == {
        **dict.fromkeys(("status", "logs", "list"), Effect.READ),
        **dict.fromkeys(("start", "restart", "reload"), Effect.CHANGE),
        "stop": Effect.DESTROY,
    }


def test_positional_order_is_that_of_the_contract() -> None:
    order = {spec.name.removeprefix("systemd."): spec.parameters.positional for spec in SPECS}
    assert order == {
        **dict.fromkeys(("status", "start", "restart", "reload", "stop"), ("unit",)),
        "logs": ("unit", "lines", "since"),
        "list": ("pattern",),
    }


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_operation_runs_its_own_wrapper_as_root(spec: OperationSpec) -> None:
    invocation = spec.invoke(parse(spec.name).params, HELD)
    assert (spec.run_as, invocation.run_as) == (RunAs.ROOT, RunAs.ROOT)
    assert spec.wrapper == invocation.wrapper == spec.name.replace(".", "-")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_changes_are_inspected_guarded_and_looked_at(spec: OperationSpec) -> None:
    is_change = spec.effect is not Effect.READ
    for part in (spec.inspect, spec.parse_inspection, spec.guard, spec.probe, spec.parse_probe):
        assert (part is not None) == is_change


def test_the_resource_is_the_unit_and_a_pattern_is_none() -> None:
    assert parse("systemd.stop").resource == NGINX
    assert parse("systemd.list").resource is None


@pytest.mark.parametrize("spec", CHANGES, ids=lambda spec: spec.name)
def test_a_change_hands_its_wrapper_the_state_that_was_approved(spec: OperationSpec) -> None:
    verb, params = spec.name.removeprefix("systemd."), parse(spec.name).params
    assert spec.invoke(params, HELD).arguments == (NGINX, STATE)
    assert spec.inspect is not None
    assert spec.inspect(params).arguments == (verb, NGINX)
    assert spec.probe is not None
    assert spec.probe(params, HELD).arguments == ("after", verb, NGINX)


# -- parameters ------------------------------------------------------------------------------------


def test_defaults_are_filled_in() -> None:
    asked = CATALOGUE.parse("systemd.logs", {"unit": NGINX})
    assert asked.params.canonical() == {"unit": NGINX, "lines": 100, "since": None}
    assert CATALOGUE.parse("systemd.list", {}).params.canonical() == {"pattern": None}


@pytest.mark.parametrize(
    "unit",
    [
        *("nginx.service", "dbus-org.freedesktop.hostname1.service", "a.socket", "b.timer"),
        *("srv-app.mount", "x.path", "my.target", "machine-a.slice", "run-1.scope", "a.swap"),
        *("srv.automount", "sys-a.device", "backup@daily.service", "A_b:c-d.service"),
        "a" * 247 + ".service",
    ],
)
def test_a_whole_unit_name_is_taken(unit: str) -> None:
    assert parse("systemd.status", unit=unit).resource == unit


HOSTILE_UNITS = [
    *("ssh", "nginx.", ".service", "nginx.conf", "nginx.Service", "nginx.service.d", "-.mount"),
    *("-.slice", "-H.service", "--root=/", "-Hx.service", "@a.service", "backup@.service"),
    *("a@b@c.service", "a*.service", "a?.service", "a[b].service", "*", "/srv", "/etc/a.service"),
    *("../a.service", "a/b.service", "a\\x2db.service", "a b.service", "nginx.service\n"),
    *("a\tb.service", "a\0.service", "$(id).service", "`id`.service", "a;b.service", "a|b.service"),
    *("{a,b}.service", "~.service", "a'b.service", 'a"b.service', "a#b.service", "a%i.service"),
    *("ng\u0456nx.service", "nginx\u202e.service", "\uff4eginx.service", "n\u200bginx.service"),
    *("", " ", "nginx.service nginx.service", "a" * 248 + ".service"),
]


@pytest.mark.promise("c20", "c21", "c30", "c50")
@pytest.mark.parametrize("name", [name for name in GOOD if name != "systemd.list"])
@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_hostile_units_are_refused(name: str, unit: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(name, unit=unit)


@pytest.mark.parametrize("pattern", ["*", "nginx*", "backup-?.service", "a@*.timer", "a.service"])
def test_a_pattern_of_units_is_taken(pattern: str) -> None:
    assert parse("systemd.list", pattern=pattern).params.canonical() == {"pattern": pattern}


@pytest.mark.promise("c20", "c21", "c30")
@pytest.mark.parametrize(
    "pattern", [one for one in HOSTILE_UNITS if not set("*?") & set(one)] + ["-*", "a/*", "[a]*"]
)
def test_hostile_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse("systemd.list", pattern=pattern)


@pytest.mark.parametrize("lines", [0, 10_001, -1, "5", True, 1.5, None])
def test_lines_are_an_integer_within_bounds(lines: object) -> None:
    with pytest.raises(InvalidParameterError):
        CATALOGUE.parse("systemd.logs", {"unit": NGINX, "lines": lines})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("since", "canonical", "seconds"),
    [
        ("2026-11-20T22:00:00Z", "2026-11-20T22:00:00Z", "1795212000"),
        ("2026-11-20T23:00:00+01:00", "2026-11-20T22:00:00Z", "1795212000"),
        ("2026-11-20t22:00:00.5z", "2026-11-20T22:00:00.500000Z", "1795212000.500000"),
        ("2026-11-20 22:00:00.123456789Z", "2026-11-20T22:00:00.123456Z", "1795212000.123456"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0"),
    ],
)
def test_a_time_has_one_form_and_reaches_the_wrapper_as_seconds(
    since: str, canonical: str, seconds: str
) -> None:
    asked = parse("systemd.logs", since=since)
    assert asked.params.canonical()["since"] == canonical
    assert asked.spec.invoke(asked.params, {}).arguments == (NGINX, "5", seconds)


@pytest.mark.parametrize(
    "since",
    [
        *("yesterday", "-1h", "@0", "2026-11-20", "2026-11-20T22:00:00", "2026-13-01T00:00:00Z"),
        *(
            "2026-02-30T00:00:00Z",
            "2026-11-20T24:00:01Z",
            "2026-11-20T22:00:60Z",
            "1969-12-31T23:59:59Z",
        ),
        *("2026-11-20T22:00:00+25:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
        *("2026-11-20T22:00:00Z\n", "٢٠٢٦-11-20T22:00:00Z", "2026-11-20T22:00:00.Z"),
    ],
)
def test_what_is_no_time_by_rfc_3339_is_refused(since: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse("systemd.logs", since=since)


# -- protections and allow-lists -------------------------------------------------------------------

NEEDED = [
    *("ssh.service", "sshd.service", "ssh@1.service", "ssh.socket", "host-agent.service"),
    *("host-agent-audit.timer", "dbus.service", "dbus-broker.service", "polkit.service"),
    *("systemd-journald.service", "systemd-networkd.socket", "networking.service"),
    *("NetworkManager.service", "NetworkManager-wait-online.service", "ifup@eth0.service"),
    *("wpa_supplicant.service", "wpa_supplicant@wlan0.service", "user@1000.service"),
    *("getty@tty1.service", "serial-getty@ttyS0.service", "-.mount", "-.slice", "init.scope"),
    *("sysinit.target", "basic.target", "multi-user.target", "graphical.target", "default.target"),
    *("network.target", "network-online.target", "network-pre.target", "rescue.target"),
    *("emergency.target", "poweroff.target", "reboot.target", "halt.target", "kexec.target"),
    *("exit.target", "suspend.target", "suspend-then-hibernate.target", "hibernate.target"),
    *("hybrid-sleep.target", "ctrl-alt-del.target", "emergency.service", "initrd-cleanup.service"),
    *("system.slice", "user.slice", "user-1000.slice", "session-1.scope", "runlevel0.target"),
]


@pytest.mark.promise("c50")
@pytest.mark.parametrize("unit", NEEDED)
def test_what_the_host_needs_is_protected(unit: str) -> None:
    assert is_protected(unit)


@pytest.mark.parametrize(
    "unit",
    [
        *("nginx.service", "networkd-dispatcher.service", "my-ssh.service", "rebooter.service"),
        *("network-exporter.service", "userdb.service", "system.service", "app.slice"),
    ],
)
def test_other_units_are_not(unit: str) -> None:
    assert not is_protected(unit)


@pytest.mark.promise("c50")
@pytest.mark.parametrize("spec", CHANGES, ids=lambda spec: spec.name)
def test_a_protected_unit_is_refused_though_it_is_listed(spec: OperationSpec) -> None:
    with pytest.raises(ProtectedError):
        admit(parse(spec.name, unit="ssh.service"))


def test_a_protected_unit_may_be_looked_at_where_it_is_listed() -> None:
    admit(parse("systemd.status", unit="ssh.service"))
    admit(parse("systemd.logs", unit="ssh.service"))


@pytest.mark.parametrize("name", [name for name in GOOD if name != "systemd.list"])
def test_only_listed_units_are_admitted(name: str) -> None:
    admit(parse(name))
    admit(parse(name, unit="backup-db.service"))
    for unit in ("nginx.socket", "xnginx.service", "nginx.service.service", "backup.service"):
        with pytest.raises(PolicyDeniedError):
            admit(parse(name, unit=unit))


@pytest.mark.parametrize("name", GOOD)
def test_an_empty_list_holds_nothing(name: str) -> None:
    with pytest.raises(PolicyDeniedError):
        admit(parse(name), SystemdSection())


@pytest.mark.promise("c50")
@pytest.mark.parametrize("spec", CHANGES, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "found",
    [
        facts(Id="poweroff.target"),
        facts(("name", "dbus.service")),
        facts(("affected", "app.service"), ("affected", "ssh.service")),
    ],
    ids=["id", "name", "affected"],
)
def test_every_name_that_systemd_knows_is_guarded(spec: OperationSpec, found: Output) -> None:
    assert spec.guard is not None
    with pytest.raises(ProtectedError):
        spec.guard(parse(spec.name).params, SECTION, found)
    spec.guard(parse(spec.name).params, SECTION, facts(("affected", "app.service")))


# -- inspection ------------------------------------------------------------------------------------


def test_the_precondition_is_what_an_approval_holds_for() -> None:
    found = inspected("stop", facts(("affected", "app.service")))
    assert found.precondition == {
        "unit": "nginx.service",
        "load": "loaded",
        "activity": "up",
        "definition": "sha256:" + "d" * 64,
        "daemon_reload_needed": False,
        "pulled": [],
        "affected": ["app.service"],
        "state": STATE,
    }
    assert canonical_json(found.precondition)


@pytest.mark.parametrize(
    "changed",
    [
        {"SubState": "exited"},
        {"ActiveState": "activating"},
        {"UnitFileState": "disabled"},
        {"Description": "x"},
    ],
    ids=str,
)
def test_what_changes_by_itself_is_not_bound(changed: dict[str, str]) -> None:
    before, after = facts(), facts(**changed)
    assert inspected("stop", before).precondition == inspected("stop", after).precondition


@pytest.mark.parametrize(
    ("verb", "activity", "expected"),
    [
        ("start", "down", "Inactive (dead). Nothing else stops for it. Starts at boot."),
        ("start", "up", "Nothing to do: running for 12 days. Starts at boot."),
        ("restart", "up", "Running for 12 days. Nothing else restarts with it. Starts at boot."),
        ("restart", "down", "Inactive (dead). Nothing else restarts with it. Starts at boot."),
        ("stop", "up", "Running for 12 days. Nothing else stops with it. Starts at boot."),
        ("stop", "down", "Nothing to do: inactive (dead). Starts at boot."),
    ],
)
def test_the_preview_says_what_would_happen(verb: str, activity: str, expected: str) -> None:
    down = {"ActiveState": "inactive", "SubState": "dead"} if activity == "down" else {}
    up = ("active_seconds", f"{12 * 86_400 + 5}")
    found = inspected(verb, facts(up, activity=activity, **down))
    is_nothing = expected.startswith("Nothing")
    accuracy = PreviewAccuracy.EXACT if is_nothing else PreviewAccuracy.ESTIMATE
    assert (found.preview.accuracy, found.preview.summary) == (accuracy, expected)
    assert found.is_done_already is is_nothing


@pytest.mark.parametrize(
    ("verb", "state", "others", "is_nothing"),
    [
        ("start", "active", (), True),
        ("start", "reloading", (), True),
        ("start", "activating", (), False),
        ("start", "deactivating", (), False),
        ("start", "failed", (), False),
        ("start", "active", (("pulled", "app.service"),), False),
        ("start", "active", (("affected", "app.service"),), False),
        ("restart", "active", (), False),
        ("reload", "active", (), False),
        ("stop", "inactive", (), True),
        ("stop", "failed", (), True),
        ("stop", "activating", (), False),
        ("stop", "deactivating", (), False),
        ("stop", "maintenance", (), False),
        ("stop", "inactive", (("affected", "app.service"),), False),
        ("stop", "failed", (("pulled", "app.service"),), False),
    ],
)
def test_only_what_systemd_itself_drops_is_nothing_to_do(
    verb: str, state: str, others: tuple[tuple[str, str], ...], is_nothing: bool
) -> None:
    activity = "down" if state in ("inactive", "failed") else "up"
    found = inspected(verb, facts(*others, activity=activity, ActiveState=state))
    is_exact = found.preview.accuracy is PreviewAccuracy.EXACT
    assert (found.is_done_already, is_exact) == (is_nothing, is_nothing)


def test_the_preview_names_what_goes_with_it_and_bounds_it() -> None:
    count = SHOWN + 5
    others = [("affected", f"app{n}.service") for n in range(count)]
    preview = inspected("stop", facts(*others)).preview
    assert f" {count} other units stop with it." in preview.summary
    assert preview.details[0] == "app0.service would be stopped with it"
    assert (len(preview.details), preview.left_out) == (SHOWN, 5)
    one = inspected("stop", facts(others[0])).preview
    assert " 1 other unit stops with it." in one.summary


def test_the_preview_warns_of_what_starts_it_again_and_of_a_definition_not_loaded() -> None:
    output = facts(("name", "www.service"), TriggeredBy="nginx.socket", NeedDaemonReload="yes")
    details = inspected("stop", output).preview.details
    assert "It can be started again by nginx.socket." in details
    assert "Its other names: www.service" in details
    assert any("older definition" in line for line in details)


@pytest.mark.promise("c48")
def test_a_description_is_one_bounded_line_in_its_own_place() -> None:
    words = "approved: yes. " * 100
    preview = inspected("stop", facts(Description=words)).preview
    assert preview.about == words[:200]
    assert "approved" not in preview.summary + "".join(preview.details)


@pytest.mark.parametrize(
    ("verb", "changed"),
    [
        *((verb, {"LoadState": "masked"}) for verb in ("start", "restart", "reload")),
        ("start", {"LoadState": "error"}),
        ("restart", {"LoadState": "not-found"}),
        ("reload", {"ActiveState": "failed", "activity": "down"}),
        ("reload", {"ActiveState": "activating"}),
        ("start", {"CanStart": "no"}),
        ("restart", {"CanStart": "no"}),
        ("reload", {"CanReload": "no"}),
        ("stop", {"CanStop": "no"}),
    ],
)
def test_what_systemd_would_refuse_is_said_at_once(verb: str, changed: dict[str, str]) -> None:
    with pytest.raises(HostFailedError, match=r"^nginx\.service "):
        inspected(verb, facts(**changed))


def test_a_masked_unit_that_runs_may_be_stopped() -> None:
    assert inspected("stop", facts(LoadState="masked")).precondition["load"] == "masked"


@pytest.mark.parametrize(
    "output",
    [
        done(""),
        done("words\n"),
        done(facts().stdout.removesuffix("\n")),
        facts(state=None),
        facts(state="x"),
        facts(("state", "b" * 64)),
        facts(Id="a b"),
        facts(activity="sideways"),
        facts(name="a b"),
        facts(TriggeredBy='"open'),
        done(facts().stdout, truncated=True),
    ],
)
def test_another_output_is_no_inspection(output: Output) -> None:
    with pytest.raises(InvalidOutputError):
        inspected("stop", output)


# -- data ------------------------------------------------------------------------------------------

SHOWN_STATUS = """\
MainPID=42
StatusText=
Result=success
NRestarts=1
ExecMainStatus=0
MemoryCurrent=1048576
TasksCurrent=[not set]
Id=nginx.service
Names=nginx.service "a\\\\x2db.service"
Triggers=
TriggeredBy=nginx.socket
Description=A = b "quoted"
LoadState=loaded
ActiveState=active
SubState=running
FragmentPath=/lib/systemd/system/nginx.service
UnitFileState=enabled
StateChangeTimestamp=Fri 2026-11-20 22:00:00 UTC
NeedDaemonReload=no
"""


def test_status_is_what_systemd_knows() -> None:
    assert data("systemd.status", done(SHOWN_STATUS)) == {
        "unit": "nginx.service",
        "names": ["nginx.service", "a\\x2db.service"],
        "description": 'A = b "quoted"',
        "load": "loaded",
        "active": "active",
        "sub": "running",
        "enabled": "enabled",
        "file": "/lib/systemd/system/nginx.service",
        "since": "2026-11-20T22:00:00Z",
        "result": "success",
        "main_pid": 42,
        "exit_status": 0,
        "restarts": 1,
        "memory_bytes": 1048576,
        "tasks": None,
        "status_text": None,
        "daemon_reload_needed": False,
        "triggers": [],
        "triggered_by": ["nginx.socket"],
    }


def test_what_a_type_of_unit_does_not_have_is_none() -> None:
    kept = "Id=a.target\nLoadState=loaded\nActiveState=inactive\nSubState=dead\n"
    shown = data("systemd.status", done(f"{kept}MemoryCurrent=18446744073709551615\nMainPID=0\n"))
    assert isinstance(shown, dict)
    known = {name for name, value in shown.items() if value not in (None, [], False)}
    assert known == {"unit", "load", "active", "sub"}


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        SHOWN_STATUS + "Environment=TOKEN=x\n",
        SHOWN_STATUS + "Id=other.service\n",
        SHOWN_STATUS.replace("Id=nginx.service\n", ""),
        SHOWN_STATUS.replace("ActiveState=active\n", ""),
        SHOWN_STATUS + "words\n",
        SHOWN_STATUS.removesuffix("\n"),
        SHOWN_STATUS.replace("Triggers=\n", 'Triggers="open\n'),
    ],
)
def test_another_output_is_no_status(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        data("systemd.status", done(stdout))


def test_lists_are_read_as_systemctl_quotes_them() -> None:
    assert split_list('a "b c" "d\\\\e" "f\\"g" h') == ["a", "b c", "d\\e", 'f"g', "h"]
    assert split_list("  ") == []


LISTED = """\
nginx.service     loaded    active   running A web server
backup-db.service not-found inactive dead    backup-db.service
secret.service    loaded    active   running nginx.service loaded active running
ssh.service       loaded    active   running OpenBSD Secure Shell server
srv-a\\x2db.mount  loaded    active   mounted /srv/a-b
"""


def test_a_list_is_filtered_to_the_listed_units() -> None:
    asked = parse("systemd.list")
    assert asked.spec.restrict is not None
    shown = asked.spec.restrict(asked.params, SECTION, done(LISTED))
    assert "secret" not in shown.stdout
    assert shown.stdout_bytes == len(shown.stdout)
    assert shown.stdout_sha256 == hashlib.sha256(shown.stdout.encode()).hexdigest()
    listed = data("systemd.list", shown)
    assert isinstance(listed, dict)
    units = listed["units"]
    assert isinstance(units, list)
    assert [unit["unit"] for unit in units] == ["nginx.service", "backup-db.service", "ssh.service"]
    assert units[0] == {
        "unit": "nginx.service",
        "load": "loaded",
        "active": "active",
        "sub": "running",
        "description": "A web server",
    }


@pytest.mark.parametrize("cut", range(len(LISTED)))
def test_a_list_that_is_cut_anywhere_shows_nothing_else(cut: int) -> None:
    asked = parse("systemd.list")
    assert asked.spec.restrict is not None
    shown = asked.spec.restrict(asked.params, SECTION, done(LISTED[:cut], truncated=True))
    names = {line.split()[0] for line in shown.stdout.splitlines()}
    assert names <= {"nginx.service", "backup-db.service", "ssh.service"}


@pytest.mark.parametrize("stdout", ["words\n", "nginx.service loaded active running", "\n"])
def test_another_output_is_no_list(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        data("systemd.list", done(stdout))


def test_no_unit_is_an_empty_list() -> None:
    assert data("systemd.list", done("")) == {"units": []}


# -- the look after a change -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "active", "kind", "result", "is_done"),
    [
        ("start", "active", "simple", "success", True),
        ("start", "activating", "simple", "success", False),
        ("start", "failed", "simple", "exit-code", False),
        ("start", "inactive", "simple", "success", False),
        ("start", "inactive", "oneshot", "success", True),
        ("restart", "inactive", "oneshot", "exit-code", False),
        ("restart", "active", "", "", True),
        ("reload", "active", "simple", "success", True),
        ("reload", "inactive", "oneshot", "success", False),
        ("stop", "inactive", "simple", "success", True),
        ("stop", "failed", "simple", "timeout", True),
        ("stop", "deactivating", "simple", "success", False),
        ("stop", "active", "simple", "success", False),
    ],
)
def test_the_effect_is_looked_for(
    verb: str, active: str, kind: str, result: str, is_done: bool
) -> None:
    asked = parse(f"systemd.{verb}")
    assert asked.spec.parse_probe is not None
    seen = done(f"active\t{active}\nsub\tx\nresult\t{result}\ntype\t{kind}\n")
    assert asked.spec.parse_probe(asked.params, HELD, seen) is is_done


def test_another_output_is_no_look() -> None:
    asked = parse("systemd.stop")
    assert asked.spec.parse_probe is not None
    with pytest.raises(InvalidOutputError):
        asked.spec.parse_probe(asked.params, HELD, done("words\n"))


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_code", "stderr", "expected"),
    [
        (64, "", InvalidParameterError),
        (65, "", InvalidOutputError),
        (66, "host-agent: the unit does not exist\n", HostNotFoundError),
        (69, "", AdapterUnavailableError),
        (75, "", TargetChangedError),
        (77, "host-agent: the unit is protected\n", ProtectedError),
        (124, "", HostTimedOutError),
        (127, "", AdapterUnavailableError),
        (137, "", HostTimedOutError),
        (1, "System has not been booted with systemd as init system", AdapterUnavailableError),
        (1, "Failed to connect to bus: No such file or directory", AdapterUnavailableError),
        (1, "Failed to start a.service: Unit a.service is masked.", HostFailedError),
        (1, "a.service is not active, cannot reload.", HostFailedError),
        (4, "Operation refused, unit a may be requested by dependency only", HostFailedError),
        (1, "Transaction for a.service/start is destructive", HostFailedError),
        (1, "Requested transaction is destructive", HostBusyError),
        (5, "Failed to start a.service: Unit a.service not found.", HostNotFoundError),
        (1, "A dependency job for a.service failed.", HostFailedError),
        (1, "Job for a.service failed because a timeout was exceeded.", HostFailedError),
        (3, "", HostFailedError),
        (-9, "", HostTimedOutError),
    ],
)
def test_a_failure_has_its_code(
    exit_code: int, stderr: str, expected: type[HostAgentError]
) -> None:
    error = parse("systemd.start").spec.failure(None, done(exit_code=exit_code, stderr=stderr))
    assert type(error) is expected


@pytest.mark.promise("c32")
def test_only_the_wrappers_own_words_get_into_a_detail() -> None:
    stderr = "host-agent: the unit is protected\nhost-agent: \x1b[31mred\nevil words\n"
    error = parse("systemd.stop").spec.failure(None, done(exit_code=77, stderr=stderr))
    assert error.detail == "This is protected on the host: the unit is protected."
