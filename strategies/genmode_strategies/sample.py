"""Sampling: each row draws its token from the distribution that the processors leave.

    y_t ~ softmax(processors(logits_t))

Temperature, top-k, top-p and their kin are processors. A row whose every token is masked is an error of the session's.
Under `seed=`, where a processor knows how rows go on, as a grammar may, that is run as a draft: the same tokens in
fewer forwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import genmode

from .drafters.loop import drafted
from .verifications.coupling import Coupling


class Sample(genmode.Strategy):
    """Each row draws its token. Shapes: scores `[rows, vocab]` give tokens `[rows]`."""

    contract_version = 1
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}

    def decode(self, session: genmode.Session, params: genmode.Params) -> None:
        forced = session.forced_tokens(sample=True)
        if forced is not None:
            drafted(session, None, Coupling(), forced)
            return
        for step in session.steps():
            step.commit(step.sample())
