"""A pattern of the configuration means the same to Python and to root's wrappers."""

import re
import subprocess
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from host_agent.operations.patterns import to_extended

ALPHABET = "ab0.-_/@^]["
NAMES = st.text(ALPHABET, max_size=8)

_BASH = r"""
LC_ALL=C
while IFS= read -r pattern && IFS= read -r name; do
  code=0
  [[ $name =~ ^($pattern)$ ]] || code=$?
  echo "$code"
done
"""


class Bash:
    """The matcher of the wrappers, asked as they ask it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash", "-p", "-c", _BASH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def status(self, pattern: str, name: str) -> int:
        """Return 0 for a match, 1 for none, 2 for a pattern that is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{pattern}\n{name}\n")
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def bash() -> Iterator[Bash]:
    shell = Bash()
    yield shell
    shell.close()


def _class(members: list[str]) -> str:
    return "[" + "".join(members) + "]"


LITERALS = st.sampled_from([*"ab0-_/@]", r"\.", r"\[", r"\^", r"\-", r"\/", "}", "{"])
CLASSES = st.lists(
    st.sampled_from([*"ab0.-/@", "a-b", "0-9", r"\d", r"\w", r"\]", r"\^", r"\[", r"\S", "^"]),
    min_size=1,
    max_size=4,
).map(_class)
ATOMS = LITERALS | CLASSES | st.sampled_from([".", r"\d", r"\w", r"\W", r"\D", r"\s", r"\S"])
REPEATS = st.sampled_from(
    ["*", "+", "?", "*?", "+?", "??", "{2}", "{,2}", "{1,2}", "{1,}", "{,}", "{0}", "{1,2}?", "{}"]
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.lists(inner, max_size=4).map("".join)
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})")
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)}|)")
        | st.tuples(ATOMS, REPEATS).map("".join)
        | st.tuples(inner.map(lambda part: f"({part})"), REPEATS).map("".join)
    )


PATTERNS = st.recursive(ATOMS, _compound, max_leaves=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=PATTERNS, names=st.lists(NAMES, min_size=4, max_size=4), data=st.data())
@example(pattern="(|a)+", names=["", "a", "aa", "b"], data=None)
@example(pattern="(a?)*b", names=["b", "aab", "a", ""], data=None)
@example(pattern="[^]]", names=["]", "^", "a", ""], data=None)
@example(pattern="^a$|^b$", names=["a", "b", "ab", ""], data=None)
def test_python_and_bash_give_the_same_verdict(
    bash: Bash, pattern: str, names: list[str], data: st.DataObject | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compiled = re.compile(pattern, re.ASCII)
        except (re.error, Warning):
            assume(False)
    try:
        extended = to_extended(pattern)
    except ValueError:
        return  # refused where the configuration is checked
    if data is not None:  # some that match
        likely = st.from_regex(compiled, fullmatch=True).filter(
            lambda name: len(name) < 40 and name.isascii() and name.isprintable()
        )
        names = [*names, data.draw(likely | NAMES)]
    for name in names:
        expected = 0 if compiled.fullmatch(name) else 1
        assert bash.status(extended, name) == expected, (pattern, extended, name)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=tank)tank.*",
        "(?!tank/vault).*",
        "(?<=a)b",
        "(?i)tank",
        "(?i:tank)",
        r"\btank",
        r"(a|b)\1",
        "(?P<x>a)(?P=x)",
        "a*+b",
        "a{2}+",
        "(?>a)b",
        "a{256}",
        "((a{200}){20})",
        "((a{1,99}){1,99})",
        "a^b",
        "a$b",
        r"tank\n",
        r"\x41",
        "tank\t",
        r"[^\S ]",
        "(?#comment)a",
        r"[\b]",
    ],
)
def test_what_the_two_would_not_read_alike_is_refused(pattern: str) -> None:
    re.compile(pattern)  # Python takes it
    with pytest.raises(ValueError, match="root's wrappers cannot read alike"):
        to_extended(pattern)


@pytest.mark.parametrize(
    ("pattern", "extended"),
    [
        ("tank/(media|files)(/.*)?", "tank/(media|files)(/.*)?"),
        (r"nginx\.service", r"nginx\.service"),
        (r"vm-\d+-disk-\d+", "vm-[0-9]+-disk-[0-9]+"),
        ("(?:web|idle)-[a-z]+?", "(web|idle)-[a-z]+"),
        ("^tank(?P<below>/.*|)$", "tank((/.*)?)"),
        ("/srv/my app", "/srv/my[ ]app"),
    ],
)
def test_what_root_reads_in_its_file_is_still_readable(pattern: str, extended: str) -> None:
    assert to_extended(pattern) == extended
