"""The verifier on a log whose repair was torn as well: killed twice, each time in a write."""

from pathlib import Path

import pytest

from host_agent.audit.record import digest_of
from host_agent.audit.verify import ChainReport, verify
from tests.support.audit_files import joined, lines
from tests.unit.audit.test_verify import recovered

REST = b'{"caller":"lib'


def check(path: Path, data: bytes) -> ChainReport:
    path.write_bytes(data)
    return verify([path])


@pytest.mark.promise("c3")
def test_a_torn_repair_of_a_torn_line_passes_wherever_it_is_cut(tmp_path: Path) -> None:
    made, last = lines(3)
    repair, _ = recovered(REST, last)
    for cut in range(1, len(repair)):
        left = REST + b"\n" + repair[:cut]
        report = check(tmp_path / "audit.jsonl", joined(made) + left)
        assert report.found == 0
        assert [(torn.sequence, torn.length) for torn in report.torn] == [(4, len(left))]
        # The next start accounts for both.
        second, after = recovered(left, last)
        more, _ = lines(1, after)
        report = check(
            tmp_path / "audit.jsonl", joined(made) + left + b"\n" + joined([second, *more])
        )
        assert (report.found, report.records, len(report.torn)) == (0, 5, 1)
        assert digest_of(left) in second.decode()


@pytest.mark.promise("c3")
@pytest.mark.parametrize(
    "left",
    [
        REST + b"\n" + REST,  # a second torn line that is no repair
        REST + b"\n" + b'{"cause":"torn","event":"audit.rotated"',
        REST + b"\n\n" + b'{"cause":"torn"',
        REST + b"\n" + b'{"cause":"torn"' + b"\n",  # ended: whoever did that would have repaired it
        REST + b"\n",
    ],
)
def test_lines_at_the_end_that_no_kill_leaves_are_a_finding(tmp_path: Path, left: bytes) -> None:
    made, _ = lines(3)
    report = check(tmp_path / "audit.jsonl", joined(made) + left)
    assert report.first_bad == 4
