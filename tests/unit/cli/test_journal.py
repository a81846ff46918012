"""Lines of the log: priorities for the journal only, and no text of a caller in a traceback."""

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from host_agent.cli import journal

SECRET = "hunter2 of a caller"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return `error` with the frames that it gets where it is raised."""
    try:
        raise error from cause
    except BaseException as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize(
    ("level", "mark"),
    [
        (logging.DEBUG, "<7>"),
        (logging.INFO, "<6>"),
        (logging.WARNING, "<4>"),
        (logging.ERROR, "<3>"),
        (logging.CRITICAL, "<2>"),
        (logging.CRITICAL + 10, "<2>"),
    ],
)
def test_each_level_has_the_priority_of_syslog(level: int, mark: str) -> None:
    record = logging.LogRecord("a", level, "", 0, "two\nlines %s", ("x",), None)
    line = journal.JsonFormatter(is_journal=True).format(record)
    assert line.startswith(mark + "{")
    assert json.loads(line.removeprefix(mark))["message"] == "two\nlines x"
    assert len(line.splitlines()) == 1
    assert json.loads(journal.JsonFormatter().format(record))["level"]  # elsewhere: no prefix


@pytest.mark.parametrize("word", ["<0>", '"\n', "\x1b[0m", "\U0001f600", "é"])
def test_a_line_is_never_so_long_that_the_journal_begins_another(word: str) -> None:
    error = raised(OSError(word * 30_000))
    info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, "", 0, "said %s.", (word * 30_000,), info)
    line = journal.JsonFormatter(is_journal=True).format(record)
    assert len(line.encode()) < 48 * 1024
    told = json.loads(line.removeprefix("<3>"))
    assert told["message"].startswith(f"said {word}")
    assert "characters cut" in told["message"]
    assert told["message"].endswith(f"{word}.")
    assert "characters cut" in told["exception"]

    short = logging.LogRecord("a", logging.ERROR, "", 0, "said %s.", (word * 300,), None)
    told = json.loads(journal.JsonFormatter().format(short))
    assert told["message"] == f"said {word * 300}."


def test_the_journal_is_known_by_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "one").open("w") as one, (tmp_path / "two").open("w") as two:
        status = (tmp_path / "one").stat()
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert journal.is_journal(one, environ)
        assert not journal.is_journal(two, environ)
        assert not journal.is_journal(one, {})
    assert not journal.is_journal(one, environ)  # closed
    assert not journal.is_journal(io.StringIO(), environ)


class OfLibraryError(OSError):
    """An exception class that is not the interpreter's own."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        RuntimeError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        OfLibraryError(SECRET),
        Exception(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_text_of_a_caller_is_told(error: Exception) -> None:
    for told in (
        journal.story(raised(error)),
        journal.story(raised(RuntimeError(), error)),
        journal.story(raised(ExceptionGroup(SECRET, [error]))),
    ):
        assert type(error).__qualname__ in told
        assert f"{__file__}:" in told
        assert "hunter2" not in told


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x' from 'y'"),
        FileNotFoundError(2, "No such file or directory", "/srv/x"),
        AttributeError("module 'a' has no attribute 'b'"),
        TypeError("f() got an unexpected keyword argument 'c'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_interpreter_says_is_told(error: Exception) -> None:
    assert journal.story(raised(error)).endswith(f"{type(error).__name__}: {error}")


def test_a_chain_without_end_is_cut() -> None:
    error: Exception = ValueError()
    for _ in range(100):
        error = ValueError()
        error.__cause__, last = error, error
    assert journal.story(last).count("which led to:") < 10


def test_a_sentence_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    journal.say("a name\n<2>forged\x1b[31m")
    assert capsys.readouterr().err == "host-agent: a name\\n<2>forged\\x1b[31m\n"


def test_what_nobody_awaited_is_told_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = journal.loop_fault_handler(logging.getLogger("host_agent"))
    handler(None, {"message": "never retrieved", "exception": raised(ValueError(SECRET))})
    (record,) = caplog.records
    line = journal.JsonFormatter().format(record)
    assert "never retrieved" in line
    assert "ValueError" in line
    assert "hunter2" not in line


def test_the_missing_part_is_named() -> None:
    try:
        from json import request_ctx  # type: ignore[attr-defined]  # noqa: F401
    except ImportError as error:
        told = journal.missing_part(error)
    assert "cannot import name 'request_ctx' from 'json'" in told
    assert "install.md" in told
    assert sys.prefix  # the twin: what is there is imported without a word
