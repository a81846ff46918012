"""Each shell itself, with its script, offers what the help of each command names."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from host_agent.__main__ import NOUNS, build_parser, main
from host_agent.cli.commands.completion import _RENDERERS
from host_agent.cli.tree import read
from tests.support.patience import PATIENCE

TREE = read(build_parser(*NOUNS))
COMMANDS = {command.name: command for command in TREE.walk()}
_MARK = "=== "

_BASH = """\
source "$1"; shift
for line; do
    echo "=== $line"
    read -r -a COMP_WORDS <<<"$line"
    [[ "$line" != *" " ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _host_agent
    printf '%s\\n' "${COMPREPLY[@]}"
done
"""
# zle, which runs completions, is not there without a terminal; what they call is stood in for.
_ZSH = """\
compdef() { }
compadd() { shift; print -rl -- "$@" }
_describe() { local one; for one in "${(@P)2}"; do print -r -- "${one%%:*}"; done }
_files() { local -a all; [[ $1 == -/ ]] && all=(*(N/)) || all=(*(N)); print -rl -- $all }
_message() { }
source "$1"; shift
for line; do
    print -r -- "=== $line"
    words=(${=line}); [[ $line != *' ' ]] || words+=('')
    CURRENT=$#words
    _host_agent
done
"""
_FISH = """\
source $argv[1]
for line in $argv[2..]
    echo "=== $line"
    complete -C "$line" | string replace -r '\\t.*' ''
end
true
"""
SHELLS: Mapping[str, tuple[str, ...]] = {
    "bash": ("bash", "--norc", "-c", _BASH, "bash"),
    "zsh": ("zsh", "-f", "-c", _ZSH, "zsh"),
    "fish": ("fish", "--no-config", "-c", _FISH, "--"),
}

Offer = Callable[[Sequence[str]], dict[str, set[str]]]


@pytest.fixture(params=SHELLS)
def offer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Return a function from lines, as typed so far, to what the shell offers after each."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed (tests/support/prepare-host)")
    script = tmp_path / "script"
    script.write_text(_RENDERERS[shell](TREE))
    here = tmp_path / "here"
    here.mkdir()
    (here / "a-file").touch()
    (here / "a-directory").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(here)

    def offers(lines: Sequence[str]) -> dict[str, set[str]]:
        done = subprocess.run(
            [*SHELLS[shell], script, *lines],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        parts = done.stdout.split(_MARK)[1:]
        return {
            line: {word.rstrip("/") for word in part.split("\n")[1:] if word}
            for line, part in zip(lines, parts, strict=True)
        }

    return offers


def test_every_option_that_help_names_is_offered(offer: Offer) -> None:
    found = offer([f"{name} --" for name in COMMANDS])

    for name, offered in zip(COMMANDS, found.values(), strict=True):
        parser = build_parser(*NOUNS)
        for word in name.split()[1:]:
            parser = next(
                action.choices[word]
                for action in parser._actions
                if isinstance(action.choices, dict) and word in action.choices
            )
        options = {option for action in parser._actions for option in action.option_strings}
        long = {option for option in options if option.startswith("--")}
        assert {word for word in offered if word.startswith("--")} == long, name


def test_the_commands_below_are_offered_and_no_others(offer: Offer) -> None:
    inner = [name for name, command in COMMANDS.items() if command.below]
    found = offer([f"{name} " for name in inner])

    for name, offered in zip(inner, found.values(), strict=True):
        below = {child.words[-1] for child in COMMANDS[name].below}
        assert {word for word in offered if not word.startswith("-")} == below, name
    assert NOUNS.keys() == {child.words[-1] for child in TREE.below}


def test_what_a_word_begins_with_narrows_it(offer: Offer) -> None:
    (found,) = offer(["host-agent pki rev"]).values()
    assert {word for word in found if word.startswith("rev")} == {"revoke"}


def test_values_of_an_option_are_offered_where_they_are_known(offer: Offer) -> None:
    usage, files, directories, free, positional = offer(
        [
            "host-agent pki issue --usage ",
            "host-agent config check --config ",
            "host-agent pki init --dir ",
            "host-agent pki init --name ",
            "host-agent completion ",
        ]
    ).values()

    assert usage == {"server", "client"}
    assert files == {"a-file", "a-directory"}
    assert directories == {"a-directory"}
    assert free == set()
    assert {"bash", "zsh", "fish"} <= positional


def test_files_are_offered_to_what_reads_them(offer: Offer) -> None:
    (found,) = offer(["host-agent audit verify "]).values()

    assert "a-file" in found


def test_a_value_that_is_called_like_a_command_is_none(offer: Offer) -> None:
    """The word after `--reason` says nothing about which command this is."""
    (found,) = offer(["host-agent requests show pki --"]).values()

    assert "--wait" in found
    assert "--dir" not in found


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed == _RENDERERS[shell](TREE)
    assert re.search(r"^[^#]*host-agent", printed, re.MULTILINE)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 64
    assert "csh" in capsys.readouterr().err
