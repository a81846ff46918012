"""The exec wrapper unmodified, as root, with programs and a list of its own in a namespace."""

import json
import re
from collections.abc import Iterator

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostFailedError,
    HostNotFoundError,
    PolicyDeniedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import Operation, PreviewAccuracy
from host_agent.operations.exec.adapter import commands_file
from host_agent.operations.exec.section import ExecSection
from tests.support.pct_host import PLACE, PctHost, can_run, operation

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_run(), reason="needs root and util-linux, for namespaces"),
]
PROGRAM = "/run/tools/report"
SCRIPT = """#!/bin/bash
printf '%s\\n' "$0" "$#" "$@" >/run/ran
env -0 >/run/environment
printf 'done %s\\n' "$*"
[[ ${1-} != fail ]] || exit 77
"""


def section(digest: str, **changed: JsonValue) -> ExecSection:
    command = {
        "name": "report",
        "path": PROGRAM,
        "sha256": f"sha256:{digest}",
        "effect": "change",
        "arguments": [
            {"name": "kind", "pattern": "daily|weekly|fail"},
            {"name": "target", "pattern": r"[a-z0-9.-]+\.example"},
        ],
        **changed,
    }
    return ExecSection.model_validate_json(json.dumps({"commands": [command]}))


@pytest.fixture
def host() -> Iterator[PctHost]:
    with PctHost() as running:
        digest = running.install(PROGRAM, SCRIPT)
        running.register(commands_file(section(digest)))
        yield running


def asked(kind: str = "daily", target: str = "a.example") -> Operation:
    return operation("exec.run", name="report", arguments={"target": target, "kind": kind})


def has_run(host: PctHost) -> bool:
    return host.run("/usr/bin/test", "-e", "/run/ran").exit_code == 0


def test_a_registered_program_runs_with_its_arguments_in_the_order_of_the_list(
    host: PctHost,
) -> None:
    found = host.inspect(asked())
    assert found.precondition["path"] == PROGRAM
    assert found.preview.accuracy is PreviewAccuracy.NONE
    assert found.preview.details == ("Its arguments: daily a.example",)
    assert not has_run(host)
    output = host.perform(asked(), found.precondition)
    assert (output.exit_code, output.stdout) == (0, "done daily a.example\n")
    told = host.must("/bin/cat", "/run/ran").splitlines()
    assert told == ["/proc/self/fd/9", "2", "daily", "a.example"]


def test_a_binary_runs_as_well_as_a_script(host: PctHost) -> None:
    host.must("/bin/cp", "/bin/echo", "/run/tools/say")
    digest = host.must("/usr/bin/sha256sum", "/run/tools/say").split()[0]
    host.register(f"say {digest} change /run/tools/say word=[a-z]+\n")
    output = host.perform(operation("exec.run", name="say", arguments={"word": "hello"}))
    assert (output.exit_code, output.stdout) == (0, "hello\n")


def test_a_command_without_arguments_runs(host: PctHost) -> None:
    digest = host.install("/run/tools/plain", "#!/bin/sh\necho plain\n")
    host.register(f"# a comment\n\nplain {digest} destroy /run/tools/plain")
    output = host.perform(operation("exec.run", name="plain"))
    assert output.stdout == "plain\n"


def test_the_exit_status_of_the_command_is_its_own(host: PctHost) -> None:
    """Also where it is one that the wrapper has a meaning for."""
    output = host.perform(asked(kind="fail"))
    assert output.exit_code == 77
    assert isinstance(asked().spec.failure(asked().params, output), HostFailedError)


@pytest.mark.promise("c50")
def test_the_environment_does_not_reach_the_command(host: PctHost) -> None:
    digest = host.install("/run/tools/plain", SCRIPT)
    host.register(f"plain {digest} change /run/tools/plain\n")
    hostile = {"BASH_ENV": "/run/evil", "LD_PRELOAD": "/run/evil.so", "IFS": "r", "SUDO_UID": "0"}
    output = host.wrapper("exec-run", "run", "plain", digest, environment=hostile)
    assert output.exit_code == 0
    names = {
        entry.partition("=")[0]
        for entry in host.must("/bin/cat", "/run/environment").split("\0")
        if entry
    }
    assert names <= {"LC_ALL", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}


# -- refusals --------------------------------------------------------------------------------------


def refused(host: PctHost, error: type[HostAgentError], what: Operation | None = None) -> str:
    wanted = what or asked()
    with pytest.raises(error) as raised:
        host.inspect(wanted)
    digest = re.search(r"[0-9a-f]{64}", host.run("/bin/cat", f"{PLACE}/commands").stdout)
    held: dict[str, JsonValue] = {"sha256": digest[0] if digest else "a" * 64}
    output = host.perform(wanted, held)
    assert isinstance(wanted.spec.failure(wanted.params, output), error)
    assert not has_run(host)
    return raised.value.detail


def test_an_unregistered_command_does_not_run(host: PctHost) -> None:
    refused(host, PolicyDeniedError, operation("exec.run", name="other"))
    host.register("", also=["other"])  # allowed, and not registered
    refused(host, HostNotFoundError, operation("exec.run", name="other"))


