"""One call as a value: what it decodes from, how it is listened to, and its arguments."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from genmode.plugins.parameters import flag_defaults
from genmode.testing.harness.models import PAD

from .models import Named, Pair

ROW_WISE = ("seed", "row_max_new_tokens", "row_min_new_tokens")
"""Arguments that may hold one entry for each input."""
NOT_FLAGS = ("assistant_model", "tokenizer", "prefix_allowed_tokens_fn", "negative_prompt_ids")
"""Further arguments that transformers' `generate` takes."""


@dataclass(frozen=True)
class Call:
    """A call of `genmode.generate`, whose `repr` is a line of Python that makes it again.

    Args:
        family: of the model.
        dtype: of its weights.
        lengths: tokens of each prompt; shorter ones are padded, on the left or for an encoder on the right.
            None for a call without a prompt.
        text: what the prompts are drawn from.
        masked: whether the call has an attention mask.
        via: "generate", "streamer" for a call with `streamer=`, or "stream" for `genmode.stream`.
        keys: all further arguments.
    """

    family: str = "llama"
    dtype: str = "float32"
    lengths: tuple[int, ...] | None = (4,)
    text: int = 0
    masked: bool = True
    via: str = "generate"
    keys: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        plain = Call()
        given = [(one.name, getattr(self, one.name)) for one in fields(self)]
        return f"Call({', '.join(f'{name}={value!r}' for name, value in given if value != getattr(plain, name))})"

    @property
    def rows(self) -> int:
        """How many prompts there are."""
        return 1 if self.lengths is None else len(self.lengths)

    def prompt(self, row: int) -> list[int]:
        """The tokens of a prompt, of few different ones, so that they repeat."""
        assert self.lengths is not None
        return random.Random(f"{self.text} {row}").choices(range(5, 30), k=self.lengths[row])

    def inputs(self, row: int | None = None) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` of all rows, or of one alone, without padding."""
        if self.lengths is None:
            return {}
        prompts = [self.prompt(one) for one in (range(self.rows) if row is None else [row])]
        width = max(len(prompt) for prompt in prompts)
        ids, mask = torch.full((len(prompts), width), PAD), torch.zeros(len(prompts), width, dtype=torch.long)
        for index, prompt in enumerate(prompts):
            columns = slice(0, len(prompt)) if self.family == "t5" else slice(width - len(prompt), width)
            ids[index, columns], mask[index, columns] = torch.tensor(prompt, dtype=torch.long), 1
        return {"input_ids": ids, **({"attention_mask": mask} if self.masked else {})}

    def arguments(self, pair: Pair, row: int | None = None) -> dict[str, Any]:
        """The keys as `generate` takes them, of all rows or of one alone."""
        rows = self.rows if row is None else 1
        found = {key: _found(value, pair, rows) for key, value in self.keys.items()}
        if row is not None:
            for key in ROW_WISE:
                if isinstance(found.get(key), (list, tuple)) and len(found[key]) == self.rows:
                    one = found[key][row]
                    found[key] = one if key == "seed" else [one]
        return found

    @property
    def of_stock(self) -> bool:
        """Whether transformers' own `generate` takes it: no argument is genmode's."""
        return self.via != "stream" and all(key in flag_defaults() or key in NOT_FLAGS for key in self.keys)

    def with_keys(self, keys: Mapping[str, Any]) -> Call:
        """The same with other arguments."""
        return replace(self, keys=dict(keys))


def _found(value: Any, pair: Pair, rows: int) -> Any:
    if isinstance(value, Named):
        return value.found(pair, rows)
    return [_found(one, pair, rows) for one in value] if isinstance(value, list) else value
