"""The verifier: each change of a file is found and named; what a crash leaves is told apart."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_agent.audit.record import (
    GENESIS,
    ORIGIN,
    Event,
    Link,
    build,
    digest_of,
    link,
    read,
)
from host_agent.audit.verify import (
    MAX_FINDINGS,
    MAX_LINE_BYTES,
    ChainReport,
    Concern,
    NotAnAuditFileError,
    parse_head,
    verify,
)
from tests.support.audit_files import joined, lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def check(path: Path, content: bytes, head: str | None = None) -> ChainReport:
    path.write_bytes(content)
    return verify([path], head)


def recovered(rest: bytes, after: Link, **changes: int | str) -> tuple[bytes, Link]:
    members = {"cause": "torn", "length": len(rest), "sha256": digest_of(rest), **changes}
    return link(build(Event.AUDIT_RECOVERED, "2026-11-20T22:00:00.000000Z", members), after)


# -- what is whole --------------------------------------------------------------------------------


def test_an_untouched_file_is_intact_and_complete(path: Path) -> None:
    made, last = lines(10)
    report = check(path, joined(made), last.hash)
    assert (report.found, report.records, report.first, report.last) == (0, 10, 1, 10)
    assert (report.head, report.head_sequence) == (last.hash, 10)
    assert report.is_clean(Concern.INTEGRITY)
    assert report.is_clean(Concern.COMPLETENESS)
    assert report.first_bad is None


def test_a_file_that_begins_later_is_told_from_where(path: Path) -> None:
    made, _ = lines(10)
    report = check(path, joined(made[6:]))
    assert (report.found, report.first, report.last) == (0, 7, 10)


def test_files_may_be_given_in_any_order_and_twice(tmp_path: Path) -> None:
    made, last = lines(9)
    paths = []
    for number, begin in enumerate((6, 0, 3)):
        part = tmp_path / f"part-{number}"
        part.write_bytes(joined(made[begin : begin + 3]))
        paths.append(part)
    (tmp_path / "link").symlink_to(paths[0])
    report = verify([*paths, paths[1], tmp_path / "link"], last.hash)
    assert (report.found, report.records) == (0, 9)
    assert [(span.first, span.last) for span in report.files] == [(1, 3), (4, 6), (7, 9)]


def test_a_missing_file_is_named_by_its_sequences(tmp_path: Path) -> None:
    made, _ = lines(9)
    for number, begin in enumerate((0, 6)):
        (tmp_path / str(number)).write_bytes(joined(made[begin : begin + 3]))
    report = verify([tmp_path / "1", tmp_path / "0"])
    (finding,) = report.findings
    assert (finding.concern, finding.sequence) == (Concern.COMPLETENESS, 4)
    assert finding.message == "missing: 4 to 6"
    assert report.is_clean(Concern.INTEGRITY)


def test_an_empty_file_among_others_is_no_fault(tmp_path: Path) -> None:
    made, _ = lines(3)
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(joined(made))
    report = verify([tmp_path / "empty", tmp_path / "full"])
    assert report.found == 0
    assert [span.first for span in report.files] == [1, None]


def test_a_large_file_is_streamed_over_chunk_borders(path: Path) -> None:
    made, last = lines(10_000)
    report = check(path, joined(made), last.hash)
    assert (report.found, report.records) == (0, 10_000)
    assert path.stat().st_size > 2 * 1_048_576


# -- C7: edits ------------------------------------------------------------------------------------


def mutations(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the content with each of its bytes changed in turn, in one of four ways."""
    for at, byte in enumerate(content):
        new = (byte ^ 1, 0x0A, byte ^ 0x80, 0x20)[at % 4]
        if new == byte:
            new = byte ^ 2
        yield at, content[:at] + bytes([new]) + content[at + 1 :]


def check_every_mutation(path: Path, before: list[bytes], made: list[bytes]) -> None:
    """Change each byte of `made`, which follows `before`, and look what is found."""
    kept, content = joined(before), joined(made)
    for at, changed in mutations(content):
        report = check(path, kept + changed)
        line = content.count(b"\n", 0, at)
        expected = read(made[line]).sequence
        if at == len(made[0]) and not before:
            expected = 2  # two lines became one, and nothing tells that the chain began at 1
        assert report.first_bad == expected, (at, changed[max(0, at - 20) : at + 20], report)


@pytest.mark.promise("c7")
def test_every_edited_byte_is_found_and_its_sequence_named(path: Path) -> None:
    made, _ = lines(8)
    check_every_mutation(path, [], made)


