"""The audit of sudoers with the real cvtsudoers: every risky fragment is found, no safe one is."""

import json
import os
import shutil
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.execution.runner import TOOLS, ToolRunner
from host_agent.sudoers.audit import SUDOERS, Auditor
from host_agent.sudoers.reading import DiskSource
from host_agent.sudoers.values import AuditReport, Severity
from tests.support.sudoers_cases import AUDIENCE, NOW, OWN, RISKY, SAFE, FakeHost, FakeSource

pytestmark = pytest.mark.skipif(
    not os.access(TOOLS["cvtsudoers"], os.X_OK), reason="needs cvtsudoers (Debian: sudo)"
)
LIBRARY = "/etc/sudoers.d"


async def audit(files: dict[str, str | None], **faults: str) -> AuditReport:
    auditor = Auditor(tool=ToolRunner(), host=FakeHost(), audience=AUDIENCE)
    return await auditor.audit(FakeSource(files, faults), now=NOW)


async def audit_text(text: str) -> AuditReport:
    return await audit({SUDOERS: text})


def test_the_tables_are_as_large_as_promised() -> None:
    assert len(RISKY) >= 60
    assert len(SAFE) >= 20
    assert len({text for text, _rule in RISKY.values()}) == len(RISKY)
    assert len(set(SAFE.values())) == len(SAFE)


@pytest.mark.parametrize("name", RISKY)
async def test_a_risky_fragment_is_found(name: str) -> None:
    text, rule = RISKY[name]

    found = await audit_text(text)

    assert rule in {finding.rule for finding in found.findings}
    assert found.scan_ok
    for finding in found.findings:
        assert finding.origin.file == SUDOERS
        assert 1 <= finding.origin.line <= text.count("\n")
        assert finding.reason.endswith(".")
        assert finding.remedy.endswith(".")


@pytest.mark.parametrize("name", RISKY)
async def test_a_risky_line_is_found_among_safe_ones_and_none_of_those_is(name: str) -> None:
    text, rule = RISKY[name]
    before = "root ALL=(ALL:ALL) ALL\n# a comment \\\n\n" + OWN

    found = await audit_text(before + text)

    first = before.count("\n") + 1
    assert rule in {finding.rule for finding in found.findings}
    assert min(finding.origin.line for finding in found.findings) >= first


@pytest.mark.parametrize("name", SAFE)
async def test_a_safe_fragment_is_passed_over(name: str) -> None:
    found = await audit_text(SAFE[name])

    assert found.findings == ()
    assert found.scan_ok


async def test_the_worst_comes_first() -> None:
    found = await audit_text("".join(text for text, _rule in RISKY.values() if "Alias" not in text))

    ranks = [finding.severity.rank for finding in found.findings]
    assert ranks == sorted(ranks)
    assert found.findings[0].severity is Severity.CRITICAL


async def test_every_include_is_followed_and_told_by_its_own_line() -> None:
    found = await audit(
        {
            SUDOERS: '@includedir /etc/sudoers.d\n@include more\n#include "/srv/odd name"\n',
            f"{LIBRARY}/a": "\nhost-agent ALL=(root) /bin/sh\n",
            f"{LIBRARY}/b": "#includedir /etc/nested/\n",
            f"{LIBRARY}/c.conf": "host-agent ALL=(root) /bin/dash\n",
            f"{LIBRARY}/d~": "host-agent ALL=(root) /bin/dash\n",
            "/etc/nested/x": "host-agent ALL=(root) /bin/zsh",
            "/etc/more": "# nothing\n\n\nhost-agent ALL=(root) /bin/ksh\n@include %h.sudoers\n",
            "/etc/box.sudoers": "host-agent ALL=(root) /bin/csh\n",
            "/srv/odd name": "host-agent ALL=(root) /bin/fish\n",
        }
    )

    places = {(f.origin.file, f.origin.line) for f in found.findings if f.rule == "shell"}
    assert places == {
        (f"{LIBRARY}/a", 2),
        ("/etc/nested/x", 1),
        ("/etc/more", 4),
        ("/etc/box.sudoers", 1),
        ("/srv/odd name", 1),
    }
    assert found.scan_ok


async def test_an_unreadable_file_is_unknown_and_the_rest_is_judged() -> None:
    found = await audit(
        {
            SUDOERS: "@includedir /etc/sudoers.d\nhost-agent ALL=(root) /bin/sh\n",
            f"{LIBRARY}/secret": None,
        }
    )

    assert not found.scan_ok
    assert {(f.rule, f.origin.file) for f in found.findings} >= {
        ("unknown", f"{LIBRARY}/secret"),
        ("shell", SUDOERS),
    }


@pytest.mark.parametrize(
    "files",
    [
        {},
        {SUDOERS: None},
        {SUDOERS: "@include /etc/gone\n"},
        {SUDOERS: "@include /etc/sudoers\n"},
        {SUDOERS: "host-agent ALL=\n"},
        {SUDOERS: 'host-agent ALL=(root) "\n'},
        {SUDOERS: "host-agent ALL=/bin/true\\"},
        {SUDOERS: "@include /etc/other trailing words\n", "/etc/other": ""},
    ],
)
async def test_what_cannot_be_read_or_parsed_is_unknown_never_zero(
    files: dict[str, str | None],
) -> None:
    found = await audit(files)

    assert not found.scan_ok
    assert found.findings


