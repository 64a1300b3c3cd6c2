"""What the tests of watermarkers share: one object of each scheme, and histories with many contexts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genmode
from genmode_processors.watermarks.ewd import Ewd
from genmode_processors.watermarks.gumbel import Gumbel
from genmode_processors.watermarks.kgw import Kgw
from genmode_processors.watermarks.permute_and_flip import PermuteAndFlip
from genmode_processors.watermarks.reweight import Dip, Unbiased
from genmode_processors.watermarks.sweet import Sweet
from genmode_processors.watermarks.synthid import SynthId
from genmode_processors.watermarks.unigram import Unigram

KEY = 20230124
SCHEMES: dict[str, tuple[type[genmode.Watermarker], dict[str, Any]]] = {
    "kgw": (Kgw, {"vocab_size": 100}),
    "kgw selfhash": (Kgw, {"vocab_size": 100, "seeding_scheme": "selfhash", "context_width": 3}),
    "unigram": (Unigram, {}),
    "sweet": (Sweet, {}),
    "ewd": (Ewd, {}),
    "gumbel": (Gumbel, {}),
    "permute_and_flip": (PermuteAndFlip, {}),
    "unbiased": (Unbiased, {}),
    "dip": (Dip, {}),
    "synthid": (SynthId, {"depth": 8}),
}


def make(name: str, key: int = KEY, **more: Any) -> Any:
    """A watermarker of a scheme."""
    cls, values = SCHEMES[name]
    return cls(key=key, **{**values, **more})


def contexts(count: int, prompt: int | None = None) -> genmode.History:
    """Rows of three tokens that differ in the last two."""
    number = torch.arange(count)
    ids = torch.stack([number % 7, number % 1000, number // 1000 + 7], 1)
    return past(ids, 3 if prompt is None else prompt)


def past(ids: Tensor, prompt: int, starts: Tensor | None = None) -> genmode.History:
    """Rows of one length, in a buffer with undefined columns behind them."""
    tokens = torch.cat([ids, ids.new_full((len(ids), 4), -7)], 1)
    first = ids.new_zeros(len(ids)) if starts is None else starts
    return genmode.History(tokens, None, first, prompt, ids.shape[1])
