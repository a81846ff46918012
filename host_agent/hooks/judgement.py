"""The judgement of one command: no opinion, or a denial that says what to ask for instead."""

import re
from collections.abc import Sequence
from importlib import import_module
from posixpath import basename
from typing import NamedTuple

from host_agent.hooks.mention import ELEVATORS, PROGRAMS, folded, mentioned
from host_agent.hooks.programs import git
from host_agent.hooks.settings import HookSettings
from host_agent.hooks.shell import ShellWord, SimpleCommand, UnreadableError, names, read
from host_agent.hooks.translation import UNKNOWN, Suggestion, Translation, options, parse


class CommandDenial(NamedTuple):
    """Why a command is not to run: the program that it names, and what to ask for instead.

    `is_simple` tells whether it could be read as one command.
    """

    program: str
    is_simple: bool
    suggestions: tuple[Suggestion, ...] = ()


_SHELLS = names("sh bash dash ash zsh ksh mksh fish rbash")
_INTERPRETERS = re.compile(
    r"(?:python|pypy|perl|ruby|node|nodejs|bun|deno|lua|php|tclsh|expect|guile|osascript)[\d.]*",
    re.ASCII,
)
_LAUNCHERS = names(
    ". alias at aws-vault batch bpftrace busybox bwrap caffeinate capsh cgexec chpst chroot chrt"
    " chronic concurrently coproc crontab daemonize dbus-run-session direnv doppler dotenv"
    " dumb-init entr envdir eval expect faketime fakeroot firejail flock gdb gosu logsave nix-shell"
    " nodemon proxychains proxychains4 s6-setuidgid setlock softlimit su-exec tini torsocks"
    " gnome-terminal hyperfine ifne ltrace mosh nsenter numactl parallel perf prlimit proot"
    " rlwrap rsh run-parts screen script setarch setpriv sg sshpass ssh start-stop-daemon"
    " strace systemd-inhibit systemd-cat systemd-run taskset tmux toybox trap unbuffer unshare"
    " valgrind watch watchexec xterm xvfb-run ex ed vi vim nvim emacs rsync scp sftp"
)
"""Programs and shell words that run a command among their own words, in ways of their own."""

_CODE = re.compile(r"-[ceErp].*|-[A-Za-z0-9]+[ceErp]|--(?:eval|print|execute)\b.*", re.DOTALL)
_SCRIPT = re.compile(r"[^-].*\.(?:py|pl|rb|js|mjs|cjs|ts|php|lua|tcl)", re.DOTALL)
_AWKS = names("awk gawk mawk nawk busybox-awk")
_BY_OPTION = {
    "find": frozenset(["-exec", "-execdir", "-ok", "-okdir"]),
    "fd": frozenset(["-x", "--exec", "-X", "--exec-batch"]),
    "fdfind": frozenset(["-x", "--exec", "-X", "--exec-batch"]),
    "tar": names("--to-command --checkpoint-action -I --use-compress-program -F --info-script"),
    "man": names("-P --pager"),
    "sort": names("--compress-program"),
    "split": names("--filter"),
    "zip": names("-TT"),
}
"""Programs that run a command where they have one of these options."""

_ENVIRONMENTS = names("asdf bundle conda mamba mise npm npx pipenv pnpm poetry pyenv rbenv uv yarn")
"""Programs that run one of their first words, among much else; tests they run by other names."""

_FIRST_WORDS = 4
_PREFIXES = {
    "env": options("-i --ignore-environment -", "-u --unset"),
    "nohup": options(),
    "command": options("-p"),
    "builtin": options(),
    "exec": options("-c -l", "-a"),
    "time": options("-p"),
    "nice": options("", "-n --adjustment"),
    "ionice": options("-t", "-c -n --class --classdata"),
    "setsid": options("-w -f -c --wait --fork"),
    "stdbuf": options("", "-i -o -e"),
    "timeout": options("--foreground --preserve-status -v", "-k -s --kill-after"),
    "sudo": options(
        "-n -E -H -k -S -b -P -A -B --non-interactive --preserve-env --set-home --stdin",
        "-u -g -p -C -D -T --user --group --prompt --close-from --chdir",
    ),
    "doas": options("-n", "-u"),
    "run0": options("", "-u --user"),
    "pkexec": options("", "-u --user"),
    "xargs": options(
        "-0 -r -t -x -o --null --no-run-if-empty --verbose --exit",
        "-n -P -I -L -s -d -a -E --max-args --max-procs --replace --max-lines --delimiter",
    ),
}
"""Programs that run the words after their own options, and those options."""

