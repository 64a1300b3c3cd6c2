"""Processors with their places: which runs before which, and all of them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..contract.history import History
from ..contract.processor import LogitsProcessor, Stage
from ..errors import DecodingError, GenmodeError, ParameterError
from ..hf.flags import is_own
from ..plugins.loading import source_file
from ..sampling.candidates import narrowing
from .token_buffer import TokenBuffer

TRANSFORMERS_STAGES = {
    # transformers runs its unbatched classifier-free guidance before all others.
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": Stage.BIAS,
    "SequenceBiasLogitsProcessor": Stage.BIAS,
    "EncoderRepetitionPenaltyLogitsProcessor": Stage.PENALTY,
    "RepetitionPenaltyLogitsProcessor": Stage.PENALTY,
    "NoRepeatNGramLogitsProcessor": Stage.CONSTRAINT,
    "EncoderNoRepeatNGramLogitsProcessor": Stage.CONSTRAINT,
    "NoBadWordsLogitsProcessor": Stage.CONSTRAINT,
    "MinLengthLogitsProcessor": Stage.CONSTRAINT,
    "MinNewTokensLengthLogitsProcessor": Stage.CONSTRAINT,
    "PrefixConstrainedLogitsProcessor": Stage.CONSTRAINT,
    "ForcedBOSTokenLogitsProcessor": Stage.CONSTRAINT,
    "ForcedEOSTokenLogitsProcessor": Stage.CONSTRAINT,
    "InfNanRemoveLogitsProcessor": Stage.CONSTRAINT,
    "ExponentialDecayLengthPenalty": Stage.CONSTRAINT,
    "SuppressTokensLogitsProcessor": Stage.CONSTRAINT,
    "SuppressTokensAtBeginLogitsProcessor": Stage.CONSTRAINT,
    "TemperatureLogitsWarper": Stage.TEMPERATURE,
    "TopHLogitsWarper": Stage.TRUNCATION,
    "TopKLogitsWarper": Stage.TRUNCATION,
    "TopPLogitsWarper": Stage.TRUNCATION,
    "MinPLogitsWarper": Stage.TRUNCATION,
    "TypicalLogitsWarper": Stage.TRUNCATION,
    "EpsilonLogitsWarper": Stage.TRUNCATION,
    "EtaLogitsWarper": Stage.TRUNCATION,
    "WatermarkLogitsProcessor": Stage.WATERMARK,
    "SynthIDTextWatermarkLogitsProcessor": Stage.WATERMARK,
    "LogitNormalization": Stage.NORMALISE,
}
"""The stage of each class in the order in which transformers runs them; any other runs at GUIDANCE, which is
where transformers puts processors that a user gives."""


class TransformersProcessor(LogitsProcessor):
    """A plain transformers processor, or any callable `(input_ids, scores) -> scores`, as it is."""

    contract_version = 1

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call
        self.label = getattr(call, "__name__", type(call).__name__)

    @property
    def place(self) -> Stage:
        """The stage at which transformers runs it."""
        name = type(self.call).__name__
        return TRANSFORMERS_STAGES.get(name, Stage.GUIDANCE) if is_own(self.call, name) else Stage.GUIDANCE

    @property
    def removes_nan(self) -> bool:
        """Whether it is transformers' own that puts numbers in the place of NaN and infinity."""
        return is_own(self.call, "InfNanRemoveLogitsProcessor")

    def __repr__(self) -> str:
        return self.label

    def process(self, scores: Tensor, history: History) -> Tensor:
        """Each rectangle of equal lengths is given whole, so that rows keep their numbers."""
        if history.level is not None:
            return self.call(history.tokens, scores)
        if not isinstance(history, TokenBuffer):
            raise TypeError(f"{self.label} reads whole rows, and these differ in length")
        result = scores
        for ids, mask in history.rectangles():
            new = self.call(ids, scores.clone())
            result = new if mask is None else new.where(mask[:, None], result)
        return result


@dataclass(frozen=True, slots=True)
class Link:
    """One processor in the chain."""

    name: str
    stage: Stage
    rank: int
    processor: LogitsProcessor
    origin: str
    """Who provides it: "transformers", "the caller" or distribution and version."""


