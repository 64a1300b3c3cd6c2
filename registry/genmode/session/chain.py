"""The processors of one call, in order, with their life cycle."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..candidates import narrowing
from ..contract import LogitsProcessor, Stage
from ..errors import DecodingError, GenmodeError, ParameterError
from ..loading import source_file
from ..seam import is_own
from .history import History
from .pure import Pure, pure_line

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


FOLLOWED = ("accept", "reorder", "rollback")
"""What happens to rows: what a follower is told."""
LISTENED = (*FOLLOWED, "propose", "conclude")
"""Methods that are called on those processors alone which define them."""


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

    def __repr__(self) -> str:
        return self.label

    def process(self, scores: Tensor, history: History) -> Tensor:
        """Each rectangle of equal lengths is given whole, so that rows keep their numbers."""
        if history.uniform is not None:
            return self.call(history.ids, scores)
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
            raise ParameterError(_circle(stage))
        waiting.remove(ready)
        result.append(ready)
    return result


def _circle(stage: Sequence[Link]) -> str:
    """Which processors of the stage, each of which waits for another, stand in a circle, and what to do."""
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
                scores = self._objects[index].process(scores, history)
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


class Chain(Line):
    """The processors of one call, which are told what happens to the rows."""

    def __init__(self, links: Sequence[Link]) -> None:
        super().__init__(links)
        self.keeps_nan = not any(one.name in ("remove_invalid_values", "InfNanRemoveLogitsProcessor") for one in links)
        self._listening = {method: self._overriding(method) for method in LISTENED}
        self.stateful = any(self._listening[method] for method in FOLLOWED)
        self.pure: Pure | None = pure_line(Line(links))
        """The processors as one function of the scores; None where one of them is more than that."""
        self.retracting: list[LogitsProcessor] = [one for one in self._objects if one.horizon != 0]

    def follow(self, follower: Any) -> None:
        """Have an object with `accept`, `reorder` and `rollback` learn, before the processors, what rows do."""
        for method in FOLLOWED:
            self._listening[method].insert(0, follower)
        self.stateful = True

    def replaced(self, stand_ins: Mapping[int, Any]) -> None:
        """Call `stand_ins[id(processor)]` in place of each processor, each by itself."""
        for objects in (self._objects, self.retracting, *self._listening.values()):
            objects[:] = [stand_ins[id(one)] for one in objects]
        self.pure = None

    def _overriding(self, method: str) -> list[Any]:
        base = getattr(LogitsProcessor, method)
        return [one for one in self._objects if getattr(type(one), method) is not base]

    def begin(self, session: Any) -> None:
        """A call begins."""
        for one in self._objects:
            self._told(one, "begin", session)

    def accept(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`."""
        self._tell("accept", tokens)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._tell("reorder", rows)

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` accepted tokens."""
        self._tell("rollback", counts)

    @property
    def proposes(self) -> bool:
        """Whether any processor may know how rows go on."""
        return bool(self._listening["propose"])

    def propose(self, limit: int) -> tuple[Tensor, Tensor] | None:
        """What the first processor that knows it says of how rows go on; see `LogitsProcessor.propose`."""
        for one in self._listening["propose"]:
            proposal: tuple[Tensor, Tensor] | None = self._told(one, "propose", limit)
            if proposal is not None:
                return proposal
        return None

    def conclude(self, sequences: Tensor) -> None:
        """The strategy has returned, and this is the result."""
        self._tell("conclude", sequences)

    def retract(self, history: History) -> list[Tensor | None]:
        """What each of `retracting` would take back behind these rows: `[rows]`, long, or None."""
        return [self._told(one, "retract", history) for one in self.retracting]

    def retracted(self, history: History, counts: Sequence[Tensor]) -> None:
        """Rows have gone back, as each of `retracting` wished by `counts[i]` `[rows]`."""
        for one, mine in zip(self.retracting, counts, strict=True):
            self._told(one, "retracted", history, mine)

    def endings(self) -> list[Callable[[], None]]:
        """What to do when the call has ended, one function for each processor."""
        return [functools.partial(self._told, one, "reset") for one in self._objects]

    def _tell(self, method: str, *arguments: Any) -> None:
        for one in self._listening[method]:
            self._told(one, method, *arguments)

    def _told(self, one: Any, method: str, *arguments: Any) -> Any:
        try:
            return getattr(one, method)(*arguments)
        except GenmodeError:
            raise
        except Exception as error:
            raise self._failure(one, method, error) from error