_HARMLESS = re.compile(
    r"(?:DEBIAN_FRONTEND|NEEDRESTART_\w+|APT_LISTCHANGES_FRONTEND|SYSTEMD_(?:COLORS|LESS)|LC_\w+"
    r"|LANG|LANGUAGE|TERM|TZ|NO_COLOR|GIT_(?:TERMINAL_PROMPT|OPTIONAL_LOCKS))=.*"
    r"|(?:SYSTEMD_|GIT_)?PAGER=(?:cat|less|''|\"\")?",
    re.ASCII | re.DOTALL,
)
"""Assignments that do not change what a privileged program does to the host."""

_RUN_BY_OTHERS = re.compile(
    r"\w*(?:PAGER|EDITOR|VISUAL|BROWSER|COMMAND|LESSOPEN|LESSCLOSE|ASKPASS|_SSH|SHELL|_ENV)\w*=",
    re.ASCII,
)
"""Assignments of commands that other programs run."""

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=", re.ASCII)
_DEEPEST = 8


class _Way(NamedTuple):
    """How a program is come to: as another user, with words that are not known, with a setting."""

    is_elevated: bool = False
    is_open: bool = False
    is_changed: bool = False


def judge(
    command: str, directory: str, settings: HookSettings, depth: int = _DEEPEST
) -> CommandDenial | None:
    """Return the denial of `command`, run by a shell in `directory`; None for no opinion."""
    try:
        simple = read(command)
    except UnreadableError:
        return _of_text(command, directory, settings)
    return _of_words(command, simple, directory, settings, depth)


def _of_text(text: str, directory: str, settings: HookSettings) -> CommandDenial | None:
    program = mentioned(text, directory, settings.repositories)
    return None if program is None else CommandDenial(program, is_simple=False)


def _of_words(
    text: str, simple: SimpleCommand, directory: str, settings: HookSettings, depth: int
) -> CommandDenial | None:
    way = _Way(is_changed=not all(_HARMLESS.fullmatch(word.raw) for word in simple.assignments))
    words: Sequence[ShellWord] = simple.words
    elevator = ""
    for word in (*simple.assignments, *words):
        if _RUN_BY_OTHERS.match(word.raw):
            value = word.text.partition("=")[2]
            denial = _of_text(value, directory, settings)
            if denial is not None:
                return denial
    while words:
        first = words[0]
        if not first.is_literal or not first.text.isascii() or not depth:
            return (
                _elevated(elevator) if elevator else _of_pattern(first, text, directory, settings)
            )
        depth -= 1
        name = basename(first.text)
        if name in ELEVATORS:
            way = way._replace(is_elevated=True)
            elevator = name
        if name == "command" and _tells_only(words[1:]):
            return None
        if name not in _PREFIXES:
            return _of_program(text, name, words[1:], way, elevator, directory, settings, depth)
        inner = _behind(name, words[1:])
        if inner is None:
            return _elevated(elevator) if elevator else _of_text(text, directory, settings)
        if name == "xargs":
            way = way._replace(is_open=True)
        words, is_changed = inner
        way = way._replace(is_changed=way.is_changed or is_changed)
    return _elevated(elevator) if elevator else None


def _of_pattern(
    first: ShellWord, text: str, directory: str, settings: HookSettings
) -> CommandDenial | None:
    """Judge a text whose program the shell makes up: by what it names, and by what it may match."""
    if any(sign in first.raw for sign in "?*["):
        from fnmatch import fnmatchcase

        for name in (*PROGRAMS, *ELEVATORS):
            if fnmatchcase(name, basename(first.text)):
                return CommandDenial(name, is_simple=False)
    return _of_text(text, directory, settings)


def _tells_only(words: Sequence[ShellWord]) -> bool:
    """Return whether `command` only tells what a name is (`-v`), and runs nothing."""
    return bool(words) and words[0].is_literal and words[0].text in ("-v", "-V", "-pv", "-pV")


def _elevated(elevator: str) -> CommandDenial:
    return CommandDenial(elevator, is_simple=True)


def _behind(name: str, words: Sequence[ShellWord]) -> tuple[Sequence[ShellWord], bool] | None:
    """Return the command that a prefix runs, and whether something is set for it.

    None where the prefix's own options cannot be read.
    """
    known = _PREFIXES[name]
    at = 0
    while at < len(words) and words[at].text.startswith("-") and words[at].text != "--":
        option = words[at]
        if not option.is_literal:
            return None
        if option.text in known.valued:
            at += 2
            continue
        if parse([option.text], known) is None:
            return None
        at += 1
    if at < len(words) and words[at].text == "--":
        at += 1
    if name == "timeout":
        at += 1
    is_changed = False
    while name in ("env", "sudo") and at < len(words) and _ASSIGNMENT.match(words[at].raw):
        is_changed = is_changed or not _HARMLESS.fullmatch(words[at].raw)
        at += 1
    return words[at:], is_changed


