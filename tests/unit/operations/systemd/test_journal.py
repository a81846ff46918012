"""Messages of the journal: readable before secrets are looked for, then rows that none forges."""

import hashlib
import json

import pytest

from host_agent.canonical import JsonValue, canonical_json
from host_agent.errors import InvalidOutputError
from host_agent.execution.redaction import redact_output
from host_agent.operations.catalogue import Output
from host_agent.operations.systemd.journal import decode, parse_logs

TIME = 1795212000_123456


def entry(message: object, **fields: object) -> str:
    known = {
        "__CURSOR": "s=1",
        "__REALTIME_TIMESTAMP": str(TIME),
        "_PID": "42",
        "SYSLOG_IDENTIFIER": "nginx",
        "PRIORITY": "6",
        "MESSAGE": message,
    }
    return json.dumps({**known, **fields}) + "\n"


def printed(*newest_first: str, truncated: bool = False) -> Output:
    return Output(exit_code=0, stdout="".join(newest_first), truncated=truncated)


def rows(output: Output) -> list[dict[str, JsonValue]]:
    parsed = parse_logs(output)
    assert isinstance(parsed, dict)
    entries = parsed["entries"]
    assert isinstance(entries, list)
    assert canonical_json(parsed)
    return entries


def messages(output: Output) -> list[JsonValue]:
    return [row["message"] for row in rows(output)]


def test_entries_become_rows_oldest_first() -> None:
    output = decode(printed(entry("new"), entry("old", PRIORITY="3", _PID="1")))
    assert rows(output) == [
        {
            "time": "2026-11-20T22:00:00.123456Z",
            "priority": "err",
            "pid": 1,
            "source": "nginx",
            "message": "old",
        },
        {
            "time": "2026-11-20T22:00:00.123456Z",
            "priority": "info",
            "pid": 42,
            "source": "nginx",
            "message": "new",
        },
    ]
    assert output.stdout.startswith("2026-11-20T22:00:00.123456Z\t3\t1\tnginx\told\n")
    assert output.stdout_bytes == len(output.stdout)
    assert output.stdout_sha256 == hashlib.sha256(output.stdout.encode()).hexdigest()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ([27, 91, 51, 49, 109, 114, 101, 100], "\x1b[31mred"),
        ([255, 65], "\ufffdA"),
        (["one", [116, 119, 111]], "one\ntwo"),
        ("two\nlines", "two\nlines"),
        ("ends with a newline\n", "ends with a newline\n"),
        ("\ttab\tand\r", "\ttab\tand\r"),
        ("", ""),
        (None, ""),
        ([], ""),
        ("\ud800", "?"),
    ],
)
def test_every_form_of_a_message_is_read(message: object, expected: str) -> None:
    assert messages(decode(printed(entry(message)))) == [expected]


def test_fields_that_are_missing_are_none() -> None:
    line = json.dumps({"__REALTIME_TIMESTAMP": str(TIME)}) + "\n"
    (row,) = rows(decode(printed(line)))
    assert (row["priority"], row["pid"], row["source"]) == (None, None, None)


def test_a_command_stands_in_for_an_identifier() -> None:
    (row,) = rows(decode(printed(entry("x", SYSLOG_IDENTIFIER=None, _COMM="sh"))))
    assert row["source"] == "sh"


@pytest.mark.promise("c48")
def test_no_message_can_forge_a_row() -> None:
    forged = "x\n2026-11-20T22:00:00.123456Z\t0\t1\tsystemd\tapproved\n\t\n"
    source = "nginx\tx\n2026"
    output = decode(printed(entry("next"), entry(forged, SYSLOG_IDENTIFIER=source, _PID="1\t2")))
    assert messages(output) == [forged, "next"]
    assert rows(output)[0]["source"] == "nginx?x?2026"
    assert rows(output)[0]["pid"] is None


def test_an_output_that_was_cut_keeps_its_newest_entries() -> None:
    text = entry("new") + entry("old")
    for cut in range(len(entry("new")), len(text)):
        output = decode(printed(text[:cut], truncated=True))
        assert messages(output) == ["new"]
        assert output.truncated


@pytest.mark.parametrize(
    "text",
    [
        "words\n",
        "[]\n",
        '"text"\n',
        "{}\n",
        entry("x").removesuffix("\n") + "}\n",
        entry("x", __REALTIME_TIMESTAMP="x"),
        entry("x", __REALTIME_TIMESTAMP="9" * 17 + "9"),
        entry({"a": 1}),
        entry([256]),
        "[" * 100_000 + "\n",
    ],
)
def test_another_output_is_refused_and_never_breaks(text: str) -> None:
    output = decode(printed(text))
    assert output.stdout == text
    with pytest.raises(InvalidOutputError):
        parse_logs(output)


def test_text_without_an_end_of_line_is_refused() -> None:
    with pytest.raises(InvalidOutputError):
        parse_logs(printed("x"))


def test_no_entry_is_no_row() -> None:
    assert rows(decode(printed(""))) == []


# -- secrets ---------------------------------------------------------------------------------------

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


@pytest.mark.promise("c49")
@pytest.mark.parametrize(
    "message",
    [
        "password=hunter22",
        'config {"password": "hunter22"}',
        [*b"\x1b[31mpassword=hunter22\x1b[0m"],
        ["one", [*b"password=hunter22"]],
    ],
    ids=str,
)
def test_a_secret_is_found_in_every_form_of_a_message(message: object) -> None:
    output = redact_output(decode(printed(entry("after"), entry(message), entry("before"))))
    assert "hunter22" not in output.stdout
    assert "hunter22" not in json.dumps(parse_logs(output))
    assert [messages(output)[index] for index in (0, -1)] == ["before", "after"]


@pytest.mark.promise("c49")
@pytest.mark.parametrize("is_split", [False, True])
def test_a_private_key_is_found_in_one_message_or_in_several(is_split: bool) -> None:
    said = reversed(PEM.split("\n")) if is_split else [PEM]
    lines = [entry("after"), *(entry(line) for line in said), entry("before")]
    output = redact_output(decode(printed(*lines)))
    assert "MIIEp" not in output.stdout
    found = messages(output)
    assert (found[0], found[-1]) == ("before", "after")


@pytest.mark.promise("c49")
def test_a_name_of_a_secret_at_the_end_of_a_row_takes_nothing_of_the_next() -> None:
    output = redact_output(decode(printed(entry("after"), entry("password:"))))
    assert messages(output) == ["password:", "after"]
    assert [row["time"] for row in rows(output)] == ["2026-11-20T22:00:00.123456Z"] * 2


@pytest.mark.promise("c49")
def test_a_key_without_an_end_takes_what_follows() -> None:
    long = ["-----BEGIN PRIVATE KEY-----", *["A" * 900 for _ in range(100)], "tail"]
    output = redact_output(decode(printed(*(entry(line) for line in reversed(long)))))
    assert rows(output)
