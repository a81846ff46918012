"""`zfs.list` through sudo against the bare command, with eight in flight, on a real pool.

The pool is one of zfs-fuse in namespaces of its own, so this module runs itself in there:
`python -m tests.bench.listing DIRECTORY` measures and prints what it took as JSON.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench import command
from tests.bench.exchange import client_context
from tests.bench.ground import CALLER, LIMITS, callers, render_root_list, why_no_sudo
from tests.bench.running import IN_FLIGHT, Way, measure
from tests.bench.table import Row, at_most, skipped
from tests.support.site import ROOT, Served, make_site
from tests.support.zfs_host import ZfsHost, can_run_fuse

NAME = f"zfs.list, {IN_FLIGHT} clients, runner sudo: round trip, times the bare one"
MOST_TIMES = 1.2
DATASETS = 20
SECONDS = 300

AGENT, BARE = "agent", "bare"
RULES = """
[[rules]]
name = "looking is free"
operations = ["zfs.list"]
verdict = "allow"

[zfs]
datasets = ["tank(/.*)?"]
"""
IDENTITIES = f"""
[[identities]]
cn = "{CALLER}"
unix_user = "nobody"
"""


def figures(place: Path) -> list[Row]:
    """Return the row of `zfs.list`, measured in a directory of its own under `place`."""
    why = why_no_sudo()
    if why is None and not can_run_fuse():
        why = "needs zfs-fuse and /dev/fuse"
    if why is not None:
        return [skipped(NAME, why)]
    with ZfsHost.with_fuse() as host:
        for number in range(DATASETS):
            host.must("zfs", "create", "-o", "mountpoint=none", f"tank/set{number}")
        inside = [
            *("nsenter", f"--target={host.inside}", "--mount", "--pid", "--"),
            *(sys.executable, "-m", "tests.bench.listing", str(place / "listing")),
        ]
        done = subprocess.run(inside, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=SECONDS)
    took = json.loads(done.stdout)
    times = median(bare / agent for bare, agent in zip(took[BARE], took[AGENT], strict=True))
    return [
        at_most(
            NAME,
            times,
            MOST_TIMES,
            measured=f"{times:.2f} ({median(took[AGENT]):,.0f}/s)",
            against=f"bare {median(took[BARE]):,.0f}/s",
        )
    ]


def _rates(directory: Path) -> dict[str, list[float]]:
    """Return acts a second of each round, of the agent and of the bare command."""
    site = make_site(
        directory,
        rules=RULES,
        identities=IDENTITIES,
        extra=LIMITS,
        execution='runner = "sudo"',
    )
    render_root_list(site)
    leaf = site.client(CALLER)
    context = client_context(site.pki.ca_path, leaf.certificate_path, leaf.key_path)
    wrapper = str(directory / "wrappers" / "zfs-list")
    argv = ["/usr/bin/sudo", "-n", "-u", "root", "--", wrapper, "recursive", "filesystem", "tank"]
    asked = {"dataset": "tank", "recursive": True, "types": ["filesystem"]}
    with contextlib.ExitStack() as exits:
        served = exits.enter_context(Served(site))
        connections = exits.enter_context(callers(served, context, IN_FLIGHT))
        request = connections[0].ask("zfs.list", asked)
        ways = [
            Way(name=BARE, acts=[partial(command.run, argv)] * IN_FLIGHT),
            Way(name=AGENT, acts=[partial(one.send, request, 200) for one in connections]),
        ]
        measured = measure([ways])
    return {name: taken.rates for name, taken in measured.items()}


def main() -> None:
    """Measure in the directory that the first argument names, and print the rates."""
    directory = Path(sys.argv[1])
    if os.geteuid() != 0 or shutil.which("zfs") is None:
        sys.exit("this runs as root, on a host with a pool")
    sys.stdout.write(json.dumps(_rates(directory)))


if __name__ == "__main__":
    main()
