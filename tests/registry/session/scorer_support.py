"""Tiny models that classify, and a tokenizer of their own."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers

from genmode.testing.harness.models import VOCAB

_CLASSES: Any = transformers
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "initializer_range": 0.5, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.5,
    "pad_token_id": 0,
}  # fmt: skip
BART: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
    "init_std": 0.5, "decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1,
}  # fmt: skip
XLNET: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.5,
    "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", {**SIZES, "num_key_value_heads": 2}),
    "Qwen2": ("Qwen2Config", {**SIZES, "num_key_value_heads": 2}),
    "GPT2": ("GPT2Config", GPT2),
    "Bert": ("BertConfig", SIZES),
    "Roberta": ("RobertaConfig", SIZES),
    "Bart": ("BartConfig", BART),
    "XLNet": ("XLNetConfig", XLNET),
}


@functools.cache
def classifier(kind: str = "Llama", labels: int = 1, **config: Any) -> Any:
    """A sequence-classification model with random weights, in evaluation mode, not to be changed."""
    name, sizes = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = getattr(_CLASSES, name)(**{**sizes, "num_labels": labels, **config})
        return getattr(_CLASSES, f"{kind}ForSequenceClassification")(made).eval()


@functools.cache
def letters() -> Any:
    """A tokenizer of single characters, `[CLS]` in front and `[SEP]` behind: another vocabulary than the models'."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    signs = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh0123456789 .<>/s"]
    made = Tokenizer(models.WordLevel({sign: place for place, sign in enumerate(signs)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return _CLASSES.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
