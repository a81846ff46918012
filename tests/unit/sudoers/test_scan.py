"""The cached scan: seldom, told once, unknown where anything fails."""

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from host_agent.errors import AdapterUnavailableError, HostAgentError, SudoRefusedError
from host_agent.operations.catalogue import Invocation, Output
from host_agent.sudoers.audit import Auditor
from host_agent.sudoers.reading import FRAME_HEAD
from host_agent.sudoers.scan import SCAN_SECONDS, Scanned, SudoersScan
from tests.support.sudoers_cases import AUDIENCE, NOW, FakeHost


def frame(text: str) -> str:
    path, content = (base64.b64encode(part.encode()).decode() for part in ("/etc/sudoers", text))
    return f"{FRAME_HEAD}\nfile {path} 440 0 0 {content}\nend 1\n"


@dataclass
class Site:
    """A runner, a tool and a clock; what was told."""

    text: str = "# nothing\n"
    output: Output | None = None
    error: HostAgentError | None = None
    now: datetime = NOW
    runs: int = 0
    told: list[Scanned] = field(default_factory=list)

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        assert (invocation.wrapper, invocation.arguments) == ("sudoers-read", ())
        self.runs += 1
        if self.error is not None:
            raise self.error
        return self.output or Output(exit_code=0, stdout=frame(self.text))

    def scan(self) -> SudoersScan:
        auditor = Auditor(tool=MissingTool(), host=FakeHost(), audience=AUDIENCE)
        return SudoersScan(lambda: (self, auditor, self.now), on_scan=self.tell)

    async def tell(self, scanned: Scanned) -> None:
        self.told.append(scanned)


class MissingTool:
    async def run(self, tool: str, *arguments: str) -> Output:
        raise AdapterUnavailableError("/usr/bin/cvtsudoers is not installed on this host.")


async def test_a_report_is_kept_and_made_anew_when_it_is_old() -> None:
    site = Site()
    scan = site.scan()

    first = await scan.fresh()
    again = await scan.fresh()
    site.now += timedelta(seconds=SCAN_SECONDS + 1)
    later = await scan.fresh()

    assert first is again
    assert (site.runs, later.at) == (2, site.now)
    assert first.report.scan_ok
    assert not first.is_changed
    assert not later.is_changed
    assert len(site.told) == 2


async def test_a_change_is_told_once() -> None:
    site = Site()
    scan = site.scan()
    changes = []
    for text in ("# a\n", "# b\n", "host-agent ALL=(ALL) ALL\n", "host-agent ALL=(ALL) ALL\n", ""):
        site.text = text
        scan.forget()
        changes.append((await scan.fresh()).is_changed)

    assert changes == [False, False, True, False, True]


@pytest.mark.parametrize(
    "site",
    [
        Site(text="host-agent ALL=(ALL) ALL\n"),  # no cvtsudoers to read it
        Site(error=SudoRefusedError("sudo would not run it.")),
        Site(error=AdapterUnavailableError("There is no wrapper.")),
        Site(output=Output(exit_code=64)),
        Site(output=Output(exit_code=0, stdout=frame(""), truncated=True)),
        Site(output=Output(exit_code=0, stdout=frame(""), timed_out=True)),
        Site(output=Output(exit_code=0, stdout="")),
        Site(output=Output(exit_code=0, stdout=frame("")[:-3])),
    ],
)
async def test_what_fails_is_unknown_and_told(site: Site) -> None:
    scanned = await site.scan().fresh()

    assert not scanned.report.scan_ok
    assert scanned.report.findings
    assert scanned.is_changed
