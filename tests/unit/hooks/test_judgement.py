"""Every command of the table has its answer; every operation named is one that there is."""

import shlex
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.hooks.judgement import CommandDenial, judge
from host_agent.hooks.mention import ELEVATORS, PROGRAMS
from host_agent.hooks.settings import HookSettings
from host_agent.hooks.shell import UnreadableError, read
from host_agent.hooks.wording import command_line, sentence, tool_name
from host_agent.operations import CATALOGUE
from host_agent.pipeline.discovery import tool_name as name_of_tool
from tests.support.hook_commands import DIRECTORY, INNOCENT, REPOSITORIES, TABLES

SETTINGS = HookSettings(repositories=REPOSITORIES)
ROWS = [
    pytest.param(command, answer, id=f"{name}-{number}")
    for name, table in TABLES.items()
    for number, (command, answer) in enumerate(table.items())
]


def shown(denial: CommandDenial | None) -> str:
    """Return a judgement as the tables write it."""
    if denial is None:
        return "-"
    asked = [command_line(suggestion) for suggestion in denial.suggestions]
    if asked:
        return "; ".join(line.removeprefix("host-agent call ") for line in asked)
    return f"{'=' if denial.is_simple else '~'}{denial.program}"


@pytest.mark.parametrize(("command", "answer"), ROWS)
def test_a_command_has_its_answer(command: str, answer: str) -> None:
    assert shown(judge(command, DIRECTORY, SETTINGS)) == answer


def test_the_tables_are_as_long_as_promised() -> None:
    assert sum(map(len, TABLES.values())) - len(INNOCENT) >= 300
    assert len(set(INNOCENT)) >= 100


def suggested() -> list[CommandDenial]:
    denials = [judge(row.values[0], DIRECTORY, SETTINGS) for row in ROWS]  # type: ignore[arg-type]
    return [denial for denial in denials if denial is not None and denial.suggestions]


def test_every_operation_named_is_in_the_catalogue_with_these_parameters() -> None:
    for denial in suggested():
        for suggestion in denial.suggestions:
            filled = dict(suggestion.parameters) | dict.fromkeys(suggestion.missing, "main")
            CATALOGUE.parse(suggestion.operation, filled)


def test_the_tools_are_named_as_the_agent_names_them() -> None:
    for name in CATALOGUE.names:
        assert tool_name(name) == name_of_tool(name)


def test_every_operation_but_exec_is_named_by_some_command() -> None:
    named = {one.operation for denial in suggested() for one in denial.suggestions}
    assert named == CATALOGUE.names - {"exec.run"}


def test_a_denial_names_tool_and_command() -> None:
    denial = judge("sudo zfs destroy -r tank/x", DIRECTORY, SETTINGS)
    assert denial is not None
    text = sentence(denial)
    assert (
        '`zfs_destroy` of the server `host-agent` with {"dataset": "tank/x", "recursive": true}'
        in text
    )
    assert "host-agent call zfs.destroy dataset=tank/x recursive=true" in text


@pytest.mark.parametrize("command", ["git -C /srv/app pull", "sudo rm x", "ls | sudo tee x"])
def test_a_denial_without_all_of_it_says_how_to_ask(command: str) -> None:
    denial = judge(command, DIRECTORY, SETTINGS)
    assert denial is not None
    text = sentence(denial)
    assert "give `remote` and `branch` too" in text or "host-agent operations" in text


def test_many_units_are_not_all_listed() -> None:
    units = [f"u{number}" for number in range(12)]
    denial = judge(" ".join(["systemctl restart", *units]), DIRECTORY, SETTINGS)
    assert denial is not None
    assert sentence(denial).count("systemd_restart") == 8
    assert "and 4 more" in sentence(denial)


