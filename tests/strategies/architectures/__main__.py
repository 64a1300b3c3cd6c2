"""Run the sweep over every architecture and write docs/architectures.md.

python -m tests.strategies.architectures
"""

from __future__ import annotations

import sys

from transformers.utils import logging

from .build import architectures, build
from .compare import FAULTS, outcomes
from .page import Row, row, short, write
from .settings import UNBUILT


def main() -> int:
    logging.set_verbosity_error()
    rows: list[Row] = []
    refusals: dict[str, str] = {}
    faults = 0
    for name in architectures():
        if name in UNBUILT:
            continue
        model = build(name)
        found = outcomes(model)
        rows.append(row(name, model, found))
        for one in found:
            if one.verdict == "refused":
                refusals.setdefault(short(name, one).partition(": ")[2], one.detail.partition(": ")[2])
            if one.verdict in FAULTS:
                faults += 1
                print(f"{name}, {one.call}: {one.verdict}: {one.detail}", file=sys.stderr)
    if faults:
        print(f"{faults} faults; the page is not written", file=sys.stderr)
        return 1
    write(rows, refusals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
