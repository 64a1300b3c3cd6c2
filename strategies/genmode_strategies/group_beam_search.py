"""Group beam search: beams in groups that are kept from saying the same.

Vijayakumar et al. 2016, "Diverse Beam Search: Decoding Diverse Solutions from Neural Sequence Models". The
beams of an input form `num_beam_groups` groups of equal size, which choose one after the other in each step.
Group g sees

    log p(v | y_<t) - diversity_penalty * (how many beams of groups 1 .. g-1 have chosen v in this step)

then the call's processors, and is otherwise a beam search of its own. The penalty is part of a hypothesis'
score. Results are the best of all groups. With `do_sample` a group draws its candidates without replacement
with weights softmax(score) instead of taking the best.

As in transformers 4.49, a group that is done counts as having chosen the padding token. On ties torch.topk
decides. Not supported: one beam, or groups of different sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.selection import softmax, topk

from .beam_search import BeamSearch
from .beams import MASKED, BeamParams
from .hypotheses import Hypotheses, continuing


class GroupBeamParams(BeamParams):
    """Parameters of group beam search."""

    num_beam_groups: int = Field(2, ge=1, description="groups of beams that are kept apart")
    diversity_penalty: float = Field(
        0.5, ge=0, description="taken off a token's score for each beam of an earlier group that chose it"
    )
    do_sample: bool = Field(False, description="draw candidates instead of taking the best")


class GroupBeamSearch(genmode.Strategy):
    """The best hypotheses of groups of beams. Shapes: rows are `[inputs * num_beams]`, a group's together."""

    contract_version = 1
    paper = "Vijayakumar et al. 2016, Diverse Beam Search, https://arxiv.org/abs/1610.02424"
    flags: ClassVar[Mapping[str, Any]] = {
        "do_sample": False, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5,
    }  # fmt: skip
    needs: ClassVar[frozenset[str]] = frozenset({"reorder"})
    skip_checks: ClassVar[Mapping[str, str]] = {
        "row_criteria": "as in transformers' former implementation, criteria end the whole call, never one row",
    }
    Params = GroupBeamParams

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        BeamSearch.validate(params, call)
        beams, groups = params.num_beams, params.num_beam_groups
        if beams % groups:
            fitting = ", ".join(str(n) for n in range(2, beams + 1) if beams % n == 0)
            raise genmode.ParameterError(
                f"num_beams={beams} cannot be divided into num_beam_groups={groups} equal groups; "
                f"num_beam_groups may be {fitting}"
            )
        if groups > 1 and not params.diversity_penalty and not params.do_sample:
            raise genmode.ParameterError(
                f"diversity_penalty=0.0 lets all num_beam_groups={groups} groups say the same; give a "
                "positive diversity_penalty, or leave the groups out"
            )
        for key in ("force_words_ids", "constraints"):
            if call[key] is not None:
                raise genmode.ParameterError(
                    f"num_beam_groups={groups} and {key} contradict each other: groups take no constraints; "
                    "leave one out"
                )

    def decode(self, session: genmode.Session, params: Any) -> None:
        inputs, groups = session.inputs, params.num_beam_groups
        size = params.num_beams // groups
        keep = max(2, 1 + len(session.eos_token_ids)) * size
        firsts = torch.arange(0, session.rows, size, device=session.device).view(inputs, groups)  # row of each group
        running = torch.full((inputs, groups, size), MASKED, device=session.device)
        running[:, :, 0] = 0.0  # all beams of a group start equal, so only the first may continue
        hypotheses = Hypotheses(session, params, groups)
        config = session.generation_config
        records = bool(config.return_dict_in_generate and config.output_scores)
        for step in session.steps(ending=False):
            diversity = Diversity(step, params, running, records)
            seen: list[tuple[Tensor, ...]] = []
            chosen: list[tuple[Tensor, ...]] = []
            quiet = not hypotheses.touched
            for group in range(groups):
                scores = diversity.scores(group)  # [inputs, size, vocab]
                found, index = _candidates(session, scores.flatten(1), keep, params.do_sample)
                rows = index // scores.shape[2] + firsts[:, group, None]  # [inputs, keep]
                tokens = index % scores.shape[2]
                ends = hypotheses.endings(rows, tokens)
                seen.append((found, rows, tokens, ends))
                if session.surely_none(ends):  # candidates come sorted, so the best go on
                    found, rows, tokens = found[:, :size], rows[:, :size], tokens[:, :size]
                else:
                    quiet = False
                    best = continuing(found, ends, size)
                    found, rows, tokens = found.gather(1, best), rows.gather(1, best), tokens.gather(1, best)
                if hypotheses.touched and session.pad_token_id is not None:
                    done = hypotheses.done.view(inputs, groups)[:, group, None]
                    tokens = tokens.masked_fill(done, session.pad_token_id)
                if group < groups - 1:
                    diversity.count(tokens)
                chosen.append((found, rows, tokens))
            if not quiet:
                stacked = (torch.stack(one, 1).flatten(0, 1) for one in zip(*seen, strict=True))
                found, rows, tokens, ends = stacked  # [units, keep]
                hypotheses.offer(ends[:, :size], found[:, :size], rows[:, :size], tokens[:, :size])
                session.stop_when(hypotheses.close(found[:, 0], ends.all(1)))
            if records:
                step.scores = torch.stack(diversity.given, dim=1).flatten(0, 2)
            # [inputs, groups, size]
            running, rows, tokens = (torch.stack(one, 1) for one in zip(*chosen, strict=True))
            step.commit(tokens.flatten(), rows=rows.flatten())
            hypotheses.follow(rows.flatten())
            if session.streams:
                session.settle(session.history.ids[:: params.num_beams], hypotheses.settled())
        hypotheses.finish(running.flatten())


