"""This host, with changes that nobody else sees: private mounts, network and processes.

What `_COVERED` names is covered by overlays that end with the namespace, so a test can install into
the real paths, use the real sudo, and leave nothing behind.
"""

import functools
import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENCE

_PLACE = "/usr/local/lib/host-agent-program"
PROGRAM = f"{_PLACE}/bin/host-agent"
"""Where `program_in_place` puts the program."""
_COVERED = ("/etc", "/usr/local", "/var/lib", "/var/log", "/root")
_PRELUDE = """\
set -euo pipefail
space=/mnt
mount -t tmpfs tmpfs "$space"
for folder in {covered}; do
  mkdir -p "$space$folder/upper" "$space$folder/work"
  chmod --reference="$folder" "$space$folder/upper"
  mount -t overlay overlay "$folder" \\
    -o "lowerdir=$folder,upperdir=$space$folder/upper,workdir=$space$folder/work"
done
mount -t proc proc /proc
ip link set lo up
"""


def run_private(
    script: str, *, seconds: float = 4 * PATIENCE
) -> "subprocess.CompletedProcess[str]":
    """Run a bash script as root in namespaces of its own; every process in them ends with it."""
    prelude = _PRELUDE.format(covered=" ".join(_COVERED))
    return subprocess.run(
        [
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"),
            *("--propagation", "private", "bash", "-c", prelude + script),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


@functools.cache
def missing() -> str | None:
    """Return why there can be no private host here, or None."""
    try:
        done = run_private("true")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no namespaces of our own here: {error}"
    return f"no namespaces of our own here: {done.stderr.strip()}" if done.returncode else None


def program_in_place(prepared: Path) -> str:
    """Return a script that installs the program for everybody, at `PROGRAM`.

    `prepared` is from `packaged.prepare`. The interpreter may lie below a covered private home.
    """
    python = Path(sys.executable).resolve()
    folders = [folder for folder in python.parents if _is_covered(folder)]
    return "".join(f"chmod o+x '{folder}'\n" for folder in folders) + (
        f"'{python}' -m venv --without-pip {_PLACE}\n"
        f"cp -r '{prepared}/.' {_PLACE}/\n"
        f"chown -R root:root {_PLACE}\n"
        f"chmod -R u=rwX,go=rX {_PLACE}\n"
        f"sed -i '1s|.*|#!{_PLACE}/bin/python3|' {PROGRAM}\n"
    )


def _is_covered(folder: Path) -> bool:
    return any(folder.is_relative_to(covered) for covered in _COVERED)
