"""What each engine makes of the official JSON Schema test suite, drafts 7 and 2020-12.

    python benchmarks/json_schema_suite.py [--docs docs/structured-output.md]

Counts instances: right (a valid one can be written, an invalid one cannot), refused (its schema is, aloud), narrower (a valid
one cannot be written), wrong (an invalid one can). The suite is read where the tests read it; `tests/processors/grammar/
test_json_schema_suite.py` keeps wrong at 0.
"""

from __future__ import annotations

import argparse
import collections
import sys
from pathlib import Path
from typing import Any

import common

from genmode_processors.grammar import installed

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.processors.grammar.suite_support import SUITE, VERDICTS, groups, judged


def figures() -> list[dict[str, Any]]:
    """A row for each engine that is installed."""
    rows: list[dict[str, Any]] = []
    for engine in installed():
        counts = collections.Counter(verdict for group in groups() for verdict in judged(engine, group).verdicts)
        rows.append({"engine": engine, **{verdict: counts[verdict] for verdict in VERDICTS}})
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--docs", type=Path, help="the page to write the table into")
    given = arguments.parse_args()
    if not SUITE.is_dir():
        sys.exit(f"the suite is not there: {SUITE}")
    rows = figures()
    common.table("JSON Schema test suite", rows)
    if given.docs:
        common.write_tables(given.docs, {"suite": rows})


if __name__ == "__main__":
    main()
