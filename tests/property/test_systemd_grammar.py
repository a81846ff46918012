"""Whatever is taken for a unit stays one argument, one name, and nothing else."""

import re
import shutil
import string
import subprocess
from datetime import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from host_agent.operations.systemd.adapter import (
    TYPES,
    is_pattern,
    is_protected,
    is_unit,
    parse_since,
)
from tests.support.systemd_host import WRAPPERS, operation

LETTERS = string.ascii_letters + string.digits + ":_.@\\-*?[]/ \n\t$`é"
NAMES = st.builds(
    lambda stem, kind: f"{stem}.{kind}",
    st.text(LETTERS, max_size=20),
    st.sampled_from([*TYPES, "conf", "Service", ""]),
)

PARTS = st.text(string.ascii_letters + string.digits + ":_.-", min_size=1, max_size=12)
MOSTLY_UNITS = st.builds(
    lambda stem, instance, kind: f"{stem}{instance}.{kind}",
    PARTS,
    st.just("") | PARTS.map(lambda part: f"@{part}"),
    st.sampled_from(TYPES),
)


@given(NAMES | st.text(max_size=30))
@example("a@b.service")
@example("-.mount")
def test_a_unit_is_one_harmless_argument(name: str) -> None:
    if is_unit(name):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*", name, re.ASCII)
        assert name.rpartition(".")[2] in TYPES
        assert "@." not in name.removesuffix(name.rpartition(".")[2])
        asked = operation("systemd.stop", unit=name)
        arguments = asked.spec.invoke(asked.params, {"state": "0" * 64}).arguments
        assert arguments == (name, "0" * 64)


@given(st.text(LETTERS, max_size=30))
def test_a_pattern_is_one_harmless_argument(pattern: str) -> None:
    if is_pattern(pattern):
        assert re.fullmatch(r"[A-Za-z0-9_*?][A-Za-z0-9:_.@*?-]*", pattern, re.ASCII)
        assert is_unit(pattern) or set(pattern) & set("*?")


@given(st.datetimes(min_value=datetime(1970, 1, 2)))  # noqa: DTZ001 - Hypothesis wants it naive
def test_an_instant_has_one_form_which_is_taken_again(instant: datetime) -> None:
    asked = operation("systemd.logs", unit="a.service", since=f"{instant}".replace(" ", "T") + "Z")
    since = asked.params.canonical()["since"]
    assert isinstance(since, str)
    assert operation("systemd.logs", unit="a.service", since=since).params == asked.params
    assert parse_since(since).tzinfo is not None


@given(
    st.sampled_from(["ssh", "sshd", "host-agent", "dbus", "systemd-logind", "user@1", "getty@t"])
)
def test_no_type_of_a_protected_unit_is_free(stem: str) -> None:
    assert all(is_protected(f"{stem}.{kind}") for kind in TYPES)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES.filter(lambda name: "\0" not in name), min_size=1, max_size=20))
def test_the_wrappers_take_the_same_names(names: list[str]) -> None:
    text = (WRAPPERS / "systemd-stop").read_text()
    function = text[text.index("is_unit() {") : text.index("[[ -x /usr/bin/systemctl")]
    script = f'LC_ALL=C\n{function}\nfor name; do is_unit "$name" && echo yes || echo no; done'
    said = subprocess.run(
        ["/bin/bash", "-pc", script, "bash", *names], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["yes" if is_unit(name) else "no" for name in names]


ESCAPE = shutil.which("systemd-escape")


@pytest.mark.skipif(ESCAPE is None, reason="needs systemd-escape")
@settings(max_examples=60, deadline=None)
@given(st.lists(MOSTLY_UNITS.filter(is_unit), min_size=1, max_size=20))
def test_systemd_mangles_none_of_them(names: list[str]) -> None:
    said = subprocess.run(
        [str(ESCAPE), "--mangle", "--", *names], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == names
