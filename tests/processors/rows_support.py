"""What the tests of penalties, constraints and criteria share: histories, a context, tiny tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import genmode
from genmode.session.token_buffer import TokenBuffer

VOCAB = 12
GARBAGE = -7  # undefined columns hold what no code may read


def history(
    rows: Sequence[Sequence[int]], prompt: int = 0, starts: Sequence[int] | None = None, spare: int = 3
) -> TokenBuffer:
    """Rows of one length, in a buffer with `spare` undefined columns behind them."""
    tokens = torch.full((len(rows), len(rows[0]) + spare), GARBAGE)
    tokens[:, : len(rows[0])] = torch.tensor([list(row) for row in rows], dtype=torch.long)
    return build(tokens, [len(rows[0])] * len(rows), prompt, starts, len(rows[0]))


def ragged(
    rows: Sequence[Sequence[int]], prompt: int = 0, starts: Sequence[int] | None = None, spare: int = 3
) -> TokenBuffer:
    """Rows of their own lengths; what lies beyond is undefined."""
    tokens = torch.full((len(rows), max(map(len, rows)) + spare), GARBAGE)
    tokens[:, ::2] = 10**6
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(list(ids), dtype=torch.long)
    return build(tokens, [len(row) for row in rows], prompt, starts, None)


def build(
    tokens: Tensor, lengths: Sequence[int], prompt: int, starts: Sequence[int] | None, level: int | None
) -> TokenBuffer:
    first = torch.tensor(list(starts) if starts is not None else [0] * len(lengths))
    return TokenBuffer(tokens, torch.tensor(lengths), first, prompt, level)


def context(past: genmode.History, vocab: int = VOCAB, **more: Any) -> Any:
    """What `begin` may read."""
    values: dict[str, Any] = {
        "rows": past.rows,
        "num_inputs": past.rows,
        "device": past.tokens.device,
        "vocab_size": vocab,
        "tokenizer": None,
        "eos_token_ids": [],
        "pad_token_id": 0,
        "history": past,
        "prompt_length": past.prompt,
        "backtracks": False,
        "processors": (),
        "generation_config": SimpleNamespace(num_beams=1),
        "encoder_input_ids": None,
        "max_length": 100,
    }
    return SimpleNamespace(**{**values, **more})


def begun(component: Any, past: genmode.History, vocab: int = VOCAB, **more: Any) -> Any:
    """The component, after `begin`."""
    component.begin(context(past, vocab, **more))
    return component


def run(component: Any, scores: Tensor, past: genmode.History, **more: Any) -> Tensor:
    """What a fresh component makes of the scores, which are left as they are."""
    result: Tensor = begun(component, past, scores.shape[1], **more).process(scores.clone(), past)
    return result


def same(left: Tensor, right: Tensor) -> bool:
    """Bit for bit, NaN equal to NaN, and of one type."""
    return left.dtype == right.dtype and torch.equal(left.nan_to_num(12345.0), right.nan_to_num(12345.0))


@st.composite
def scores_of(draw: st.DrawFn, rows: int, vocab: int, dtype: torch.dtype | None = None) -> Tensor:
    """Scores with ties, zeros and masked entries; in every row at least one is finite."""
    values = st.one_of(
        st.sampled_from([-torch.inf, 0.0, 1.0, -1.0, 2.5]),
        st.floats(-30, 30, width=32, allow_subnormal=False),
    )
    flat = draw(st.lists(values, min_size=rows * vocab, max_size=rows * vocab))
    scores = torch.tensor(flat, dtype=torch.float32).view(rows, vocab)
    scores[:, draw(st.integers(0, vocab - 1))] = 0.5
    return scores.to(dtype or draw(st.sampled_from([torch.float32, torch.bfloat16])))


@st.composite
def cases(draw: st.DrawFn, min_length: int = 1, min_vocab: int = 1) -> tuple[list[list[int]], Tensor]:
    """Rows of one length over few tokens, so that they repeat themselves, and scores for them."""
    vocab = draw(st.integers(min_vocab, VOCAB))
    rows, length = draw(st.integers(1, 3)), draw(st.integers(min_length, 12))
    token = st.integers(0, min(vocab, 4) - 1)
    ids = draw(st.lists(st.lists(token, min_size=length, max_size=length), min_size=rows, max_size=rows))
    return ids, draw(scores_of(rows, vocab))


def byte_tokenizer(merges: Sequence[str] = (), special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary: the 256 bytes, and what merging characters of `merges` from the left makes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    pairs: list[tuple[str, str]] = []
    for word in merges:
        written = encode.pre_tokenize_str(word)[0][0]
        for end in range(2, len(written) + 1):
            pair = (written[: end - 1], written[end - 1])
            if written[:end] not in vocabulary:
                vocabulary[written[:end]] = len(vocabulary)
                pairs.append(pair)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    backend.pre_tokenizer = encode
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    if special:
        more = {"eos_token": special[0], "additional_special_tokens": list(special[1:])}
        tokenizer.add_special_tokens(more)
    return tokenizer


def fallback_tokenizer(pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    """A vocabulary of pieces in SentencePiece's writing, with one token for each byte besides."""
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
