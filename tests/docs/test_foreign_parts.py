"""Of other people's packages only what they document is used, and each one is declared.

What is private may be another thing in the next release; what is not declared may be gone with
whoever brought it.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.support.locks import ROOT, declared

PACKAGE = ROOT / "host_agent"
MODULES = sorted(PACKAGE.rglob("*.py"))

DOCUMENTED: Mapping[str, str] = {
    "cryptography.exceptions": "its page `Exceptions`",
    "cryptography.hazmat.primitives": "its part `Hazardous Materials`: hashes, serialization",
    "cryptography.hazmat.primitives.asymmetric": "its part `Hazardous Materials`: the kinds of key",
    "cryptography.hazmat.primitives.asymmetric.x25519": "its part `Hazardous Materials`: X25519",
    "cryptography.hazmat.primitives.ciphers.aead": "its part `Hazardous Materials`: `AESGCM`",
    "cryptography.hazmat.primitives.serialization": "its part `Hazardous Materials`: `Encoding`",
    "cryptography.x509.oid": "the page `X.509 Reference`: object identifiers",
    "hypercorn.asyncio": "the page `API Usage`: `serve`, `shutdown_trigger`",
    "hypercorn.config": "the page `API Usage`: `Config`; `Configuration options` for its names",
    "jose.exceptions": "python-jose's API: the page on exceptions",
    "mcp.server": "the SDK's API reference: `Server`, `ServerRequestContext`",
    "mcp.server.context": "the SDK's API reference: `CallNext`, `HandlerResult`",
    "mcp.server.extension": "the SDK's API reference: `Extension`, `MethodBinding`",
    "mcp.server.mcpserver": "the SDK's API reference: `require_client_extension`",
    "mcp.server.session": "the SDK's API reference: `ServerSession`",
    "mcp.server.stdio": "the SDK's API reference: `stdio_server`",
    "mcp.server.subscriptions": "the SDK's API reference: `ListenHandler` and its bus",
    "mcp.shared.exceptions": "the SDK's API reference: `MCPError`",
    "mcp.types": "the SDK's API reference: the protocol's types",
    "mcp.types.version": "the SDK's API reference: which versions there are",
    "pydantic.json_schema": "its page `JSON Schema`: `models_json_schema`, `SkipJsonSchema`",
    "prometheus_client.exposition": "the page `Exporting`: `CONTENT_TYPE_LATEST`",
    "prometheus_client.metrics_core": "the page `Custom Collectors`: the metric families",
    "prometheus_client.registry": "the page `Custom Collectors`: `Collector`",
    "rich.console": "Rich's reference: `Console`",
    "rich.live": "Rich's reference: `Live`",
    "rich.segment": "Rich's reference: `Segment`, `SegmentLines`",
    "rich.style": "Rich's reference: `Style`",
    "rich.table": "Rich's reference: `Table`",
    "rich.text": "Rich's reference: `Text`",
    "websockets.asyncio.client": "the page `asyncio API: client`",
    "websockets.exceptions": "the page `Exceptions`",
    "werkzeug.datastructures": "the page `Data Structures`: `Headers`",
    "werkzeug.exceptions": "the page `HTTP Exceptions`",
}
"""Modules below a package's own name, and where its authors document them."""

_PRIVATE = re.compile(r"_[A-Za-z]\w*")
_OF_PYTHON = {"_replace", "_asdict", "_make", "_fields", "_exit"}
"""Documented names of the standard library that begin so."""

ALLOWED: Mapping[str, tuple[frozenset[str], str]] = {
    "cli/tree.py": (
        frozenset(
            {
                *("_actions", "_choices_actions", "_get_formatter", "_expand_help"),
                *("_AppendAction", "_HelpAction", "_SubParsersAction"),
            }
        ),
        "Python's argparse has no public list of what a parser takes",
    ),
    "execution/process.py": (
        frozenset({"_Hash"}),
        "an annotation, never evaluated: the type checkers have no other name for it",
    ),
}
"""Private names of Python's own library, by module, with the reason. Of other packages: none."""


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imported(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """Yield each module of other people that is imported, and what is taken from it."""
    for node in ast.walk(tree):
        found: list[tuple[str, str | None]] = []
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found = [(str(node.module), alias.name) for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"import_module", "find_spec"}
            and isinstance(node.args[0], ast.Constant)
        ):
            found = [(str(node.args[0].value), None)]
        for module, name in found:
            top = module.partition(".")[0]
            if top != "host_agent" and top not in sys.stdlib_module_names:
                yield module, name


ALL = {(module, name) for path in MODULES for module, name in _imported(_tree(path))}


def test_every_part_that_is_imported_is_documented_by_its_authors() -> None:
    below = {module for module, _ in ALL if "." in module}
    assert below == set(DOCUMENTED), "say where it is documented, or use what is"


def test_nothing_private_is_imported() -> None:
    assert [
        (module, name)
        for module, name in sorted(ALL, key=str)
        if any(_PRIVATE.fullmatch(part) for part in (*module.split("."), name or ""))
    ] == []


def test_every_package_that_is_imported_is_declared() -> None:
    distributions = packages_distributions()
    wanted = {canonicalize_name(requirement.name) for requirement in declared()}
    for module, _ in sorted(ALL, key=str):
        (owner,) = set(distributions[module.partition(".")[0]])
        assert canonicalize_name(owner) in wanted, f"{module} is of {owner}: declare it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_private_name_is_our_own(path: Path) -> None:
    """What is reached by a private name is defined in this package; the next test looks closer."""
    strange = {
        node.attr
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr)
    }
    allowed, _ = ALLOWED.get(str(path.relative_to(PACKAGE)), (frozenset(), ""))
    assert strange - _OWN - _OF_PYTHON <= allowed
    assert allowed <= strange


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


_OWN = {name for path in MODULES for name in _defined(_tree(path))}


def _classes() -> Iterator[type]:
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name.endswith("__main__") or ".migrations." in name:
            continue
        module = importlib.import_module(name)
        yield from (
            value
            for value in vars(module).values()
            if inspect.isclass(value) and value.__module__ == name
        )


def test_no_class_of_ours_shares_a_private_name_with_its_foreign_base() -> None:
    """Such a name is used, or overridden unawares: both break with the next release."""
    for ours in _classes():
        foreign = [
            base
            for base in ours.__mro__[1:]
            if (top := base.__module__.partition(".")[0]) != "host_agent"
            and top not in sys.stdlib_module_names
        ]
        used = _private_names(ours)
        for base in foreign:
            shared = used & (_private_names(base) | set(vars(base)))
            assert not shared, f"{ours.__qualname__}: {sorted(shared)} of {base.__qualname__}"


def _private_names(kind: type) -> set[str]:
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return set()
    return {
        name
        for node in ast.walk(tree)
        for name in (
            [node.attr]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Call)
            else [node.name]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            else []
        )
        if _PRIVATE.fullmatch(name)
    }
