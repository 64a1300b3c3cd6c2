"""`python -m tests.fuzz --calls 100000 --seed 1 --jobs 2`: exit status 1 if a promise is broken."""

from __future__ import annotations

import argparse
import sys

from .jobs import spread
from .report import Tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    total = Tally()
    for tally in spread(given.seed, given.first, given.calls, given.jobs):
        known = set(total.faults)
        total.add(tally)
        for key in total.faults.keys() - known:
            print(total.faults[key], file=sys.stderr)
        print(f"{sum(total.outcomes.values())} calls, {len(total.faults)} faults", file=sys.stderr, flush=True)
    print(total)
    return 1 if total.faults else 0


if __name__ == "__main__":
    sys.exit(main())
