"""What sudo grants, as a running agent tells it; and root's wrapper that reads it."""

import base64
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from host_agent.agent.agent import Agent
from host_agent.execution.runner import TOOLS
from host_agent.operations.catalogue import Invocation, Output
from host_agent.sudoers.lines import gather
from host_agent.sudoers.reading import FRAME_HEAD, FrameSource
from host_agent.sudoers.render import RenderedLine, render
from tests.support.patience import PATIENCE
from tests.support.site import Site, make_site
from tests.support.users import AsDeclared

INSTALLED = "/usr/local/lib/host-agent"
WRAPPER = Path(__file__).parents[2] / "wrappers" / "sudoers-read"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@dataclass
class FrameRunner(AsDeclared):
    """A runner that answers for the wrapper: root's files are `text`."""

    text: str = ""
    runs: list[Invocation] = field(default_factory=list)

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        self.runs.append(invocation)
        file = f"file {encoded('/etc/sudoers')} 440 0 0 {encoded(self.text)}"
        return Output(exit_code=0, stdout=f"{FRAME_HEAD}\n{file}\nend 1\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


def gauges(scrape: bytes) -> dict[str, float]:
    lines = (line.split() for line in scrape.decode().splitlines() if "sudoers" in line)
    return {words[0]: float(words[1]) for words in lines if words[0] != "#"}


RISKY, OK = "host_agent_sudoers_risky_entries", "host_agent_sudoers_scan_ok"


@pytest.mark.skipif(not os.access(TOOLS["cvtsudoers"], os.X_OK), reason="needs cvtsudoers")
async def test_a_new_entry_changes_the_gauge_and_says_why_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_agent.pipeline.sudoers._own_user", lambda: "host-agent")
    monkeypatch.setattr("host_agent.pipeline.sudoers.other_policies", list)
    runner = FrameRunner("root ALL=(ALL) ALL\n")
    async with (
        Agent(site.config_path, runner=runner) as agent,
        site.async_http(agent.address, "root-admin") as admin,
    ):
        assert gauges(await agent.scrape()) == {RISKY: 0, OK: 0}  # nobody has looked
        assert (await admin.get("/ready")).json()["sudoers"] == "not looked at yet"
        before = (await admin.get("/admin/sudoers")).json()
        assert (before["scan_ok"], before["entries"]) == (True, [])
        assert gauges(await agent.scrape()) == {RISKY: 0, OK: 1}
        assert "sudoers.changed" not in site.events()

        runner.text += "host-agent ALL=(root) NOPASSWD: /sbin/zfs\n"
        assert (await admin.get("/admin/sudoers")).json() == before  # cached
        assert await agent.reload()
        after = (await admin.get("/admin/warn-permissions")).json()
        rules = {entry["rule"]: entry for entry in after["entries"]}
        assert rules["storage"]["line"] == 2
        assert rules["storage"]["severity"] == "critical"
        assert gauges(await agent.scrape()) == {RISKY: len(after["entries"]), OK: 1}
        assert (await admin.get("/admin/sudoers")).json() == after
        ready = await admin.get("/ready")
        assert (ready.status_code, "2 entries" in ready.json()["sudoers"]) == (200, True)

        (record,) = [r for r in site.records() if r["event"] == "sudoers.changed"]
        assert record["state"] == "ok"
        assert any("storage" in fault for fault in record["faults"])
        assert len(runner.runs) == 2


async def test_what_cannot_be_read_is_unknown_and_never_zero(site: Site) -> None:
    class Refused(FrameRunner):
        async def run(
            self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
        ) -> Output:
            return Output(exit_code=1, stderr="sudo: a password is required\n")

    async with (
        Agent(site.config_path, runner=Refused()) as agent,
        site.async_http(agent.address, "root-admin") as admin,
    ):
        told = (await admin.get("/admin/sudoers")).json()
        assert not told["scan_ok"]
        assert [entry["rule"] for entry in told["entries"]] == ["unknown"]
        assert gauges(await agent.scrape()) == {RISKY: 1, OK: 0}
        ready = await admin.get("/ready")
        assert (ready.status_code, ready.json()["sudoers"].partition(":")[0]) == (200, "unknown")
        (record,) = [r for r in site.records() if r["event"] == "sudoers.changed"]
        assert record["state"] == "unknown"


@pytest.mark.parametrize("cn", ["deployer", "alice"])
async def test_only_an_admin_is_told_and_a_refusal_looks_at_nothing(site: Site, cn: str) -> None:
    runner = FrameRunner()
    async with (
        Agent(site.config_path, runner=runner) as agent,
        site.async_http(agent.address, cn) as client,
    ):
        for path in ("/admin/sudoers", "/admin/warn-permissions"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (403, "identity:role-required")
    assert runner.runs == []
    assert site.events().count("identity.refused") == 2


# -- the wrapper ----------------------------------------------------------------------------------


def test_the_wrapper_takes_no_arguments() -> None:
    for arguments in (["/etc/shadow"], [""], ["--", "/etc/shadow"]):
        done = subprocess.run(
            [WRAPPER, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert (done.returncode, done.stdout) == (64, "")
        output = Output(exit_code=done.returncode, stderr=done.stderr)
        assert output.said == "no arguments are taken"


def test_the_wrapper_ignores_what_the_caller_exports(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    script = tmp_path / "script"
    script.write_text(f"touch {canary}\n")
    hostile = {"BASH_ENV": str(script), "GLOBIGNORE": "*", "LC_ALL": "C"}
    done = subprocess.run(
        [WRAPPER], capture_output=True, text=True, check=False, timeout=PATIENCE, env=hostile
    )
    assert done.returncode == 0
    FrameSource(done.stdout)
    hostile["BASH_FUNC_uname%%"] = f"() {{ touch {canary}; }}"
    done = subprocess.run(
        [WRAPPER], capture_output=True, text=True, check=False, timeout=PATIENCE, env=hostile
    )
    assert (done.returncode, done.stdout) == (64, "")
    assert not canary.exists()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Return a directory to put in the place of /etc/sudoers and /etc/sudoers.d."""
    folder = tmp_path / "etc"
    (folder / "sudoers.d").mkdir(parents=True)
    (folder / "sudoers").touch()
    return folder


def read(folder: Path, *, user: str | None = None) -> str:
    """Return what the unmodified wrapper prints where these are the files of sudo."""
    script = (
        'mount --bind "$1/sudoers" /etc/sudoers && mount --bind "$1/sudoers.d" /etc/sudoers.d'
        # A checkout may lie where only root can go.
        ' && cp --preserve=mode "$2" /mnt/wrapper && shift 2 && exec "$@" /mnt/wrapper'
    )
    script = f"mount -t tmpfs none /mnt && {script}"
    as_user = (
        []
        if user is None
        else [*("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--")]
    )
    command = ["unshare", "-m", "bash", "-c", script, "x", str(folder), str(WRAPPER), *as_user]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout


needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to put files in place of sudoers"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare"),
    pytest.mark.skipif(not Path("/etc/sudoers.d").is_dir(), reason="needs /etc/sudoers.d"),
]


class TestWrapperAsRoot:
    pytestmark = needs_root

    def test_it_prints_all_that_sudo_reads_and_nothing_else(self, private: Path) -> None:
        more = private.parent / "more"
        more.mkdir()
        (private / "sudoers").write_text(
            f'# @include /etc/shadow\n#includes /etc/shadow\n@include "{more}/a b"\n'
            f"@includedir /etc/sudoers.d/\n#include {more}/%h\n@include {more}/gone\n"
            "@include /dev/zero\n@includedir /etc/none\n@include sudoers\n"
        )
        (more / "a b").write_text("in quotes")
        (more / os.uname().nodename.partition(".")[0]).write_bytes(b"host\xff\n")
        for name in ("one", "two.conf", "three~", ".four"):
            (private / "sudoers.d" / name).write_text(name)
        (private / "sudoers.d" / "one").chmod(0o666)

        source = FrameSource(read(private))
        gathered = gather(source, "/etc/sudoers", os.uname().nodename)

        host = f"{more}/{os.uname().nodename.partition('.')[0]}"
        assert source.paths == ("/etc/sudoers", f"{more}/a b", "/etc/sudoers.d/one", host)
        assert {finding.rule for finding in gathered.findings} == {"insecure-sudoers", "unknown"}
        unknown = {f.origin.file for f in gathered.findings if f.rule == "unknown"}
        assert unknown == {f"{more}/gone", "/dev/zero", "/etc/sudoers"}

    @pytest.mark.skipif(shutil.which("sudo") is None, reason="needs sudo")
    def test_through_sudo_it_reads_for_a_user_who_can_do_nothing_else(self, private: Path) -> None:
        wrappers = private.parent / "host-agent"
        wrappers.mkdir()
        shutil.copy(WRAPPER, wrappers / WRAPPER.name)
        reader = f"{INSTALLED}/sudoers-read"
        fragment = render([RenderedLine(path=reader, run_as="root")], "nobody")
        (private / "sudoers").write_text("Defaults env_reset, use_pty\n" + fragment)
        for file in (private / "sudoers", private / "sudoers.d"):
            file.chmod(0o750)
        as_nobody = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--")
        script = f"""
        mount -t tmpfs -o mode=755 none /usr/local/lib && cp -r "$2" {INSTALLED}
        mount --bind "$1/sudoers" /etc/sudoers && mount --bind "$1/sudoers.d" /etc/sudoers.d
        {" ".join(as_nobody)} sudo -n -u root -- {reader} >"$1/frame"
        {" ".join(as_nobody)} sudo -n -u root -- {reader} /etc/shadow >"$1/refused"; echo "$?"
        {" ".join(as_nobody)} sudo -n -u root -- /bin/true; echo "$?"
        sudo -l -U nobody | grep -c NOPASSWD
        """
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", script, "x", str(private), str(wrappers)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

        assert done.stdout.split() == ["64", "1", "1"], done.stderr
        source = FrameSource((private / "frame").read_text())
        assert fragment in source.file("/etc/sudoers").text
        assert (private / "refused").read_text() == ""

    def test_it_is_bounded_and_what_is_left_out_is_unknown(self, private: Path) -> None:
        (private / "sudoers").write_text("@includedir /etc/sudoers.d\n@include /etc/sudoers.d/x\n")
        (private / "sudoers.d" / "x").write_text("#" * 3_000_000)

        gathered = gather(FrameSource(read(private)), "/etc/sudoers", "box")

        assert {finding.rule for finding in gathered.findings} == {"unknown"}

    def test_without_roots_rights_everything_is_unknown(self, private: Path) -> None:
        (private / "sudoers").chmod(0o440)

        gathered = gather(FrameSource(read(private, user="65534")), "/etc/sudoers", "box")

        assert [finding.rule for finding in gathered.findings] == ["unknown"]
