"""Phrases that must not occur: which tokens are masked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import genmode
from genmode_processors.text.phrase_bans import BannedPhrases

from ..rows_support import begun, byte_tokenizer, context, fallback_tokenizer, history, ragged, run


def banned(result: torch.Tensor) -> list[set[int]]:
    return [set(row.isneginf().nonzero()[:, 0].tolist()) for row in result]


WORDS = byte_tokenizer(["stop", "sto", "opera", "to", " the", "né", "日本"])
PIECES = fallback_tokenizer(["st", "op", "s", "t", "o", "p", "▁stop", "▁", "opera", "n", "日"])


def spelled(tokenizer, *texts: str) -> list[int]:
    """The ids whose texts these are, each one token, or the bytes of what is no token."""
    ids: list[int] = []
    for text in texts:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        ids += encoded
    return ids


def test_a_phrase_is_banned_wherever_it_would_end() -> None:
    processor = BannedPhrases(banned_phrases=["stop"])
    vocab = len(WORDS)
    past = history([spelled(WORDS, "sto")])
    hit = banned(run(processor, torch.zeros(1, vocab), past, tokenizer=WORDS))[0]
    texts = {WORDS.decode([token]) for token in hit}
    assert texts == {"p", "stop"}
    past = history([spelled(WORDS, "x", "s", "t")])
    hit = banned(run(processor, torch.zeros(1, vocab), past, tokenizer=WORDS))[0]
    texts = {WORDS.decode([token]) for token in hit}
    assert texts == {"op", "ope", "oper", "opera", "stop"} & {WORDS.decode([t]) for t in range(vocab)}


TEXTS = ["s", "t", "o", "p", "st", "op", "to", "sto", "stop", "x", " ", "né", "日", "é", "n"]
PHRASES = ["stop", "op", "tt", "st st", "né", "日本", "p", "sé"]


@settings(max_examples=40)
@given(
    st.sampled_from([WORDS, PIECES]),
    st.lists(st.sampled_from(PHRASES), min_size=1, max_size=3, unique=True),
    st.lists(st.lists(st.integers(0, 400), max_size=4), min_size=1, max_size=2),
    st.data(),
)
def test_exactly_the_tokens_that_would_bring_a_phrase_are_banned(
    tokenizer, phrases: list[str], noise: list[list[int]], data: st.DataObject
) -> None:
    vocab = len(tokenizer)
    # A broken character makes the byte-fallback decoder drop whole neighbours, so it gets none.
    usable = [token for token in range(vocab) if tokenizer is WORDS or not 129 <= token <= 256]
    rows = [
        spelled(tokenizer, *data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6)))
        + [usable[token % len(usable)] for token in some]
        for some in noise
    ]
    processor = BannedPhrases(banned_phrases=phrases)
    result = banned(run(processor, torch.zeros(len(rows), vocab), ragged(rows), tokenizer=tokenizer))
    for row, hit in zip(rows, result, strict=True):
        before = sum(occurrences(tokenizer.decode(row), phrases))
        for token in range(vocab):
            after = sum(occurrences(tokenizer.decode([*row, token]), phrases))
            assert (token in hit) == (after > before)


def occurrences(text: str, phrases: list[str]) -> list[int]:
    """How often each phrase stands in the text, overlapping ones included."""
    return [sum(text.startswith(phrase, at) for at in range(len(text))) for phrase in phrases]


@given(st.lists(st.sampled_from(["grow", "reorder", "back"]), max_size=8), st.randoms())
def test_phrases_are_followed_through_beams_and_drafts(events: list[str], random) -> None:
    vocab = len(WORDS)
    tokens = spelled(WORDS, "s", "t", "o", "p", "st", " ")
    rows = [[tokens[0]], [tokens[1]]]
    processor = begun(BannedPhrases(banned_phrases=["stop", "ts"]), history(rows), vocab, tokenizer=WORDS)
    for event in events:
        if event == "grow":
            rows = [[*row, random.choice(tokens)] for row in rows]
        elif event == "reorder":
            order = [random.randrange(len(rows)) for _ in rows]
            processor.reorder(torch.tensor(order))
            rows = [list(rows[row]) for row in order]
        else:
            counts = [random.randint(0, len(row) - 1) for row in rows]
            processor.rollback(torch.tensor(counts))
            rows = [row[: len(row) - count] for row, count in zip(rows, counts, strict=True)]
        level = len(set(map(len, rows))) == 1
        past = history(rows) if level else ragged(rows)
        fresh = run(BannedPhrases(banned_phrases=["stop", "ts"]), torch.zeros(len(rows), vocab), past, tokenizer=WORDS)
        assert banned(processor.process(torch.zeros(len(rows), vocab), past)) == banned(fresh)


def test_the_end_of_sequence_is_never_banned() -> None:
    tokenizer = byte_tokenizer(special=["</s>"])
    processor = BannedPhrases(banned_phrases=["</s>", "s>"])
    past = history([spelled(tokenizer, "<", "/", "s")])
    ends = tokenizer.convert_tokens_to_ids(["</s>"])
    result = run(processor, torch.zeros(1, len(tokenizer)), past, tokenizer=tokenizer, eos_token_ids=ends)
    assert banned(result) == [{tokenizer.convert_tokens_to_ids(">")}]


def test_phrases_need_text_and_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="banned_phrases"):
        BannedPhrases(banned_phrases=[""])
    with pytest.raises(genmode.ParameterError, match="needs the tokenizer"):
        BannedPhrases(banned_phrases=["x"]).begin(context(history([[0]])))
