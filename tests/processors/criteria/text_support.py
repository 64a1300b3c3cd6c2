"""What the tests of criteria of text share: tokenizers, texts, and naive checks."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..rows_support import begun, byte_tokenizer, fallback_tokenizer, history

BYTES = byte_tokenizer(["stop", "sto", "opera", "to", "né", "日本", "\n\n"], special=["</s>", "<|im_end|>"])
PIECES = fallback_tokenizer(["s", "t", "o", "p", "st", "op", "stop", "▁stop", "▁", "opera", "n", "日", "\n"])


def word_pieces() -> PreTrainedTokenizerFast:
    words = ["[UNK]", "s", "##t", "##to", "##p", "op", "stop", "##op", "n"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


WORDS = word_pieces()
TOKENS = {
    id(BYTES): BYTES.encode(
        "stop sto st s t o p op to né 日本日\n\n\n x</s><|im_end|>opera é", add_special_tokens=False
    ),
    id(PIECES): PIECES.encode("stop sto st s t o p op né 日本日\n x opera", add_special_tokens=False),
    id(WORDS): list(range(1, 9)),
}
STOPS = st.lists(
    st.sampled_from(["stop", "op", "s t", "né", "日", "本", "\n\n", "p ", "<|im_end|>", "t", "tops", "é日"]),
    min_size=1, max_size=3, unique=True,
)  # fmt: skip


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Any, list[list[int]]]:
    """A tokenizer and the tokens of a few rows, behind a prompt of one token."""
    tokenizer = draw(st.sampled_from([BYTES, PIECES, WORDS]))
    token = st.sampled_from(TOKENS[id(tokenizer)])
    length = draw(st.integers(1, 12))
    row = st.lists(token, min_size=length, max_size=length)
    return tokenizer, draw(st.lists(row, min_size=1, max_size=3))


def ends_in_output(tokenizer: Any, prompt: list[int], row: list[int], stops: list[str]) -> bool:
    """Whether a string ends in what the last token adds to the text of the prompt and the row."""
    before, text = (decoded(tokenizer, [*prompt, *some]) for some in (row[:-1], row))
    return any(
        text.startswith(stop, at) and at + len(stop) > len(before.rstrip("\ufffd"))
        for stop in stops
        for at in range(len(text))
    )


def first_stop(tokenizer: Any, row: list[int], contains: Any) -> int | None:
    """The naive check: after how many tokens the decoded output first has what is looked for."""
    return next((n for n in range(1, len(row) + 1) if contains(decoded(tokenizer, row[:n]))), None)


def decoded(tokenizer: Any, row: list[int]) -> str:
    return tokenizer.decode(row, clean_up_tokenization_spaces=False)


def followed(criterion: Any, tokenizer: Any, rows: list[list[int]]) -> list[int | None]:
    """After how many tokens the criterion first stops each row, decoding all rows together."""
    prompt = [TOKENS[id(tokenizer)][0]]
    past = history([prompt] * len(rows), prompt=1, spare=len(rows[0]))
    begun(criterion, past, tokenizer=tokenizer)
    found: list[int | None] = [None] * len(rows)
    for length in range(1, len(rows[0]) + 1):
        past.write(torch.tensor([[row[length - 1]] for row in rows]))
        past.set_level(length + 1)
        for row, done in enumerate(criterion.check(past).tolist()):
            if done and found[row] is None:
                found[row] = length
    return found