def link(processor: LogitsProcessor, rank: int, origin: str) -> Link:
    """A link for a processor; its own stage, or the one at which transformers runs it."""
    if isinstance(processor, TransformersProcessor):
        return Link(processor.label, processor.place, rank, processor, origin)
    return Link(processor.name, processor.stage, rank, processor, origin)


def ordered(links: Iterable[Link]) -> list[Link]:
    """Links by stage, then rank, then name, with declared `before` and `after` obeyed within a stage.

    Raises:
        ParameterError: if declarations of one stage contradict each other.
    """
    waiting = sorted(links, key=lambda one: (one.stage, one.rank, one.name))
    result: list[Link] = []
    while waiting:
        stage = [one for one in waiting if one.stage == waiting[0].stage]
        ready = next(
            (one for one in stage if not any(_precedes(other, one) for other in stage if other is not one)), None
        )
        if ready is None:
            raise ParameterError(_cycle(stage))
        waiting.remove(ready)
        result.append(ready)
    return result


def _cycle(stage: Sequence[Link]) -> str:
    """Which processors of the stage, each of which waits for another, stand in a cycle, and what to do."""
    round_: list[Link] = [stage[0]]
    while (before := next(one for one in stage if one is not round_[-1] and _precedes(one, round_[-1]))) not in round_:
        round_.append(before)
    round_ = round_[round_.index(before) :]
    told = [
        f"processor {one.name!r} of {one.origin} ({source_file(type(one.processor))}) declares "
        f"before={one.processor.before!r}, after={one.processor.after!r}"
        for one in sorted(round_, key=lambda one: one.name)
    ]
    return (
        f"the order of processors goes round in a circle: {'; '.join(told)}. Leave one of them out of the call, or "
        "have an author change `before` or `after`"
    )


def _precedes(first: Link, second: Link) -> bool:
    return second.name in first.processor.before or first.name in second.processor.after


class Line:
    """Processors in order."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = list(links)
        self._objects = [one.processor for one in links]
        self._tail = narrowing(self._objects)

    def __len__(self) -> int:
        return len(self.links)

    @property
    def tail(self) -> list[LogitsProcessor]:
        """The longest run of processors at the end that can work on candidates alone."""
        return self._objects[self._tail :]

    def process(self, scores: Tensor, history: History, head: bool = False) -> Tensor:
        """Scores after all processors, or after those before the tail; `[rows, vocab]`, float32."""
        end = self._tail if head else len(self._objects)
        index = 0
        try:
            for index in range(end):
                scores = as_scores(self._objects[index].process(scores, history), scores)
        except GenmodeError:
            raise
        except Exception as error:
            raise self._failure(self._objects[index], "process", error) from error
        return scores

    def _failure(self, culprit: Any, method: str, error: Exception) -> DecodingError:
        cause = f"failed in {method}: {type(error).__name__}: {error}"
        for one in self.links:
            if one.processor is culprit:
                return DecodingError(f"processor {one.name!r} (from {one.origin}) {cause}", component=one.name)
        return DecodingError(f"the {type(culprit).__name__.lower()} beside the model {cause}")


def as_scores(returned: Any, given: Tensor) -> Tensor:
    """What a component made of scores `given`, `[rows, vocab]`, float32; other floating dtypes are converted.

    Raises:
        ValueError: it is no tensor, or of another shape, of no floating dtype or on another device.
    """
    if not isinstance(returned, Tensor):
        raise ValueError(f"it returned {type(returned).__name__}; scores are a tensor {list(given.shape)}")
    if returned is given:  # written in place
        return returned
    if returned.shape != given.shape or returned.device != given.device or not returned.is_floating_point():
        raise ValueError(
            f"it returned {returned.dtype} of shape {list(returned.shape)} on {returned.device}; scores are float32 of "
            f"shape {list(given.shape)} on {given.device}"
        )
    scores: Tensor = returned if returned.dtype == torch.float32 else returned.to(torch.float32)
    return scores
