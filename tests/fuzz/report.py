"""What many calls came to: figures, and each fault once with the smallest call that shows it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .call import Call
from .drawing import drawn
from .promises import Verdict, verdict
from .running import ours
from .shrinking import shrunk

SHRUNK_OF_A_KIND = 2
"""So many calls that fail in one place are made smaller; of the others the number is enough."""


@dataclass(frozen=True)
class Fault:
    """A broken promise, the smallest call that was found to break it, and the number of the call that did first."""

    found: Verdict
    call: Call
    seed: int
    index: int

    def __str__(self) -> str:
        return (
            f"[{self.found.promise}] {self.found.what}\n    {self.call!r}\n"
            f"    python -m tests.fuzz --seed {self.seed} --first {self.index} --calls 1"
        )


@dataclass
class Tally:
    """Sums over calls."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    stricter: Counter[str] = field(default_factory=Counter[str])
    faults: dict[tuple[str, ...], Fault] = field(default_factory=dict[tuple[str, ...], Fault])
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in the sums of further calls."""
        self.outcomes += other.outcomes
        self.stricter += other.stricter
        self.kinds += other.kinds
        self.faults = {**other.faults, **self.faults}
        self.seconds += other.seconds

    def __str__(self) -> str:
        calls = sum(self.outcomes.values())
        lines = [f"{calls} calls, {calls / max(self.seconds, 1e-9):.1f} a second and process"]
        lines += [f"  {count:7} {name}" for name, count in self.outcomes.most_common()]
        if self.stricter:
            lines.append("refused where transformers gives a result:")
            lines += [f"  {count:7} {message}" for message, count in self.stricter.most_common(12)]
        lines += [str(fault) for fault in self.faults.values()]
        return "\n".join(lines)


def fuzz(seed: int, indices: Iterable[int]) -> Tally:
    """Run the calls of these numbers."""
    ours(Call())  # imports what calls import, which is no time of theirs
    tally, begun = Tally(), time.monotonic()
    for index in indices:
        call = drawn(seed, index)
        try:
            found = verdict(call)
        except Exception as error:  # of the fuzzer's own, which must not end a long run
            found = Verdict("broken", "fuzzer", repr(error), type(error).__name__)
        tally.outcomes[found.outcome] += 1
        if found.stricter:
            tally.stricter[re.sub(r"\d+(\.\d+)?", "#", found.stricter)[:110]] += 1
        if found.promise:
            kind = (found.promise, found.kind)
            tally.kinds[kind] += 1
            if found.promise == "fuzzer":
                tally.faults[kind] = Fault(found, call, seed, index)
            elif tally.kinds[kind] <= SHRUNK_OF_A_KIND:
                small, told = shrunk(call, found)
                key = (told.promise, told.kind, *sorted(small.keys))
                tally.faults.setdefault(key, Fault(told, small, seed, index))
    tally.seconds = time.monotonic() - begun
    return tally
