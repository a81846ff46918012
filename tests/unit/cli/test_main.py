"""The command's edge: usage, help, what is imported, and how it ends."""

import argparse
import io
import subprocess
import sys

import pytest

import host_agent
from host_agent.__main__ import NOUNS, build_parser, main
from host_agent.cli.parser import Parser

CLIENT_NOUNS = ("call", "operations", "requests")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["call"],
        ["call", "git.status", "--wai", "3"],
        ["call", "git.status", "--wait", "-1"],
        ["call", "git.status", "--wait", "1.5"],
        ["call", "git.status", "--wait", "86401"],
        ["requests"],
        ["requests", "approve"],
        ["requests", "approve", "../x"],
        ["requests", "approve", "abc", "--digest", "sha256:abc"],
        ["requests", "list", "--state", "open"],
        ["requests", "list", "--limit", "0"],
        ["requests", "watch", "--interval", "0"],
        ["operations", "extra"],
    ],
    ids=" ".join,
)
def test_usage_ends_with_64_and_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("host-agent: ")
    assert said.err.count("\n") == 1
    assert "--help" in said.err


@pytest.mark.parametrize("arguments", [["call"], ["requests", "approve"]], ids=" ".join)
def test_help_ends_with_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--help"]) == 0

    assert "usage: host-agent" in capsys.readouterr().out


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr().out.strip() == host_agent.__version__


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_registers_itself_and_a_function(noun: str) -> None:
    parser = build_parser(noun)
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))

    assert list(commands.choices) == list(NOUNS)
    assert all("run" in leaf._defaults for leaf in leaves(commands.choices[noun]))


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        return [parser]
    return [leaf for action in below for child in action.choices.values() for leaf in leaves(child)]


def test_a_client_command_imports_no_server_and_no_terminal_library() -> None:
    program = (
        "import sys\nfrom host_agent.__main__ import build_parser\n"
        "build_parser('requests')\nprint('\\n'.join(sys.modules))"
    )

    listed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split("\n")

    heavy = {"httpx", "quart", "hypercorn", "sqlite3", "cryptography", "rich"}
    assert not heavy & set(listed)


def test_an_option_that_means_another_is_not_guessed() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--digest")
    with pytest.raises(Exception, match="Unrecognized arguments"):
        parser.parse_args(["--dig=1"])


class Ends:
    """A noun's module that ends as told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def add_parser(self, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        subparsers.add_parser("call").set_defaults(run=self.run)

    def run(self, args: argparse.Namespace) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (ValueError("inside"), 70)]
)
def test_no_traceback_reaches_a_person(
    error: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "host_agent.cli.commands.call", Ends(error))

    assert main(["call"]) == status

    assert "Traceback" not in capsys.readouterr().err


def test_a_terminal_that_lacks_a_letter_does_not_end_the_command() -> None:
    target = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", target)
        assert main(["--version"]) == 0
        target.write("für")
        target.flush()

    assert target.buffer.getvalue().endswith(b"f\\xfcr")
