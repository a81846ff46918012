"""The rendered fragment: what the configured adapters need, and nothing else."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.config import Config
from host_agent.errors import ConfigurationError
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import OperationSpec, RunAs
from host_agent.sudoers.render import (
    AUDIT_ROTATOR,
    SUDOERS_READER,
    audience,
    grants,
    render,
)
from tests.support.sudoers_example import example, sudoers_example

ROOT = Path(__file__).parents[3]
LINE = re.compile(r"host-agent ALL=\(([a-z]+)\) NOPASSWD: (/usr/local/lib/host-agent/([a-z-]+))")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def changed(**sections: object) -> Config:
    return example().model_copy(update=sections)


def test_the_shipped_fragment_is_the_examples() -> None:
    assert (ROOT / "sudoers" / "host-agent").read_text() == sudoers_example(), "run `make docs`"


def test_catalogue_wrappers_and_sudoers_are_one() -> None:
    declared = {wrapper for spec in CATALOGUE for wrapper in spec.wrappers}
    present = [path for path in (ROOT / "wrappers").iterdir() if path.is_file()]
    files = {path.name for path in present}
    granted = {m[3] for line in lines(sudoers_example()) if (m := LINE.fullmatch(line))}
    left_out = {name for name in declared if name.startswith("exec-")}

    assert all(os.access(path, os.X_OK) for path in present)
    assert files == declared | {SUDOERS_READER, AUDIT_ROTATOR}
    left_out.add(AUDIT_ROTATOR)  # the example has neither [exec] nor an append-only log
    assert granted == files - left_out


SAMPLES: dict[str, JsonValue] = {
    "dataset": "tank/a@s",
    "name": "daily",
    "tag": "keep",
    "properties": ["used"],
    "unit": "nginx.service",
    "vmid": "101",
    "package": "nginx",
    "template": "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst",
    "repository": "/srv/app",
    "remote": "origin",
    "branch": "main",
    "ref": "main",
}
PLAIN_DATASETS = {"zfs.snapshot", "zfs.list"}


@pytest.mark.parametrize("spec", list(CATALOGUE), ids=lambda spec: spec.name)
def test_an_operation_looks_only_through_wrappers_that_are_granted(spec: OperationSpec) -> None:
    given = {name: SAMPLES[name] for name in spec.parameters.model_fields if name in SAMPLES}
    if spec.name in PLAIN_DATASETS:
        given["dataset"] = "tank/a"
    params = CATALOGUE.parse(spec.name, given).params
    looks = [spec.inspect(params)] if spec.inspect else []
    if spec.probe is not None:
        with contextlib.suppress(KeyError):  # a precondition of a real host
            looks.append(spec.probe(params, {}))

    granted = {w for each in CATALOGUE if each.adapter == spec.adapter for w in each.wrappers}
    assert {look.wrapper for look in looks} <= granted
    assert {look.run_as for look in looks} <= {spec.run_as}


def test_every_line_is_exact() -> None:
    assert all(LINE.fullmatch(line) for line in lines(sudoers_example()))
    assert "*" not in "".join(lines(sudoers_example()))


def test_only_configured_adapters_are_granted() -> None:
    bare = changed(**{adapter.name: None for adapter in CATALOGUE.adapters})

    assert [grant.path.rpartition("/")[2] for grant in grants(bare, CATALOGUE)] == [SUDOERS_READER]


def test_an_append_only_log_has_a_wrapper_that_begins_its_files() -> None:
    kept = changed(audit=example().audit.model_copy(update={"append_only": True}))

    added = set(grants(kept, CATALOGUE)) - set(grants(example(), CATALOGUE))
    assert [(grant.path.rpartition("/")[2], grant.run_as) for grant in added] == [
        (AUDIT_ROTATOR, "root")
    ]


def test_wrappers_of_unix_users_are_for_callers_and_never_for_root() -> None:
    found = {g.run_as for g in grants(example(), CATALOGUE) if g.path.endswith("/git")}

    assert found == {"librarian"}


@pytest.mark.parametrize("folder", ["/opt/a b", "/opt/a*", "/opt/a,b", "/opt/a=b", "/opt/a\\b"])
def test_a_directory_that_sudoers_would_read_otherwise_is_refused(folder: str) -> None:
    execution = example().execution.model_copy(update={"wrapper_dir": Path(folder)})

    with pytest.raises(ConfigurationError, match="wrapper_dir"):
        grants(changed(execution=execution), CATALOGUE)


@pytest.mark.parametrize("user", ["ALL", "WEB", "a b", "a,b", "%wheel", "#0", "!x", "", "A_1"])
def test_a_user_that_sudoers_would_read_otherwise_is_refused(user: str) -> None:
    with pytest.raises(ConfigurationError, match="user"):
        render(grants(example(), CATALOGUE), user)


def test_the_audience_of_an_audit_knows_every_wrapper() -> None:
    who = audience(example(), CATALOGUE, user="agent", wrapper_dir="/w")
    wrappers = {spec.wrapper: spec.run_as for spec in CATALOGUE}

    assert who.names == ("agent", "librarian")
    assert who.root_wrappers >= {f"/w/{n}" for n, kind in wrappers.items() if kind is RunAs.ROOT}
    assert who.user_wrappers == {"/w/git"}
    assert audience(None, CATALOGUE, user="agent", wrapper_dir="/w").unix_users is None