@pytest.mark.promise("c35")
@pytest.mark.parametrize(
    "damage",
    [
        f"echo >>{PROGRAM}",
        f"chmod 0775 {PROGRAM}",
        f"chmod 0757 {PROGRAM}",
        f"chmod 0644 {PROGRAM}",
        f"chown 65534 {PROGRAM}",
        "chmod 0777 /run/tools",
        "chmod 1777 /run/tools",
        "chown 65534 /run/tools",
        f"mv {PROGRAM} /run/elsewhere; ln -s /run/elsewhere {PROGRAM}",
        "mv /run/tools /run/elsewhere; ln -s /run/elsewhere /run/tools",
        f"chmod 0666 {PLACE}/commands",
        f"chmod 0620 {PLACE}/commands",
        f"chown 65534 {PLACE}/commands",
        f"rm {PLACE}/commands",
        f"mv {PLACE}/commands /run/list; ln -s /run/list {PLACE}/commands",
        f"cat {PLACE}/commands {PLACE}/commands >/run/list; cp /run/list {PLACE}/commands",
        f"sed -i s/change/read/ {PLACE}/commands",
        f"sed -i s,{PROGRAM},/run/tools/../tools/report, {PLACE}/commands",
        f"sed -i 's,=daily,=(daily,' {PLACE}/commands",
    ],
)
def test_what_is_not_as_it_was_registered_does_not_run(host: PctHost, damage: str) -> None:
    host.must("/bin/bash", "-c", damage)
    refused(host, PolicyDeniedError)


def test_a_program_that_is_gone_is_not_found(host: PctHost) -> None:
    host.must("/bin/rm", PROGRAM)
    refused(host, HostNotFoundError)


@pytest.mark.promise("c27")
def test_another_program_registered_by_the_same_name_does_not_run(host: PctHost) -> None:
    found = host.inspect(asked())
    digest = host.install(PROGRAM, f"{SCRIPT}# newer\n")
    host.register(commands_file(section(digest)))
    output = host.perform(asked(), found.precondition)
    assert output.exit_code == 75
    assert isinstance(asked().spec.failure(asked().params, output), TargetChangedError)
    assert not has_run(host)


HOSTILE_VALUES = (
    *("", "-x", "--output=/etc/passwd", "daily weekly", "daily\n", "daily\nfail", "$(id)", "a;b"),
    *("`id`", "dailyx", "xdaily", "{daily,weekly}", "*", "~", "a[$(touch /run/ran)]", "d\u0430ily"),
)


@pytest.mark.promise("c20", "c21")
def test_hostile_values_are_refused_before_the_program_starts(host: PctHost) -> None:
    digest = str(host.inspect(asked()).precondition["sha256"]).removeprefix("sha256:")
    for value in HOSTILE_VALUES:
        for verb in (("inspect", "report"), ("run", "report", digest)):
            output = host.wrapper("exec-run", *verb, f"kind={value}", "target=a.example")
            assert (output.exit_code, output.stdout) == (64, ""), value
    assert not has_run(host)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("inspect",),
        ("inspect", "Report"),
        ("inspect", "../report"),
        ("inspect", "report"),
        ("inspect", "report", "kind=daily"),
        ("inspect", "report", "kind=daily", "kind=daily", "target=a.example"),
        ("inspect", "report", "kind=daily", "target=a.example", "more=x"),
        ("inspect", "report", "daily", "a.example"),
        ("run", "report"),
        ("run", "report", "kind=daily", "target=a.example"),
        ("run", "report", "A" * 64, "kind=daily", "target=a.example"),
        ("start", "report"),
        ("inspect", "report", "kind=" + "a" * 257, "target=a.example"),
        ("inspect", "report", "a[$(touch /run/ran)]=daily", "target=a.example"),
    ],
)
def test_arguments_of_another_form_are_refused(host: PctHost, arguments: tuple[str, ...]) -> None:
    output = host.wrapper("exec-run", *arguments)
    assert (output.exit_code, output.stdout) == (64, "")
    assert not has_run(host)


@pytest.mark.promise("c36", "c39")
def test_a_command_runs_in_a_scope_with_limits_where_systemd_runs(host: PctHost) -> None:
    recorder = (
        '#!/bin/bash\nprintf "%s\\n" "$@" >/run/scope\nwhile [[ $1 != -- ]]; do shift; done\n'
    )
    host.write("/run/systemd-run", f'{recorder}shift\nexec "$@"\n', "0755")
    host.must("/bin/mkdir", "-p", "/run/systemd/system")
    host.must("/bin/mount", "--bind", "/run/systemd-run", "/usr/bin/systemd-run")
    assert host.perform(asked()).stdout == "done daily a.example\n"
    told = host.must("/bin/cat", "/run/scope").split()
    assert {"--scope", "RuntimeMaxSec=1800", "TasksMax=256", "MemoryMax=2G"} <= set(told)
    assert told[-3:] == ["/proc/self/fd/9", "daily", "a.example"]
