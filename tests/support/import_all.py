"""Import every module of the package, and everything that its functions import later.

Run with `-W error`, with an interpreter that need not have pytest: what a newer release has taken
away, or is about to, fails here. Prints the releases that it was tried with.
"""

import ast
import importlib
import importlib.util
import pkgutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def modules() -> Iterator[str]:
    """Yield the name of each module of the package."""
    package = importlib.import_module("host_agent")
    yield package.__name__
    for found in pkgutil.walk_packages(package.__path__, "host_agent."):
        yield found.name


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each import of a module, wherever it stands: a module, and a name of it or nothing."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def reach(module: str, name: str) -> None:
    """Import a module and take a name of it, which may be a module too."""
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")


def main() -> None:
    """Import everything; the first failure ends it."""
    names = list(modules())
    for name in names:
        found = importlib.import_module(name)
        for module, part in imports(Path(str(found.__file__))):
            if module != "uvloop":  # an option that nothing declares
                reach(module, part)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *optional["signal"], *optional["notify"]]
    packages = (distribution(line.partition(">=")[0].partition("[")[0]) for line in wanted)
    releases = " ".join(f"{package.name}={package.version}" for package in packages)
    print(f"Python {sys.version.split()[0]}: {len(names)} modules; {releases}")


if __name__ == "__main__":
    main()