@pytest.mark.promise("c7")
@pytest.mark.slow
@pytest.mark.parametrize("begin", range(0, 100, 10))
def test_every_edited_byte_of_100_lines_is_found_and_its_sequence_named(
    path: Path, begin: int
) -> None:
    made, _ = lines(100)
    check_every_mutation(path, made[begin - 1 : begin], made[begin : begin + 10])


@pytest.mark.promise("c7")
def test_every_deleted_line_is_found_and_named(path: Path) -> None:
    made, last = lines(20)
    for at in range(1, 19):
        report = check(path, joined(made[:at] + made[at + 1 :]))
        assert report.first_bad == at + 1
        assert [finding.message for finding in report.findings] == [f"missing: {at + 1}"]
    assert check(path, joined(made[1:])).first == 2
    assert check(path, joined(made[:-1])).found == 0  # only a head that was kept shows it
    assert check(path, joined(made[:-1]), last.hash).first_bad == 20


@pytest.mark.promise("c7")
def test_swapped_and_repeated_lines_are_found(path: Path) -> None:
    made, _ = lines(12)
    for at in range(1, 11):
        swapped = [*made[:at], made[at + 1], made[at], *made[at + 2 :]]
        assert check(path, joined(swapped)).first_bad == at + 1
        repeated = [*made[: at + 1], made[at], *made[at + 1 :]]
        report = check(path, joined(repeated))
        assert report.first_bad == at + 1
        assert "repeated" in report.findings[0].message


@pytest.mark.promise("c7")
@pytest.mark.parametrize(
    "inserted", [b"{}", b"", b"junk", b'{"sequence":6}', b"[1]", b" ", b'{"caller":"cut']
)
def test_an_inserted_line_is_the_only_finding(path: Path, inserted: bytes) -> None:
    made, _ = lines(10)
    report = check(path, joined([*made[:5], inserted, *made[5:]]))
    assert (report.found, report.first_bad, report.records) == (1, 6, 10)
    assert report.findings[0].line == 6


@pytest.mark.promise("c7")
def test_a_line_of_another_chain_is_found(path: Path) -> None:
    made, _ = lines(10)
    other, _ = lines(10, Link(sequence=0, hash="sha256:" + 64 * "f"))
    report = check(path, joined([*made[:5], other[5], *made[6:]]))
    assert report.first_bad == 6
    assert "does not link" in report.findings[0].message


@pytest.mark.promise("c7")
def test_a_chain_that_was_computed_anew_is_found_only_with_the_head(path: Path) -> None:
    made, last = lines(10)
    anew, _ = lines(4)
    line, after = link(
        build(Event.POLICY_DENIED, "2026-11-20T22:00:00.000000Z", {"caller": "nobody"}),
        Link(sequence=4, hash=check(path, joined(anew)).head),
    )
    rest, _ = lines(5, after)
    forged = joined([*anew, line, *rest])
    assert check(path, forged).found == 0
    report = check(path, forged, last.hash)
    assert not report.is_clean(Concern.COMPLETENESS)
    assert report.is_clean(Concern.INTEGRITY)
    assert check(path, joined(made), last.hash).found == 0


@pytest.mark.promise("c7")
def test_a_cut_tail_is_found_only_with_the_head(path: Path) -> None:
    made, last = lines(10)
    for keep in range(1, 10):
        assert check(path, joined(made[:keep])).found == 0
        assert check(path, joined(made[:keep]), last.hash).found == 1


@pytest.mark.promise("c7")
def test_an_older_head_is_found_inside_the_chain(path: Path) -> None:
    made, _ = lines(10)
    _, older = lines(4)
    report = check(path, joined(made), older.hash)
    assert (report.found, report.head_sequence, report.last) == (0, 4, 10)


def test_a_beginning_that_is_none_is_found(path: Path) -> None:
    made, _ = lines(3, Link(sequence=0, hash="sha256:" + 64 * "1"))
    assert "begin" in check(path, joined(made)).findings[0].message
    made, _ = lines(3, Link(sequence=4, hash=GENESIS))
    assert check(path, joined(made)).first_bad == 5


def test_an_edited_first_line_is_named(path: Path) -> None:
    made, _ = lines(5)
    for first in (made[0].replace(b"librarian", b"librariaN"), b'{"cut', b"{}"):
        report = check(path, joined([first, *made[1:]]))
        assert (report.found, report.first_bad) == (1, 1)


def test_findings_are_kept_in_bounded_number_and_all_counted(path: Path) -> None:
    made, _ = lines(2)
    report = check(path, joined([*made, *[b"{}"] * (MAX_FINDINGS + 500)]))
    assert (report.found, len(report.findings)) == (MAX_FINDINGS + 500, MAX_FINDINGS)


# -- C3: torn lines -------------------------------------------------------------------------------