class Diversity:
    """The scores of one step, group after group.

    Args:
        running: `[inputs, groups, size]`, float32: scores of the open hypotheses.
        records: whether the groups' own scores are kept, as `given`.
    """

    def __init__(self, step: genmode.Step, params: Any, running: Tensor, records: bool) -> None:
        self.step, self.running, self.records = step, running, records
        self.plain = step.logits.log_softmax(-1)  # [rows, vocab]
        self.shape = (*running.shape, self.plain.shape[1])
        self.taken_off = self.plain.new_zeros(running.shape[0], self.shape[-1])  # [inputs, vocab]
        self.penalty = self.plain.new_full((1, 1), params.diversity_penalty).expand(running.shape[::2])
        first = step.process(self.plain)
        self.processed = first is not self.plain
        self.totals = first.view(self.shape) + running[..., None]
        self.given = [first.view(self.shape)[:, 0]] if records else []

    def scores(self, group: int) -> Tensor:
        """The group's scores of all continuations, `[inputs, size, vocab]`.

        Processors run on all rows, since they may know rows by number.
        """
        if group == 0:
            return self.totals[:, 0]
        if not self.processed:
            if self.records:
                self.given.append(self.plain.view(self.shape)[:, group] - self.taken_off[:, None])
            return self.totals[:, group] - self.taken_off[:, None]
        lower = self.plain.view(self.shape) - self.taken_off[:, None, None]
        own = self.step.process(lower.view_as(self.plain)).view(self.shape)[:, group]
        if self.records:
            self.given.append(own)
        return own + self.running[:, group, :, None]

    def count(self, tokens: Tensor) -> None:
        """A group has chosen `tokens` `[inputs, size]`."""
        self.taken_off.scatter_add_(1, tokens, self.penalty)


def _candidates(session: genmode.Session, scores: Tensor, keep: int, sample: bool) -> tuple[Tensor, Tensor]:
    """The `keep` continuations to look at, best first: scores and places in `scores`, `[inputs, keep]` each.

    Args:
        scores: `[inputs, size * vocab]`, float32.
    """
    if not sample:
        return topk(scores, keep)
    drawn = session.multinomial(softmax(scores), keep)
    found, order = scores.gather(1, drawn).sort(dim=1, descending=True)
    return found, drawn.gather(1, order)
