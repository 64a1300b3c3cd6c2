"""A byte-level tokenizer of a few merges, a tiny random model, three grammars, and validators of their own."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from torch import Tensor

import genmode
from genmode_processors.grammar import installed
from genmode_processors.grammar.matchers import OFFERS, Vocabulary
from genmode_processors.grammar.requests import wanted

ENGINES = ("llguidance", "xgrammar", "outlines-core", "lm-format-enforcer")
ANY_GRAMMAR = ("llguidance", "xgrammar")
MERGES = ("t r", "tr u", "tru e", "n a", "na m", "nam e", '" name', '" :', '" ,', "1 2", "r e", "re d", "g r", "gr e")


@functools.cache
def tokenizer(without: str = "") -> Any:
    """All bytes but those in `without` as single tokens, `MERGES`, `<eos>` and `<pad>`."""
    characters = sorted(set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) - set(without))
    vocabulary = {one: index for index, one in enumerate(characters)}
    merges: list[tuple[str, str]] = []
    for left, right in (merge.split() for merge in MERGES):
        if left in vocabulary and right in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append((left, right))
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<eos>", "<pad>"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")


@functools.cache
def model(seed: int = 0, eos: bool = True) -> Any:
    """Two layers of random weights; five more scores than the tokenizer has tokens, as padded vocabularies do."""
    torch.manual_seed(seed)
    words = tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(words) + 5, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, max_position_embeddings=1024, tie_word_embeddings=False,
        eos_token_id=words.eos_token_id if eos else None, pad_token_id=words.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def prompts(count: int) -> dict[str, Tensor]:
    """Ragged prompts, padded on the left."""
    texts = [f"row {index}:" + " 12" * (index % 4) for index in range(count)]
    return dict(tokenizer()(texts, return_tensors="pt", padding=True, padding_side="left"))


def generate(grammar: Any, rows: int = 4, engine: str = "auto", tokens: int = 160, **more: Any) -> list[str]:
    """Decoded texts without their prompts."""
    return texts(ids(grammar, rows, engine, tokens, **more), rows)


def ids(grammar: Any, rows: int = 4, engine: str = "auto", tokens: int = 160, **more: Any) -> Tensor:
    """`[results, length]`: what a call returns, prompt included."""
    inputs = prompts(rows)
    if not isinstance(grammar, genmode.LogitsProcessor):
        more = {"grammar": grammar, "grammar_engine": engine, **more}
    else:
        more = {"processors": [grammar], **more}
    result: Tensor = genmode.generate(model(), **inputs, tokenizer=tokenizer(), max_new_tokens=tokens, **more)
    return result


def texts(sequences: Tensor, rows: int) -> list[str]:
    """What was decoded, without special tokens."""
    start = prompts(rows)["input_ids"].shape[1]
    return list(tokenizer().batch_decode(sequences[:, start:].clamp(min=0), skip_special_tokens=True))


def needs(engine: str) -> None:
    """Skip where the engine is not installed."""
    if engine not in installed():
        pytest.skip(f"{engine} is not installed")


def takes(grammar: Any, engine: str, candidates: list[str]) -> list[bool]:
    """Of each text, whether an engine allows it byte by byte and as a whole."""
    grammar = compiler(engine).compile(wanted(grammar), False)
    return [spells(grammar, text) for text in candidates]


BYTES = Vocabulary((*(bytes([i]) for i in range(256)), b""), 257, (256,), lambda text: list(text.encode()))
"""A token for each byte, and an end."""


@functools.cache
def compiler(engine: str) -> Any:
    """An engine that has read the vocabulary of bytes."""
    offer = next(one for one in OFFERS if one.name == engine)
    return importlib.import_module(f"genmode_processors.grammar.{offer.module}").engine(BYTES)


def spells(grammar: Any, text: str) -> bool:
    """Whether a compiled grammar allows a text byte by byte, each by its mask, and as a whole."""
    matcher, words = grammar.matcher(), np.zeros(BYTES.words, dtype=np.int32)
    for byte in text.encode(errors="surrogatepass"):
        matcher.fill(words)
        if not words[byte // 32] >> byte % 32 & 1 or not matcher.advance(byte):
            return False
    return bool(matcher.complete)


REGEX = r"[a-c]{2,4}-(red|green|blue)-[0-9]{3}"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{1,5}$"},
        "true": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["red", "grey", "a b"]}, "maxItems": 2},
        "inner": {
            "type": "object",
            "properties": {
                "list": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"k": {"enum": ["x", "y"]}},
                        "required": ["k"],
                        "additionalProperties": False,
                    },
                    "maxItems": 2,
                },
            },
            "required": ["list"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "true", "tags", "inner"],
    "additionalProperties": False,
}
"""What every engine holds in full."""

EBNF = r"""
root ::= term (op term){0,2}
op ::= " + " | " * "
term ::= number | "(" number (op number)? ")"
number ::= "0" | [1-9] [0-9]{0,2}
"""


def is_regex(text: str) -> bool:
    """Whether a text matches `REGEX`."""
    return re.fullmatch(REGEX, text) is not None


def is_schema(text: str) -> bool:
    """Whether a text is JSON that meets `SCHEMA`."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def is_sum(text: str) -> bool:
    """Whether a text is one of `EBNF`, by a parser written by hand."""
    place = count = 0

    def operator() -> bool:
        nonlocal place
        found = text[place : place + 3] in (" + ", " * ")
        place += 3 * found
        return found

    def number() -> bool:
        nonlocal place
        start = place
        while place < len(text) and text[place] in "0123456789":
            place += 1
        digits = text[start:place]
        return digits == "0" or (1 <= len(digits) <= 3 and digits[0] != "0")

    def term() -> bool:
        nonlocal place
        if text[place : place + 1] != "(":
            return number()
        place += 1
        if not number() or (operator() and not number()) or text[place : place + 1] != ")":
            return False
        place += 1
        return True

    if not term():
        return False
    while place < len(text) and count < 2:
        if not operator() or not term():
            return False
        count += 1
    return place == len(text)


GRAMMARS: dict[str, tuple[Any, Callable[[str], bool]]] = {
    "regex": ({"regex": REGEX}, is_regex),
    "json_schema": (SCHEMA, is_schema),
    "ebnf": ({"ebnf": EBNF}, is_sum),
}
CASES = [
    pytest.param(engine, kind, id=f"{engine}-{kind}")
    for engine in ENGINES
    for kind in GRAMMARS
    if kind != "ebnf" or engine in ANY_GRAMMAR
]
"""Each engine with each kind that it knows."""
