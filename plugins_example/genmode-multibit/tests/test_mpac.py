"""Numbers that can be checked by hand, the null, and messages that are read back from sampled text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from genmode_multibit import Mpac

import genmode
from genmode.testing import isolated_host
from genmode.watermark import judge

KEY = 741852963
MESSAGE = "1011001011110001"


class Painted(Mpac):
    """Positions and colours that a test gives, every token with a draw of its own unless it gives these too."""

    contract_version = 1
    name = "painted"

    def paint(self, positions: list[int], colours: list[int], draws: list[int] | None = None) -> Painted:
        places = draws or list(range(len(positions)))
        self.painted = tuple(torch.tensor([one]) for one in (positions, colours, places))
        return self

    def _painted(self, tokens: torch.Tensor) -> Any:
        return self.painted


def values(mark: Mpac, length: int) -> list[float | None]:
    found = mark.evidence(torch.zeros(1, length, dtype=torch.long), None).values[0].tolist()
    return [None if math.isnan(value) else value for value in found]


def test_a_known_message_is_compared_token_by_token() -> None:
    mark = Painted(key=1, message="1001").paint([-1, 0, 1, 1, 0], [3, 2, 1, 2, 3])  # symbols 2 and 1
    assert values(mark, 5) == [None, 1, 1, 0, 0]
    # Two of four at rate 1/4: 1 - (3/4)^4 - 4 (1/4) (3/4)^3 = 67/256.
    (found,) = judge(mark, torch.zeros(1, 5, dtype=torch.long))
    assert found.p_value == pytest.approx(67 / 256)
    assert found.tokens == 4


def test_an_unknown_message_is_predicted_from_the_votes_so_far() -> None:
    mark = Painted(key=1, bits=4).paint([0, 0, 1, 0, 0, 0, 1], [2, 2, 1, 3, 3, 2, 0])
    # Position 0 after 2: 2 predicted and right; after 2 2: wrong; after 2 2 3: wrong; 2 2 3 3, the lower: right.
    assert values(mark, 7) == [None, 1, None, 0, 0, 1, 0]


def test_repeated_draws_vote_once_and_count_once() -> None:
    mark = Painted(key=1, bits=2).paint([0, 0, 0, 0, 0], [1, 1, 1, 3, 3], draws=[7, 7, 7, 8, 9])
    (read,) = mark.read([[0] * 5])
    assert read.votes == ((0, 1, 0, 2),)
    assert read.message == "11"
    assert read.detection.tokens == 2  # the votes of 8, and of 9; 7 had none before it


def test_symbols_without_a_winner_stay_open() -> None:
    (read,) = Painted(key=1, bits=6).paint([0, 0, 1, 1, 1], [1, 3, 2, 2, 0]).read([[0] * 5])
    assert read.message == "??10??"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"message": "101"}, "add 1"),
        ({"message": "1010", "bits": 8}, "make them equal"),
        ({"message": "12"}, "message"),
        ({"bits": 6, "colours": 16}, "add 2"),
    ],
)
def test_what_does_not_fit_is_refused_without_the_key(given: dict[str, Any], said: str) -> None:
    with pytest.raises(genmode.ParameterError, match=said) as caught, isolated_host(Mpac):
        genmode.WatermarkingConfig("mpac", key=KEY, **given).build()
    assert str(KEY) not in str(caught.value)


@pytest.mark.parametrize("colours", [2, 4, 16])
def test_colours_of_the_vocabulary_are_those_of_its_tokens_and_uniform(colours: int) -> None:
    mark = Mpac(key=KEY, colours=colours)
    keys = torch.arange(40) * 7919
    painted = mark.colours_of_all(keys[:, None], 1001)
    tokens = torch.arange(1001).expand(40, -1)
    assert torch.equal(painted.flatten(), mark.colour(keys[:, None].expand(-1, 1001).flatten(), tokens.flatten()))
    counts, expected = painted.flatten().bincount(minlength=colours).double(), painted.numel() / colours
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert torch.special.gammaincc(torch.tensor((colours - 1) / 2).double(), statistic / 2) > 1e-3


def unmarked(texts: int, length: int = 120) -> torch.Tensor:
    return torch.randint(0, 5000, (texts, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("message", [None, MESSAGE])
def test_p_values_of_unmarked_text_are_those_of_the_binomial(message: str | None) -> None:
    # 2000 texts: shares below a level lie within 4 deviations, one seed in 16000 outside; a tail is conservative
    # by one atom at most, of 0.09 at 120 tokens and rate 1/4.
    found = torch.tensor([one.p_value for one in judge(Mpac(key=KEY, message=message), unmarked(2000))])
    for level in (0.001, 0.01, 0.05, 0.25, 0.5):
        slack = 4 * math.sqrt(level * (1 - level) / 2000)
        share = float((found <= level).double().mean())
        assert share <= level + slack
        assert share >= level - 0.09 - slack
    mean = float(found.mean())
    assert 0.5 - 4 * math.sqrt(1 / 12 / 2000) < mean < 0.55


def test_text_that_repeats_itself_is_no_mark() -> None:
    # 1000 keys; 120 tokens of 6 different ones have 36 draws at most, most of them read several times.
    (text,) = unmarked(1) % 6
    found = torch.tensor([judge(Mpac(key=key, bits=4), text[None])[0].p_value for key in range(1000)])
    for level in (0.01, 0.05, 0.25):
        assert float((found <= level).double().mean()) <= level + 4 * math.sqrt(level * (1 - level) / 1000)


def test_predictions_are_independent_draws_in_unmarked_text() -> None:
    ones = Mpac(key=KEY).evidence(unmarked(2000), None).values
    counted = ~ones.isnan()
    assert float(ones[counted].mean()) == pytest.approx(0.25, abs=4 * math.sqrt(0.1875 / int(counted.sum())))
    pairs = (ones[:, :-1] * ones[:, 1:])[counted[:, :-1] & counted[:, 1:]]  # neighbours: 1/16 if independent
    assert float(pairs.mean()) == pytest.approx(1 / 16, abs=4 * math.sqrt(1 / 16 / len(pairs)))


@pytest.fixture(scope="module")
def marked() -> torch.Tensor:
    """16 texts of 200 tokens, sampled from a tiny model with the message: `[16, 200]`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    prompt = torch.randint(5, 1000, (16, 4), generator=torch.Generator().manual_seed(1))
    with isolated_host(Mpac):
        result = genmode.generate(
            LlamaForCausalLM(config).eval(), prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=0,
            watermark=genmode.WatermarkingConfig("mpac", key=KEY, message=MESSAGE), seed=list(range(16)),
            max_new_tokens=200,
        )  # fmt: skip
    return result[:, 4:]


