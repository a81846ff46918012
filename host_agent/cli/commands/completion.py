"""`host-agent completion SHELL`: what a shell needs to complete this command line.

Rendered from the parsers' own tree. The script finds the command by the words before the cursor,
and offers the commands below it, its options, and the values of an option that has a fixed set.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping

from host_agent.cli.tree import Branch, Taken, Takes, read
from host_agent.errors import EX_OK

_MEANING = 72
"""Characters of a meaning that a list of candidates has room for."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `completion` to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Prints a script by which a shell completes this command: commands, options,"
        " and what they take. For bash: `host-agent completion bash"
        " >~/.local/share/bash-completion/completions/host-agent`. The Debian package has it in"
        " place.",
    )
    parser.add_argument("shell", choices=tuple(_RENDERERS), help="the shell that is to read it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from host_agent.__main__ import NOUNS, build_parser

    sys.stdout.write(_RENDERERS[args.shell](read(build_parser(*NOUNS))))
    return EX_OK


def _place(command: Branch) -> str:
    """Return how the scripts spell a command: ` pki issue`, and nothing for the program itself."""
    return "".join(f" {word}" for word in command.words[1:])


def _pattern(places: Iterator[str]) -> str:
    return "|".join(f'"{place}"' for place in places)


def _valued(command: Branch) -> Iterator[Taken]:
    yield from (one for one in command.taken if one.options and one.takes is not Takes.NOTHING)


def _positional(command: Branch) -> Taken | None:
    """Return the positional argument that a shell completes; commands have at most one such."""
    return next((one for one in command.taken if not one.options), None)


def _offered(command: Branch) -> Iterator[tuple[str, str]]:
    """Yield each word that may come next, with its meaning: commands, choices, options."""
    yield from ((child.words[-1], child.meaning) for child in command.below)
    one = _positional(command)
    if one is not None:
        yield from ((choice, one.meaning) for choice in one.choices)
    for option in (one for one in command.taken if one.options):
        yield from ((spelling, option.meaning) for spelling in option.options)
    yield "--help", "show what it does and takes"


def _after_option(commands: list[Branch], act: Callable[[Taken], str], form: str) -> Iterator[str]:
    """Yield the cases of a word that is the value of an option, in the `form` of a shell."""
    for command in commands:
        for one in _valued(command):
            places = (f"{_place(command)} {spelling}" for spelling in one.options)
            yield form.format(pattern=_pattern(places), act=act(one))


# -- bash -----------------------------------------------------------------------------------------

_BASH = """\
# bash completion of host-agent; rendered by `host-agent completion bash`.
_host_agent() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} place="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$place ${{COMP_WORDS[i]}}" in
        {known}) place+=" ${{COMP_WORDS[i]}}" ;;
        esac
    done
    COMPREPLY=()
    case "$place $prev" in
{values}
    esac
    case "$place" in
{offers}
    esac
}}
_host_agent_files() {{
    compopt -o filenames 2>/dev/null
    mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen "$1" -- "$2")
}}
_host_agent_words() {{
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}}
complete -F _host_agent host-agent
"""


def bash(tree: Branch) -> str:
    """Return the completion for bash 4.4 or newer."""
    commands = list(tree.walk())
    files = {
        Takes.FILE: '_host_agent_files -f "$cur"',
        Takes.DIRECTORY: '_host_agent_files -d "$cur"',
    }

    def value(one: Taken) -> str:
        if one.takes is Takes.CHOICE:
            return f'_host_agent_words {shlex.quote(" ".join(one.choices))} "$cur"'
        return files.get(one.takes, ":")

    def offer(command: Branch) -> str:
        words = shlex.quote(" ".join(word for word, _ in _offered(command)))
        one = _positional(command)
        also = files.get(one.takes) if one is not None else None
        act = f'_host_agent_words {words} "$cur"' + (f"; {also}" if also else "")
        return f'    "{_place(command)}") {act} ;;'

    return _BASH.format(
        known=_pattern(_place(command) for command in commands[1:]),
        values="\n".join(_after_option(commands, value, "    {pattern}) {act}; return ;;")),
        offers="\n".join(map(offer, commands)),
    )


# -- zsh ------------------------------------------------------------------------------------------

_ZSH = """\
#compdef host-agent
# zsh completion of host-agent; rendered by `host-agent completion zsh`.
_host_agent() {{
    local place="" word
    local -a offered
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$place $word" in
        ({known}) place+=" $word" ;;
        esac
    done
    case "$place $words[CURRENT-1]" in
{values}
    esac
    case "$place" in
{offers}
    esac
}}
if [[ "$funcstack[1]" == _host_agent ]]; then
    _host_agent "$@"
else
    compdef _host_agent host-agent
fi
"""


def zsh(tree: Branch) -> str:
    """Return the completion for zsh, as a file `_host-agent` of its `fpath`."""
    commands = list(tree.walk())
    files = {Takes.FILE: "_files", Takes.DIRECTORY: "_files -/"}

    def value(one: Taken) -> str:
        if one.takes is Takes.CHOICE:
            return f"compadd -- {' '.join(map(shlex.quote, one.choices))}"
        return files.get(one.takes) or f"_message {shlex.quote(one.metavar)}"

    def offer(command: Branch) -> str:
        words = " ".join(
            shlex.quote(f"{word}:{_short(meaning)}") for word, meaning in _offered(command)
        )
        one = _positional(command)
        also = files.get(one.takes) if one is not None else None
        act = f"offered=({words}); _describe host-agent offered" + (f"; {also}" if also else "")
        return f'    ("{_place(command)}") {act} ;;'

    return _ZSH.format(
        known=_pattern(_place(command) for command in commands[1:]),
        values="\n".join(_after_option(commands, value, "    ({pattern}) {act}; return ;;")),
        offers="\n".join(map(offer, commands)),
    )


# -- fish -----------------------------------------------------------------------------------------

_FISH = """\
# fish completion of host-agent; rendered by `host-agent completion fish`.
function __host_agent_at
    set -l place
    for word in (commandline -opc)[2..]
        contains -- (string join -- ' ' $place $word) {known}; and set -a place $word
    end
    test "$place" = "$argv"
end
complete -c host-agent -f
{lines}
"""


def fish(tree: Branch) -> str:
    """Return the completion for fish 3.1 or newer."""
    commands = list(tree.walk())
    return _FISH.format(
        known=" ".join(_fish_quoted(_place(command).strip()) for command in commands[1:]),
        lines="\n".join(line for command in commands for line in _fish_lines(command)),
    )


def _fish_lines(command: Branch) -> Iterator[str]:
    at = _fish_quoted(f"__host_agent_at {_place(command).strip()}".strip())
    start = f"complete -c host-agent -n {at}"
    for child in command.below:
        yield f"{start} -a {child.words[-1]} -d {_fish_quoted(_short(child.meaning))}"
    for one in command.taken:
        told = f"-d {_fish_quoted(_short(one.meaning))}"
        if one.options:
            spelled = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in one.options
            )
            yield " ".join(part for part in (start, spelled, _fish_value(one), told) if part)
        elif one.takes is not Takes.WORD:
            yield f"{start} {_fish_value(one).removeprefix('-x ').replace('-r ', '')} {told}"
    yield f"{start} -l help -d 'show what it does and takes'"


def _fish_value(one: Taken) -> str:
    match one.takes:
        case Takes.NOTHING:
            return ""
        case Takes.CHOICE:
            return f"-x -a {_fish_quoted(' '.join(one.choices))}"
        case Takes.FILE:
            return "-r -F"
        case Takes.DIRECTORY:
            return "-x -a '(__fish_complete_directories)'"
        case Takes.WORD:
            return "-x"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _short(meaning: str) -> str:
    """Return a meaning on one line, cut at a word where it is long."""
    if len(meaning) <= _MEANING:
        return meaning
    return meaning[:_MEANING].rpartition(" ")[0].rstrip(",;:") + " ..."


_RENDERERS: Mapping[str, Callable[[Branch], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
