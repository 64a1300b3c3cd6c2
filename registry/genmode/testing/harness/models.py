"""Tiny random models of ten families, each built once, and prompts for them.

Weights are large enough that the next token depends on what came before. No config has an end of sequence:
a call that wants one passes `eos_token_id`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

VOCAB, PAD, BOS = 100, 0, 1
_CLASSES: Any = transformers  # whose types do not take settings from a dict
IMAGE, VISION_START, VISION_END, VIDEO = 99, 98, 97, 96

SPECIAL: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None}
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}  # fmt: skip


def _llama(**more: Any) -> Any:
    return _CLASSES.LlamaForCausalLM(_CLASSES.LlamaConfig(**{**TEXT, **SPECIAL, **more}))


def _gpt2(**more: Any) -> Any:
    sizes = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return _CLASSES.GPT2LMHeadModel(_CLASSES.GPT2Config(**{**sizes, **dropout, **SPECIAL, **more}))


def _qwen2(**more: Any) -> Any:
    return _CLASSES.Qwen2ForCausalLM(_CLASSES.Qwen2Config(**{**TEXT, **SPECIAL, **more}))


def _gemma3(**more: Any) -> Any:
    """Five layers of a sliding window of 8 tokens and one that sees all."""
    window = {
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 8,
    }
    config = _CLASSES.Gemma3TextConfig(**{**TEXT, **window, **SPECIAL, **more})
    return _CLASSES.Gemma3ForCausalLM(config)


def _mamba(**more: Any) -> Any:
    """A recurrent state instead of a cache."""
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
    untied = {"tie_word_embeddings": False}
    return _CLASSES.MambaForCausalLM(_CLASSES.MambaConfig(**{**sizes, **untied, **SPECIAL, **more}))


def _lfm2(**more: Any) -> Any:
    """Convolutions with a short state, and attention between them."""
    hybrid = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "block_ff_dim": 64}
    return _CLASSES.Lfm2ForCausalLM(_CLASSES.Lfm2Config(**{**TEXT, **hybrid, **SPECIAL, **more}))


def _t5(**more: Any) -> Any:
    sizes = {
        "vocab_size": VOCAB,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
    }
    start = {"decoder_start_token_id": PAD}
    model = _CLASSES.T5ForConditionalGeneration(_CLASSES.T5Config(**{**sizes, **start, **SPECIAL, **more}))
    # transformers 5 ties the head whatever the config says, and a tied random T5 repeats one token.
    model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn(VOCAB, 32))
    model.config.scale_decoder_outputs = False
    return model


def _bart(**more: Any) -> Any:
    sizes = {
        "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
        "init_std": 0.1, "dropout": 0.0, "decoder_start_token_id": BOS, "forced_eos_token_id": None,
        "tie_word_embeddings": False,
    }  # fmt: skip
    return _CLASSES.BartForConditionalGeneration(_CLASSES.BartConfig(**{**sizes, **SPECIAL, **more}))


def _llava(**more: Any) -> Any:
    """Llama that reads pictures of 8 x 8 pixels as four tokens."""
    vision = _CLASSES.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        projection_dim=16,
    )  # fmt: skip
    config = _CLASSES.LlavaConfig(
        vision_config=vision, text_config=_CLASSES.LlamaConfig(**{**TEXT, **SPECIAL}), image_token_id=IMAGE,
        image_token_index=IMAGE, vision_feature_layer=-1, vision_feature_select_strategy="default",
        **{**SPECIAL, **more},
    )  # fmt: skip
    return _CLASSES.LlavaForConditionalGeneration(config)


def _qwen2_vl(**more: Any) -> Any:
    """Positions in three dimensions; a picture of 2 x 2 patches is one token."""
    vision = {
        "depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "mlp_ratio": 2, "in_channels": 3,
    }  # fmt: skip
    config = _CLASSES.Qwen2VLConfig(
        text_config={**TEXT, **SPECIAL, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        vision_config=vision, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END, **{**SPECIAL, **more},
    )  # fmt: skip
    return _CLASSES.Qwen2VLForConditionalGeneration(config)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "llama": _llama, "gpt2": _gpt2, "qwen2": _qwen2, "gemma3": _gemma3, "mamba": _mamba, "lfm2": _lfm2, "t5": _t5,
    "bart": _bart, "llava": _llava, "qwen2_vl": _qwen2_vl,
}  # fmt: skip
FAMILIES = tuple(_BUILDERS)
ENCODER_DECODER = ("t5", "bart")
RECURRENT = ("mamba", "lfm2")
"""Families whose state cannot go back."""


@functools.cache
def tiny(name: str, attention: str = "sdpa") -> Any:
    """The model of a family, in evaluation mode; the same object every time, not to be changed.

    Args:
        attention: "eager" for a model that can return attentions.
    """
    return fresh(name, attn_implementation=attention) if attention != "sdpa" else fresh(name)


def fresh(name: str, **config: Any) -> Any:
    """Another model of the family with the same weights, which a test may change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _BUILDERS[name](**config)
    return model.eval()


@functools.cache
def near(name: str) -> Any:
    """A draft model: the family's tiny model with every weight a little off."""
    model, generator = fresh(name), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return model


def ids(rows: int, length: int, seed: int = 3) -> Tensor:
    """Random tokens that are no special ones: `[rows, length]`, long."""
    return torch.randint(5, 95, (rows, length), generator=torch.Generator().manual_seed(seed))


def prompt(name: str, rows: int, length: int = 9, seed: int = 3) -> dict[str, Tensor]:
    """Inputs of `generate` for a family: `rows` prompts of up to `length` tokens, the second and third shorter.

    Padding is on the left, on the right for an encoder; a row is the same whatever `rows` is, but for padding.
    """
    tokens, mask = ids(rows, length, seed), torch.ones(rows, length, dtype=torch.long)
    inputs: dict[str, Tensor] = {"input_ids": tokens, "attention_mask": mask}
    generator = torch.Generator().manual_seed(seed)
    if name == "llava":
        tokens[:, length - 5 : length - 1] = IMAGE
        inputs["pixel_values"] = torch.randn(rows, 3, 8, 8, generator=generator)
    if name == "qwen2_vl":
        tokens[:, length - 5 : length - 2] = torch.tensor([VISION_START, IMAGE, VISION_END])
        inputs["pixel_values"] = torch.randn(4 * rows, 3 * 2 * 4 * 4, generator=generator)
        inputs["image_grid_thw"] = torch.tensor([[1, 2, 2]]).repeat(rows, 1)
        inputs["mm_token_type_ids"] = (tokens == IMAGE).long()
    for row, count in ((1, 3), (2, 1)):
        if row < rows:
            hidden = slice(length - count, None) if name in ENCODER_DECODER else slice(None, count)
            tokens[row, hidden], mask[row, hidden] = PAD, 0
    return inputs


def greedy(name: str, rows: int, count: int = 12) -> Tensor:
    """What transformers' greedy search decodes for `prompt(name, rows)`: `[rows, count]`, long."""
    result: Tensor = tiny(name).generate(**prompt(name, rows), do_sample=False, max_new_tokens=count)
    return result[:, -count:]


@functools.cache
def tokenizer() -> Any:
    """A tokenizer for the models: `<pad>`, `<s>`, `</s>`, a to h, 0 to 9, a space, and 78 words such as ` c7`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", *"abcdefgh0123456789▁", *(f"▁{'abcdefgh'[n // 10]}{n % 10}" for n in range(78))]
    made = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=PAD))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return _CLASSES.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
