"""DRY: don't repeat yourself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genmode
from genmode_processors.penalties.dry import LONGEST, Dry

from ..rows_support import VOCAB, begun, byte_tokenizer, context, history, ragged, run

BREAKER = 4
SETTINGS: dict[str, Any] = {
    "dry_multiplier": 1.0,
    "dry_base": 2.0,
    "dry_allowed_length": 2,
    "dry_sequence_breakers": [BREAKER],
}


def penalties(tokens: list[int], multiplier: float, base: float, allowed: int, last_n: int) -> dict[int, float]:
    """The definition: for each token, the longest ending of the row that it followed before."""
    tokens = tokens[-last_n:] if last_n else tokens
    longest: dict[int, int] = {}
    for at in range(len(tokens) - 1):
        length = 0
        while length <= at and tokens[at - length] == tokens[-1 - length] != BREAKER:
            length += 1
        longest[tokens[at + 1]] = max(longest.get(tokens[at + 1], 0), min(length, LONGEST))
    return {
        token: multiplier * base ** (length - allowed)
        for token, length in longest.items()
        if length >= allowed and token != BREAKER
    }


# numbers checkable by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 1, 2], {3: 1.0}),  # 1 2 was followed by 3; its length is the allowed one
        ([0, 1, 2, 3, 0, 1, 2], {3: 2.0}),  # one longer doubles the penalty
        ([1, 2, 3, 2], {}),  # 2 alone is shorter than allowed
        ([1, 2, 3, 0, 2, 1, 2], {3: 1.0}),
        ([1, 2, 3, 1, 2, 0, 1, 2], {3: 1.0, 0: 1.0}),  # both followed 1 2
        ([5, 1, 2, 3, 1, 2, 0, 5, 1, 2], {3: 2.0, 0: 1.0}),  # each by its longest match
        ([1, 1, 1, 1], {1: 2.0}),  # 1 1 1 ends at the last but one
        ([1, 4, 2, 3, 1, 4, 2], {}),  # the breaker cuts the match to 2 alone
        ([1, 2, 4, 1, 2], {}),  # the breaker itself is never penalised
        ([1, 2, 3, 1, 4], {}),  # the row ends in a breaker
    ],
)
def test_the_token_that_would_repeat_is_penalised(tokens: list[int], expected: dict[int, float]) -> None:
    result = run(Dry(**SETTINGS), torch.zeros(1, 6), history([tokens]))
    assert {t: -s for t, s in enumerate(result[0].tolist()) if s} == expected


@pytest.mark.parametrize(("last_n", "penalty"), [(0, 2.0), (7, 2.0), (6, 1.0), (4, 0.0)])
def test_a_range_hides_what_is_before_it(last_n: int, penalty: float) -> None:
    past = history([[0, 1, 2, 3, 0, 1, 2]])
    result = run(Dry(**SETTINGS, dry_penalty_last_n=last_n), torch.zeros(1, 6), past)
    assert result.tolist() == [[0.0, 0.0, 0.0, -penalty, 0.0, 0.0]]


def test_left_padding_repeats_nothing() -> None:
    result = run(Dry(**SETTINGS), torch.zeros(1, 6), history([[1, 1, 1, 2, 1, 1]], starts=[3]))
    assert not result.any()


# the definition, along a row's life ------------------------------------------------------------------


def expect(processor: Dry, rows: list[list[int]], past: genmode.History, keys: dict[str, Any]) -> None:
    scores = torch.linspace(-3, 3, len(rows) * VOCAB).view(len(rows), VOCAB)
    result = processor.process(scores.clone(), past)
    for row, tokens in enumerate(rows):
        wanted = penalties(
            tokens,
            keys["dry_multiplier"],
            keys["dry_base"],
            keys["dry_allowed_length"],
            keys["dry_penalty_last_n"],
        )
        taken = (scores[row] - result[row]).tolist()
        assert taken == pytest.approx([wanted.get(token, 0.0) for token in range(VOCAB)], abs=1e-4)


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=1, max_size=3)
    ),
    st.lists(
        st.tuples(st.sampled_from(["grow", "grow", "grow", "reorder", "back", "draft"]), st.randoms()),
        max_size=10,
    ),
    st.integers(1, 4),
    st.sampled_from([0, 0, 3, 6]),
)
def test_equals_the_definition_through_beams_and_drafts(
    rows: list[list[int]], events: list[tuple[str, Any]], allowed: int, last_n: int
) -> None:
    keys = {**SETTINGS, "dry_allowed_length": allowed, "dry_penalty_last_n": last_n}
    processor: Dry = begun(Dry(**keys), history(rows))
    expect(processor, rows, history(rows), keys)
    for kind, random in events:
        if kind == "grow":
            new = [random.choice([1, 1, 2, 2, 3, BREAKER]) for _ in rows]
            processor.accept(torch.tensor(new))
            rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
        elif kind == "reorder":
            order = [random.randrange(len(rows)) for _ in range(random.randint(1, 3))]
            processor.reorder(torch.tensor(order))
            rows = [list(rows[row]) for row in order]
        elif kind == "draft":  # three tokens accepted unseen, then a number of its own taken back in each row
            new = [[random.choice([1, 2, 3]) for _ in range(3)] for _ in rows]
            for position in range(3):
                processor.accept(torch.tensor([tokens[position] for tokens in new]))
            counts = [random.randint(0, 3) for _ in rows]
            processor.rollback(torch.tensor(counts))
            rows = [row + tokens[: 3 - count] for row, tokens, count in zip(rows, new, counts, strict=True)]
        else:
            count = random.randint(0, min(map(len, rows)) - 1)
            processor.rollback(torch.full((len(rows),), count))
            rows = [row[: len(row) - count] for row in rows]
        level = len(set(map(len, rows))) == 1 and kind != "draft"
        expect(processor, rows, history(rows) if level else ragged(rows), keys)


def test_a_long_match_counts_as_fifty() -> None:
    tokens = [1] * (LONGEST + 20)
    result = run(Dry(dry_multiplier=1.0, dry_base=1.5), torch.zeros(1, 3), history([tokens]))
    assert -result[0, 1].item() == pytest.approx(1.5 ** (LONGEST - 2))
    longer = begun(Dry(dry_multiplier=1.0, dry_base=1.5), history([tokens]))
    for length in range(40, len(tokens) + 1):
        grown = longer.process(torch.zeros(1, 3), history([tokens[:length]]))
    assert torch.equal(grown, result)


def test_after_reset_the_object_serves_another_call() -> None:
    processor = begun(Dry(**SETTINGS), history([[1, 2, 3, 1, 2]]))
    processor.process(torch.zeros(1, 6), history([[1, 2, 3, 1, 2]]))
    processor.reset()
    assert run(processor, torch.zeros(1, 6), history([[0, 0, 5, 0, 0, 3]])).tolist() == [[0.0] * 6]


# breakers and bad input ------------------------------------------------------------------------------


def test_breakers_may_be_text() -> None:
    tokenizer = byte_tokenizer()
    colon = tokenizer.convert_tokens_to_ids(":")
    vocab = len(tokenizer)
    row = [1, 2, colon, 3, 1, 2]
    free = Dry(dry_multiplier=1.0, dry_sequence_breakers=[])
    assert run(free, torch.zeros(1, vocab), history([row]), tokenizer=tokenizer)[0, colon].item() == -1.0
    for breakers in (None, [":"], [colon]):  # by default newline, colon, quote and asterisk
        processor = Dry(dry_multiplier=1.0, dry_sequence_breakers=breakers)
        assert not run(processor, torch.zeros(1, vocab), history([row]), tokenizer=tokenizer).any()


def test_a_text_breaks_inside_of_tokens_too() -> None:
    tokenizer = byte_tokenizer([".\n", "\n\n"])
    vocab = len(tokenizer)
    for text in (".\n", "\n\n", "\n"):
        (breaker,) = tokenizer.encode(text, add_special_tokens=False)
        row = [1, 2, breaker, 3, 1, 2]
        assert not run(Dry(dry_multiplier=1.0), torch.zeros(1, vocab), history([row]), tokenizer=tokenizer).any()
    dashes = tokenizer.encode("--", add_special_tokens=False)  # of two tokens: the last one breaks
    processor = Dry(dry_multiplier=1.0, dry_sequence_breakers=["--"])
    row = [1, 2, dashes[-1], 3, 1, 2]
    assert not run(processor, torch.zeros(1, vocab), history([row]), tokenizer=tokenizer).any()


@pytest.mark.parametrize(
    ("breakers", "tokenizer", "message"),
    [
        ([":"], None, "no tokenizer"),
        ([""], byte_tokenizer(), "no token for ''"),
        ([500], None, "outside the vocabulary of 12"),
    ],
)
def test_breakers_that_no_token_can_be_are_refused(breakers: list[Any], tokenizer: Any, message: str) -> None:
    processor = Dry(dry_multiplier=1.0, dry_sequence_breakers=breakers)
    with pytest.raises(genmode.ParameterError, match=message):
        processor.begin(context(history([[0]]), tokenizer=tokenizer))


def test_nothing_becomes_nan() -> None:
    row = [1] * (LONGEST + 2)
    masked = run(Dry(dry_multiplier=1e30, dry_base=1e10), torch.full((1, 3), -math.inf), history([row]))
    assert masked.tolist() == [[-math.inf] * 3]
    huge = run(Dry(dry_multiplier=1e30, dry_base=1e10), torch.zeros(1, 3), history([row]))
    assert huge.isfinite().all()
    assert run(Dry(dry_multiplier=1.0), torch.zeros(1, 1), history([[0, 0, 0]])).tolist() == [[-1.0]]


def test_bfloat16_scores_keep_their_type() -> None:
    result = run(Dry(**SETTINGS), torch.zeros(1, 6, dtype=torch.bfloat16), history([[1, 2, 3, 1, 2]]))
    assert result.dtype == torch.bfloat16
    assert result[0].tolist() == [0, 0, 0, -1, 0, 0]


@pytest.mark.parametrize("row", [[0], [1, 99, 98, 1, 99]])
def test_short_rows_and_ids_beyond_the_vocabulary_change_nothing(row: list[int]) -> None:
    assert not run(Dry(**{**SETTINGS, "dry_allowed_length": 1}), torch.zeros(1, 6), history([row])).any()
