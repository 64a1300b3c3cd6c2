"""What drafts save: how many tokens each forward decides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import VOCAB, fresh, near, prompt, tiny

from .assisted_support import flags_of, heads, ours, theirs, widths, with_heads
from .drafting_support import cyclic


def saying(coder: Any, size: int, pieces: list[str]) -> Any:
    """A Llama of `size` tokens that says these pieces in a circle."""
    model, numbers = fresh("llama", vocab_size=size, hidden_size=128), coder.convert_tokens_to_ids(pieces)
    following = dict(itertools.pairwise([*numbers, numbers[0]]))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        table = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(1))).Q[:size]
        model.model.embed_tokens.weight.copy_(table)
        model.lm_head.weight.zero_()
        for token in range(size):
            model.lm_head.weight[following.get(token, token)] += 20 * table[token]
    return model


def test_a_draft_model_that_says_the_same() -> None:
    model, inputs = tiny("llama"), prompt("llama", 8)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 41, "assistant_confidence_threshold": 0.0}
    same = {"assistant_model": fresh("llama"), "num_assistant_tokens": 4}
    _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **same))
    assert taken == [5] * 8  # 1 token of the prompt's forward, 5 of each other


def test_sampling_with_a_draft_model_that_says_the_same() -> None:
    """With a seed draft and verification draw with the same numbers, without one q = p is taken whatever is drawn.

    There the prompt's forward has a draft behind it as well, as in transformers.
    """
    model, inputs = tiny("llama"), prompt("llama", 8)
    flags: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 41, "assistant_confidence_threshold": 0.0}
    same = {"assistant_model": fresh("llama"), "num_assistant_tokens": 4}
    for seed, forwards in ((None, [4, *[5] * 7, 1]), (1, [5] * 8)):
        _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **same, seed=seed))  # noqa: B023
        assert taken == forwards


def test_a_draft_ends_where_no_row_is_sure() -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20, "assistant_model": near("llama")}
    _, never = widths(model, lambda: genmode.generate(model, **inputs, **flags, assistant_confidence_threshold=1.0))
    assert max(never) == 2  # the token that was not sure is drafted as well
    _, always = widths(model, lambda: genmode.generate(model, **inputs, **flags, assistant_confidence_threshold=0.0))
    assert max(always) > 10


@pytest.mark.parametrize("sample", [False, True])
def test_text_and_words_of_another_tokenizer(sample: bool) -> None:
    model = saying(ours(), VOCAB, ["a", "b", "cde", "f", "g"])
    pieces = ["a", "b", "cd", "e", "f", "g"] if sample else ["ab", "cd", "ef", "g"]
    helper = saying(theirs(), 40, pieces)
    if sample:
        model = saying(ours(), VOCAB, pieces)
    inputs = ours()(["fg", "the g", "xa"], padding=True, padding_side="left", return_tensors="pt")
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    flags: dict[str, Any] = {"do_sample": sample, "max_new_tokens": 40, "seed": 1}
    drafts = {
        "assistant_model": helper, "tokenizer": ours(), "assistant_tokenizer": theirs(), "num_assistant_tokens": 5,
    }  # fmt: skip
    plain = genmode.generate(model, **inputs, **flags)
    assert "".join(pieces) in ours().decode(plain[1])
    result, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))
    assert torch.equal(result, plain)
    assert len(taken) <= (10 if sample else 20)


def test_heads_that_guess_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of("mtp", monkeypatch)
    with torch.no_grad():
        circles = cyclic()
        copied = {"model.embed_tokens": circles.model.embed_tokens, "lm_head": circles.lm_head}
        for name, module in copied.items():
            model.get_submodule(name).weight.copy_(module.weight)
        for layer in (*model.model.layers, *(layer.mtp_block for layer in heads(VOCAB).layers)):
            layer.self_attn.o_proj.weight.zero_()
            for weight in layer.mlp.parameters():
                weight.zero_()
    inputs = {"input_ids": torch.tensor([[50, 10, 11], [51, 20, 21]])}
    flags = {"do_sample": False, "max_new_tokens": 31}
    result, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))
    assert result[0, 3:8].tolist() == [12, 13, 10, 11, 12]
    assert taken == [3] * 10
    with_heads.cache_clear()
    heads.cache_clear()


def test_rows_learn_from_each_other() -> None:
    """The second row repeats what stands in the first one alone."""
    model = cyclic()
    inputs = {"input_ids": torch.tensor([[50, *range(20, 27)], [51, 52, 53, 54, 55, 56, 57, 20]])}
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "strategy": "suffix_lookup"}
    result, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, suffix_lookup_num_tokens=7))
    assert result[1, 8:].tolist() == [21, 22, 23, 24, 25, 26, 20, 21]
    assert len(taken) <= 3


def test_text_without_copies_is_not_drafted_for_long() -> None:
    """Tokens of eight random rows recur by chance; a step of four is run with a draft at most."""
    model, inputs = tiny("llama"), prompt("llama", 8, 40)
    flags: dict[str, Any] = {"do_sample": True, "top_k": 0, "temperature": 3.0, "max_new_tokens": 100, "seed": 0}
    for drafts in ({"prompt_lookup_num_tokens": 10}, {"strategy": "suffix_lookup"}):
        _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))  # noqa: B023
        assert sum(width > 1 for width in taken) <= 25, drafts
