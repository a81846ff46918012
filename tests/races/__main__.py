"""`python -m tests.races [--races N] [--seed N] [--keep] [--directory DIR]`.

Exit status 0 without a violation, 1 with one: then the place where it happened is kept.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.races.driver import Driver, Settings


def main() -> int:
    """Run the races and print the report."""
    args = _arguments()
    directory = args.directory or Path(tempfile.mkdtemp(prefix="host-agent-races-"))
    settings = Settings(races=args.races, seed=args.seed, directory=directory)
    report = asyncio.run(Driver(settings).run())
    sys.stdout.write("\n".join(report.lines()) + "\n")
    if report.violations:
        sys.stdout.write(f"kept: {directory}\n")
    elif not args.keep:
        shutil.rmtree(directory)
    return 1 if report.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.races", description=__doc__)
    parser.add_argument("--races", type=int, default=10_000, help="how many requests (10000)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the directory in any case")
    parser.add_argument("--directory", type=Path, help="an empty one, instead of a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
