"""Penalties, constraints and stop strings against transformers' classes, and how they grow with length.

    python benchmarks/penalties.py --write benchmarks/results/penalties-cpu.json

Both sides are timed in turn, call by call, in one process on the same scores and tokens; a ratio is the median,
over pairs of neighbouring calls, of theirs by ours, so that what else the machine does meanwhile cancels out.
Scores are restored between calls, outside the clock. Components without a
twin (presence, frequency, DRY, phrases, budgets) have their times and their growth from the shortest to the
longest row alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.generation import logits_process, stopping_criteria

import genmode
from genmode.session.token_buffer import TokenBuffer
from genmode_processors.constraints import bans, forced, length_limits, ngrams, sequence_bias, validity
from genmode_processors.criteria import StopStrings
from genmode_processors.penalties import dry, repetition
from genmode_processors.text import phrase_bans, thinking_budget

VOCAB = 128_256
LENGTHS = (128, 512, 1024, 4096)
ROWS = (1, 8, 32)
EOS = [2, 5]
Times = tuple[list[float], list[float]]


def twins(ids: Any) -> Iterator[tuple[Any, Any]]:
    """Each of our processors that stands in for one of transformers', with such a one, active."""
    length = ids.shape[1]
    starts = torch.zeros(len(ids), dtype=torch.long)
    few = [[7], [8, 9], [10, 11, 12], *([i, i + 1, i + 2] for i in range(100, 130))]
    yield sequence_bias.SequenceBias, logits_process.SequenceBiasLogitsProcessor([[words, -1.5] for words in few])
    yield repetition.EncoderRepetitionPenalty, logits_process.EncoderRepetitionPenaltyLogitsProcessor(1.2, ids)
    yield repetition.RepetitionPenalty, logits_process.RepetitionPenaltyLogitsProcessor(1.2, starts)
    for size in (2, 3, 5):
        yield ngrams.NoRepeatNgram, logits_process.NoRepeatNGramLogitsProcessor(size)
    yield ngrams.EncoderNoRepeatNgram, logits_process.EncoderNoRepeatNGramLogitsProcessor(3, ids)
    yield bans.BadWords, logits_process.NoBadWordsLogitsProcessor(few, EOS)
    yield length_limits.MinLength, logits_process.MinLengthLogitsProcessor(length + 1, EOS)
    yield length_limits.MinNewTokens, logits_process.MinNewTokensLengthLogitsProcessor(length, 1, EOS)
    yield forced.ForcedEos, logits_process.ForcedEOSTokenLogitsProcessor(length + 1, EOS)
    yield forced.PrefixAllowedTokens, logits_process.PrefixConstrainedLogitsProcessor(lambda row, seen: EOS, 1)
    yield validity.RemoveInvalidValues, logits_process.InfNanRemoveLogitsProcessor()
    yield length_limits.ExponentialDecayLength, logits_process.ExponentialDecayLengthPenalty((1, 1.01), EOS, length - 9)
    yield bans.SuppressTokens, logits_process.SuppressTokensLogitsProcessor(list(range(1, 90)))
    yield bans.SuppressTokensAtBegin, logits_process.SuppressTokensAtBeginLogitsProcessor(EOS, length)
    yield validity.Renormalise, logits_process.LogitNormalization()


def alone() -> Iterator[Any]:
    """Our processors without a twin."""
    yield repetition.RepetitionPenalty(repetition_penalty=1.2, penalty_last_n=64)
    yield repetition.PresencePenalty(presence_penalty=0.5, penalty_scope="all")
    yield repetition.FrequencyPenalty(frequency_penalty=0.5, penalty_scope="all")
    yield dry.Dry(dry_multiplier=0.8, dry_sequence_breakers=[3, 4])
    yield phrase_bans.BannedPhrases(banned_phrases=["at the end", "as an", "delve"])
    yield thinking_budget.ThinkingBudget(thinking_budget=10**6, think_start=[20, 21], think_end=[22, 23])


