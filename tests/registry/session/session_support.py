"""Strategies as functions, run in a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

import genmode
from genmode.testing.harness.models import prompt, tiny


class Script(genmode.Strategy):
    """Runs the function that a test gives it."""

    contract_version = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    play: ClassVar[Callable[[genmode.Session], None]]

    def decode(self, session: genmode.Session, params: genmode.Params) -> None:
        type(self).play(session)


def run(play: Callable[[genmode.Session], None], name: str = "llama", rows: int = 3, **flags: Any) -> Any:
    """Decode with `play(session)` as the strategy; `needs`, `beams` and `inputs` are for the test."""
    needs, beams = frozenset(flags.pop("needs", ())), flags.pop("beams", 1)
    body = {"play": staticmethod(play), "needs": needs, "flags": {"num_beams": beams}, "contract_version": 1}
    strategy = type("Scripted", (Script,), body)
    inputs = flags.pop("inputs", None) or prompt(name, rows)
    return genmode.generate(tiny(name), **inputs, strategy=strategy, **{"max_new_tokens": 10, **flags})


def choose(step: genmode.Step) -> Tensor:
    return step.scores.argmax(-1)
