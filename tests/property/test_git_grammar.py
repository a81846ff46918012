"""The grammar of refs against git itself and against the wrapper; argument lists hold no option."""

import os
import re
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidParameterError
from host_agent.operations.git.adapter import SPECS, is_ref
from tests.support.git_wrapper import CATALOGUE, run_wrapper
from tests.support.repositories import ENVIRONMENT

_PARTS = st.sampled_from(
    ["a", "Z9", ".", "..", "/", "//", ".lock", "lock", "-", "_", "+", "HEAD", "@", "a.", "x.lock"]
)
_NEAR_REFS = st.lists(_PARTS, min_size=1, max_size=6).map("".join)
_REFS = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,30}"), fullmatch=True) | _NEAR_REFS
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | _NEAR_REFS


def _git_accepts(name: str) -> bool:
    done = subprocess.run(
        ["/usr/bin/git", "check-ref-format", "--branch", name],
        cwd=os.sep,
        env=dict(ENVIRONMENT),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and done.stdout == f"{name}\n"


@settings(max_examples=500, deadline=None)
@given(_REFS)
def test_ref_grammar_is_the_alphabet_and_what_git_accepts(name: str) -> None:
    in_alphabet = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", name) is not None
    assert is_ref(name) == (in_alphabet and _git_accepts(name))


@settings(max_examples=300, deadline=None)
@given(_REFS)
def test_wrapper_holds_the_same_grammar(name: str) -> None:
    # A repository that does not exist: 66 says that the arguments were accepted.
    output = run_wrapper("inspect-switch", "/nonexistent/app", name)
    assert output.exit_code == (66 if is_ref(name) else 64)


@pytest.mark.promise("c20")
@given(name=st.sampled_from([spec.name for spec in SPECS]), values=st.lists(_TEXTS, max_size=4))
def test_no_argument_is_an_option_or_holds_a_separator(name: str, values: list[str]) -> None:
    spec = CATALOGUE.spec(name)
    params: dict[str, JsonValue] = dict(zip(spec.parameters.positional, values, strict=False))
    params["repository"] = "/srv/app"
    if "limit" in params:
        params["limit"] = 3
    try:
        asked = CATALOGUE.parse(name, params)
    except InvalidParameterError:
        assume(False)
    held: dict[str, JsonValue] = dict.fromkeys(
        ("repository", "git_directory", "head", "head_ref", "target", "changes"), "x"
    )
    invocations = [spec.invoke(asked.params, held)]
    if spec.inspect is not None:
        invocations.append(spec.inspect(asked.params))
    for argument in (text for each in invocations for text in each.arguments):
        assert not argument.startswith("-")
        assert not set("\0\n\r") & set(argument)
        assert argument.isascii()