def tokenizer() -> Any:
    """A byte-level vocabulary of the benchmark's size: the bytes, and strings of letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    letters = "etaoinsr hldcumfpgwy.,bv"
    for number in range(VOCAB - len(vocabulary)):
        word = "".join(letters[number // len(letters) ** place % len(letters)] for place in range(4))
        vocabulary["Ġ" + word.replace(" ", "Ġ")] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def context(history: genmode.History, ids: Tensor, text: Any) -> Any:
    """What `begin` reads."""
    return SimpleNamespace(
        rows=len(ids), device=ids.device, vocab_size=VOCAB, tokenizer=text, eos_token_ids=EOS, pad_token_id=0,
        history=history, prompt_length=history.prompt, backtracks=False, encoder_input_ids=None,
        generation_config=SimpleNamespace(num_beams=1), max_length=ids.shape[1] + 1,
    )  # fmt: skip


def histories(ids: Tensor, count: int) -> list[TokenBuffer]:
    """The rows, and the same rows as they grow by one token a step."""
    rows, length = ids.shape
    tokens = torch.cat([ids, ids[:, :1].expand(rows, count)], dim=1)
    starts = torch.zeros(rows, dtype=torch.long)
    return [TokenBuffer(tokens, None, starts, length // 2, length + n) for n in range(count)]


def clock(call: Callable[[], Any]) -> float:
    """Microseconds of one call."""
    begin = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - begin)


def compare(own: Any, theirs: Any, ids: Tensor, scores: Tensor, repeats: int, text: Any) -> Times:
    """Microseconds of ours and theirs, call by call."""
    past = histories(ids, 1)[0]
    own.begin(context(past, ids, text))
    buffer = scores.clone()
    times: Times = ([], [])
    calls = (lambda: own.process(buffer, past)), (lambda: theirs(ids, scores))
    for repeat in range(repeats + 2):
        buffer.copy_(scores)
        past.set_level(past.tokens.shape[1])  # what it keeps of a step is of this one
        for side in (0, 1) if repeat % 2 else (1, 0):  # neither always finds the caches as the other leaves them
            times[side].append(clock(calls[side]))
    return times[0][2:], times[1][2:]


def measure(own: Any, ids: Tensor, scores: Tensor, repeats: int, text: Any) -> list[float]:
    """Microseconds of each step, the rows growing by one token a step."""
    steps = histories(ids, repeats + 2)
    own.begin(context(steps[0], ids, text))
    buffer, times = scores.clone(), []
    for past in steps:
        buffer.copy_(scores)
        times.append(clock(lambda past=past: own.process(buffer, past)))  # type: ignore[misc]
        own.accept(ids[:, 0])
    return times[2:]


def stop_strings(ids: Tensor, repeats: int, text: Any) -> Times:
    """Microseconds of a check by our criterion and by transformers', call by call."""
    strings = ["\n\nUser:", "</answer>", "the end."]
    theirs = stopping_criteria.StopStringCriteria(text, strings)
    steps = histories(ids, repeats + 2)
    own = StopStrings(stop_strings=strings)
    live = histories(ids, repeats + 2)[0]
    own.begin(context(live, ids, text))
    times: Times = ([], [])
    for past in steps:
        live.set_level(past.tokens.shape[1])
        times[0].append(clock(lambda: own.check(live)))
        times[1].append(clock(lambda past=past: theirs(past.tokens, None)))  # type: ignore[misc]
    return times[0][2:], times[1][2:]


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, help="file for the results, JSON")
    parser.add_argument("--repeats", type=int, default=15, help="calls of each side")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--only", default="", help="part of the name of what is measured")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    text = tokenizer()
    compared: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    for rows in options.rows:
        scores = torch.randn(rows, VOCAB) * 4
        for length in options.lengths:
            ids = torch.randint(0, 400, (rows, length))
            for cls, theirs in twins(ids):
                if options.only in cls.name:
                    times = compare(cls.adopt(theirs), theirs, ids, scores, options.repeats, text)
                    label = cls.name + (f"({theirs.ngram_size})" if hasattr(theirs, "ngram_size") else "")
                    compared.append(note(label, rows, length, *times))
            if options.only in "stop_strings":
                times = stop_strings(ids, options.repeats, text)
                compared.append(note("stop_strings", rows, length, *times))
            for processor in alone():
                if options.only in processor.name:
                    own = measure(processor, ids, scores, options.repeats, text)
                    measured.append(note(repr(processor), rows, length, own))
    if options.write:
        machine = {
            "processor": processor_name(), "threads": torch.get_num_threads(), "python": platform.python_version(),
            "torch": torch.__version__, "transformers": transformers.__version__, "vocabulary": VOCAB,
        }  # fmt: skip
        result = {"machine": machine, "against transformers": compared, "alone": measured}
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=1) + "\n")


def note(name: str, rows: int, length: int, own: list[float], theirs: list[float] | None = None) -> dict[str, Any]:
    """One result, which is also printed; times are medians, in microseconds."""
    line: dict[str, Any] = {"name": name, "rows": rows, "length": length, "ours": round(statistics.median(own), 1)}
    if theirs is not None:
        ratio = statistics.median(their / our for our, their in zip(own, theirs, strict=True))
        line |= {"theirs": round(statistics.median(theirs), 1), "ratio": round(ratio, 2)}
    print("  ".join(f"{value:>9}" if key != "name" else f"{value:60}" for key, value in line.items()), flush=True)
    return line


def processor_name() -> str:
    """The model of the CPU, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
