"""Draft models and tokenizers, and the flags of each way to draft."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from genmode.testing.harness.models import SPECIAL, TEXT, VOCAB, fresh, near, tiny

MTP = hasattr(transformers.generation.candidate_generator, "MTPCandidateGenerator")
LETTERS = "abcdefghijklmnopqrstuvwxyz "


@functools.cache
def tokenizer(merged: tuple[str, ...], backwards: bool, size: int) -> Any:
    """Letters, forwards or backwards, then `merged` letters, each made of an earlier token and a letter."""
    pieces = ["<p>", "<s>", *(reversed(LETTERS) if backwards else LETTERS), *merged]
    pieces += [f"<{number}>" for number in range(len(pieces), size)]
    merges = [(piece[:-1], piece[-1]) for piece in merged]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    made.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<p>", bos_token="<s>")


def ours() -> Any:
    return tokenizer(("th", "the", "in", "an", "ab", "cd", "cde"), False, VOCAB)


def theirs() -> Any:
    return tokenizer(("ab", "abc", "cd", "ef", "in", "ing"), True, 40)


@functools.cache
def other_words() -> Any:
    """A draft model with a vocabulary of 40."""
    return fresh("llama", vocab_size=40)


@functools.cache
def with_heads(vocab: int) -> Any:
    """A model for which `heads` were made."""
    config = transformers.Glm4MoeConfig(
        **{**TEXT, **SPECIAL, "vocab_size": vocab}, head_dim=8, moe_intermediate_size=32, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, num_mtp_layers=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.Glm4MoeForCausalLM(config).eval()


@functools.cache
def heads(vocab: int) -> Any:
    """Two heads that guess the token behind the next from the next one alone."""
    from transformers.modeling_layers import MtpModel

    made = MtpModel(with_heads(vocab), 2).eval()
    with torch.no_grad():
        for layer in made.layers:
            layer.eh_proj.weight.copy_(torch.eye(32, 64))
    return made


@functools.cache
def dflash(mask: int = 99) -> Any:
    """A model that draws three tokens at a time; `mask` is the one that it puts where it knows nothing."""
    config = transformers.MuseGlimmerAssistantConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=256, sliding_window=64, block_size=4, mask_token_id=mask,
        target_layer_ids=[0, 1], pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.MuseGlimmerAssistantModel(config).eval()


def flags_of(drafter: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """A model, and the flags that make it draft in this way."""
    model = tiny("llama")
    if drafter in ("mtp", "dflash") and not MTP:
        pytest.skip("this transformers has no such candidate generators")
    if drafter == "mtp":
        from transformers.modeling_layers import MtpModel

        monkeypatch.setattr(MtpModel, "from_pretrained", classmethod(lambda cls, main, **_: heads(VOCAB)))
        return with_heads(VOCAB), {"use_mtp": True}
    return model, {
        "assistant": lambda: {"assistant_model": near("llama"), "num_assistant_tokens": 4},
        "growing": lambda: {
            "assistant_model": near("llama"), "num_assistant_tokens": 2, "assistant_confidence_threshold": 0.0,
            "num_assistant_tokens_schedule": "heuristic_transient",
        },
        "other_words": lambda: {
            "assistant_model": other_words(), "tokenizer": ours(), "assistant_tokenizer": theirs(),
            "num_assistant_tokens": 3, "assistant_confidence_threshold": 0.1,
        },
        "early_exit": lambda: {"assistant_early_exit": 1, "num_assistant_tokens": 3},
        "prompt_lookup": lambda: {"prompt_lookup_num_tokens": 4},
        "suffix_lookup": lambda: {"strategy": "suffix_lookup", "suffix_lookup_num_tokens": 4},
        "dflash": lambda: {"assistant_model": dflash(), "speculation_type": "dflash"},
    }[drafter]()  # fmt: skip


DRAFTERS = ("assistant", "growing", "other_words", "early_exit", "prompt_lookup", "suffix_lookup", "mtp", "dflash")


def widths(model: Any, call: Callable[[], Any]) -> tuple[Any, list[int]]:
    """The result of a call, and how many tokens of each row every forward behind the prompt's was given."""
    seen: list[int] = []

    def note(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(named["input_ids"].shape[1])

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        return call(), seen[1:]
    finally:
        hook.remove()
