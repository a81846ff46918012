"""The exec adapter's declaration, its section, and its pure functions; nothing is run here."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from host_agent import operations
from host_agent.canonical import JsonValue, canonical_json
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import (
    Catalogue,
    Effect,
    Inspection,
    Operation,
    Output,
    PreviewAccuracy,
    RunAs,
)
from host_agent.operations.exec.adapter import ADAPTER, SPECS, commands_file
from host_agent.operations.exec.section import ExecSection

CATALOGUE = Catalogue((ADAPTER,))
SPEC = CATALOGUE.spec("exec.run")
HASH = "a" * 64
ARGUMENTS: dict[str, JsonValue] = {"kind": "daily", "target": "b.example"}
COMMAND: dict[str, Any] = {
    "name": "report",
    "path": "/opt/tools/report",
    "sha256": f"sha256:{HASH}",
    "effect": "change",
    "arguments": [
        {"name": "target", "pattern": r"[a-z]+\.example"},
        {"name": "kind", "pattern": "daily|weekly"},
    ],
}


def section(*commands: dict[str, Any]) -> ExecSection:
    context = {"adapters_programs": operations.CATALOGUE.programs}
    return ExecSection.model_validate_json(json.dumps({"commands": commands}), context=context)


def asked(name: str = "report", /, **arguments: JsonValue) -> Operation:
    return CATALOGUE.parse("exec.run", {"name": name, "arguments": arguments or dict(ARGUMENTS)})


def done(stdout: str = "", *, exit_code: int = 0, stderr: str = "") -> Output:
    return Output(
        exit_code=exit_code, stdout=stdout, stderr=stderr, stdout_bytes=len(stdout.encode())
    )


def inspected(stdout: str) -> Inspection:
    assert SPEC.parse_inspection is not None
    return SPEC.parse_inspection(asked().params, done(stdout))


FACTS = f"sha256\t{HASH}\neffect\tchange\npath\t/opt/tools/report\n"


def test_it_counts_as_destroy_and_runs_as_root() -> None:
    assert [spec.name for spec in SPECS] == ["exec.run"]
    assert SPEC.effect is Effect.DESTROY
    assert SPEC.invoke(asked().params, {"sha256": f"sha256:{HASH}"}).run_as is RunAs.ROOT
    assert SPEC.invoke(asked().params, {"sha256": f"sha256:{HASH}"}).arguments == (
        *("run", "report", HASH, "kind=daily", "target=b.example"),
    )
    assert asked().resource == "report"
    assert SPEC.probe is None


def test_the_order_of_the_arguments_makes_no_other_operation() -> None:
    one, other = asked(kind="daily", target="x"), asked(target="x", kind="daily")
    assert canonical_json(one.params.canonical()) == canonical_json(other.params.canonical())
    assert SPEC.inspect is not None
    assert SPEC.inspect(one.params) == SPEC.inspect(other.params)


def test_arguments_may_be_left_out() -> None:
    operation = CATALOGUE.parse("exec.run", {"name": "report"})
    assert operation.params.canonical() == {"name": "report", "arguments": {}}


@pytest.mark.promise("c20", "c30")
@pytest.mark.parametrize(
    "params",
    [
        *({"name": name} for name in ("", "-x", "Report", "a/b", "../a", "a b", "a\n", "\u0430")),
        *({"name": "a" * 65, "arguments": {}}, {"name": "report", "arguments": ["daily"]}),
        *({"name": "report", "arguments": {name: "x"}} for name in ("", "-a", "A", "a-b", "a=b")),
        *({"name": "report", "arguments": {"a": value}} for value in ("", "-x", "a b", "a\n")),
        *({"name": "report", "arguments": {"a": value}} for value in ("\u0430", "\x00", "a" * 257)),
        *({"name": "report", "arguments": {"a": value}} for value in (1, True, None, ["x"])),
        {"name": "report", "arguments": {f"a{n}": "x" for n in range(33)}},
        {"name": "report", "path": "/bin/sh"},
        {"arguments": {}},
    ],
)
def test_what_is_no_command_or_argument_is_refused(params: dict[str, JsonValue]) -> None:
    with pytest.raises(InvalidParameterError):
        CATALOGUE.parse("exec.run", params)


# -- what is registered ----------------------------------------------------------------------------


def test_a_registered_command_with_its_arguments_is_admitted() -> None:
    SPEC.admit(asked().params, section(COMMAND))


@pytest.mark.parametrize("registered", [(), ({**COMMAND, "name": "other"},)])
def test_an_unregistered_command_is_denied(registered: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(PolicyDeniedError):
        SPEC.admit(asked().params, section(*registered))


@pytest.mark.promise("c21")
@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "daily"},
        {"kind": "daily", "target": "b.example", "more": "x"},
        {"kind": "dailyx", "target": "b.example"},
        {"kind": "daily", "target": "bxexample"},
        {"kind": "daily", "target": "$(id).example"},
    ],
)
def test_arguments_that_are_not_its_own_are_refused(arguments: dict[str, JsonValue]) -> None:
    with pytest.raises(InvalidParameterError) as raised:
        SPEC.admit(asked(**arguments).params, section(COMMAND))
    assert "$(id)" not in raised.value.detail


def test_the_list_of_root_has_a_line_for_each_command() -> None:
    plain = {"name": "plain", "path": "/opt/plain", "sha256": f"sha256:{HASH}"}
    assert commands_file(section(COMMAND, plain)).splitlines()[1:] == [
        rf"report {HASH} change /opt/tools/report target=[a-z]+\.example kind=daily|weekly",
        f"plain {HASH} destroy /opt/plain",
    ]
    assert commands_file(None).count("\n") == 1


@pytest.mark.promise("c50")
@pytest.mark.parametrize(
    "path",
    [
        *("/bin/sh", "/usr/bin/bash", "/usr/bin/python3", "/usr/bin/python3.11", "/usr/bin/perl"),
        *("/usr/sbin/zfs", "/sbin/zpool", "/usr/sbin/pct", "/usr/sbin/qm", "/bin/systemctl"),
        *("/usr/bin/env", "/usr/bin/sudo", "/usr/bin/find", "/usr/bin/vim.tiny", "/usr/bin/less"),
        *("/bin/tar", "/usr/bin/rsync", "/usr/bin/git", "/usr/bin/apt-get", "/usr/bin/docker"),
        *("/bin/busybox", "/lib64/ld-linux-x86-64.so.2", "/usr/bin/awk", "/usr/bin/nsenter"),
        *("/sbin/mkfs.ext4", "/bin/nc.openbsd", "/sbin/reboot", "/usr/bin/xargs", "/bin/PYTHON3"),
    ],
)
def test_what_runs_or_writes_anything_is_not_registered(path: str) -> None:
    with pytest.raises(ValidationError, match="does one thing"):
        section({**COMMAND, "path": path})


@pytest.mark.parametrize(
    "path", ["/opt/tools/report", "/usr/local/sbin/backup-db", "/opt/install.sh", "/opt/time.py"]
)
def test_a_program_of_the_administrators_own_is(path: str) -> None:
    assert section({**COMMAND, "path": path}).commands[0].path == path


@pytest.mark.parametrize(
    "changed",
    [
        *({"path": path} for path in ("report", "/opt/../bin/x", "/opt//x", "/opt/x/", "/a b")),
        *({"path": path} for path in ("/", "", "/opt/x\n", "/opt/\u0430", "/o=p")),
        *({"sha256": text} for text in (HASH, f"sha256:{HASH[1:]}", "sha256:" + "A" * 64)),
        *({"name": name} for name in ("", "A", "a b", "a.b", "1a", "a\n")),
        *({"effect": effect} for effect in ("read", "", None)),
        {"arguments": [{"name": "a", "pattern": "x"}, {"name": "a", "pattern": "y"}]},
        *({"arguments": [{"name": "a", "pattern": text}]} for text in ("(", "a b", r"\d", "a{2}")),
        *({"arguments": [{"name": text, "pattern": "x"}]} for text in ("A", "a-b", "", "a=b")),
        {"arguments": {"a": "x"}},
        {"shell": True},
    ],
)
def test_a_command_of_another_form_is_a_fault(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section({**COMMAND, **changed})


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValidationError, match="names report twice"):
        section(COMMAND, {**COMMAND, "path": "/opt/other"})


# -- inspection and failures -----------------------------------------------------------------------


def test_program_and_hash_are_the_precondition() -> None:
    found = inspected(f"{FACTS}argument\tb.example\nargument\tdaily\n")
    assert found.precondition == {"path": "/opt/tools/report", "sha256": f"sha256:{HASH}"}
    assert found.preview.accuracy is PreviewAccuracy.NONE
    assert found.preview.details == ("Its arguments: b.example daily",)
    assert found.preview.summary == (
        f"Runs /opt/tools/report as registered ({HASH[:8]}): changes, does not destroy. What it"
        " does is not known to the agent."
    )
    assert found.preview.undo == "not known"


@pytest.mark.parametrize(
    "stdout",
    [
        *("", FACTS, f"{FACTS}argument\tb.example\n", f"{FACTS}argument\tx\nargument\tdaily\n"),
        f"{FACTS}{FACTS}argument\tb.example\nargument\tdaily\n",
        f"{FACTS}more\tx\nargument\tb.example\nargument\tdaily\n",
    ],
)
def test_another_inspection_is_not_understood(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        inspected(stdout)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (done(exit_code=64, stderr="host-agent: no\n"), InvalidParameterError),
        (done(exit_code=66, stderr="host-agent: no\n"), HostNotFoundError),
        (done(exit_code=75, stderr="host-agent: no\n"), TargetChangedError),
        (done(exit_code=77, stderr="host-agent: no\n"), PolicyDeniedError),
        (done(exit_code=77, stderr="no\n"), HostFailedError),
        (done(exit_code=77, stderr="x\nhost-agent: no\n"), HostFailedError),
        (done("out", exit_code=77, stderr="host-agent: no\n"), HostFailedError),
        (done(exit_code=1), HostFailedError),
        (done(exit_code=124), HostTimedOutError),
        (done(exit_code=126), AdapterUnavailableError),
    ],
)
def test_the_wrapper_and_the_command_are_told_apart(
    output: Output, error: type[HostAgentError]
) -> None:
    assert type(SPEC.failure(asked().params, output)) is error
