"""apt's declaration: names, allow-lists, protections, and what the wrappers' output means."""

import re

import pytest

from host_agent.errors import (
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.apt.adapter import ADAPTER, PROTECTED, SPECS
from host_agent.operations.apt.section import AptSection
from host_agent.operations.catalogue import Catalogue, Effect, Operation, Output
from tests.support.packaged import ROOT

CATALOGUE = Catalogue((ADAPTER,))
SECTION = AptSection(packages=("web.*", "host-agent"), protected=("libc6", "web-vault"))
DIGEST = "a" * 64
INSPECTED = (
    "change\tlibweb all - 1.0\n"
    "change\tweb amd64 1.0 1:1.1~rc1-1\n"
    "unit\tweb.service\n"
    "from\t1.0\n"
    "to\t1:1.1~rc1-1\n"
    "bytes\t4096\n"
    f"transaction\t{DIGEST}\n"
)


def parse(verb: str, package: str = "web") -> Operation:
    return CATALOGUE.parse(f"apt.{verb}", {"package": package})


def output(stdout: str = "", *, code: int = 0, stderr: str = "") -> Output:
    return Output(exit_code=code, stdout=stdout, stderr=stderr)


def test_effects_are_those_of_the_contract() -> None:
    assert {spec.name: spec.effect for spec in SPECS} == {
        "apt.list": Effect.READ,
        "apt.show": Effect.READ,
        "apt.install": Effect.CHANGE,
        "apt.upgrade": Effect.CHANGE,
    }


@pytest.mark.parametrize("name", ["web", "g++", "libstdc++6", "0ad", "lib2.0-0", "a1"])
def test_a_package_name_is_taken_as_it_is(name: str) -> None:
    asked = parse("install", name)
    assert asked.resource == name
    assert asked.spec.invoke(asked.params, {"transaction": f"sha256:{DIGEST}"}).arguments == (
        name,
        DIGEST,
    )


@pytest.mark.parametrize(
    "name",
    [
        *("", "a", "-web", "--yes", "web-", "web.", "web/stable", "web=1.0", "web:amd64", "web^"),
        *("web*", "?name(web)", "~nweb", "./web.deb", "/root/web.deb", "web lib", "web\n", "Web"),
        *("w\u0435b", "web_x", "a" * 129),
    ],
)
def test_what_apt_reads_as_more_than_a_name_is_refused(name: str) -> None:
    for verb in ("install", "upgrade", "show"):
        with pytest.raises(InvalidParameterError, match="package"):
            parse(verb, name)


def test_only_what_is_listed_may_be_asked_for() -> None:
    for verb in ("show", "install", "upgrade"):
        asked = parse(verb, "web-server")
        asked.spec.admit(asked.params, SECTION)
        other = parse(verb, "sudo")
        with pytest.raises(PolicyDeniedError):
            other.spec.admit(other.params, SECTION)
        with pytest.raises(PolicyDeniedError):
            asked.spec.admit(asked.params, AptSection())


@pytest.mark.parametrize("name", ["host-agent", "web-vault"])
def test_what_is_protected_may_be_looked_at_and_not_changed(name: str) -> None:
    for verb in ("install", "upgrade"):
        asked = parse(verb, name)
        with pytest.raises(ProtectedError):
            asked.spec.admit(asked.params, SECTION)
    shown = parse("show", name)
    shown.spec.admit(shown.params, SECTION)


def test_the_wrapper_protects_the_same() -> None:
    text = (ROOT / "wrappers" / "apt-inspect").read_text()
    found = re.search(r"^protected=\((.*)\)$", text, re.MULTILINE)
    assert found is not None
    assert tuple(re.findall(r"'([^']*)'", found[1])) == PROTECTED


def test_a_protected_package_is_not_changed_along() -> None:
    asked = parse("upgrade")
    assert asked.spec.guard is not None
    asked.spec.guard(asked.params, SECTION, output(INSPECTED))
    along = INSPECTED.replace("libweb all - 1.0", "libc6 amd64 2.36 2.37")
    with pytest.raises(ProtectedError, match="libc6"):
        asked.spec.guard(asked.params, SECTION, output(along))


def test_a_change_is_bound_to_the_transaction_and_shows_all_of_it() -> None:
    asked = parse("upgrade")
    assert asked.spec.parse_inspection is not None
    found = asked.spec.parse_inspection(asked.params, output(INSPECTED))
    assert found.precondition == {
        "from": "1.0",
        "to": "1:1.1~rc1-1",
        "transaction": f"sha256:{DIGEST}",
    }
    assert found.preview.as_json() == {
        "accuracy": "exact",
        "summary": "Upgrades it from 1.0 to 1:1.1~rc1-1; 1 other comes; nothing is removed.",
        "details": [
            "Its scripts may restart what runs: web.service",
            "Changed configuration files stay as they are.",
            "libweb 1.0 comes",
            "web 1.0 -> 1:1.1~rc1-1",
        ],
        "left_out": 0,
        "undo": "none from here",
        "about": None,
    }


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        INSPECTED.rstrip("\n"),
        INSPECTED.replace("to\t", "too\t"),
        INSPECTED.replace("change\tweb", "change\tWeb"),
        INSPECTED.replace(DIGEST, "A" * 64),
        INSPECTED + "to\t2\n",
        INSPECTED + "unit\tweb.service; id\n",
        "".join(line for line in INSPECTED.splitlines(keepends=True) if line[:6] != "change"),
    ],
)
def test_an_inspection_of_another_form_is_none(stdout: str) -> None:
    asked = parse("upgrade")
    assert asked.spec.parse_inspection is not None
    with pytest.raises(InvalidOutputError):
        asked.spec.parse_inspection(asked.params, output(stdout))


