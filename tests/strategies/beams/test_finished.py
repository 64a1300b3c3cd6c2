"""Results that there are too few candidates for: their places are those of transformers, empty."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import VOCAB, fresh, ids, tiny

PROMPT = ids(1, 3)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("ends", [{}, {"eos_token_id": 7}], ids=["no end", "an end"])
@pytest.mark.parametrize("pad", [0, 4])
@pytest.mark.parametrize(
    "few",
    [
        {"top_k": 1}, {"top_k": 2}, {"temperature": 1e-5}, {"temperature": 0.01}, {"top_p": 0.01},
        {"suppress_tokens": list(range(8, VOCAB)), "top_k": 1},
        {"suppress_tokens": list(range(6, VOCAB)), "top_k": 0},
    ],
    ids=["top_k=1", "top_k=2", "cold", "less cold", "top_p", "eight allowed", "six allowed"],
)  # fmt: skip
def test_fewer_candidates_than_results(few: dict[str, Any], pad: int, ends: dict[str, Any], count: int) -> None:
    call = {
        "num_beams": 3, "num_return_sequences": 3, "do_sample": True, "max_new_tokens": count, "pad_token_id": pad,
        "return_dict_in_generate": True, "output_scores": True, **few, **ends,
    }  # fmt: skip
    torch.manual_seed(1)
    expected: Any = tiny("llama").generate(PROMPT, **call)
    torch.manual_seed(1)
    found: Any = genmode.generate(tiny("llama"), PROMPT, **call)
    if not ends:  # transformers then fills up with -1
        expected.sequences[expected.sequences == -1] = pad
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.beam_indices, expected.beam_indices)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores)


def test_an_input_without_any_result_is_an_error() -> None:
    call: dict[str, Any] = {"suppress_tokens": list(range(VOCAB)), "num_beams": 3, "max_new_tokens": 2}
    for count in (1, 3):
        with pytest.raises(genmode.DecodingError, match=r"input 0 has no token left to choose for .*'suppress_tokens'"):
            genmode.generate(tiny("llama"), PROMPT, num_return_sequences=count, **call)


def test_open_hypotheses_stand_in_where_time_is_up() -> None:
    """As many of them as have begun; what is open behind one token are the best single tokens."""
    model, call = fresh("llama"), {"num_beams": 3, "num_return_sequences": 3, "max_time": 0.0, "max_new_tokens": 8}
    best = model(PROMPT).logits[0, -1].topk(3).indices
    assert torch.equal(genmode.generate(model, PROMPT, **call)[:, 3], best)
    few: dict[str, Any] = {**call, "suppress_tokens": sorted({*range(VOCAB)} - {int(best[0]), int(best[1])})}
    assert genmode.generate(model, PROMPT, **few)[:, 3].tolist() == [*best[:2].tolist(), 0]