async def test_a_syntax_error_is_told_by_its_line_and_hides_nothing() -> None:
    found = await audit_text("alice ALL=(root) /bin/ls\nthis is broken\nhost-agent ALL=/bin/sh\n")

    assert [(f.rule, f.origin.line) for f in found.findings if f.rule == "unknown"] == [
        ("unknown", 2)
    ]
    assert ("shell", 3) in {(f.rule, f.origin.line) for f in found.findings}


async def test_a_file_that_sudo_refuses_is_told_and_its_entries_are_not() -> None:
    path = f"{LIBRARY}/loose"
    source = FakeSource(
        {SUDOERS: "@includedir /etc/sudoers.d\n", path: "host-agent ALL=(root) /bin/sh\n"},
        {path: "is writable by everybody"},
    )
    auditor = Auditor(tool=ToolRunner(), host=FakeHost(), audience=AUDIENCE)

    found = await auditor.audit(source, now=NOW)

    assert [finding.rule for finding in found.findings] == ["insecure-sudoers"]


async def test_rights_from_elsewhere_make_the_report_unknown() -> None:
    auditor = Auditor(tool=ToolRunner(), host=FakeHost(), audience=AUDIENCE)

    found = await auditor.audit(FakeSource({SUDOERS: OWN}), now=NOW, doubts=("sudo asks ldap too",))

    assert not found.scan_ok


async def test_an_entry_cannot_pass_for_a_marker_or_another_line() -> None:
    text = "line.0.0 ALL=/bin/true\nDefaults:line.0.0 !lecture\nhost-agent ALL=(root) /bin/sh\n"

    found = await audit_text(text)

    assert {finding.origin.line for finding in found.findings} == {3}


@pytest.mark.promise("c35")
async def test_a_replaceable_wrapper_and_an_extra_sudoers_file_are_found() -> None:
    tool, files = ToolRunner(), {SUDOERS: "@includedir /etc/sudoers.d\n", f"{LIBRARY}/agent": OWN}
    clean = await Auditor(tool=tool, host=FakeHost(), audience=AUDIENCE).audit(
        FakeSource(files), now=NOW
    )
    loose = await Auditor(
        tool=tool, host=FakeHost(writable=("/usr/local/lib",)), audience=AUDIENCE
    ).audit(FakeSource(files), now=NOW)
    drifted = await Auditor(tool=tool, host=FakeHost(), audience=AUDIENCE).audit(
        FakeSource({**files, f"{LIBRARY}/zz-extra": "host-agent ALL=NOPASSWD: /sbin/zfs\n"}),
        now=NOW,
    )

    assert clean.findings == ()
    assert [finding.rule for finding in loose.findings] == ["writable-command"]
    assert {finding.origin.file for finding in drifted.findings} == {f"{LIBRARY}/zz-extra"}
    assert len({clean.digest, loose.digest, drifted.digest}) == 3


# -- the command ----------------------------------------------------------------------------------


def check(
    path: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, object]]:
    status = main(["sudoers", "check", "--file", str(path), "--json", *more])
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return status, told


def test_the_command_finds_a_fragment_for_a_user_that_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fragment = tmp_path / "fragment"
    fragment.write_text("# one\nno-such-user-here ALL=(ALL) NOPASSWD: ALL\n")

    status, told = check(fragment, capsys, "--user", "no-such-user-here")

    assert status == 1
    assert told["scan_ok"] is True
    entries = told["entries"]
    assert isinstance(entries, list)
    assert {frozenset(entry) for entry in entries} == {
        frozenset({"file", "line", "rule", "severity", "reason", "remedy"})
    }
    assert (entries[0]["file"], entries[0]["line"]) == (str(fragment), 2)
    assert entries[0]["severity"] == "critical"


def test_the_command_passes_the_shipped_fragment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[2] / "sudoers" / "host-agent"

    assert check(shipped, capsys) == (0, {"scan_ok": True, "entries": []})


def test_the_command_says_that_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = check(tmp_path / "absent", capsys)

    assert (status, told["scan_ok"]) == (1, False)


def test_the_command_tells_a_person_file_line_reason_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fragment = tmp_path / "fragment"
    fragment.write_bytes(b"host-agent ALL=(root) NOPASSWD: /sbin/zfs \x1b[2J\n")

    status = main(["sudoers", "check", "--file", str(fragment)])

    shown = capsys.readouterr().out
    assert status == 1
    assert f"{fragment}:1  storage" in shown
    assert "host-agent sudoers render" in shown
    assert "\x1b" not in shown


def test_the_command_wants_a_user_that_exists_on_this_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sudoers", "check", "--user", "no-such-user-here"]) == 64
    assert "no-such-user-here" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("getent") is None, reason="needs getent")
async def test_this_hosts_own_files_can_be_judged_or_are_unknown() -> None:
    auditor = Auditor(tool=ToolRunner(), host=FakeHost(), audience=AUDIENCE)

    found = await auditor.audit(DiskSource(), now=NOW)

    assert found.scan_ok == all(finding.rule != "unknown" for finding in found.findings)
    if os.geteuid() != 0:
        assert not found.scan_ok