@pytest.mark.promise("c3")
def test_a_torn_end_passes_and_is_named(path: Path) -> None:
    made, _ = lines(4)
    whole = joined(made)
    start = len(joined(made[:3]))
    for cut in range(start + 1, len(whole) - 1):
        report = check(path, whole[:cut])
        assert report.found == 0
        assert [(torn.sequence, torn.length) for torn in report.torn] == [(4, cut - start)]


@pytest.mark.promise("c3")
def test_a_torn_end_that_ends_with_a_newline_is_a_finding(path: Path) -> None:
    made, _ = lines(4)
    assert check(path, joined([*made[:3], made[3][:50]])).first_bad == 4


@pytest.mark.promise("c3")
def test_a_recovered_line_passes(path: Path) -> None:
    made, last = lines(3)
    rest = b'{"caller":"lib'
    line, after = recovered(rest, last)
    more, _ = lines(2, after)
    report = check(path, joined([*made, rest, line, *more]))
    assert (report.found, report.records) == (0, 6)
    assert [(torn.sequence, torn.line, torn.length) for torn in report.torn] == [(4, 4, len(rest))]


@pytest.mark.promise("c3")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda made, rest, line: [*made, rest[:-1], line],
        lambda made, rest, line: [*made, rest + b"x", line],
        lambda made, rest, line: [*made, rest.upper(), line],
        lambda made, rest, line: [*made, rest, rest, line],
        lambda made, _rest, line: [*made, line],
        lambda made, rest, line: [rest, *made, line],
        lambda made, rest, line: [*made[:-1], rest, made[-1], line],
        lambda made, rest, _line: [*made, rest],
    ],
)
def test_torn_bytes_that_nothing_accounts_for_are_a_finding(
    path: Path, spoil: Callable[[list[bytes], bytes, bytes], list[bytes]]
) -> None:
    made, last = lines(3)
    rest = b'{"caller":"lib'
    line, _ = recovered(rest, last)
    assert check(path, joined([*made, rest, line])).found == 0
    assert check(path, joined(spoil(made, rest, line))).found > 0


@pytest.mark.promise("c3")
def test_an_edited_whole_line_is_no_torn_one_even_where_a_recovery_tells_of_it(
    path: Path,
) -> None:
    made, last = lines(3)
    whole, _ = lines(1, last)
    edited = whole[0].replace(b"librarian", b"somebody!")
    line, _ = recovered(edited, last)
    report = check(path, joined([*made, edited, line]))
    assert report.first_bad == 4


@pytest.mark.promise("c3")
def test_only_a_torn_first_line(path: Path) -> None:
    report = check(path, b'{"caller":"lib')
    assert (report.found, report.records) == (0, 0)
    assert [torn.sequence for torn in report.torn] == [1]


# -- what is no audit log -------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\n", b"root:x:0:0\n", b"{}\n" * 9, b"[]", b"\x00" * 99])
def test_a_file_that_is_no_audit_log_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(NotAnAuditFileError):
        check(path, content)


@pytest.mark.parametrize("is_long", [False, True])
def test_a_record_is_looked_for_at_the_beginning_only(path: Path, is_long: bool) -> None:
    """A few lines of another kind may come first; a file of them is another kind of file."""
    made, _ = lines(1)
    count = MAX_LINE_BYTES // 10 + 1 if is_long else 3
    content = b"not of us\n" * count + joined(made)
    if is_long:
        with pytest.raises(NotAnAuditFileError, match="no audit record at its beginning"):
            check(path, content)
    else:
        assert check(path, content).records == 1


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (("fifo", "not a regular"), (".", "not a regular"), ("none", "No such")):
        with pytest.raises(NotAnAuditFileError, match=reason):
            verify([tmp_path / name])
    with pytest.raises(NotAnAuditFileError):
        verify([Path("/dev/zero")])
    with pytest.raises(NotAnAuditFileError):
        verify([Path("a\0b")])


def test_a_line_without_end_is_read_in_bounded_memory(path: Path) -> None:
    made, _ = lines(3)
    path.write_bytes(joined(made))
    with path.open("r+b") as stream:
        stream.seek(0, os.SEEK_END)
        stream.truncate(stream.tell() + 64 * 1_048_576)  # zeros that take no room on disk
    report = verify([path])
    assert report.first_bad == 4


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:xyz", "sha512:" + 64 * "a", 63 * "a"])
def test_a_head_that_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        parse_head(text)


def test_a_head_may_lack_its_prefix() -> None:
    assert parse_head(f" {64 * 'A'}\n") == f"sha256:{64 * 'a'}"


def test_the_head_of_an_empty_log_is_before_every_chain(path: Path) -> None:
    made, _ = lines(2, ORIGIN)
    assert check(path, joined(made), GENESIS).head_sequence == 0
