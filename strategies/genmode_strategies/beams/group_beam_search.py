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

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.sampling import topk

from .beam_search import BeamParams, BeamSearch, drawn
from .continuations import MASKED, Candidates
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
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.REORDER})
    selected_by = ("num_beam_groups", "diversity_penalty")
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
        inputs, groups = session.num_inputs, params.num_beam_groups
        size = params.num_beams // groups
        running = torch.full((inputs, groups, size), MASKED, device=session.device)
        running[:, :, 0] = 0.0  # all beams of a group start equal, so only the first may continue
        hypotheses = Hypotheses(session, params, groups)
        config, pad = session.generation_config, session.pad_token_id
        rules = GroupRules(
            size, max(2, 1 + len(session.eos_token_ids)) * size, params.diversity_penalty,
            pad if pad is not None and 0 <= pad < session.vocab_size else None,  # what cannot be chosen is not
            bool(config.return_dict_in_generate and config.output_scores),
        )  # fmt: skip
        for step in session.steps(ending=False):
            done = hypotheses.done if hypotheses.touched else None
            shown = (step.log_probabilities, running, done, rules)
            process, endings = session.replay.processors, session.replay.endings
            multinomial = session.replay.multinomial if params.do_sample else None
            if process is None or endings is None or (params.do_sample and multinomial is None):
                multinomial = session.multinomial if params.do_sample else None
                chosen = choose(*shown, step.process, multinomial, hypotheses.endings)
            else:
                chosen = session.replay(choose, *shown, process, multinomial, endings)
            running, rows, tokens, given, *seen = chosen
            if seen:
                session.stop_when(hypotheses.judge(Candidates(*seen)))
            if given is not None:
                step.scores = given
            step.commit(tokens.flatten(), rows=rows.flatten())
            hypotheses.follow(rows.flatten())
            session.settle(hypotheses.settled)
        hypotheses.finish(running.flatten())


class GroupRules(NamedTuple):
    """The constants of a call.

    Attributes:
        size: beams of a group.
        keep: how many continuations of a group are looked at.
        penalty: what a token loses for each beam of an earlier group that has chosen it.
        pad: what a group that is done chooses; None if it goes on as the others.
        records: whether the groups' own scores are wanted.
    """

    size: int
    keep: int
    penalty: float
    pad: int | None
    records: bool


def choose(
    plain: Tensor, running: Tensor, done: Tensor | None, rules: GroupRules, process: Callable[[Tensor], Tensor],
    multinomial: Callable[[Tensor, int], Tensor] | None, endings: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Any, ...]:  # fmt: skip
    """What the groups choose, one after the other.

    Args:
        plain: `[rows, vocab]`, float32: log-probabilities before any processor.
        running: `[inputs, groups, size]`, float32: scores of the open hypotheses.
        done: `[inputs * groups]`, bool: groups that are done; None if none can be.
        process: runs the processors on values like `plain`.
        multinomial: draws from each row of weights, without replacement; None to take the best.
        endings: which candidates end, given rows and tokens.

    Returns:
        running, rows, tokens: `[inputs, groups, size]` each: the scores of what goes on, the session's rows that it
            continues, and its tokens.
        given: `[rows, vocab]`: the groups' scores before `running` is added; None if not wanted.
        The fields of `Candidates`, `[inputs * groups, keep]` each: all that was looked at; left out if none of it ends
            and no group is done.
    """
    inputs, groups, size = running.shape
    firsts = torch.arange(0, inputs * groups * size, size, device=plain.device).view(inputs, groups)
    diversity = Diversity(process, plain, rules, running)
    seen: list[tuple[Tensor, ...]] = []
    chosen: list[tuple[Tensor, ...]] = []
    quiet = done is None
    for group in range(groups):
        scores = diversity.scores(group)  # [inputs, size, vocab]
        shown = scores.flatten(1), rules.keep, running[:, group]
        if multinomial is None:
            found, index = topk(*shown)
        else:
            found, index = drawn(*shown, multinomial)
            found, order = found.sort(dim=1, descending=True)
            index = index.gather(1, order)
        rows = index // scores.shape[2] + firsts[:, group, None]  # [inputs, keep]
        tokens = index % scores.shape[2]
        ends = endings(rows, tokens)
        seen.append((found, rows, tokens, ends))
        if host_sync.surely_none(ends):  # candidates come sorted, so the best go on
            found, rows, tokens = found[:, :size], rows[:, :size], tokens[:, :size]
        else:
            quiet = False
            first = continuing(found, ends, size)
            found, rows, tokens = found.gather(1, first), rows.gather(1, first), tokens.gather(1, first)
        if done is not None and rules.pad is not None:
            tokens = tokens.masked_fill(done.view(inputs, groups)[:, group, None], rules.pad)
        if group < groups - 1:
            diversity.count(tokens)
        chosen.append((found, rows, tokens))
    given = torch.stack(diversity.given, dim=1).flatten(0, 2) if rules.records else None
    stacked = (torch.stack(one, 1) for one in zip(*chosen, strict=True))
    every = () if quiet else (torch.stack(one, 1).flatten(0, 1) for one in zip(*seen, strict=True))
    return *stacked, given, *every


class Diversity:
    """The scores of one step, group after group; arguments as of `choose`."""

    def __init__(self, process: Callable[[Tensor], Tensor], plain: Tensor, rules: GroupRules, running: Tensor) -> None:
        self.process, self.plain, self.records = process, plain, rules.records
        self.shape = (*running.shape, plain.shape[1])
        self.taken_off = plain.new_zeros(running.shape[0], plain.shape[1])  # [inputs, vocab]
        self.penalty = plain.new_full((1, 1), rules.penalty).expand(running.shape[::2])
        self.first = process(plain)
        self.given: list[Tensor] = []

    def scores(self, group: int) -> Tensor:
        """The group's scores of the next token, `[inputs, size, vocab]`.

        Processors run on all rows, since they may know rows by number.
        """
        if group == 0:
            scores = self.first.view(self.shape)[:, 0]
        elif self.first is self.plain:  # no processors
            scores = self.plain.view(self.shape)[:, group] - self.taken_off[:, None]
        else:
            lower = self.plain.view(self.shape) - self.taken_off[:, None, None]
            scores = self.process(lower.view_as(self.plain)).view(self.shape)[:, group]
        if self.records:
            self.given.append(scores)
        return scores

    def count(self, tokens: Tensor) -> None:
        """A group has chosen `tokens` `[inputs, size]`."""
        self.taken_off.scatter_add_(1, tokens, self.penalty)
