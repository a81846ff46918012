"""The requests of docs/explanation/prompts.md: previews that the real wrappers gave just now.

Each is a real run as root, in namespaces where it needs any: git on a repository, the stand-ins for
OpenZFS and systemd behind the unmodified wrappers, a program that is really registered. What is
another in each run is replaced: commits, by the hash of their subject, and where a repository lies.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from host_agent.canonical import JsonValue
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Inspection
from host_agent.operations.exec.adapter import commands_file
from host_agent.operations.exec.section import ExecSection
from host_agent.requests.facts import NEVER, AskedBefore, RequestFacts
from host_agent.requests.model import RequestId, Terms, Verb
from tests.support import git_wrapper, pct_host, systemd_host, zfs_host
from tests.support.repositories import make_checkout
from tests.support.stored_requests import NOW, a_decision, a_request, facts_of

LEFT = timedelta(minutes=10)
SUBJECTS = ("tests", "new login page", "drop the old API")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCase:
    """One request as people are told of it."""

    name: str
    facts: RequestFacts


def why_not() -> str | None:
    """Return why these runs cannot be made here; None if they can."""
    if not zfs_host.can_run_stand_in() or not pct_host.can_run():
        return "needs root and util-linux, for namespaces"
    return systemd_host.why_not()


def prompt_cases(directory: Path) -> list[PromptCase]:
    """Run the inspections in `directory` and return what people are told."""
    return list(_cases(directory))


def _cases(directory: Path) -> Iterator[PromptCase]:
    terms = Terms(approvals=2, approvers=frozenset({"alice", "erin"}))
    yield _case(
        1,
        "destroy",
        _destroyed(),
        host="agent-bookworm",
        operation="zfs.destroy",
        params={"dataset": "tank/scratch", "recursive": True},
        resource="tank/scratch",
        reason="the disk is full; scratch is not needed",
        rule="losing data needs two",
        terms=terms,
    )
    last = a_decision("erin", Verb.DENY, at=NOW - timedelta(minutes=2), reason="ask after 18:00")
    yield _case(
        2,
        "stop, denied before",
        _stopped(directory / "systemd"),
        host="web-2",
        operation="systemd.stop",
        params={"unit": "nginx.service"},
        resource="nginx.service",
        reason="maintenance",
        rule="services need one",
        before=AskedBefore(times=3, denied=3, last=last),
    )
    yield _case(
        3,
        "pull",
        _pulled(directory / "git"),
        host="web-2",
        operation="git.pull",
        params={"repository": "/srv/app", "remote": "origin", "branch": "main"},
        resource="/srv/app",
        reason="release 2",
        rule="pulling needs one",
    )
    yield _case(
        4,
        "run",
        _registered(),
        host="db-1",
        operation="exec.run",
        params={"name": "reindex", "arguments": {"what": "books"}},
        resource="reindex",
        reason="search is slow",
        rule="commands need one",
    )


def _case(
    number: int,
    name: str,
    found: Inspection,
    *,
    host: str,
    before: AskedBefore = NEVER,
    **asked: Any,
) -> PromptCase:
    operation = CATALOGUE.parse(asked["operation"], asked["params"])
    made = a_request(number)
    request = replace(
        made,
        id=RequestId(hashlib.sha256(name.encode()).hexdigest()[:32]),
        caller="deployer",
        owner="bob",
        unix_user="librarian",
        preview=found.preview.as_json(),
        precondition=found.precondition,
        expires_at=NOW + LEFT,
        **{**asked, "params": operation.params.canonical()},
    )
    return PromptCase(name=name, facts=facts_of(request, host=host, before=before))


def _dataset(number: int, *, used: int, **changed: Any) -> dict[str, Any]:
    """Return what the stand-in for OpenZFS knows of a dataset."""
    return {
        "type": "filesystem",
        "guid": 16 * 10**18 + number,
        "createtxg": number,
        "used": used,
        "available": 66_424_320,
        "referenced": used,
        "creation": 1_795_217_344,
        "origin": "-",
        "mountpoint": "/tank",
        "written": 512,
        **changed,
    }


# -- real runs ------------------------------------------------------------------------------------


def _destroyed() -> Inspection:
    datasets = {
        "tank": _dataset(1, used=45_056),
        "tank/scratch": _dataset(2, used=114_688),
        "tank/scratch@daily": _dataset(3, used=0, type="snapshot", holds={}),
    }
    state = {"version": "2.1.11", "next": 50, "datasets": datasets}
    with zfs_host.ZfsHost.with_stand_in(state) as host:
        return host.inspect(
            zfs_host.operation("zfs.destroy", dataset="tank/scratch", recursive=True)
        )


def _stopped(directory: Path) -> Inspection:
    directory.mkdir()
    host = systemd_host.SystemdHost(directory)
    host.unit("nginx.service")
    return host.inspect(systemd_host.operation("systemd.stop", unit="nginx.service"))


def _pulled(directory: Path) -> Inspection:
    directory.mkdir()
    app = make_checkout(directory)
    for subject in SUBJECTS:
        app.push_elsewhere(message=subject)
    app.git("fetch", "-q")
    app.write("file.txt", "mine\n")
    asked = git_wrapper.operation(
        "git.pull", repository=str(app.path), remote="origin", branch="main"
    )
    found = git_wrapper.inspect(asked)
    return replace(found, preview=replace(found.preview, **_steady(found)))


def _steady(found: Inspection) -> dict[str, Any]:
    """Return the preview's parts with commits replaced by what is the same in each run."""
    details = tuple(
        re.sub(r"^[0-9a-f]{7,}(?= (.*))", lambda line: _hash(line[1]), line)
        for line in found.preview.details
    )
    undo = re.sub(r"\b[0-9a-f]{7,}\b", _hash("before"), found.preview.undo)
    return {"details": details, "undo": undo}


def _hash(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()[:7]


def _registered() -> Inspection:
    program = "/run/tools/reindex"
    with pct_host.PctHost() as host:
        digest = host.install(program, "#!/bin/bash\necho done\n")
        command: dict[str, JsonValue] = {
            "name": "reindex",
            "path": program,
            "sha256": f"sha256:{digest}",
            "effect": "change",
            "arguments": [{"name": "what", "pattern": "[a-z]+"}],
        }
        section = ExecSection.model_validate_json(json.dumps({"commands": [command]}))
        host.register(commands_file(section))
        asked = pct_host.operation("exec.run", name="reindex", arguments={"what": "books"})
        return host.inspect(asked)
