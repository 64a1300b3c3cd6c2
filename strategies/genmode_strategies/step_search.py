"""Step search: each input's rows are judged at the end of each step, and the best go on, several times each.

Each input has n rows. A row's step ends behind `step_search_until`: a number of tokens, a sentence or a line. Once the step
of every row of an input has ended, with v(x) the score of the text x up to there,

    the m rows with the highest v stay, and each goes on as n / m rows (the best n mod m as one more),

and a row that has ended stays one row, and is compared with the others at each end of a step. An input is done when all its
rows have ended; its results are the rows of the highest v, best first. Equal scores keep the order of the rows.

v should say of a part of a text what is to be expected of the whole, as a process reward model does; the score of a result is
that of its whole text, the last step's. Where steps are of different lengths, a row whose step is over runs on until the
others' are, and then takes back what it has decoded behind it; which rows wait for which depends on their input alone.

Sources: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally" (https://arxiv.org/abs/2408.03314), section 5.2,
beam search, N there being n, M there n / m; the last step's score is theirs too (5.1). Left out is their vote among final
answers that are the same, since what of a text is the answer, only the caller knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.text import Boundaries

Until = Annotated[int, Field(ge=1)] | Literal["sentence", "line"]


class StepSearch(genmode.Strategy):
    """Searches step by step for the text that a scorer likes best. Scores `[rows, vocab]` give tokens `[rows]`.

    Raises `ParameterError` without a scorer.
    """

    contract_version = 1
    name = "step_search"
    paper = "Snell et al. 2024, Scaling LLM Test-Time Compute Optimally, https://arxiv.org/abs/2408.03314"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.POPULATION, genmode.Need.ROLLBACK})
    skip_checks: ClassVar[Mapping[str, str]] = {
        "no_synchronisation": "whether the steps of all rows of an input have ended is asked in each step, where rows fork"
    }

    class Params(genmode.Params):
        """Parameters of `step_search`."""

        step_search_scorer: Any = Field(
            None, exclude=True, description="what judges the text: a function of texts, a model, or a genmode.Scoring"
        )
        step_search_rows: int = Field(8, ge=1, description="rows that each input starts with, n", examples=[4])
        step_search_keep: int = Field(
            2, ge=1, description="rows that go on behind a step, m; at least the results", examples=[2]
        )
        step_search_until: Until = Field(
            32, description='where a step ends: behind so many tokens, a "sentence" or a "line"', examples=[3]
        )

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Raises ParameterError without a scorer, or where more rows would stay than there are."""
        if params.step_search_scorer is None:
            raise genmode.ParameterError(
                "step_search needs step_search_scorer=: a function that takes a list of texts and returns a number for each, "
                "a sequence-classification model, or a genmode.Scoring of either"
            )
        if params.step_search_keep > params.step_search_rows:
            raise genmode.ParameterError(
                f"step_search_keep={params.step_search_keep} rows cannot stay of step_search_rows={params.step_search_rows}; "
                "keep as many or fewer"
            )

    @classmethod
    def rows_per_input(cls, params: Any, results: int) -> int:
        """`step_search_rows`, and never fewer than the results."""
        return max(int(params.step_search_rows), results)

    def decode(self, session: genmode.Session, params: Any) -> None:
        """Sample, judge each input where the steps of its rows have ended, and return the best."""
        results: int = session.generation_config.num_return_sequences or 1
        each, keep = session.rows // session.num_inputs, max(params.step_search_keep, results)
        score, boundaries = session.scorer(params.step_search_scorer), Boundaries(params.step_search_until, session)
        ends = torch.zeros(
            session.rows, dtype=torch.long, device=session.device
        )  # of each row's step; 0 while it goes on
        done = torch.zeros_like(ends, dtype=torch.bool)  # rows whose text has ended where their step has
        for step in session.steps():
            step.commit(step.sample())
            lengths = session.history.lengths
            ends = ends.masked_fill(lengths < ends, 0)  # a processor has taken back what lay before the end of the step
            over = ~session.unfinished | (lengths >= session.max_length)
            stands = (ends == 0) & (over | boundaries.reached(session.history))
            done, ends = done | (stands & over), ends.where(~stands, lengths)
            judged = judged_now(session.inputs, ends > 0, done)
            if not bool(judged.any()):
                continue
            if bool((judged & ~done & (ends < lengths)).any()):
                session.restart(ends.where(judged, lengths))
            values = torch.zeros(session.rows, device=session.device)
            values[judged] = score(judged.nonzero()[:, 0])
            rank, rows = ranks(values, session.inputs), torch.arange(session.rows, device=session.device)
            stay = ~judged | (rank < keep)
            copies = (each // keep + (rank < each % keep).long()).where(judged & stay & ~done, 1)
            forked = rows.repeat_interleave(copies - 1)
            ends = ends.masked_fill(judged & ~done, 0)
            if len(forked):
                session.fork(forked)
            if not bool(stay.all()):
                session.drop((~stay).nonzero()[:, 0])
            ends, done = torch.cat([ends[stay], ends[forked]]), torch.cat([done[stay], done[forked]])
        rank, rows = ranks(score(), session.inputs), torch.arange(session.rows, device=session.device)
        best = (session.inputs * session.rows + rank).argsort()  # input by input, the best first
        session.fork(best[rank[best] < results])
        session.drop(rows)


def judged_now(inputs: Tensor, ended: Tensor, done: Tensor) -> Tensor:
    """Rows `[rows]`, bool, of inputs all of whose steps have ended, and not all of whose texts.

    Args:
        inputs: `[rows]`, long: which input each row belongs to.
        ended: `[rows]`, bool: whether the row's step has ended.
        done: `[rows]`, bool: whether its text has.
    """
    none = torch.zeros(len(inputs), dtype=torch.int, device=inputs.device)  # an input has a row, so these are enough
    waits, runs = none.index_add(0, inputs, (~ended).int()), none.index_add(0, inputs, (~done).int())
    return ((waits == 0) & (runs > 0))[inputs]


def ranks(values: Tensor, inputs: Tensor) -> Tensor:
    """How many rows of its input come before each, by their `values` `[rows]`, the first of equals first: `[rows]`, long."""
    order = values.argsort(descending=True, stable=True)
    order = order[inputs[order].argsort(stable=True)]  # input by input, the best first
    counts = inputs.bincount()
    places = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[inputs[order]]
    return torch.empty_like(order).scatter_(0, order, places)
