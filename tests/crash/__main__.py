"""`python -m tests.crash [--kills N] [--seed N] [--keep] [--point NAME ...] [--directory DIR]`.

Exit status 0 without a violation, 1 with one: then the place where it happened is kept.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash.driver import Driver, Settings
from tests.crash.points import POINTS
from tests.crash.report import Report

ENOUGH = 15
"""With so many kills a point, none may have been missed: a point never reached checks nothing."""


def main() -> int:
    """Run the harness and print the report."""
    args = _arguments()
    directory = args.directory or Path(tempfile.mkdtemp(prefix="host-agent-crash-"))
    settings = Settings(
        kills=args.kills,
        seed=args.seed,
        directory=directory,
        points=tuple(args.point or POINTS),
        random_share=args.random,
        keeps=args.keep,
    )
    report = asyncio.run(Driver(settings).run())
    unreached = _unreached(report, settings)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    if unreached:
        sys.stdout.write(f"never reached: {', '.join(unreached)}\n")
    if report.violations:
        sys.stdout.write(f"kept: {directory}\n")
    elif not args.keep:
        shutil.rmtree(directory)
    return 1 if report.violations or unreached else 0


def _unreached(report: Report, settings: Settings) -> list[str]:
    if report.total < ENOUGH * len(settings.points):
        return []
    return [point for point in settings.points if not report.kills[point]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how often to kill (1000)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the directory in any case")
    parser.add_argument("--point", action="append", choices=POINTS, help="die here only")
    parser.add_argument("--random", type=float, default=0.25, help="share of random kills (0.25)")
    parser.add_argument("--directory", type=Path, help="an empty one, instead of a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
