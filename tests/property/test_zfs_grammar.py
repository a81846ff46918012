"""The grammar of datasets in the agent and in the wrappers is one; no argument is an option."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidParameterError
from host_agent.operations.catalogue import Catalogue
from host_agent.operations.zfs.adapter import ADAPTER, SPECS
from host_agent.operations.zfs.parameters import is_dataset, is_snapshot_name

WRAPPERS = Path(__file__).resolve().parents[2] / "wrappers"
CATALOGUE = Catalogue((ADAPTER,))
USAGE, REFUSED = 64, 77

_PARTS = st.sampled_from(
    ["a", "Z9", ".", "..", "/", "//", "@", "-", "_", ":", "%", "#", ",", " ", "log", "mirror", "\n"]
)
_NEAR_NAMES = st.lists(_PARTS, min_size=1, max_size=7).map("".join)
_NAMES = st.from_regex(re.compile(r"[A-Za-z][A-Za-z0-9_./:@-]{0,30}"), fullmatch=True) | _NEAR_NAMES
_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | _NEAR_NAMES


def _status(verb: str, *arguments: str) -> int:
    """Return the exit status of an inspection in a directory without a list of protections.

    It refuses there before it asks zfs anything: 77 says that the arguments were accepted.
    """
    done = subprocess.run(
        [WRAPPERS / "zfs-inspect", verb, *arguments],
        cwd=os.sep,
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode


@settings(max_examples=300, deadline=None)
@given(_NAMES | _TEXTS)
def test_the_wrapper_takes_the_datasets_that_the_agent_takes(name: str) -> None:
    assert _status("destroy", name, "one") == (REFUSED if is_dataset(name) else USAGE)


@settings(max_examples=200, deadline=None)
@given(_NAMES | _TEXTS)
def test_the_wrapper_takes_the_names_of_snapshots_that_the_agent_takes(name: str) -> None:
    expected = REFUSED if is_snapshot_name(name) else USAGE
    assert _status("snapshot", "tank/a", name, "one") == expected


@settings(max_examples=200, deadline=None)
@given(_NAMES | _TEXTS)
def test_the_wrapper_takes_the_tags_that_the_agent_takes(tag: str) -> None:
    try:
        CATALOGUE.parse("zfs.hold", {"dataset": "tank/a@b", "tag": tag})
    except InvalidParameterError:
        expected = USAGE
    else:
        expected = REFUSED
    assert _status("hold", "tank/a@b", tag) == expected


@pytest.mark.promise("c20")
@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([spec.name for spec in SPECS]),
    values=st.lists(_NAMES | _TEXTS, max_size=3),
    recursive=st.booleans(),
)
def test_no_argument_is_an_option_or_holds_a_separator(
    name: str, values: list[str], recursive: bool
) -> None:
    spec = CATALOGUE.spec(name)
    params: dict[str, JsonValue] = dict(zip(spec.parameters.positional, values, strict=False))
    if "recursive" in spec.parameters.positional:
        params["recursive"] = recursive
    if "properties" in params:
        params["properties"] = [params["properties"]]
    params.pop("types", None)
    try:
        asked = CATALOGUE.parse(name, params)
    except InvalidParameterError:
        return
    held: dict[str, JsonValue] = {"guid": "1", "state": "a" * 64}
    invocations = [spec.invoke(asked.params, held)]
    if spec.inspect is not None and spec.probe is not None:
        invocations += [spec.inspect(asked.params), spec.probe(asked.params, held)]
    for argument in (text for each in invocations for text in each.arguments):
        assert not argument.startswith("-")
        assert not set("\0\n\r\t ") & set(argument)
        assert argument.isascii()
