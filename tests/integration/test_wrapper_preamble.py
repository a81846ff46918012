"""What every wrapper does before anything else, attacked in each file that lies in `wrappers/`.

Here a wrapper is called as sudo would call it if sudo passed on whatever the caller has.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from host_agent.host.doctor.host import REFUSED_ARGUMENT
from host_agent.operations.catalogue import Output
from tests.support.patience import PATIENCE
from tests.support.wrapper_parts import WRAPPERS

FILES = sorted(filter(Path.is_file, WRAPPERS.iterdir()))
every_wrapper = pytest.mark.parametrize("wrapper", FILES, ids=lambda path: path.name)
THROUGH_SUDO = {"SUDO_UID": "1234"}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

BELIEVED = (
    *("UID", "EUID", "SECONDS", "RANDOM", "SRANDOM", "EPOCHSECONDS", "EPOCHREALTIME"),
    "BASH_XTRACEFD",
)
"""What bash takes from the environment for its own, or what stops working once it is unset."""

UNSET_BY_DEFAULT = (
    *("BASHPID", "BASH_ARGV0", "BASH_ENV", "BASH_LOADABLES_PATH", "CDPATH", "CHILD_MAX", "COLUMNS"),
    *("COPROC", "ENV", "EPOCHREALTIME", "EXECIGNORE", "FUNCNEST", "GLOBIGNORE", "HISTFILE"),
    *("HISTTIMEFORMAT", "HOME", "IGNOREEOF", "INPUTRC", "LANG", "LC_CTYPE", "LC_COLLATE", "MAIL"),
    *("LC_MESSAGES", "LINES", "MAPFILE", "MAILPATH", "OPTARG", "POSIXLY_CORRECT", "PROMPT_COMMAND"),
    *("PS0", "PS1", "PS3", "REPLY", "SHELL", "SRANDOM", "EPOCHSECONDS", "BASH_XTRACEFD", "TMOUT"),
    *("TIMEFORMAT", "TMPDIR", "TERM", "_", "BASHOPTS", "SHELLOPTS", "SHLVL", "auto_resume"),
    *("histchars", "LD_BIND_NOW", "LD_LIBRARY_PATH", "GCONV_PATH", "LOCPATH", "TZ", "TZDIR"),
    *("entries", "entry", "name", "here", "caller", "die"),
)
"""Names that mean something to bash, the loader, the C library or the preamble, beside those that
bash itself lists."""

COMPLAINED_OF = {"BASH_COMPAT", "LC_ALL"}
"""bash itself complains of a false level or locale, before it reads the first line."""

_PROBE = r"""
printf '%s\n' "$EUID $UID $here $caller $(umask) $PWD $PATH $LC_ALL" "$- $SHELLOPTS $BASHOPTS"
/usr/bin/readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2
twice() { [[ $1 =~ ^(a)(b) ]] && printf '%s\n' "${BASH_REMATCH[2]} ${IFS@Q} $*"; }
twice abc d
read -r first rest <<<'one two three' && printf '%s|%s\n' "$first" "$rest"
((SECONDS < 3600 && EPOCHSECONDS > 1000000000)) && [[ $SRANDOM =~ ^[0-9]+$ && $RANDOM != x ]]
facts=$(false) && printf 'reached\n' || printf 'failed\n'
variables=$(compgen -v)
printf 'variables: %s\n' "${variables//$'\n'/ }"
exec /usr/bin/env -0
"""


def run(
    program: Path, *arguments: str, environment: Mapping[str, str], cwd: str = "/"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=PATIENCE,
    )


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return the sentence of a refusal, as the agent picks it up; demand that there is no more."""
    output = Output(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)
    assert (output.exit_code, output.stdout) == (64, "")
    assert output.said is not None, done.stderr
    assert done.stderr == f"host-agent: {output.said}\n"
    return output.said


@pytest.fixture
def alone(wrapper: Path, tmp_path: Path) -> Path:
    """The wrapper in a directory of its own, without any list of root's."""
    folder = tmp_path / "wrappers"
    folder.mkdir()
    return Path(shutil.copy2(wrapper, folder / wrapper.name))


