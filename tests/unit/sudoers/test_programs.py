"""Programs and variables are known by name, in all their versions."""

import pytest

from host_agent.sudoers.known import is_dangerous_variable, is_harmless_variable
from host_agent.sudoers.programs import HARMLESS, PROGRAMS, kind_of
from host_agent.sudoers.settings import _FLAGS, _HARMLESS, _HARMLESS_FALSE, _HARMLESS_TRUE


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("python3.11", "interpreter"),
        ("perl5.36.0", "interpreter"),
        ("nodejs", "interpreter"),
        ("lua5.4", "interpreter"),
        ("vim.tiny", "editor"),
        ("ld-linux-x86-64.so.2", "launcher"),
        ("mkfs.xfs", "storage"),
        ("mount.cifs", "storage"),
        ("qemu-system-x86_64", "container"),
        ("gcc-12", "build-tool"),
        ("7z", "file-tool"),
        ("g++", "build-tool"),
        ("iptables-legacy", "network-tool"),
        ("pvesubscription", "virtualisation"),
        ("sha256sum", "file-reader"),
    ],
)
def test_a_program_is_known_by_any_of_its_names(name: str, rule: str) -> None:
    kind = kind_of(f"/usr/bin/{name}")

    assert kind is not None
    assert kind.rule == rule


def test_nothing_is_both_harmless_and_dangerous() -> None:
    assert not {path.rpartition("/")[2] for path in HARMLESS} & set(PROGRAMS)
    for name, value in _FLAGS:
        assert name not in (_HARMLESS_TRUE if value else _HARMLESS_FALSE)
        assert name not in _HARMLESS or (name, value) == ("syslog", False)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_*", "*", "L*", "BASH_ENV", "BASH_FUNC_x%%=*"])
def test_dangerous_variables_are_known_by_name_and_pattern(name: str) -> None:
    assert is_dangerous_variable(name)
    assert not is_harmless_variable(name)


@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "LC_*", "LC_NEW", "TZ", "GIT_AUTHOR_NAME"])
def test_harmless_variables_are_known(name: str) -> None:
    assert is_harmless_variable(name)
    assert not is_dangerous_variable(name)


@pytest.mark.parametrize("name", ["WIDGET", "LC*x", "GIT_AUTHOR"])
def test_others_are_not_harmless(name: str) -> None:
    assert not is_harmless_variable(name)