@pytest.mark.parametrize(
    ("stdout", "is_done"),
    [
        ("status\tinstalled\nversion\t2\n", True),
        ("status\tinstalled\nversion\t1\n", False),
        ("status\thalf-configured\nversion\t2\n", False),
        ("status\tinstalled\nversion\t2\nbroken\tlibweb half-configured\n", False),
        ("status\tnot-installed\nversion\t\n", False),
    ],
)
def test_it_is_done_where_dpkg_has_all_of_it(stdout: str, *, is_done: bool) -> None:
    asked = parse("upgrade")
    assert asked.spec.parse_probe is not None
    assert asked.spec.parse_probe(asked.params, {"to": "2"}, output(stdout)) is is_done


def test_a_list_shows_what_is_listed() -> None:
    asked = CATALOGUE.parse("apt.list", {})
    said = output("sudo\tamd64\t1.9\t1.9\tinstall\nweb\tall\t1.0\t(none)\thold\n")
    assert asked.spec.restrict is not None
    assert asked.spec.parse is not None
    kept = asked.spec.restrict(asked.params, SECTION, said)
    assert asked.spec.parse(asked.params, kept) == {
        "packages": [
            {
                "package": "web",
                "architecture": "all",
                "installed": "1.0",
                "candidate": None,
                "held": True,
            }
        ]
    }


def test_a_package_is_shown_with_null_for_what_it_has_not() -> None:
    asked = parse("show")
    said = output(
        "candidate\t2.0\nwant\t\nsource\tfile:/srv ./ Packages\nInstalled-Size\t3\n"
        "Description\tA server\n"
    )
    assert asked.spec.parse is not None
    data = asked.spec.parse(asked.params, said)
    assert isinstance(data, dict)
    assert {name: value for name, value in data.items() if value is not None} == {
        "package": "web",
        "candidate": "2.0",
        "held": False,
        "sources": ["file:/srv ./ Packages"],
        "installed_bytes": 3072,
        "description": "A server",
    }
    with pytest.raises(InvalidOutputError):
        asked.spec.parse(asked.params, output("candidate 2.0\n"))


@pytest.mark.parametrize(
    ("code", "stderr", "error"),
    [
        (66, "host-agent: no source has it\n", HostNotFoundError),
        (70, "host-agent: left unfinished: web is half-configured\n", HostFailedError),
        (75, "", TargetChangedError),
        (77, "", ProtectedError),
        (100, "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held", HostBusyError),
        (100, "E: Sub-process /w/apt-inspect returned an error code (75)", TargetChangedError),
        (100, "E: Sub-process /usr/bin/dpkg returned an error code (1)", HostFailedError),
        (100, "E: There were unauthenticated packages and -y was used", HostFailedError),
        (100, "something new", HostFailedError),
    ],
)
def test_an_exit_status_is_one_error(code: int, stderr: str, error: type[HostAgentError]) -> None:
    asked = parse("install")
    assert type(asked.spec.failure(asked.params, output(code=code, stderr=stderr))) is error


def test_one_transaction_runs_at_a_time() -> None:
    assert parse("install", "web").turn == parse("upgrade", "other").turn
