"""`python -m tests.bench`: every figure in one run, as one table; status 1 where one is missed.

`--write` puts the tables into docs/explanation/performance.md. `--only NAME` takes some figures.
"""

import argparse
import compileall
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import host_agent
from tests.bench import (
    approving,
    ground,
    hooking,
    idling,
    listing,
    notifying,
    peers,
    refusing,
    restarting,
    running,
    serving_mcp,
    verifying,
)
from tests.bench.ground import Setting
from tests.bench.table import Beside, Row, machine, render, render_beside, skipped, write_page

NAMES = ("run", "list", "refuse", "approve", "notify", "restart", "verify", "idle", "hook", "mcp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What there is to measure on. `settings` are in the order of the table, `direct` the last."""

    place: Path
    settings: Sequence[Setting]
    peers: Sequence[peers.Peer]
    missing: Sequence[Row]

    @property
    def direct(self) -> Setting:
        """Return the setting that every machine has."""
        return self.settings[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page where asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page too")
    parser.add_argument("--only", action="append", choices=NAMES, help="some figures only")
    args = parser.parse_args(arguments)
    # As pip leaves it; where no bytecode may be written, each start would compile it anew.
    compileall.compile_dir(Path(host_agent.__file__).parent, quiet=1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave nothing running
    if args.write and args.only:
        parser.error("the page is written from a whole run")
    figures, beside = measure(args.only or NAMES)
    sys.stdout.write(f"{machine()}\n\n{render(figures)}\n")
    if beside:
        sys.stdout.write(render_beside(beside))
    if args.write:
        write_page(figures, beside)
    return 1 if any(row.met is False for row in figures) else 0


def measure(names: Sequence[str]) -> tuple[list[Row], list[Beside]]:
    """Return the rows of `names`, and those of the peers."""
    beside: list[Beside] = []

    def run(on: Ground) -> list[Row]:
        rows, others = running.figures(on.settings, on.peers)
        beside.extend(others)
        return [*rows, *on.missing]

    parts: dict[str, Callable[[Ground], list[Row]]] = {
        "run": run,
        "list": lambda on: listing.figures(on.place),
        "refuse": lambda on: refusing.figures(on.direct),
        "approve": lambda on: approving.figures(on.settings),
        "notify": lambda on: notifying.figures(on.direct),
        "restart": lambda on: restarting.figures(on.direct),
        "verify": lambda on: verifying.figures(on.place),
        "idle": lambda on: idling.figures(on.direct),
        "hook": lambda _on: hooking.figures(),
        "mcp": lambda on: serving_mcp.figures(on.direct),
    }
    rows: list[Row] = []
    with contextlib.ExitStack() as exits:
        on = _prepare(exits, has_peers="run" in names)
        for name in names:
            begun = time.monotonic()
            rows += parts[name](on)
            sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    return rows, beside


def _prepare(exits: contextlib.ExitStack, *, has_peers: bool) -> Ground:
    place = exits.enter_context(ground.directory())
    direct = ground.setting("direct", place / "direct", None)
    why = ground.why_no_sudo()
    if why is not None:
        missing = [skipped("runner sudo, ssh, nginx", why)]
        return Ground(place=place, settings=[direct], peers=[], missing=missing)
    user = exits.enter_context(ground.unix_user())
    sudo = ground.setting("sudo", place / "sudo", user)
    why = peers.why_none()
    if why is not None or not has_peers:
        missing = [] if why is None else [skipped("ssh, nginx", why)]
        return Ground(place=place, settings=[sudo, direct], peers=[], missing=missing)
    served = exits.enter_context(peers.peers(place / "peers", sudo, user))
    return Ground(place=place, settings=[sudo, direct], peers=served, missing=[])


if __name__ == "__main__":
    sys.exit(main())