@pytest.fixture
def probe(wrapper: Path, tmp_path: Path) -> Path:
    """The wrapper's own text up to the end of its preamble, and then a look at what is left."""
    text = wrapper.read_text()
    program = tmp_path / wrapper.name
    program.write_text(text[: text.index("#end preamble\n")] + _PROBE)
    program.chmod(0o755)
    return program


class Trap:
    """Programs, a library path and a startup file that leave a mark where anything of them runs."""

    def __init__(self, folder: Path, text: str) -> None:
        self.canary = folder / "canary"
        self.programs = folder / "programs"
        self.programs.mkdir()
        script = f"#!/bin/sh\n: >{self.canary}\n"
        names = set(re.findall(r"/s?bin/([a-z][a-z0-9-]+)", text))
        for name in names | {"bash", "env", "id", "logger", "sh", "stat", "uname", "timeout"}:
            (self.programs / name).write_text(script)
            (self.programs / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        here, mark = str(self.programs), f"$(: >{self.canary})"
        return {
            **dict.fromkeys(
                ("PATH", "CDPATH", "LD_LIBRARY_PATH", "TMPDIR", "HOME", "LOCPATH"), here
            ),
            **dict.fromkeys(("BASH_ENV", "ENV", "INPUTRC"), f"{here}/sh"),
            **dict.fromkeys(("PS0", "PS1", "PS4", "PROMPT_COMMAND", "SUDO_USER", "X"), mark),
            "SHELLOPTS": "allexport:braceexpand:errexit:functrace:noexec:xtrace:verbose",
            "BASHOPTS": "extdebug:expand_aliases:nullglob:failglob",
            "IFS": "/0-",
            "GLOBIGNORE": "*",
            "POSIXLY_CORRECT": "1",
            "FUNCNEST": "1",
            "TMOUT": "1",
            "verb": "start",
            "caller": "0",
            "here": here,
            "BASH_ARGV0": f"{here}/x",
            "BASH_SOURCE": f"{here}/x",
        }


@pytest.fixture
def trap(wrapper: Path, tmp_path: Path) -> Trap:
    return Trap(tmp_path, wrapper.read_text())


# -- every wrapper, as it is -----------------------------------------------------------------------


@pytest.mark.promise("c34")
@every_wrapper
@pytest.mark.parametrize("arguments", [(), (REFUSED_ARGUMENT,)], ids=["none", "refused"])
def test_what_comes_along_changes_nothing_and_runs_nothing(
    alone: Path, trap: Trap, arguments: tuple[str, ...]
) -> None:
    plain = run(alone, *arguments, environment=THROUGH_SUDO)
    attacked = run(alone, *arguments, environment={**trap.environment, **THROUGH_SUDO})

    assert outcome(attacked) == outcome(plain)
    assert not trap.canary.exists()
    (trap.programs / "again").write_text(f": >{trap.canary}\n")  # the trap does close
    subprocess.run(["/bin/sh", str(trap.programs / "again")], check=True)
    assert trap.canary.exists()


@pytest.mark.promise("c34")
@every_wrapper
def test_an_exported_function_is_a_refusal_and_is_not_run(alone: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("printf", "exit", "die", "mapfile", "unset", "export", "cd", "exec", "log", "x-y"):
        hostile = {f"BASH_FUNC_{name}%%": f"() {{ : >{canary}; }}"}
        done = run(alone, REFUSED_ARGUMENT, environment={**hostile, **THROUGH_SUDO})
        assert refusal(done) == "a name in the environment has another form"
    assert not canary.exists()


@pytest.mark.promise("c34")
@every_wrapper
@pytest.mark.parametrize("name", BELIEVED)
def test_what_only_bash_can_say_is_not_said_by_the_environment(alone: Path, name: str) -> None:
    for value in ("2",) if name == "BASH_XTRACEFD" else ("0", "1000"):
        done = run(alone, REFUSED_ARGUMENT, environment={name: value, **THROUGH_SUDO})
        assert refusal(done) == f"the environment has {name}, which is bash's own to say"
    near = run(alone, REFUSED_ARGUMENT, environment={f"{name}X": "0", **THROUGH_SUDO})
    assert outcome(near) == outcome(run(alone, REFUSED_ARGUMENT, environment=THROUGH_SUDO))


@pytest.mark.promise("c34")
@every_wrapper
def test_a_name_that_is_none_is_a_refusal(alone: Path) -> None:
    for name in ("a.b", "1a", "a b", "é", "a\n", "a-"):
        done = run(alone, REFUSED_ARGUMENT, environment={name: "x"})
        assert refusal(done) == "a name in the environment has another form"
    assert run(alone, REFUSED_ARGUMENT, environment={"a_1": "x"}).returncode in {64, 69}


@every_wrapper
def test_a_refusal_is_a_sentence_that_the_agent_picks_up(alone: Path) -> None:
    done = run(alone, REFUSED_ARGUMENT, environment={})
    output = Output(exit_code=done.returncode, stderr=done.stderr)
    assert done.stderr == f"host-agent: {output.said}\n"


# -- what is left behind each wrapper's own preamble -----------------------------------------------


@pytest.mark.promise("c34")
@every_wrapper
def test_programs_get_path_and_locale_and_nothing_else(probe: Path, trap: Trap) -> None:
    done = run(probe, environment={**trap.environment, "LD_PRELOAD": "/nonexistent.so"})

    environment = [line for line in done.stdout.rpartition("\n")[2].split("\0") if line]
    given = {line for line in environment if not re.match(r"_=|SHLVL=0$", line)}
    assert given == {f"PATH={PATH}", "LC_ALL=C"}
    # The loader acts on it in bash itself, before a line is read: that is sudo's to prevent.
    assert len(re.findall(r"nonexistent\.so", done.stderr)) == 1
    assert not trap.canary.exists()


@every_wrapper
def test_umask_directory_and_standard_input_are_the_wrappers_own(
    probe: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        done = subprocess.run(
            [str(probe)],
            env={},
            cwd=tmp_path,
            input=b"read me\n",
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
    finally:
        os.umask(before)
    first, _, standard_input = done.stdout.decode().split("\n")[:3]
    user = f"{os.geteuid()} {os.getuid()}"
    assert first == f"{user} {probe.parent}  0077 / {PATH} C"
    assert standard_input == "/dev/null"


@every_wrapper
def test_who_calls_is_what_sudo_says_and_an_empty_word_is_not_nobody(probe: Path) -> None:
    for environment, caller in (
        ({}, ""),
        ({"SUDO_UID": "1234"}, "1234"),
        ({"SUDO_UID": ""}, "unknown"),
        ({"caller": "0"}, ""),
    ):
        first = run(probe, environment=environment).stdout.partition("\n")[0]
        assert first.split(" ")[3] == caller


def known_names() -> list[str]:
    """Return the names that bash itself gives a value or a meaning, and those of the preamble."""
    said = subprocess.run(
        ["/bin/bash", "-pc", "compgen -v"], env={}, capture_output=True, text=True, check=True
    )
    return sorted({*said.stdout.split(), *UNSET_BY_DEFAULT})


@pytest.mark.promise("c34")
@pytest.mark.parametrize("name", known_names())
def test_a_name_that_bash_knows_is_refused_or_as_if_it_were_not_there(
    tmp_path: Path, name: str
) -> None:
    """On one wrapper: all have the same preamble, which another test holds."""
    canary = tmp_path / "canary"
    text = FILES[0].read_text()
    program = tmp_path / "wrapper"
    program.write_text(text[: text.index("#end preamble\n")] + _PROBE)
    program.chmod(0o755)
    plain, variables = pictured(run(program, environment={}))
    for value in ("", "1", "2", "/nonexistent/x", "xtrace", f"a[$(: >{canary})]"):
        done = run(program, environment={name: value})
        if name in BELIEVED:
            assert done.returncode == 64
            assert done.stdout == ""
            continue
        if name in COMPLAINED_OF:
            done.stderr = re.sub(r"^/bin/bash: .*\n", "", done.stderr)
        told, left = pictured(done)
        assert told == plain
        assert left <= variables
    assert not canary.exists()


def pictured(done: subprocess.CompletedProcess[str]) -> tuple[str, set[str]]:
    """Return what the probe printed, but for what is another each time; and its variables."""
    assert done.returncode == 0, done.stderr
    told, _, rest = done.stdout.partition("variables: ")
    variables, _, environment = rest.partition("\n")
    kept = sorted(line for line in environment.split("\0") if not line.startswith("SHLVL="))
    told = re.sub(r"pipe:\[\d+\]", "pipe", f"{told}{kept}{done.stderr}")
    return told, set(variables.split())