def _of_program(
    text: str,
    name: str,
    words: Sequence[ShellWord],
    way: _Way,
    elevator: str,
    directory: str,
    settings: HookSettings,
    depth: int,
) -> CommandDenial | None:
    """Judge the program `name` with its `words`, which the whole `text` comes down to."""
    if name in PROGRAMS or (name == "journalctl" and way.is_elevated):
        return _privileged(name, words, way, settings)
    if name == "git":
        return _git(text, words, way, elevator, directory, settings)
    if way.is_elevated:
        return _elevated(elevator or name)
    if folded(name) != name or _runs_others(name, words):
        return _nested(text, name, words, directory, settings, depth)
    return None


def _privileged(
    name: str, words: Sequence[ShellWord], way: _Way, settings: HookSettings
) -> CommandDenial | None:
    translated = _translated(name, words, way)
    is_fixed = not way.is_open and all(word.is_literal for word in words)
    if name == "systemctl" and settings.allows_user_units and is_fixed and not way.is_elevated:
        from host_agent.hooks.programs.systemctl import is_of_the_user

        if is_of_the_user([word.text for word in words]):
            return None
    if translated.only_reads and not way.is_elevated and settings.allows_reads:
        return None
    return CommandDenial(name, is_simple=True, suggestions=translated.suggestions)


def _translated(name: str, words: Sequence[ShellWord], way: _Way) -> Translation:
    if way.is_open or way.is_changed or not all(word.is_literal for word in words):
        return UNKNOWN
    texts = [word.text for word in words]
    if name == "service":
        from host_agent.hooks.programs.systemctl import translate_service

        return translate_service(texts)
    module = import_module(f"host_agent.hooks.programs.{PROGRAMS.get(name, name)}")
    translated: Translation = module.translate(texts)
    return translated


def _git(
    text: str,
    words: Sequence[ShellWord],
    way: _Way,
    elevator: str,
    directory: str,
    settings: HookSettings,
) -> CommandDenial | None:
    call = git.read_call([word.text for word in words], directory)
    repository = git.repository_of(call.directory, settings.repositories)
    is_certain = not (way.is_changed or way.is_open) and all(word.is_literal for word in words)
    if repository is not None:
        translated = git.translate(call, repository) if is_certain else UNKNOWN
        if translated.only_reads and not way.is_elevated and settings.allows_reads:
            return None
        return CommandDenial("git", is_simple=True, suggestions=translated.suggestions)
    if way.is_elevated:
        return _elevated(elevator)
    if git.runs_others(call) or not is_certain:
        return _of_text(text, directory, settings)
    return None


def _runs_others(name: str, words: Sequence[ShellWord]) -> bool:
    """Return whether a program runs a command that its own words have."""
    if name in _LAUNCHERS or name in _SHELLS or name == "source":
        return True
    if name in _BY_OPTION:
        return any(word.text.partition("=")[0] in _BY_OPTION[name] for word in words)
    if name in _ENVIRONMENTS:
        first = [basename(word.text) for word in words[:_FIRST_WORDS]]
        named = {*PROGRAMS, *ELEVATORS} - {"service"}
        return first[:1] != ["test"] and bool(named & set(first))
    if name in _AWKS:
        return any("system" in word.text or "|" in word.text for word in words)
    if _INTERPRETERS.fullmatch(name):
        return _has_code(words)
    return False


def _has_code(words: Sequence[ShellWord]) -> bool:
    """Return whether an interpreter is given code in its words, before the name of a script."""
    for word in words:
        if _CODE.fullmatch(word.text):
            return True
        if word.text == "-m" or _SCRIPT.fullmatch(word.text):
            return False
    return False


def _nested(
    text: str,
    name: str,
    words: Sequence[ShellWord],
    directory: str,
    settings: HookSettings,
    depth: int,
) -> CommandDenial | None:
    """Judge what a launcher runs, where that stands there; else what its text names."""
    if name in _SHELLS and len(words) == 2 and re.fullmatch(r"-[eiluxv]*c", words[0].text):
        inner = words[1]
        if inner.is_literal and words[0].is_literal and depth:
            return judge(inner.text, directory, settings, depth - 1)
    if name == "find" and depth:
        return _found(words, directory, settings, depth)
    return _of_text(text, directory, settings)


def _found(
    words: Sequence[ShellWord], directory: str, settings: HookSettings, depth: int
) -> CommandDenial | None:
    """Judge each command that a find runs; its words are those of the files too."""
    at = 0
    while at < len(words):
        at += 1
        if words[at - 1].text not in _BY_OPTION["find"]:
            continue
        end = next((n for n in range(at, len(words)) if words[n].text in (";", "+")), len(words))
        inner = SimpleCommand((), tuple(words[at:end]))
        quoted = " ".join(word.raw for word in words[at:end])
        denial = _of_words(quoted, inner, directory, settings, depth - 1)
        if denial is not None:
            return CommandDenial(denial.program, is_simple=False)
        at = end
    return None
