"""Greedy search: each row takes its most probable token.

    y_t = argmax_v p(v | y_<t)

On ties the lowest token id wins on the CPU, as in transformers. Where a processor knows how rows go on, as a
grammar may, that is run as a draft: the same tokens in fewer forwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import genmode

from .drafters.loop import drafted


class GreedySearch(genmode.Strategy):
    """Each row takes its most probable token. Shapes: scores `[rows, vocab]` give tokens `[rows]`."""

    contract_version = 1
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": False, "num_beams": 1}

    def decode(self, session: genmode.Session, params: genmode.Params) -> None:
        forced = session.forced_tokens(sample=False)
        if forced is not None:
            drafted(session, None, None, forced)
            return
        for step in session.steps():
            step.commit(step.best())
