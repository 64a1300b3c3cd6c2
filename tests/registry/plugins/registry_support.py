"""What the tests of the registry share: a processor, and what has become of each entry."""

from __future__ import annotations

from typing import Any

import genmode
from genmode.plugins.registry import Registry


class Halve(genmode.LogitsProcessor):
    contract_version = 1

    class Params(genmode.Params):
        halve_times: int = 1

    def process(self, scores: Any, history: Any) -> Any:
        return scores / 2


def states(host: Registry, kind: str | None = None) -> dict[tuple[str, str], str]:
    return {(info.name, info.distribution): info.state for info in host.components(kind)}
