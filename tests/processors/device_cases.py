"""Penalties, constraints and criteria on one small case, for any device.

Left out are those that need the host at every step: allowed prefixes, patterns, and KGW's permutations.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import genmode
from genmode_processors import criteria as stop
from genmode_processors.constraints import bans, forced, length_limits, ngrams, sequence_bias, validity
from genmode_processors.penalties import dry, repetition
from genmode_processors.text import phrase_bans, text_length, thinking_budget
from genmode_processors.watermarks import ewd, gumbel, permute_and_flip, reweight, sweet, synthid, unigram

from ..waits import never_waiting

ROWS = [[0, 9, 9, 1, 2, 3, 1, 2, 5], [9, 9, 4, 1, 1, 1, 6, 1, 1], [9, 7, 8, 3, 3, 2, 1, 3, 2]]
PROMPT, STARTS, VOCAB = 3, [1, 2, 1], 270
ENCODER = torch.tensor([[1, 2, 3, 1, 2, 5], [1, 1, 4, 1, 1, 6], [3, 2, 1, 3, 2, 7]])

PROCESSORS: dict[str, Callable[[], Any]] = {
    "sequence_bias": lambda: sequence_bias.SequenceBias(
        sequence_bias=[[[4], 1.0], [[2, 5], 0.5], [[5, 1], -torch.inf]]
    ),
    "encoder_repetition_penalty": lambda: repetition.EncoderRepetitionPenalty(encoder_repetition_penalty=1.5),
    "repetition_penalty": lambda: repetition.RepetitionPenalty(repetition_penalty=1.5),
    "repetition_penalty, adopted": lambda: repetition.RepetitionPenalty.adopt(
        SimpleNamespace(penalty=0.7, prompt_ignore_length=torch.tensor(STARTS))
    ),
    "presence_penalty": lambda: repetition.PresencePenalty(presence_penalty=1.5, penalty_last_n=4),
    "frequency_penalty": lambda: repetition.FrequencyPenalty(frequency_penalty=1.5),
    "dry": lambda: dry.Dry(dry_multiplier=1.0, dry_allowed_length=1, dry_sequence_breakers=[3]),
    "dry with a range": lambda: dry.Dry(dry_multiplier=1.0, dry_allowed_length=1, dry_penalty_last_n=5),
    "no_repeat_ngram": lambda: ngrams.NoRepeatNgram(no_repeat_ngram_size=2),
    "encoder_no_repeat_ngram": lambda: ngrams.EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=2),
    "bad_words": lambda: bans.BadWords(bad_words_ids=[[3], [2, 5], [1, 1, 6]]),
    "banned_phrases": lambda: phrase_bans.BannedPhrases(banned_phrases=["ab", "b!"]),
    "min_length": lambda: length_limits.MinLength(min_length=9),
    "min_new_tokens": lambda: length_limits.MinNewTokens(min_new_tokens=6),
    "row_min_new_tokens": lambda: length_limits.RowMinNewTokens(row_min_new_tokens=[1, 6, 9]),
    "forced_bos": lambda: forced.ForcedBos(forced_bos_token_id=3),
    "forced_eos": lambda: forced.ForcedEos(forced_eos_token_id=[3, 5]),
    "remove_invalid_values": lambda: validity.RemoveInvalidValues(),
    "exponential_decay_length": lambda: length_limits.ExponentialDecayLength(exponential_decay_length_penalty=(2, 1.1)),
    "suppress_tokens": lambda: bans.SuppressTokens(suppress_tokens=[1, 2, 999]),
    "suppress_tokens_at_begin": lambda: bans.SuppressTokensAtBegin(begin_suppress_tokens=[1, 2]),
    "text_length": lambda: text_length.TextLength(min_characters=2, max_characters=6, min_sentences=1, max_sentences=3),
    "thinking_budget": lambda: thinking_budget.ThinkingBudget(thinking_budget=2, think_start=[1], think_end=[4, 8]),
    "renormalise": lambda: validity.Renormalise(),
    "unigram": lambda: unigram.Unigram(key=5),
    "sweet": lambda: sweet.Sweet(key=5),
    "ewd": lambda: ewd.Ewd(key=5),
    "gumbel": lambda: gumbel.Gumbel(key=5),
    "permute_and_flip": lambda: permute_and_flip.PermuteAndFlip(key=5),
    "unbiased": lambda: reweight.Unbiased(key=5),
    "dip": lambda: reweight.Dip(key=5),
    "synthid": lambda: synthid.SynthId(key=5, depth=3),
}

CRITERIA: dict[str, Callable[[], Any]] = {
    "max_length": lambda: stop.MaxLength(max_length=8),
    "max_time": lambda: stop.MaxTime(max_time=1000.0),
    "eos": lambda: stop.Eos(eos_token_id=[5, 8]),
    "stop_strings": lambda: stop.StopStrings(stop_strings=['"#', '!"#']),
    "ngram_loop": lambda: stop.NgramLoop(ngram_loop_size=3, ngram_loop_repeats=2),
    "confidence": lambda: stop.Confidence(stop_confidence=0.01),
    "entropy": lambda: stop.Entropy(stop_entropy=3.0),
    "row_limits": lambda: stop.RowLimits(row_max_new_tokens=[2, 5, 9]),
    "callable": lambda: stop.Callable(stop_when=lambda past: past.lengths > 6),
}


def steps(device: torch.device) -> list[genmode.History]:
    """Rows that grow together from 6 tokens to 9, then rows of 9, 7 and 8."""
    tokens = torch.full((3, 12), -5, device=device)
    tokens[:, :9] = torch.tensor(ROWS, device=device)
    starts = torch.tensor(STARTS, device=device)
    grown = [genmode.History(tokens, torch.full((3,), n, device=device), starts, PROMPT, n) for n in range(6, 10)]
    return [*grown, genmode.History(tokens, torch.tensor([9, 7, 8], device=device), starts, PROMPT, None)]


def run(name: str, device: torch.device, tokenizer: Any) -> list[Tensor]:
    """What the component says at each step, on the CPU; between begin and reset it never waits."""
    component = (PROCESSORS | CRITERIA)[name]()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, VOCAB, generator=generator) * 3
    scores[1, :] = -torch.inf
    scores[:, 5] = 1.0
    scores, pasts = scores.to(device), steps(device)
    component.begin(
        SimpleNamespace(
            rows=3, device=device, vocab_size=VOCAB, tokenizer=tokenizer, eos_token_ids=[257], pad_token_id=0,
            history=pasts[0], prompt_length=PROMPT, backtracks=False, num_inputs=3, processors=(),
            generation_config=SimpleNamespace(num_beams=1), encoder_input_ids=ENCODER.to(device), max_length=10,
        )
    )  # fmt: skip
    results: list[Tensor] = []
    with never_waiting(device):
        for past in pasts:
            if past.level is None and hasattr(component, "rollback"):
                component.rollback(torch.zeros_like(past.lengths))
            if name in PROCESSORS:
                results.append(component.process(scores.clone(), past))
                component.accept(pasts[-1].tokens[:, 6])
            elif genmode.Trait.READS_SCORES in component.traits:
                results.append(component.check(past, scores))
            else:
                results.append(component.check(past))
        component.reorder(torch.arange(2, -1, -1, device=device))
    component.reset()
    return [result.cpu() for result in results]
