"""Each check of processors and criteria catches a component that is wrong in that way alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.testing import Case, check_component, checks

from .private import PrivateProcessor, PrivateStop
from .wrong import Swallowing, of_every_kind, variant


class KitTired(genmode.LogitsProcessor):
    """Takes something off the score of each token for every time that it was decoded."""

    contract_version = 1
    name = "kit_tired"
    stage = genmode.Stage.PENALTY

    class Params(genmode.Params):
        kit_alpha: float = Field(1.0, ge=0, le=9, description="taken off for each time", examples=[1.5])

    def begin(self, session: genmode.Session) -> None:
        self.counts = torch.zeros(session.rows, session.vocab_size, device=session.device)  # [rows, vocab]
        self.taken = torch.zeros(session.rows, 0, dtype=torch.long, device=session.device)  # [rows, decoded]

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

    def begin(self, session: genmode.Session) -> None:
        self.rows = torch.zeros(session.rows, dtype=torch.long, device=session.device)

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

    def begin(self, session: genmode.Session) -> None:
        self.last = torch.zeros(session.rows, dtype=torch.long)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return scores.scatter(1, self.last[:, None], -9.0)

    def accept(self, tokens: Tensor) -> None:
        self.last = tokens

    def reorder(self, rows: Tensor) -> None:
        """Forgotten."""

    def rollback(self, counts: Tensor) -> None:
        """Forgotten."""


def unforgetting(self: Any, session: genmode.Session) -> None:
    if not hasattr(self, "counts") or self.counts.shape[0] != session.rows:
        KitTired.begin(self, session)


class Counter(KitTwice):
    """Stops after some checks, whatever happens to the rows."""

    limit = 5

    def begin(self, session: genmode.Session) -> None:
        if not hasattr(self, "seen"):
            self.seen = torch.arange(session.rows)

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

    def begin(self, session: genmode.Session) -> None:
        self.seen = torch.zeros(session.rows, dtype=torch.long)
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


class Heard:
    """Whether somebody listens to the call that began last."""

    streams = False

    @staticmethod
    def begin(component: Any, session: genmode.Session) -> None:
        Heard.streams = session.streams


def marks_model(self: Any, session: genmode.Session) -> None:
    session.model.kit_mark = 1


def knows_decoders(self: Any, session: genmode.Session) -> None:
    session.model.model.layers  # noqa: B018 - the attribute access is what is tested


def wants_tokenizer(self: Any, session: genmode.Session) -> None:
    session.tokenizer.get_vocab()


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
    """Keeps the session, and forgets it only when the next call begins."""

    def told(self: Any, session: genmode.Session) -> None:
        self.session = session
        begin(self, session)

    return told


def reads(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def said(self: Any, *arguments: Any) -> Tensor:
        arguments[-1].tokens[0, 0].item()
        return answer(self, *arguments)

    return said


def ends_late(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """In a call of the session with its own engine it says otherwise than when driven alone."""

    def said(self: Any, history: genmode.History) -> Tensor:
        return answer(self, history) if history.tokens.shape[1] > 40 else ~answer(self, history)

    return said


def of_rows(right: type[Any], wrap: Callable[..., type[Any]], own: Callable[..., Tensor]) -> dict[str, type[Any]]:
    """What may be wrong with processors and criteria alike; `own` is a right process or check."""
    return {
        "rows_independent": wrap(own(lambda history: last_token(history) > last_token(history).float().mean())),
        "row_order": wrap(own(lambda history: torch.arange(history.rows) == 0)),
        "left_padding": wrap(own(lambda history: history.lengths > 8)),
        "undefined_columns": wrap(own(lambda history: history.tokens[:, -1] > 0)),
        "ragged_rows": wrap(own(lambda history: torch.full((history.rows,), (history.uniform or 0) > 3))),
        "determinism": wrap(own(lambda history: torch.rand(history.rows) < 0.5)),
        "call_determinism": wrap(own(lambda history: torch.rand(history.rows) < 0.5)),
        "batch_invariance": wrap(own(lambda history: last_token(history) > last_token(history).float().mean())),
        "late_result": wrap(own(by_host)),
        "streaming": wrap(own(lambda history: history.lengths > (9 if Heard.streams else 11)), begin=Heard.begin),
        "generator_untouched": variant(right, **{method(right): reseeds(getattr(right, method(right)))}),
        "inputs_untouched": variant(right, **{method(right): writes(getattr(right, method(right)))}),
        "parameters_untouched": variant(right, **{method(right): breaks_params(getattr(right, method(right)))}),
        "no_synchronisation": variant(right, **{method(right): reads(getattr(right, method(right)))}),
        "cost_of_rows": variant(right, **{method(right): slow(getattr(right, method(right)), lambda h: h.rows)}),
        "cost_of_length": variant(right, **{method(right): slow(getattr(right, method(right)), lambda h: 2 * h.bound)}),
        "cost_of_step": variant(right, **{method(right): slow(getattr(right, method(right)), lambda h: 100)}),
        "no_memory_between_runs": variant(right, **{method(right): hoards(getattr(right, method(right)))}),
        "no_memory_without_collection": variant(right, begin=remembers(right.begin)),
        "silence": variant(right, **{method(right): prints(getattr(right, method(right)))}),
        "under_beams": variant(right, reorder=fails_under_beams),
        "model_untouched": variant(right, begin=marks_model, **idle(right, own)),
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
    from genmode.session import stopping

    return torch.full((history.rows,), stopping.reads_freely(history.tokens.device)) & (history.lengths > 11)


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


WRONG_PROCESSORS: dict[str, type[Any]] = {
    **of_every_kind(KitTired, "top_p"),
    **of_rows(KitTired, processing, lambda function: add(lambda self, history: function(history))),
    "public_contract": PrivateProcessor,
    "stage_and_order": variant(KitTired, before="top_p"),
    "scores_type": processing(lambda self, scores, history: scores.double()),
    "no_nan": processing(lambda self, scores, history: scores - scores.amin(-1, keepdim=True)),
    "leaves_a_token": processing(lambda self, scores, history: scores.masked_fill(scores > -1e9, -torch.inf)),
    "one_token_left": processing(lambda self, scores, history: scores.index_fill(1, torch.tensor([41]), -torch.inf)),
    "any_layout": processing(lambda self, scores, history: scores.view(-1).clone().view_as(scores) + 1),
    "no_gradients": processing(lambda self, scores, history: scores * torch.ones(1, requires_grad=True) * 2),
    "acts": variant(KitTired, process=lambda self, scores, history: scores),
    "rollback": Stateful,
    "reorder": Stateful,
    "reset": variant(KitTired, begin=unforgetting, reset=lambda self: None),
    "no_state_between_calls": Growing,
    "under_drafts": variant(Stateful, process=lambda self, scores, history: scores.scatter(1, self.last[:, None], 50.0)),
    "early_end": variant(KitTired, accept=knows_no_padding),
    "whole_and_fused": processing(
        add(lambda self, history: prompt_count(self, history)), narrow=lambda self, candidates, history: candidates,
        stage=genmode.Stage.TRUNCATION, reach=0, redo=KitTired.process,
    ),
    "found_in_plan": variant(KitTired, __init__=moves),
}  # fmt: skip

WRONG_CRITERIA: dict[str, type[Any]] = {
    **of_every_kind(KitTwice, "eos"),
    **of_rows(KitTwice, checking, stop),
    "public_contract": PrivateStop,
    "flags_type": checking(stop(lambda history: (history.lengths > 8).long())),
    "candidates_leave_no_trace": Painted,
    "acts": checking(stop(lambda history: history.lengths < 0)),
    "rollback": Counter,
    "reorder": Unmoved,
    "reset": Counter,
    "no_state_between_calls": GrowingStop,
    "under_drafts": Counter,
    "early_end": checking(stops_at_padding),
    "ends_calls": checking(ends_late(KitTwice.check)),
}


@pytest.fixture(autouse=True)
def _empty_hoard() -> Any:
    yield
    HOARD.clear()


@pytest.mark.parametrize(
    ("kind", "wrong", "least"), [("processors", WRONG_PROCESSORS, 15), ("criteria", WRONG_CRITERIA, 10)]
)
def test_every_check_has_a_wrong_component(kind: Any, wrong: dict[str, Any], least: int) -> None:
    assert set(wrong) == {one.name for one in checks(kind)}
    assert len(wrong) >= least


def caught(component: type[Any], name: str) -> None:
    report = check_component(Case(component), only=[name], raises=False)
    assert [one.status for one in report.outcomes] == ["failed"], str(report)


@pytest.mark.parametrize("name", WRONG_PROCESSORS)
def test_the_check_catches_the_processor(name: str) -> None:
    caught(WRONG_PROCESSORS[name], name)


@pytest.mark.parametrize("name", WRONG_CRITERIA)
def test_the_check_catches_the_criterion(name: str) -> None:
    caught(WRONG_CRITERIA[name], name)


@pytest.mark.parametrize("right", [KitTired, KitTwice])
def test_right_ones_pass_them_all(right: type[Any]) -> None:
    report = check_component(right)
    assert [one.check.name for one in report.outcomes if one.status == "skipped"] == []
