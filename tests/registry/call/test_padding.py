"""An id that pads is a token of the model wherever it may be written, and whatever it is where it never is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import VOCAB, fresh, ids, prompt, tiny

OUTSIDE = [-5, -1, VOCAB, VOCAB + 7]
ENDS = list(range(5, 95, 4))
"""So many that rows end early, and at different lengths."""


PADDED: dict[str, dict[str, Any]] = {
    "rows": {},
    "copies": {"num_return_sequences": 2, "do_sample": True},
    "beams": {"num_beams": 2, "num_return_sequences": 2},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "num_return_sequences": 2},
    "constrained": {"num_beams": 3, "force_words_ids": [[8]]},
    "drafts": {"prompt_lookup_num_tokens": 2},
}


@pytest.mark.parametrize("pad", OUTSIDE)
@pytest.mark.parametrize("mode", PADDED)
def test_what_may_be_padded_is_refused_before_the_model_runs(
    monkeypatch: pytest.MonkeyPatch, mode: str, pad: int
) -> None:
    model, single = fresh("llama"), mode in ("copies", "beams", "groups")
    inputs = {"input_ids": ids(1 if single else 3, 5)}
    monkeypatch.setattr(model.model, "forward", lambda *arguments, **more: pytest.fail("the model ran"))
    for by_config in (False, True):
        call: dict[str, Any] = {**inputs, **PADDED[mode], "eos_token_id": ENDS, "max_new_tokens": 6}
        if by_config:
            model.generation_config.pad_token_id = pad
        else:
            call["pad_token_id"] = pad
        for ask in (genmode.generate, genmode.explain):
            with pytest.raises(genmode.ParameterError, match=rf"pad_token_id={pad} is no token.*pad_token_id=5"):
                ask(model, **call)


@pytest.mark.parametrize("pad", OUTSIDE)
@pytest.mark.parametrize(
    "flags",
    [
        {"eos_token_id": ENDS}, {"eos_token_id": ENDS, "num_beams": 3}, {"eos_token_id": VOCAB + 50, "rows": 3},
        {"eos_token_id": None, "rows": 3}, {"eos_token_id": VOCAB + 50, "num_beams": 3, "num_return_sequences": 3},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_never_padded_is_as_in_transformers(flags: dict[str, Any], pad: int) -> None:
    flags = dict(flags)
    call = {"input_ids": ids(flags.pop("rows", 1), 5), "pad_token_id": pad, "max_new_tokens": 6, **flags}
    assert torch.equal(genmode.generate(tiny("llama"), **call), tiny("llama").generate(**call))


@pytest.mark.parametrize("pad", OUTSIDE)
def test_a_group_that_is_done_chooses_no_token_that_there_is_not(pad: int) -> None:
    flags = {
        "num_beams": 4,
        "num_beam_groups": 2,
        "diversity_penalty": 0.5,
        "early_stopping": True,
        "max_new_tokens": 9,
    }
    result = genmode.generate(tiny("llama"), ids(1, 5), **flags, eos_token_id=ENDS, pad_token_id=pad)
    assert bool(((result >= 0) & (result < VOCAB)).all())


def test_criteria_pad_too() -> None:
    call: dict[str, Any] = {"pad_token_id": VOCAB, "max_new_tokens": 6}
    with pytest.raises(genmode.ParameterError, match="such as pad_token_id=0"):
        genmode.generate(tiny("llama"), **prompt("llama", 3), row_max_new_tokens=[1, 2, 3], **call)
    assert genmode.generate(tiny("llama"), ids(1, 5), row_max_new_tokens=[1], **call).shape == (1, 6)


def test_an_end_that_is_no_token_pads_no_rows() -> None:
    """transformers pads with the first id that ends a row where no other is given."""
    with pytest.raises(genmode.ParameterError, match=f"pad_token_id={VOCAB} is no token"):
        genmode.generate(
            fresh("llama", pad_token_id=None), **prompt("llama", 3), eos_token_id=[VOCAB, 7], max_new_tokens=6
        )


def test_an_embedding_beyond_the_vocabulary_may_pad() -> None:
    model = fresh("llama")
    model.resize_token_embeddings(VOCAB + 1)
    model.config.vocab_size = VOCAB
    call = {**prompt("llama", 3), "eos_token_id": ENDS, "pad_token_id": VOCAB, "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(genmode.generate(model, **call), model.generate(**call))


@pytest.mark.parametrize("pad", [True, 0.5, "0", [0], torch.zeros(0, dtype=torch.long)])
def test_it_is_a_whole_number(pad: Any) -> None:
    with pytest.raises(genmode.ParameterError, match=r"pad_token_id=.* is no whole number"):
        genmode.generate(tiny("llama"), ids(1, 5), pad_token_id=pad, max_new_tokens=2)
