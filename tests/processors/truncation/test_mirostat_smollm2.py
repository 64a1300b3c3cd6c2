"""Mirostat on a real model: the mean surprise is where the bounds say, and at its target."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode_processors.truncation.mirostat import Mirostat

pytestmark = [
    pytest.mark.demo,
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning"),
    pytest.mark.xdist_group("demo"),
]
ETA = 0.1


class Watched(Mirostat):
    """Keeps its bounds after the call."""

    name = "watched"

    def reset(self) -> None:
        self.ends = self.bound.clone()
        super().reset()


def surprise(loaded: tuple[Any, Any], mode: int, tau: float, tokens: int, **more: Any) -> tuple[Tensor, Tensor]:
    """Bits of each token under the model, `[rows, tokens]`, and the bounds at the end, `[rows]`."""
    model, tokenizer = loaded
    tokenizer.padding_side = "left"
    inputs = tokenizer(["The old lighthouse keeper", "In 1789, the city of"], return_tensors="pt", padding=True)
    mirostat = Watched(mirostat_mode=mode, mirostat_tau=tau, mirostat_eta=ETA)
    ends = torch.as_tensor(model.generation_config.eos_token_id).flatten().tolist()
    out = genmode.generate(
        model, **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, seed=1, processors=[mirostat],
        suppress_tokens=ends, max_new_tokens=tokens, return_dict_in_generate=True, output_logits=True, **more,
    )  # fmt: skip
    chosen = out.sequences[:, -tokens:]
    logits = torch.stack(out.logits, 1)
    logits[..., ends] = -torch.inf
    bits = -logits.log_softmax(-1).gather(2, chosen[:, :, None])[:, :, 0] / math.log(2)
    return bits, mirostat.ends


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("draft", [None, 3], ids=["plain", "drafts"])
def test_the_mean_is_where_the_bounds_say(loaded: tuple[Any, Any], mode: int, draft: int | None) -> None:
    """mean = tau + (2 tau - mu) / (eta n), for each row: every token has moved its bound, once, by its own surprise."""
    tau, count = 3.0, 24
    bits, ends = surprise(loaded, mode, tau, count, prompt_lookup_num_tokens=draft)
    torch.testing.assert_close(bits.mean(1), tau + (2 * tau - ends) / (ETA * count), atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GENMODE_SLOW"), reason="takes minutes; set GENMODE_SLOW=1")
@pytest.mark.parametrize("tau", [2.0, 3.0, 4.0, 5.0])
def test_holds_the_target_within_5_percent_over_500_tokens(loaded: tuple[Any, Any], tau: float) -> None:
    bits, _ = surprise(loaded, 2, tau, 500)
    assert abs(float(bits.mean()) / tau - 1) < 0.05
