"""The rooms import each other only as the architecture says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import host_agent

PACKAGE = Path(host_agent.__file__).parent
ROOMS = ("identity", "operations", "policy", "approvals", "execution", "audit", "privileges")
VALUES = {
    "host_agent.errors",
    "host_agent.canonical",
    "host_agent.clock",
    "host_agent.config",
    "host_agent.metrics",
    "host_agent.identity.registry",
    "host_agent.identity.certificate",
    "host_agent.identity.credential",
    "host_agent.operations.catalogue",
    "host_agent.approvals.request",
    "host_agent.audit.record",
}
"""What a room may see of the others: values, never stores, runners, logs or sockets."""


def modules() -> Iterator[Path]:
    yield from sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return what a module imports at run time, as dotted module names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in whole if is_module(name)} or {node.module}
    return found


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def of_package(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "host_agent"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in modules() if room_of(p) in ROOMS], ids=str)
def test_a_room_sees_only_values_of_other_rooms(path: Path) -> None:
    room = room_of(path)
    foreign = {
        name
        for name in of_package(path)
        if not name.startswith(f"host_agent.{room}")
        and not any(name == value or name.startswith(value + ".") for value in VALUES)
        and name != "host_agent"
    }
    assert not foreign


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_no_room_sees_what_stands_above_it(path: Path) -> None:
    above = {
        "pipeline": {"gateway", "agent", "cli", "client", "mcp"},
        "gateway": {"agent", "cli", "client", "mcp"},
        "agent": {"cli", "client", "mcp"},
        # Parts of the composition root, in modules of their own.
        "assembly": {"agent", "cli", "client", "mcp"},
        "assembly_channels": {"agent", "gateway", "cli", "client", "mcp"},
        "prepared": {"agent", "cli", "client", "mcp"},
        "messaging": {"agent", "gateway", "cli", "client", "mcp"},
        "watching": {"agent", "gateway", "cli", "client", "mcp"},
    }
    room = room_of(path)
    forbidden = above.get(room, {"pipeline", "gateway", "agent", "cli", "client", "mcp"})
    if room in {"cli", "client", "__main__"}:
        pytest.skip("stands on top")
    seen = {name.split(".")[1] for name in of_package(path) if "." in name}
    assert not seen & (forbidden - {room})


@pytest.mark.parametrize("path", [p for p in modules() if room_of(p) == "client"], ids=str)
def test_the_client_sees_nothing_of_the_server(path: Path) -> None:
    allowed = {"host_agent", "host_agent.errors", "host_agent.canonical"}
    assert all(name in allowed or name.startswith("host_agent.client") for name in of_package(path))


@pytest.mark.parametrize(
    "noun", ["call", "operations", "requests", "login", "hosts", "logout", "contexts", "settings"]
)
def test_client_commands_see_nothing_of_the_server(noun: str) -> None:
    rooms = {name.split(".")[1] for name in of_package(PACKAGE / "cli" / f"{noun}.py")}
    assert rooms <= {"cli", "client", "bundle", "errors", "canonical"}


PROCESS_OPENERS = ("subprocess", "_posixsubprocess", "pty", "multiprocessing")


def test_exactly_one_room_opens_a_process() -> None:
    openers = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] in PROCESS_OPENERS for name in imports(path))
        or "posix_spawn" in path.read_text()
        or "create_subprocess" in path.read_text()
    }
    assert openers == {"execution/runner.py"}


@pytest.mark.parametrize(
    ("library", "home"),
    [("OpenSSL", "identity/verification.py"), ("jose", "audit/checkpoint.py")],
)
def test_fenced_libraries_have_one_importer(library: str, home: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users == {home}


def test_every_module_and_folder_says_what_lives_there() -> None:
    silent = [
        path.name for path in modules() if ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent


def test_the_way_of_a_request_says_where_each_part_stands() -> None:
    page = (PACKAGE.parent / "docs" / "explanation" / "way-of-a-request.md").read_text()
    named = {word.partition("/")[0] for word in re.findall(r"`([a-z_/]+)`", page)}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in there if not name.startswith("__")} <= named


def test_no_room_for_odds_and_ends() -> None:
    banned = {"utils", "helpers", "common", "misc", "manager", "base"}
    assert not [path for path in modules() if path.stem in banned]
