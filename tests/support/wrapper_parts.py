"""The wrappers as their parts make them. `make wrappers` writes them; a test compares them.

`wrappers/parts/NAME.in` is the source of the wrapper NAME, `wrappers/parts/PART.sh` what several
say in the same words. A line `#include PART` stands for the part's text. Parts include nothing.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WRAPPERS = REPOSITORY / "wrappers"
PREAMBLE = "preamble"
MODE = 0o755
_INCLUDE = re.compile(r"#include ([a-z0-9-]+)")
_NOTICE = """\
# Made by `make wrappers` from parts/{name}.in: edit that. From #begin to #end it is the same text
# in every wrapper that has it.
"""


def render(name: str, source: str, parts: Mapping[str, str]) -> str:
    """Return the wrapper `name`: `source` with every part that it includes.

    Raises:
        ValueError: a part does not exist or is included twice, or the first is not the preamble.
    """
    made: list[str] = []
    included: list[str] = []
    for line in source.splitlines(keepends=True):
        match = _INCLUDE.fullmatch(line.rstrip("\n"))
        if match is None:
            if not included and not line.startswith("#"):
                message = f"{name}: only comments stand before the {PREAMBLE}"
                raise ValueError(message)
            made.append(line)
            continue
        part = match[1]
        if part not in parts or part in included or (not included and part != PREAMBLE):
            message = f"{name}: #include {part} is unknown, repeated, or before the {PREAMBLE}"
            raise ValueError(message)
        if not included:
            made.append(_NOTICE.format(name=name))
        included.append(part)
        made.append(f"#begin {part}\n{parts[part]}#end {part}\n")
    if not included:
        message = f"{name}: it has no {PREAMBLE}"
        raise ValueError(message)
    return "".join(made)


def read_parts(wrappers: Path = WRAPPERS) -> dict[str, str]:
    """Return the text of every part by its name.

    Raises:
        ValueError: a part includes another.
    """
    parts = {path.stem: path.read_text() for path in (wrappers / "parts").glob("*.sh")}
    for name, text in parts.items():
        if any(_INCLUDE.fullmatch(line) for line in text.splitlines()):
            message = f"{name}.sh: a part includes nothing"
            raise ValueError(message)
    return parts


def made(wrappers: Path = WRAPPERS) -> dict[str, str]:
    """Return the text of every wrapper by its name, as the parts in `wrappers` make it."""
    parts = read_parts(wrappers)
    sources = sorted((wrappers / "parts").glob("*.in"))
    return {path.stem: render(path.stem, path.read_text(), parts) for path in sources}


def differences(wrappers: Path = WRAPPERS) -> Iterator[str]:
    """Yield what in the directory is not as the parts make it, a sentence each."""
    wanted = made(wrappers)
    there = {path.name: path for path in wrappers.iterdir() if path.name != "parts"}
    yield from (f"{name} is made by no part" for name in sorted(there.keys() - wanted.keys()))
    for name, text in wanted.items():
        path = there.get(name)
        if path is None:
            yield f"{name} is missing"
        elif path.is_symlink() or path.read_bytes() != text.encode():
            yield f"{name} is not what its parts make"
        elif path.stat().st_mode & 0o111 != MODE & 0o111:
            yield f"{name} is not executable"


def write(wrappers: Path = WRAPPERS) -> None:
    """Write every wrapper anew."""
    for name, text in made(wrappers).items():
        path = wrappers / name
        path.unlink(missing_ok=True)  # also where it is a link
        path.write_text(text)
        path.chmod(MODE)


if __name__ == "__main__":
    write()
    sys.exit("\n".join(differences()) or None)
