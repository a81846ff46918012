"""What bash really starts is never overlooked, in texts that are put together at random.

bash runs with nothing on its search path but stand-ins that leave a mark.
"""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_agent.hooks.judgement import judge
from host_agent.hooks.settings import HookSettings
from tests.support.patience import PATIENCE

PRIVILEGED = ("zfs", "sudo", "systemctl")
PASSING = ("env", "nohup", "ls", "xargs", "find", "bash", "sh", "timeout", "nice")
PIECES = [
    *("zfs ", "sudo ", "systemctl ", "z", "fs ", "su", "do "),
    *("env ", "nohup ", "ls ", "xargs ", "bash -c ", "timeout 5 ", "nice ", "eval ", "exec "),
    *("command ", "builtin ", "echo ", "A=b ", "A=zfs ", "alias x=zfs\n", "time ", "! ", "if "),
    *("then ", "; fi", "{ ", "; }", "(", ")", "$(", "`", '"', "'", "\\", "\\\n", "\n", " ", "\t"),
    *(";", "&&", "||", "|", "<<E\n", "\nE\n", "$'", "\\x7a", "#", "$@", "${A}", "${X:-}", "$A "),
    *(
        "destroy ",
        "x",
        "-",
        "--",
        "{}",
        "*",
        "~",
        "=",
        "<(",
        "[[ ",
        " ]]",
        "z?s ",
        '"$U"',
        "$1",
        "find . -exec ",
        "\\;",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bash")
    programs = place / "bin"
    programs.mkdir()
    (place / "work").mkdir()
    for name in PRIVILEGED:
        (programs / name).write_text('#!/bin/sh\n: > "$MARK"\n')
        (programs / name).chmod(0o755)
    for name in PASSING:
        (programs / name).symlink_to(f"/usr/bin/{name}")
    return place


def starts(text: str, place: Path) -> bool:
    """Return whether bash starts a privileged program for `text`."""
    mark = place / "mark"
    mark.unlink(missing_ok=True)
    subprocess.run(
        ["/bin/bash", "-c", text],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=place / "work",
        env={"PATH": str(place / "bin"), "MARK": str(mark), "HOME": str(place / "work")},
        timeout=PATIENCE,
        check=False,
    )
    return mark.exists()


def judged(text: str, place: Path) -> bool:
    return judge(text, str(place), HookSettings(allows_reads=False)) is not None


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_what_bash_starts_is_denied(place: Path, text: str) -> None:
    if not judged(text, place):
        assert not starts(text, place)


@pytest.mark.parametrize(
    ("text", "is_started"),
    [("zfs destroy x", True), ("z'f's destroy x", True), ("echo zfs", False), ("xzfs", False)],
)
def test_the_stand_ins_tell(text: str, is_started: bool, place: Path) -> None:
    assert starts(text, place) is is_started
    assert judged(text, place) is is_started