@pytest.mark.parametrize(
    ("command", "allowed", "denied"),
    [
        ("systemctl status nginx", "-", "systemd.status unit=nginx.service"),
        ("systemctl show nginx", "-", "=systemctl"),
        ("zfs list", "-", "zfs.list"),
        ("git -C /srv/app status", "-", "git.status repository=/srv/app"),
        ("systemctl --user restart x", "-", "=systemctl"),
        ("git status", "-", "-"),
    ],
)
def test_what_a_shell_may_do_is_the_persons_to_say(command: str, allowed: str, denied: str) -> None:
    strict = SETTINGS._replace(allows_reads=False, allows_user_units=False)
    assert shown(judge(command, DIRECTORY, SETTINGS)) == allowed
    assert shown(judge(command, DIRECTORY, strict)) == denied


@pytest.mark.parametrize("directory", ["/srv/app", "/srv/app/sub", "/srv/site data"])
def test_git_in_a_listed_repository_is_denied(directory: str) -> None:
    assert shown(judge("git push", directory, SETTINGS)) == "=git"
    assert shown(judge("git push | cat", directory, SETTINGS)) == "~git"
    assert shown(judge("git push", directory, HookSettings())) == "-"
    assert shown(judge("git push | cat", directory, HookSettings())) == "-"


@pytest.mark.parametrize("directory", ["/srv/apple", "/srv", "/", "/home/srv/app"])
def test_git_elsewhere_is_the_agents_own(directory: str) -> None:
    assert shown(judge("git push", directory, SETTINGS)) == "-"
    assert shown(judge("git push | cat", directory, SETTINGS)) == "-"


WRAPPINGS = [
    "{}",
    "A=b {}",
    "env {}",
    "nohup nice {}",
    "ls; {}",
    "ls && {}",
    "true | {}",
    "({})",
    "$({})",
    "`{}`",
    "bash -c '{}'",
    'sh -c "{}"',
    "eval {}",
    "xargs {}",
    "find / -exec {} \\;",
    "if {}; then true; fi",
    "{} &",
    "{} > x",
    "{}\nls",
    "ls\n{}",
    "bash <<X\n{}\nX",
    "cat <({})",
    "ssh h {}",
    "/usr/sbin/{}",
    "\\{}",
    "! {}",
    "watch {}",
    "python3 -c 'import os; os.system(\"{}\")'",
]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_no_program_is_overlooked_in_any_wrapping(wrapping: str) -> None:
    words = {"service": "service nginx restart", "su": "su -c reboot"}
    for program in (*PROGRAMS, *ELEVATORS):
        command = wrapping.replace("{}", words.get(program, f"{program} some thing"))
        assert judge(command, DIRECTORY, SETTINGS) is not None, command


@pytest.mark.parametrize("number", [9, 40, 3000])
def test_no_depth_of_wrapping_hides_a_program(number: int) -> None:
    for prefix in ("env ", "nohup ", "sudo ", "find . -exec "):
        assert judge(prefix * number + "zfs destroy x", DIRECTORY, SETTINGS) is not None
    nested = "zfs destroy x"
    for _ in range(12):
        nested = f"bash -c {shlex.quote(nested)}"
    assert judge(nested, DIRECTORY, SETTINGS) is not None


PIECES = ["zfs", "ls", " ", "'", '"', "\\", "a b", "=", "x", "\t", ",", "/", "-"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_words_are_those_of_shlex(text: str) -> None:
    try:
        found = read(text)
    except UnreadableError:
        return
    words = [word.text for word in (*found.assignments, *found.words)]
    assert words == shlex.split(text)


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    judge(text, DIRECTORY, SETTINGS)
    judge(f"sudo {text}", DIRECTORY, SETTINGS)


@given(st.text(alphabet="abz fs\\'\"$@{}();|&\n", max_size=20))
def test_a_program_at_a_place_of_its_own_is_seen_whatever_stands_round_it(text: str) -> None:
    for before, after in product(("", "\n", ";"), ("", "\n", ";")):
        if not before and not after:
            continue
        command = f"zfs destroy x{after or ';'}{text}{before or ';'}zfs destroy y"
        assert judge(command, DIRECTORY, SETTINGS) is not None
