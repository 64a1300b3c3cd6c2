"""Text that a grammar forces is run in one forward, and the tokens are those of masked decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode_strategies.drafters.loop import joined

from .support import ANY_GRAMMAR, SCHEMA, ids, model, needs, prompts, tokenizer

SAME: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0, "seed": 5},
    "truncated": {"do_sample": True, "top_p": 0.9, "temperature": 1.4, "repetition_penalty": 1.2, "seed": 6},
    "one seed a row": {"do_sample": True, "seed": [1, 2, 3, 4]},
    "lookup": {"prompt_lookup_num_tokens": 5},
    "drawn lookup": {"prompt_lookup_num_tokens": 5, "do_sample": True, "seed": 7},
    "recorded": {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
}


@pytest.mark.parametrize("way", SAME)
@pytest.mark.parametrize("engine", ANY_GRAMMAR)
def test_the_same_tokens(way: str, engine: str) -> None:
    needs(engine)
    for rows in (1, 4):
        more = {**SAME[way]}
        if isinstance(more.get("seed"), list):
            more["seed"] = more["seed"][:rows]
        jumped: Any = ids(SCHEMA, rows, engine, **more)
        masked: Any = ids(SCHEMA, rows, engine, grammar_jump_forward=False, **more)
        if way == "recorded":
            assert len(jumped.scores) == len(masked.scores)
            for one, other in zip(jumped.scores, masked.scores, strict=True):
                assert torch.equal(one.isneginf(), other.isneginf())
                torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
            jumped, masked = jumped.sequences, masked.sequences
        assert torch.equal(jumped, masked)


def test_torchs_generator_is_used_as_without() -> None:
    """Drafts would change how many numbers are drawn, so sampling without `seed=` is not drafted."""
    needs("llguidance")
    found = []
    for jump in (True, False):
        torch.manual_seed(3)
        found.append((ids(SCHEMA, 3, do_sample=True, grammar_jump_forward=jump), torch.rand(1)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def forwards(**more: Any) -> int:
    """How many forwards a call runs."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = model().register_forward_hook(counted)
    try:
        ids(SCHEMA, 1, **more)
    finally:
        handle.remove()
    return count


def test_fewer_forwards() -> None:
    needs("llguidance")
    tokens = ids(SCHEMA, 1).shape[1] - prompts(1)["input_ids"].shape[1]
    assert forwards(grammar_jump_forward=False) == tokens
    assert forwards() < 0.5 * tokens
    assert forwards(do_sample=True, seed=3) < 0.7 * forwards(do_sample=True, seed=3, grammar_jump_forward=False)


def test_streams_come_whole() -> None:
    needs("llguidance")
    inputs = prompts(1)
    more: dict[str, Any] = {"grammar": SCHEMA, "tokenizer": tokenizer(), "max_new_tokens": 160}
    pieces = "".join(genmode.stream(model(), **inputs, **more))
    whole = genmode.generate(model(), **inputs, **more)[0, inputs["input_ids"].shape[1] :]
    assert pieces.strip() == tokenizer().decode(whole, skip_special_tokens=True)


def test_what_is_known_goes_before_a_draft() -> None:
    draft, known = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[7, 8, 9], [0, 0, 0]])
    assert joined(genmode.Draft(draft), known, torch.tensor([3, 0])).tokens.tolist() == [[7, 8, 9], [3, 4, 4]]
    assert joined(None, known, torch.tensor([3, 0])).tokens.tolist() == known.tolist()
