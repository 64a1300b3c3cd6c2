"""As much of a session as finished hypotheses need."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

import genmode


def session(history: list[list[int]], inputs: int, prompt_length: int = 1, **more: Any) -> Any:
    """As much of a session as `Hypotheses` reads."""
    ids = torch.tensor(history)
    given = {
        "num_inputs": inputs, "rows": len(history), "device": ids.device, "prompt_length": prompt_length,
        "max_length": 10, "eos_token_ids": [9], "pad_token_id": 0, "history": history_of(ids, prompt_length),
        "generation_config": SimpleNamespace(return_dict_in_generate=False),
    }  # fmt: skip
    found = SimpleNamespace(**{**given, **more})
    found.replay = Replay(found)
    found.finish = lambda sequences, **rest: vars(found).update(result=sequences, **rest)
    return found


class Replay:
    """Runs functions; rows in a buffer as wide as is asked for."""

    def __init__(self, running: Any) -> None:
        self.running = running

    def __call__(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def buffer(self, width: int) -> torch.Tensor:
        tokens = self.running.history.tokens
        return torch.nn.functional.pad(tokens, (0, width - tokens.shape[1]), value=-7)


def history_of(ids: torch.Tensor, prompt_length: int) -> genmode.History:
    return genmode.History(ids, None, torch.zeros(len(ids), dtype=torch.long), prompt_length, ids.shape[1])


def parameters(**more: Any) -> Any:
    usual = {"num_beams": 2, "length_penalty": 1.0, "early_stopping": False, "num_return_sequences": 1}
    return SimpleNamespace(**{**usual, **more})
