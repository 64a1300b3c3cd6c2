"""A processor and a criterion that are right, and ways to be wrong, for the checks of both."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync

from .wrong import Swallowing, variant


class KitTired(genmode.LogitsProcessor):
    """Takes something off the score of each token for every time that it was decoded."""

    contract_version = 1
    name = "kit_tired"
    stage = genmode.Stage.PENALTY

    class Params(genmode.Params):
        kit_alpha: float = Field(1.0, ge=0, le=9, description="taken off for each time", examples=[1.5])

    def begin(self, context: genmode.Context) -> None:
        self.counts = torch.zeros(context.rows, context.vocab_size, device=context.device)  # [rows, vocab]
        self.taken = torch.zeros(context.rows, 0, dtype=torch.long, device=context.device)  # [rows, decoded]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return scores - self.params.kit_alpha * self.counts

    def accept(self, tokens: Tensor) -> None:
        self.counts = self.counts.scatter_add(1, tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.float))
        self.taken = torch.cat([self.taken, tokens[:, None]], dim=1)

    def reorder(self, rows: Tensor) -> None:
        self.counts, self.taken = self.counts[rows], self.taken[rows]

    def rollback(self, counts: Tensor) -> None:
        width = self.taken.shape[1]
        gone = torch.arange(width, device=counts.device) >= width - counts[:, None]
        self.counts = self.counts.scatter_add(1, self.taken, -gone.float())
        # the tokens that stay go to the right, so that the last column is the last token again
        order = gone.long().argsort(dim=1, descending=True, stable=True)
        self.taken = self.taken.gather(1, order).where(torch.arange(width) >= counts[:, None], 0)

    def reset(self) -> None:
        del self.counts, self.taken


class KitTwice(genmode.StoppingCriterion):
    """Stops a row that has decoded some token twice in a row."""

    contract_version = 1
    name = "kit_twice"

    class Params(genmode.Params):
        kit_after: int = Field(0, ge=0, le=9, description="tokens that come before it counts")

    def begin(self, context: genmode.Context) -> None:
        self.rows = torch.zeros(context.rows, dtype=torch.long, device=context.device)

    def check(self, history: genmode.History) -> Tensor:
        last = (history.lengths - 1)[:, None]
        enough = history.lengths - history.prompt >= 2 + self.params.kit_after
        return (history.tokens.gather(1, last) == history.tokens.gather(1, (last - 1).clamp(min=0)))[:, 0] & enough


def last_token(history: genmode.History) -> Tensor:
    return history.tokens.gather(1, (history.lengths - 1)[:, None])[:, 0]


def processing(function: Callable[..., Tensor], **members: Any) -> type[Any]:
    """A processor that works by `function(self, scores, history)`; stateless."""
    idle = {
        name: getattr(genmode.LogitsProcessor, name) for name in ("begin", "accept", "reorder", "rollback", "reset")
    }
    return variant(KitTired, **{**idle, "process": function, **members})


def checking(function: Callable[..., Tensor], **members: Any) -> type[Any]:
    """A criterion that works by `function(self, history)`."""
    return variant(KitTwice, check=function, **members)


HOARD: list[Tensor] = []


class Growing(KitTired):
    """Counts its steps on the class."""

    steps: ClassVar[list[int]] = []

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        self.steps.append(1)
        return super().process(scores, history)


class GrowingStop(KitTwice):
    """Counts its steps on the class."""

    steps: ClassVar[list[int]] = []

    def check(self, history: genmode.History) -> Tensor:
        self.steps.append(1)
        return super().check(history)


class Stateful(KitTired):
    """Remembers the last token by itself, and is wrong about what else happens to rows."""

    def begin(self, context: genmode.Context) -> None:
        self.last = torch.zeros(context.rows, dtype=torch.long)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return scores.scatter(1, self.last[:, None], -9.0)

    def accept(self, tokens: Tensor) -> None:
        self.last = tokens

    def reorder(self, rows: Tensor) -> None:
        """Forgotten."""

    def rollback(self, counts: Tensor) -> None:
        """Forgotten."""

    def reset(self) -> None:
        del self.last


def unforgetting(self: Any, context: genmode.Context) -> None:
    if not hasattr(self, "counts") or self.counts.shape[0] != context.rows:
        KitTired.begin(self, context)


class Counter(KitTwice):
    """Stops after some checks, whatever happens to the rows."""

    limit = 5

    def begin(self, context: genmode.Context) -> None:
        if not hasattr(self, "seen"):
            self.seen = torch.arange(context.rows)

    def check(self, history: genmode.History) -> Tensor:
        self.seen += 1
        return self.seen > self.limit

    def reorder(self, rows: Tensor) -> None:
        self.seen = self.seen[rows.clamp(max=len(self.seen) - 1)]


class Unmoved(Counter):
    """Does not follow its rows."""

    limit = 6

    def reorder(self, rows: Tensor) -> None:
        """Forgotten."""


class Painted(KitTwice):
    """Writes into its state when it looks."""

    def begin(self, context: genmode.Context) -> None:
        self.seen = torch.zeros(context.rows, dtype=torch.long)
        self.count = [0]

    def reorder(self, rows: Tensor) -> None:
        self.seen = self.seen[rows]

    def check(self, history: genmode.History) -> Tensor:
        self.count[0] += 1
        return torch.full((history.rows,), self.count[0] % 2 == 0)


def add(function: Callable[[Any, genmode.History], Any]) -> Callable[..., Tensor]:
    """Scores with something added to those of even tokens, `[rows]` or a number."""

    def process(self: Any, scores: Tensor, history: genmode.History) -> Tensor:
        more = torch.as_tensor(function(self, history), dtype=torch.float32)
        more = more[:, None] if more.dim() else more
        return scores + 3 * more * (torch.arange(scores.shape[1]) % 2)

    return process


def stop(function: Callable[[genmode.History], Tensor]) -> Callable[..., Tensor]:
    return lambda self, history: function(history)


def prints(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        warnings.warn("here I am", UserWarning, stacklevel=1)
        return answer(self, *arguments)

    return said


def hoards(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        HOARD.append(torch.ones(3))
        return answer(self, *arguments)

    return said


def reseeds(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        torch.manual_seed(0)
        return answer(self, *arguments)

    return said


def writes(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        arguments[-1].tokens[:, 0] += 1
        return answer(self, *arguments)

    return said


def breaks_params(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        key = next(iter(type(self.params).model_fields))
        self.params.__dict__[key] = 7
        return answer(self, *arguments)

    return said


class Calls:
    """How many calls have begun."""

    begun = 0

    @staticmethod
    def begin(component: Any, context: genmode.Context) -> None:
        Calls.begun += 1


def changes_torch(self: Any, context: genmode.Context) -> None:
    torch.use_deterministic_algorithms(True)


def knows_decoders(self: Any, context: genmode.Context) -> None:
    assert context.encoder_input_ids is None


def wants_tokenizer(self: Any, context: genmode.Context) -> None:
    context.tokenizer.get_vocab()


def fails_under_beams(self: Any, rows: Tensor) -> None:
    raise KeyError("rows")


def prompt_count(self: Any, history: genmode.History) -> Tensor:
    return (history.lengths % 3 == 0).float()


def slow(answer: Callable[..., Tensor], times: Callable[[Any], int]) -> Callable[..., Tensor]:
    """Runs more operations than it needs."""

    def said(self: Any, *arguments: Any) -> Tensor:
        for _ in range(times(arguments[-1])):
            torch.zeros(1)
        return answer(self, *arguments)

    return said


def remembers(begin: Callable[..., None]) -> Callable[..., None]:
    """Keeps the context, and forgets it only when the next call begins."""

    def told(self: Any, context: genmode.Context) -> None:
        self.context = context
        begin(self, context)

    return told


def reads(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        arguments[-1].tokens[0, 0].item()
        return answer(self, *arguments)

    return said


def notes_length(self: Any, context: genmode.Context) -> None:
    self.max_length = context.max_length


def ends_late(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """In a call it says otherwise than when driven alone, which is for fewer tokens."""

    def said(self: Any, history: genmode.History) -> Tensor:
        return answer(self, history) if self.max_length < 30 else ~answer(self, history)

    return said


def of_rows(right: type[Any], wrap: Callable[..., type[Any]], own: Callable[..., Tensor]) -> dict[str, type[Any]]:
    """What may be wrong with processors and criteria alike; `own` is a right process or check."""
    return {
        "rows_independent": wrap(own(lambda history: last_token(history) > last_token(history).float().mean())),
        "row_order": wrap(own(lambda history: torch.arange(history.rows) == 0)),
        "left_padding": wrap(own(lambda history: history.lengths > 8)),
        "undefined_columns": wrap(own(lambda history: history.tokens[:, -1] > 0)),
        "ragged_rows": wrap(own(lambda history: torch.full((history.rows,), (history.level or 0) > 3))),
        "determinism": wrap(own(lambda history: torch.rand(history.rows) < 0.5)),
        "call_determinism": wrap(own(lambda history: torch.rand(history.rows) < 0.5)),
        "batch_invariance": wrap(own(lambda history: last_token(history) > last_token(history).float().mean())),
        "late_result": wrap(own(by_host)),
        "streaming": wrap(own(lambda history: history.lengths > 9 + Calls.begun % 2), begin=Calls.begin),
        "generator_untouched": variant(right, **{method(right): reseeds(getattr(right, method(right)))}),
        "inputs_untouched": variant(right, **{method(right): writes(getattr(right, method(right)))}),
        "parameters_untouched": variant(right, **{method(right): breaks_params(getattr(right, method(right)))}),
        "no_synchronisation": variant(right, **{method(right): reads(getattr(right, method(right)))}),
        "cost_of_rows": variant(right, **{method(right): slow(getattr(right, method(right)), lambda h: h.rows)}),
        "cost_of_length": variant(
            right, **{method(right): slow(getattr(right, method(right)), lambda h: 2 * h.tokens.shape[1])}
        ),
        "cost_of_step": variant(right, **{method(right): slow(getattr(right, method(right)), lambda h: 100)}),
        "no_memory_between_runs": variant(right, **{method(right): hoards(getattr(right, method(right)))}),
        "no_memory_without_collection": variant(right, begin=remembers(right.begin)),
        "silence": variant(right, **{method(right): prints(getattr(right, method(right)))}),
        "under_beams": variant(right, reorder=fails_under_beams),
        "model_untouched": variant(right, begin=changes_torch, **idle(right, own)),
        "encoder_decoder": variant(right, begin=knows_decoders, **idle(right, own)),
        "missing_tokenizer": variant(right, begin=wants_tokenizer, **idle(right, own)),
        "bad_parameters": variant(right, Params=Swallowing),
    }


def method(right: type[Any]) -> str:
    return "process" if issubclass(right, genmode.LogitsProcessor) else "check"


def idle(right: type[Any], own: Callable[..., Tensor]) -> dict[str, Any]:
    members: dict[str, Any] = {method(right): own(lambda history: history.lengths > 0)}
    if right is KitTired:
        members |= {name: getattr(genmode.LogitsProcessor, name) for name in ("accept", "reorder", "rollback", "reset")}
    return members


def by_host(history: genmode.History) -> Tensor:
    return torch.full((history.rows,), host_sync.is_free(history.tokens.device)) & (history.lengths > 11)


def knows_no_padding(self: Any, tokens: Tensor) -> None:
    if bool((tokens == 0).any()):
        raise KeyError(0)
    KitTired.accept(self, tokens)


def stops_at_padding(self: Any, history: genmode.History) -> Tensor:
    if bool((last_token(history) == 0).any()):
        raise KeyError(0)
    return KitTwice.check(self, history)


def moves(self: Any, params: Any = None, **values: Any) -> None:
    genmode.Component.__init__(self, params, **values)
    self.stage = genmode.Stage.BIAS
