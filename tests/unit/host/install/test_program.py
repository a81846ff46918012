"""Which program the service may start: readable by everybody, changeable by root alone."""

import os
from pathlib import Path

import pytest

from host_agent.errors import ConfigurationError
from host_agent.host.install.program import check_program, own_program, walk

PROGRAM = "/opt/host-agent/bin/host-agent"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with a program in it, below a directory that everybody may enter."""
    for folder in ("opt/host-agent/bin", "usr/bin", "root/venv/bin", "tmp/venv"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "root").chmod(0o700)
    for script in (PROGRAM, "/root/venv/bin/host-agent", "/tmp/venv/host-agent"):
        place = tmp_path / script[1:]
        place.write_text("#!/opt/host-agent/bin/python3\n")
        place.chmod(0o755)
    python = tmp_path / "usr/bin/python3"
    python.write_text("")
    python.chmod(0o755)
    (tmp_path / "opt/host-agent/bin/python3").symlink_to("/usr/bin/python3")
    tmp_path.chmod(0o755)
    return tmp_path


def test_links_are_followed_within_the_root(root: Path) -> None:
    assert list(walk(root, "/opt/host-agent/bin/python3")) == [
        *("/", "/opt", "/opt/host-agent", "/opt/host-agent/bin", "/opt/host-agent/bin/python3"),
        *("/usr", "/usr/bin", "/usr/bin/python3"),
    ]


def test_links_without_an_end_are_an_error(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("../a")

    with pytest.raises(OSError, match="no end"):
        list(walk(root, "/a"))


def refused(root: Path, program: str = PROGRAM) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_program(root, program)
    return "\n".join(caught.value.faults)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files they must be")
class TestAsRoot:
    def test_a_program_for_everybody_is_good(self, root: Path) -> None:
        check_program(root, PROGRAM)

    def test_a_program_below_a_private_home_is_refused_with_advice(self, root: Path) -> None:
        text = refused(root, "/root/venv/bin/host-agent")

        assert "/root: the agent's user may not enter it (mode 0700)" in text
        assert "/opt/host-agent" in text

    def test_an_interpreter_that_cannot_be_reached_is_refused(self, root: Path) -> None:
        (root / "usr/bin").chmod(0o700)

        assert "/usr/bin: the agent's user may not enter it" in refused(root)

    def test_a_program_that_somebody_else_can_change_is_refused(self, root: Path) -> None:
        os.chown(root / "opt/host-agent", 1000, 1000)

        assert "/opt/host-agent: somebody other than root can change it" in refused(root)

    def test_a_program_that_everybody_can_change_is_refused(self, root: Path) -> None:
        (root / PROGRAM[1:]).chmod(0o777)

        assert "somebody other than root can change it" in refused(root)

    def test_a_program_below_tmp_is_refused(self, root: Path) -> None:
        assert "a /tmp of its own" in refused(root, "/tmp/venv/host-agent")


def test_a_program_that_is_missing_is_refused(root: Path) -> None:
    assert "cannot be looked at" in refused(root, "/opt/none")


@pytest.mark.parametrize("path", ["/opt/a b", "/opt/%h/x", "opt/x", "/opt/x;y", "/opt/\n"])
def test_a_path_that_a_unit_cannot_name_is_refused(root: Path, path: str) -> None:
    assert "a unit cannot name such a path" in refused(root, path)


def test_the_program_beside_this_interpreter_is_found() -> None:
    program = own_program(Path("/"))

    assert program.endswith("/host-agent")
    assert Path(program).exists()
