"""The flags that the goldens are recorded with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from models import DECODER_ONLY, NAMES

Flags = dict[str, Any]


@dataclass(frozen=True)
class FlagSet:
    """Flags of a call, and what they are run on."""

    flags: Flags
    padded: bool = True
    """On left-padded rows too; not where a processor of 4.49 takes padding for text."""
    batched: bool = True
    """On more than one row too."""
    endless: bool = False
    """Without an end of sequence too."""
    ends: int = 1
    """How many tokens end a sequence."""
    mended: bool = False
    """With `UnaliasedDisjunctive`."""
    likely: tuple[tuple[int, ...], ...] = ()
    """Force the words that plain beam search puts at these places of the first row."""


def contrastive_sets() -> Iterator[FlagSet]:
    yield FlagSet({"penalty_alpha": 0.6, "top_k": 4}, endless=True)
    # 4.49's low-memory form mixes up the rows of a batch.
    yield FlagSet({"penalty_alpha": 0.6, "top_k": 4, "low_memory": True}, endless=True, batched=False)
    yield FlagSet({"penalty_alpha": 0.3, "top_k": 8})
    yield FlagSet({"penalty_alpha": 0.9, "top_k": 2})
    yield FlagSet({"penalty_alpha": 0.5, "top_k": 5, "repetition_penalty": 1.3}, padded=False)
    yield FlagSet({"penalty_alpha": 0.5, "top_k": 5, "no_repeat_ngram_size": 2, "min_new_tokens": 6}, padded=False)


def dola_sets() -> Iterator[FlagSet]:
    yield FlagSet({"dola_layers": "low"}, endless=True)
    yield FlagSet({"dola_layers": "high"}, endless=True)
    yield FlagSet({"dola_layers": [0, 2, 4]}, endless=True)
    yield FlagSet({"dola_layers": [3]})
    yield FlagSet({"dola_layers": [1, 2, 5, 9]})  # layers beyond the last are dropped
    yield FlagSet({"dola_layers": "high", "repetition_penalty": 1.2}, endless=True, padded=False)
    yield FlagSet({"dola_layers": "low", "no_repeat_ngram_size": 2, "min_new_tokens": 6}, padded=False)


def group_sets() -> Iterator[FlagSet]:
    def groups(beams: int, groups: int, penalty: float, returned: int = 1, **more: Any) -> Flags:
        flags = {"num_beams": beams, "num_beam_groups": groups, "diversity_penalty": penalty}
        return {**flags, "num_return_sequences": returned, **more}

    yield FlagSet(groups(4, 2, 0.5), endless=True)
    yield FlagSet(groups(4, 4, 1.0, 4), endless=True)
    yield FlagSet(groups(6, 3, 0.3, 6, early_stopping=True))
    yield FlagSet(groups(6, 2, 1.5, 3, length_penalty=2.0))
    yield FlagSet(groups(4, 2, 0.7, 2, length_penalty=0.5, early_stopping="never"))
    yield FlagSet(groups(4, 2, 0.7, 4, length_penalty=-0.5, early_stopping="never"))
    yield FlagSet(groups(6, 3, 5.0, 3, no_repeat_ngram_size=2), padded=False)
    yield FlagSet(groups(4, 2, 0.5, repetition_penalty=1.3, early_stopping=True), padded=False)
    yield FlagSet(groups(4, 2, 0.5, 4), ends=2)


def constrained_sets() -> Iterator[FlagSet]:
    def force(beams: int, *words: Any, returned: int = 1, **more: Any) -> Flags:
        flags = {"num_beams": beams, "force_words_ids": list(words)}
        return {**flags, "num_return_sequences": returned, **more}

    yield FlagSet(force(4, [11]), endless=True)
    yield FlagSet(force(4, [17, 23, 29]), endless=True)
    yield FlagSet(force(3, [17, 23], [31], returned=3, early_stopping=True))
    yield FlagSet(force(4, [[12, 13], [14], [15, 16, 18]]))
    yield FlagSet(force(5, [41, 42], [[43, 44], [45]], returned=2, length_penalty=2.0))
    yield FlagSet(force(2, [11, 11, 12], length_penalty=0.5, early_stopping="never"))
    yield FlagSet(force(6, [50, 51], [50, 52], [53], returned=4, early_stopping="never"))
    yield FlagSet(force(4, [61], no_repeat_ngram_size=2, repetition_penalty=1.2), padded=False)
    yield FlagSet(force(4, [[71, 72, 73], [71, 74], [75]], returned=2), mended=True)
    yield FlagSet(force(4, [80], [81], [82], [83], [84], returned=4))
    yield FlagSet(force(4), likely=((2, 3),), endless=True)
    yield FlagSet(force(4, returned=2, early_stopping=True), likely=((1,), (3,)))
    yield FlagSet(force(3, returned=3, length_penalty=-1.0), likely=((1, 2),))
    yield FlagSet(force(4, returned=2, early_stopping="never", length_penalty=2.0), likely=((0,),))
    objects = [["phrasal", [33, 34]], ["disjunctive", [[35], [36, 37]]]]
    yield FlagSet({"num_beams": 4, "constraints": objects, "num_return_sequences": 2})


MODES: dict[str, tuple[Callable[[], Iterator[FlagSet]], tuple[str, ...], int]] = {
    "contrastive_search": (contrastive_sets, NAMES, 2),
    "dola_generation": (dola_sets, DECODER_ONLY, 6),
    "group_beam_search": (group_sets, NAMES, 2),
    "constrained_beam_search": (constrained_sets, NAMES, 2),
}
