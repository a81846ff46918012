"""The rooms import each other only as the architecture says."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import host_agent
from host_agent.__main__ import NOUNS

PACKAGE = Path(host_agent.__file__).parent


def modules() -> Iterator[Path]:
    yield from sorted(PACKAGE.rglob("*.py"))


@cache
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


VALUES = {
    *("errors", "canonical", "clock", "text", "config"),
    *("identity.registry", "identity.certificate", "identity.credential"),
    *("operations.catalogue", "requests", "audit.record"),
}
"""What every room below the pipeline may see of the others: values, no store, runner or socket."""
BELOW = VALUES | {"metrics"}
EVERYTHING_BELOW_THE_DOOR = {
    *("identity", "operations", "policy", "requests", "store", "notify", "execution", "audit"),
    *("pipeline", "pki", "sudoers"),
}
MAY_SEE: dict[str, set[str]] = {
    # What imports nothing, or values of values only.
    "errors": set(),
    "clock": set(),
    "text": set(),
    "canonical": {"errors"},
    "metrics": {"errors", "config.channels", "http.refusals", "requests.model", "operations"},
    # Bytes: no room.
    "http": {"errors"},
    # The rooms, in the order of the sentence.
    "identity": {"errors"},
    "operations": {"errors", "canonical", "clock", "text"},
    "policy": VALUES | {"operations.languages", "operations.patterns"},
    "requests": VALUES | {"api.wire"},
    "store": VALUES,
    "notify": VALUES | {"store"},
    "execution": VALUES | {"operations"},
    "audit": VALUES,
    "pipeline": BELOW | (EVERYTHING_BELOW_THE_DOOR - {"pki"}) | {"api.wire"},
    "api": BELOW | {"http", "pipeline", "policy", "sudoers.values"},
    "client": {"errors", "api.wire", "requests.state", "text"},
    "mcp": {"errors", "client", "text"},
    "config": {"errors", "identity.registry", "operations"},
    "pki": {"errors", "identity", "http.tls", "http.refusals"},
    "sudoers": VALUES,
    # On top: they see what they put together. Nobody sees them but the command line.
    "agent": BELOW | EVERYTHING_BELOW_THE_DOOR | {"api", "http", "host"},
    "host": BELOW | EVERYTHING_BELOW_THE_DOOR | {"client.bundle"},
    # A whole agent on a host in memory, with a client of its own that answers by a script.
    "simulation": BELOW | EVERYTHING_BELOW_THE_DOOR | {"agent", "client"},
    "cli": BELOW
    | EVERYTHING_BELOW_THE_DOOR
    | {"__main__", "agent", "client", "host", "hooks", "integration", "mcp", "simulation"},
    "__main__": {"errors", "cli", "hooks"},
    # On the agents' side: a hook runs before each command, so it imports nothing of ours at all.
    "hooks": set(),
    "integration": {"errors", "hooks"},
}
"""What each room may import of the package beside itself: rooms, or modules by dotted name."""
PENDING: set[tuple[str, str]] = set()
"""What is not yet as it should be. One that is mended is taken out here, or the test fails."""


def is_below(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def seen_by_room() -> set[tuple[str, str]]:
    """Return who imports what of another room, as room and dotted module."""
    return {
        (room_of(path), name.partition(".")[2])
        for path in modules()
        for name in of_package(path)
        if "." in name and name.split(".")[1] != room_of(path)
    }


CIRCLES_PENDING: dict[frozenset[str], str] = {}
"""Circles that are still there, each with the room that mends it."""


def run_time_imports(path: Path) -> set[str]:
    """Return what a module imports when it runs, inside functions too, not for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in whole if is_module(name)} or {node.module}
    return {name for name in found if name.split(".")[0] == "host_agent"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def with_packages(importer: str, name: str) -> set[str]:
    """Return `name` and the packages that are imported before it, as Python does from outside."""
    parts = name.split(".")
    above = {".".join(parts[:length]) for length in range(1, len(parts))}
    return {name} | {one for one in above if not f"{importer}.".startswith(f"{one}.")}


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the sets of more than one module that all import each other, by whatever way."""
    order: list[str] = []
    seen: set[str] = set()
    for start in graph:
        visit(graph, start, seen, order)
    backwards: dict[str, set[str]] = {name: set() for name in graph}
    for name, imported in graph.items():
        for other in imported:
            backwards[other].add(name)
    found, seen = set(), set()
    for start in reversed(order):
        members: list[str] = []
        visit(backwards, start, seen, members)
        if len(members) > 1:
            found.add(frozenset(members))
    return found


def visit(graph: dict[str, set[str]], start: str, seen: set[str], order: list[str]) -> None:
    """Add what is reached from `start` to `order`, each after all that it leads to."""
    todo = [(start, False)]
    while todo:
        name, is_left = todo.pop()
        if is_left:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            todo.append((name, True))
            todo += [(other, False) for other in graph[name]]


def test_no_module_imports_itself_by_any_way() -> None:
    graph = {name_of(path): set[str]() for path in modules()}
    for path in modules():
        importer = name_of(path)
        for name in run_time_imports(path):
            graph[importer] |= with_packages(importer, name) - {importer}
    assert circles(graph) == set(CIRCLES_PENDING)


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, set()),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, {frozenset("bc")}),
        (
            {"a": {"b"}, "b": {"a"}, "c": {"a", "d"}, "d": {"e"}, "e": {"c"}},
            {frozenset("ab"), frozenset("cde")},
        ),
    ],
)
def test_a_circle_is_found(graph: dict[str, set[str]], found: set[frozenset[str]]) -> None:
    assert circles(graph) == found


def test_every_room_is_in_the_plan() -> None:
    assert {room_of(path) for path in modules()} - {"__init__"} == set(MAY_SEE)


def test_a_room_sees_only_what_the_plan_lets_it_see() -> None:
    foreign = {(room, seen) for room, seen in seen_by_room() if not is_below(seen, MAY_SEE[room])}
    assert foreign == PENDING


def test_nobody_below_sees_what_stands_on_top() -> None:
    tops = {"agent", "host", "simulation", "cli", "__main__"}
    for room, may in MAY_SEE.items():
        if room not in tops:
            assert not {name.split(".")[0] for name in may} & tops


def seen_by_command(noun: str) -> set[str]:
    """Return what a command imports, also through other modules of the command line."""
    seen: set[str] = set()
    todo = {f"host_agent.cli.commands.{noun}"}
    while todo:
        name = todo.pop()
        seen.add(name)
        found = of_package(PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py"))
        todo |= {other for other in found if other.startswith("host_agent.cli.")} - seen
        seen |= found
    return {name.partition(".")[2] for name in seen} - {""}


CLIENT_SIDE = {"client", "hooks", "integration", "mcp"}


def is_client(noun: str) -> bool:
    """Return whether a command is for who asks; who only reads or writes bundles need not be."""
    asked = {name for name in seen_by_command(noun) if is_below(name, CLIENT_SIDE)}
    return bool(asked - {"client.bundle"})


BOTH = {"manual": "describes every command", "pki": "is the authority, and renews over the API"}
"""Commands that are clients and more."""
CLIENTS = sorted(set(filter(is_client, NOUNS)) - BOTH.keys())


@pytest.mark.parametrize("noun", CLIENTS)
def test_client_commands_see_nothing_of_the_server(noun: str) -> None:
    allowed = MAY_SEE["client"] | CLIENT_SIDE | {"cli", "clock"}
    assert {name for name in seen_by_command(noun) if not is_below(name, allowed)} == set()


def test_commands_of_both_kinds_are_told_apart() -> None:
    assert {"call", "hook", "login", "mcp", "requests"} <= set(CLIENTS)
    assert not {"serve", "audit", "sudoers", "root"} & set(CLIENTS)
    assert all(is_client(noun) for noun in BOTH)


def test_the_wire_pulls_in_nothing_of_the_server() -> None:
    wire, values = PACKAGE / "api" / "wire", ("clock", "errors", "text")
    seen = set[str]().union(*map(of_package, wire.glob("*.py")))
    foreign = {name for name in seen if not name.startswith("host_agent.api.wire.")}
    assert foreign == {f"host_agent.{name}" for name in values}
    for name in values:
        assert of_package(PACKAGE / f"{name}.py") == set()
    assert not of_package(wire.with_name("__init__.py"))


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


def test_exactly_one_module_moves_a_stored_request() -> None:
    movers = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if room_of(path) != "store" and "store.transition(" in path.read_text()
    }
    assert movers == {"pipeline/transitions.py"}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("OpenSSL", {"http/tls.py", "pki/verification.py"}),
        ("jose", {"audit/checkpoint.py"}),
        ("h11", {"http/http1.py"}),
        ("mcp", {"mcp/results.py", "mcp/server.py", "mcp/tasks.py"}),
    ],
)
def test_fenced_libraries_are_imported_where_they_belong(library: str, homes: set[str]) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users == homes


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


def class_names(sources: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return where each class is made, by name; a leading underscore makes no other name."""
    found: dict[str, list[str]] = {}
    for place, source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(f"{place}:{node.lineno}")
    return found


def repeated(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_a_class_name_occurs_once() -> None:
    names = class_names((str(path.relative_to(PACKAGE)), path.read_text()) for path in modules())
    assert "Request" in names
    assert repeated(names) == {}


def test_a_class_name_that_comes_twice_is_found() -> None:
    sources = [("a.py", "class One:\n    class Inner: ..."), ("b.py", "class _Inner: ...")]
    assert repeated(class_names(sources)) == {"Inner": ["a.py:2", "b.py:1"]}
    assert repeated(class_names(sources[:1])) == {}


# -- matches over an enum -------------------------------------------------------------------------


def enums_of(trees: Iterable[ast.AST]) -> dict[str, set[str]]:
    """Return the members of each enum, by its name."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base).endswith("Enum") for base in node.bases
            ):
                made = [one for one in node.body if isinstance(one, ast.Assign)]
                found[node.name] = {ast.unparse(one.targets[0]) for one in made}
    return found


def enum_of(value: ast.expr, enums: dict[str, set[str]]) -> str:
    """Return the enum that `value` names a member of; an empty text if it names none."""
    enum, _, member = ast.unparse(value).rpartition(".")
    return enum if member in enums.get(enum, ()) else ""


def lax_match(match: ast.Match, enums: dict[str, set[str]]) -> bool:
    """Return whether a member of an enum may come that no case was written for."""
    last = match.cases[-1]
    is_caught = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
    if is_caught and ast.unparse(last.body[-1]).startswith("assert_never("):
        return False
    left: dict[str, set[str]] = {}
    for case in match.cases:
        either = case.pattern.patterns if isinstance(case.pattern, ast.MatchOr) else [case.pattern]
        for pattern in either:
            if isinstance(pattern, ast.MatchValue) and (enum := enum_of(pattern.value, enums)):
                named = {ast.unparse(pattern.value).rpartition(".")[2]}
                left.setdefault(enum, set(enums[enum]))
                left[enum] -= set() if case.guard else named
    return any(left.values()) or (is_caught and bool(left))


def question_of(test: ast.expr, enums: dict[str, set[str]]) -> tuple[str, str] | None:
    """Return what is compared with members of which enum."""
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Is | ast.Eq | ast.In):
        return None
    (answer,) = test.comparators[:1]
    if isinstance(test.ops[0], ast.In):
        members = answer.elts if isinstance(answer, ast.Tuple | ast.Set | ast.List) else []
    else:
        members = [answer]
    named = {enum_of(member, enums) for member in members}
    if len(named) != 1 or "" in named:
        return None
    return ast.unparse(test.left), named.pop()


def chains(node: ast.AST, enums: dict[str, set[str]]) -> Iterator[int]:
    """Yield where the same thing is asked again whether it is this or that member of an enum."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        ifs = [one for one in block if isinstance(one, ast.If)] if isinstance(block, list) else []
        asked = [question_of(one.test, enums) for one in ifs]
        if any(asked.count(question) > 1 for question in asked if question is not None):
            yield ifs[0].lineno
    if isinstance(node, ast.If | ast.IfExp) and node.orelse:
        other = node.orelse[0] if isinstance(node.orelse, list) else node.orelse
        question = question_of(node.test, enums)
        if question and isinstance(other, ast.If | ast.IfExp):
            yield from [node.lineno] if question_of(other.test, enums) == question else []


def lax(sources: Iterable[tuple[str, str]]) -> list[str]:
    """Return where a new member of an enum would be taken for another one, and nothing says so."""
    trees = {place: ast.parse(source) for place, source in sources}
    enums = enums_of(trees.values())
    nodes = [(place, node) for place, tree in trees.items() for node in ast.walk(tree)]
    lines = [(p, n.lineno) for p, n in nodes if isinstance(n, ast.Match) and lax_match(n, enums)]
    lines += [(place, line) for place, node in nodes for line in chains(node, enums)]
    return [f"{place}:{line}" for place, line in sorted(lines)]


def test_a_new_member_of_an_enum_is_not_taken_for_another_one() -> None:
    assert lax((str(path.relative_to(PACKAGE)), path.read_text()) for path in modules()) == []


ENUM = "class A(StrEnum):\n    X = 'x'\n    Y = 'y'\n"


@pytest.mark.parametrize(
    ("text", "is_lax"),
    [
        ("match a:\n case A.X: p()\n case A.Y: q()", False),
        ("match a:\n case A.X | A.Y: p()", False),
        ("match a:\n case A.X: p()\n case _: assert_never(a)", False),
        ("match a:\n case A.X: p()\n case other: assert_never(other)", False),
        ("match a:\n case 'x': p()\n case _: q()", False),
        ("match a:\n case A.X: p()", True),
        ("match a:\n case A.X: p()\n case A.Y if b: q()", True),
        ("match a:\n case A.X: p()\n case _: q()", True),
        ("match a:\n case A.X: p()\n case A.Y: q()\n case _: r()", True),
        ("if a is A.X: p()\nelse: q()", False),
        ("if a is A.X: p()\nelif b is A.Y: q()", False),
        ("if a is A.X: p()\nelif a is A.Y: q()", True),
        ("if a == A.X: p()\nif a in (A.Y,): q()", True),
        ("p(1 if a is A.X else 2 if a is A.Y else 3)", True),
    ],
)
def test_a_lax_match_is_found(text: str, is_lax: bool) -> None:
    assert bool(lax([("enum.py", ENUM), ("text.py", text)])) is is_lax


# -- docstrings -----------------------------------------------------------------------------------

EMPTY_WORDS = frozenset(
    {
        *("a", "an", "by", "for", "in", "is", "are", "it", "its", "of", "return", "that", "the"),
        *("this", "to", "what", "whether", "which", "with", "yield"),
    }
)


def stem(word: str) -> str:
    return re.sub("(ing|ed|es|s)$", "", word.lower()) or word


def says_nothing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a docstring of one line has no word that name and types do not have."""
    text = ast.get_docstring(function) or ""
    if not text or "\n" in text:
        return False
    declared = [function.name, ast.unparse(function.args)]
    declared += [ast.unparse(function.returns)] if function.returns else []
    known = {stem(word) for one in declared for word in re.findall("[A-Z]?[a-z0-9]+", one)}
    words = {word for word in re.findall("[A-Za-z]+", text) if word.lower() not in EMPTY_WORDS}
    return {stem(word) for word in words} <= known


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def test_a_docstring_says_what_name_and_types_do_not() -> None:
    empty = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, FUNCTIONS) and says_nothing(node)
    ]
    assert empty == []


@pytest.mark.parametrize(
    ("text", "is_empty"),
    [
        ("def hash_of(data: bytes) -> str:\n '''Return the hash of the data.'''", True),
        ("def hash_of(data: bytes) -> str:\n '''Return the SHA-256 of the data.'''", False),
        ("def hash_of(data: bytes) -> str:\n '''Return the hash.\n\n Of all data.'''", False),
        ("def hash_of(data: bytes) -> str: ...", False),
    ],
)
def test_a_docstring_that_says_nothing_is_found(text: str, is_empty: bool) -> None:
    (function,) = ast.parse(text).body
    assert isinstance(function, FUNCTIONS)
    assert says_nothing(function) is is_empty
