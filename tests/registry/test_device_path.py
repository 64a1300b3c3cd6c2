"""What a session does on a device, where the host learns of each step one step late, tried on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import genmode
from genmode import host_sync

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sample": {"do_sample": True, "top_p": 0.9, "seed": 4},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "patient beams": {"num_beams": 3, "early_stopping": True},
    "drafts": {"prompt_lookup_num_tokens": 4},
    "sampled drafts": {"prompt_lookup_num_tokens": 4, "do_sample": True, "seed": 4},
    "scores": {"return_dict_in_generate": True, "output_scores": True},
}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [12, 300])
def test_the_same_result_when_the_host_learns_late(
    model: Any, monkeypatch: pytest.MonkeyPatch, mode: str, length: int
) -> None:
    ids = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[1, :3], mask[1, :3] = 0, 0
    call = {"attention_mask": mask, "max_new_tokens": length, **MODES[mode]}
    expected = genmode.generate(model, ids, **call)
    monkeypatch.setattr(host_sync, "is_free", lambda device: False)
    got = genmode.generate(model, ids, **call)
    if mode == "scores":
        assert len(got.scores) == len(expected.scores) == got.sequences.shape[1] - 9
        got, expected = got.sequences, expected.sequences
    assert torch.equal(got, expected)


def test_streams_the_same_when_the_host_learns_late(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(5))
    call = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 60}
    expected = torch.stack(list(genmode.stream(model, ids, **call)), 1)
    monkeypatch.setattr(host_sync, "is_free", lambda device: False)
    assert torch.equal(torch.stack(list(genmode.stream(model, ids, **call)), 1), expected)


def test_numbers_that_are_none_are_noticed_one_step_late(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_sync, "is_free", lambda device: False)
    weight = model.lm_head.weight.detach().clone()
    try:
        with torch.no_grad():
            model.lm_head.weight[5] = float("nan")
        with pytest.raises(genmode.DecodingError, match="not numbers") as caught:
            genmode.generate(model, torch.tensor([[4, 5, 6]]), max_new_tokens=8)
        assert caught.value.row == 0
    finally:
        with torch.no_grad():
            model.lm_head.weight.copy_(weight)
