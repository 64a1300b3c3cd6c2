"""A strategy that reads what is private; the check reads a whole module, so it stands alone."""

from __future__ import annotations

from typing import Any

import genmode


class Private(genmode.Strategy):
    """Reads what is private."""

    contract_version = 1

    def decode(self, session: genmode.Session, params: Any) -> None:
        for step in session.steps():
            step.commit(step._raw.argmax(-1))
