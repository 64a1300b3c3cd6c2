"""What a call resolved to, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """One processor or criterion of a plan, in the order in which it runs."""

    name: str
    stage: str
    parameters: str
    origin: str


@dataclass(frozen=True)
class Plan:
    """What a call resolved to.

    Attributes:
        strategy: the strategy's name.
        origin: the distribution and version that provides it.
        why: what led to this strategy.
        parameters: the strategy's parameters.
        processors: processors in the order in which they run.
        criteria: stopping criteria.
        engine: "static", "graph" or "portable"; how forwards are run.
        engine_why: why this engine and no faster one; empty for the fastest.
        rows: how many rows are decoded.
        drafter: what drafts, with its parameters; empty where nothing does.
        verification: how drafts are verified; empty as well.
        random: where random numbers come from.
        notes: what a combination of the call costs, such as a watermark's promise under a strategy.
    """

    strategy: str
    origin: str
    why: str
    parameters: Mapping[str, Any]
    processors: tuple[Part, ...] = ()
    criteria: tuple[str, ...] = ()
    engine: str = "portable"
    engine_why: str = ""
    rows: int = 0
    random: str = "torch's generator"
    notes: tuple[str, ...] = field(default=())
    drafter: str = ""
    verification: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data that `json` can write."""
        data = dataclasses.asdict(self)
        data["parameters"] = {k: v if _plain(v) else repr(v) for k, v in self.parameters.items()}
        return data

    def __str__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.parameters.items()) or "none"
        lines = [
            f"strategy    {self.strategy} ({self.origin}): {self.why}",
            f"parameters  {shown}",
            f"rows        {self.rows}",
            f"random      {self.random}",
            f"engine      {self.engine}" + (f": {self.engine_why}" if self.engine_why else ""),
        ]
        if self.drafter:
            lines += [f"drafter     {self.drafter}", f"verified    {self.verification}"]
        lines += [f"processor   {one.stage:<11} {one.parameters} ({one.origin})" for one in self.processors]
        lines += [f"criterion   {one}" for one in self.criteria]
        lines += [f"note        {one}" for one in self.notes]
        return "\n".join(lines)


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))