def right_bits(mark: Mpac, texts: torch.Tensor) -> list[int]:
    return [sum(a == b for a, b in zip(one.message, MESSAGE, strict=True)) for one in mark.read(texts)]


def test_the_message_is_read_back(marked: torch.Tensor) -> None:
    # Near-uniform predictions and bias 2: a token has its symbol's colour with probability e^2 / (e^2 + 3) = 0.71.
    # 8 symbols share 200 tokens; one with 25 is lost with probability below 1e-4.
    found = right_bits(Mpac(key=KEY), marked)
    assert sum(found) >= 0.99 * 16 * 16
    assert sum(one == 16 for one in found) >= 15


def test_the_mark_is_found_with_and_without_the_message(marked: torch.Tensor) -> None:
    with isolated_host(Mpac):
        for given in ({}, {"message": MESSAGE}):
            config = genmode.WatermarkingConfig("mpac", key=KEY, **given)
            assert all(one.p_value < 1e-9 for one in genmode.detect(marked, config, fpr=1e-6))
        whole = torch.cat([unmarked(1, 150)[0] % 1000, marked[0], unmarked(2, 150)[1] % 1000])
        found = genmode.detect(whole, genmode.WatermarkingConfig("mpac", key=KEY), window=100)
    assert found.marked
    assert found.passage[0] > 75
    assert found.passage[1] < 425


def test_another_key_finds_nothing_and_another_message_is_not_confirmed(marked: torch.Tensor) -> None:
    other = Mpac(key=KEY + 1)
    assert min(one.p_value for one in judge(other, marked)) > 1e-4
    assert sum(right_bits(other, marked)) < 160  # of 256, of which chance has 128 at most; deviation 8
    flipped = "".join("10"[int(bit)] for bit in MESSAGE)
    assert min(one.p_value for one in judge(Mpac(key=KEY, message=flipped), marked)) > 0.5


def test_reading_strings_and_nothing() -> None:
    assert Mpac(key=KEY).read([]) == []
    with pytest.raises(genmode.ParameterError, match="tokenizer"):
        Mpac(key=KEY).read(["some text"])
