"""Constrained beam search: the best hypotheses that contain what they are told to contain.

Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation for Neural Machine
Translation", as transformers 4.49 has it. In each step the candidates of beam search are joined by every
continuation of every beam that advances an unmet constraint; where a constraint has a gap that any token
fills, by the most probable one. Each candidate has a bank,

    the sum over constraints of: m if met, m - r if begun with r tokens remaining, else 0,

where m is the length of the longest constraint. Candidates are sorted by 100 * bank + score; then the best of
every bank go on, then the second best of every bank, until the beams are full. A hypothesis that ends is
finished only if it meets all constraints.

Constraints are met one at a time: once a phrase of several tokens has begun, a token that does not continue
it loses it, and begins no other. `genmode_strategies.beams.constraints` has the kinds. What the prompt already
contains counts, as in transformers, unless `constraints_count_prompt` is False.

Where fewer than `num_return_sequences` open hypotheses of an input meet the constraints at the length limit,
the others take part in the result as well; results that do not meet them are reported with an
`UnmetConstraintWarning`. The scores that a call returns are those of each step, as in beam search;
transformers 4.49 added up those of the steps before. On ties torch.topk and a stable sort decide. Not
supported: sampling, groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.sampling import topk

from .beam_search import BeamParams, BeamSearch
from .constraint_states import Progress, begin
from .constraints import UnmetConstraintWarning, constraints_of
from .continuations import MASKED, Candidates
from .hypotheses import Hypotheses, continuing


class ConstrainedBeamParams(BeamParams):
    """Parameters of constrained beam search."""

    force_words_ids: list[Any] | None = Field(
        None, description="words that results contain: lists of token ids, or lists of alternative words"
    )
    constraints: list[Any] | None = Field(None, description="Constraint objects that results meet")
    constraints_count_prompt: bool = Field(True, description="whether what the prompt contains counts")


class ConstrainedBeamSearch(genmode.Strategy):
    """The best hypotheses that meet all constraints. Shapes: rows are `[inputs * num_beams]`."""

    contract_version = 1
    paper = "Post and Vilar 2018, Dynamic Beam Allocation, https://arxiv.org/abs/1804.06609"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": False, "num_beams": 4}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.REORDER})
    selected_by = ("constraints", "force_words_ids")
    skip_checks: ClassVar[Mapping[str, str]] = {
        "row_criteria": "as in transformers' former implementation, criteria end the whole call, never one row",
    }
    Params = ConstrainedBeamParams

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        BeamSearch.validate(params, call)
        given = [key for key in ("force_words_ids", "constraints") if getattr(params, key) is not None]
        if not list(constraints_of(params.force_words_ids, params.constraints)):
            raise genmode.ParameterError("constrained beam search needs force_words_ids or constraints; give one")
        if call["do_sample"]:
            raise genmode.ParameterError(
                f"{given[0]} and do_sample=True contradict each other: constraints are searched for, not "
                "sampled; leave one out"
            )
        if (call["num_beam_groups"] or 1) > 1:
            raise genmode.ParameterError(
                f"{given[0]} and num_beam_groups={call['num_beam_groups']} contradict each other: groups "
                "take no constraints; leave one out"
            )

    def decode(self, session: genmode.Session, params: Any) -> None:
        inputs, beams = session.num_inputs, params.num_beams
        constraints = list(constraints_of(params.force_words_ids, params.constraints))
        progress, states = begin(session, constraints, params.constraints_count_prompt)
        keep = max(2, 1 + len(session.eos_token_ids)) * beams
        offset = torch.arange(inputs, device=session.device)[:, None] * beams
        running = torch.full((inputs, beams), MASKED, device=session.device)
        running[:, 0] = 0.0  # all beams of an input start equal, so only the first may continue
        hypotheses = Hypotheses(session, params)
        allocation = Allocation(session, progress, beams)
        for step in session.steps(ending=False):
            scores = step.log_scores.view(inputs, beams, -1) + running[:, :, None]  # [inputs, beams, vocab]
            found, index = topk(scores.flatten(1), keep)
            rows, tokens = index // scores.shape[2] + offset, index % scores.shape[2]  # [inputs, keep]
            ends = finished = hypotheses.endings(rows, tokens)
            quiet = host_sync.surely_none(ends)
            if quiet:  # candidates come sorted, so the best go on
                chosen = found[:, :beams], rows[:, :beams], tokens[:, :beams]
            else:
                finished = ends & (progress.missing(states) == 0)[rows]
                best = continuing(found, ends, beams)
                chosen = found.gather(1, best), rows.gather(1, best), tokens.gather(1, best)
            if hypotheses.touched or not quiet:
                session.stop_when(hypotheses.judge(Candidates(found, rows, tokens, ends), finished))
            advancing = progress.advancing(states)  # [rows, words + 1]
            if step.index == 0:  # beams that have not begun would repeat the first
                advancing.masked_fill_(running.view(-1, 1) != 0, -1.0)
            if progress.gaps or not host_sync.surely_none(advancing >= 0):
                chosen = allocation.share_out(states, advancing, scores, *chosen)
            running, rows, tokens = chosen
            states = progress.after(progress.select(states, rows.flatten()), tokens.flatten())
            step.commit(tokens.flatten(), rows=rows.flatten())
            hypotheses.follow(rows.flatten())
            session.settle(hypotheses.settled)

        met = progress.missing(states) == 0  # [rows]
        enough = met.view(inputs, beams).sum(1, keepdim=True) >= params.num_return_sequences
        report(hypotheses.finish(running.flatten(), met | ~enough.expand(-1, beams).flatten(), met))


class Allocation:
    """Shares out the beams of each input among the banks, step by step."""

    def __init__(self, session: genmode.Session, progress: Progress, beams: int) -> None:
        self.progress, self.inputs, self.beams = progress, session.num_inputs, beams
        words = torch.cat([progress.words, progress.words[:1]])  # the last column of `advancing` stands for no word
        self.rows = torch.arange(session.rows, device=session.device).view(session.num_inputs, beams)
        # The row and the token of each such continuation of an input, `[inputs, beams * (words + 1)]`.
        self.words, self.kinds = words, len(words)
        self.word_rows = self.rows.repeat_interleave(len(words), dim=1)
        self.word_tokens = words.repeat(beams).expand(session.num_inputs, -1)
        self.as_found = torch.arange(beams, device=session.device)
        self.places = torch.arange(beams * (len(words) + 2), device=session.device)
        self.ends = words.new_tensor(session.eos_token_ids)

    def share_out(
        self, states: Any, advancing: Tensor, scores: Tensor, found: Tensor, rows: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which continuations to take.

        Args:
            states: of the open hypotheses.
            advancing: `[rows, words + 1]`, float32: see `Progress.advancing`; written into.
            scores: `[inputs, beams, vocab]`, float32: of all continuations.
            found, rows, tokens: `[inputs, beams]`: scores, rows and tokens that beam search would take.

        Returns:
            Scores, rows and tokens to take, `[inputs, beams]` each.
        """
        inputs = self.inputs
        taken = torch.add(self.progress.kinds(tokens), rows, alpha=self.kinds)  # [inputs, beams]
        advancing.view(-1).index_fill_(0, taken.view(-1), -1.0)  # beam search takes them anyway
        banks = self.progress.banks(states)  # [rows, words + 1]
        every = scores.flatten(0, 1)  # [rows, vocab]
        nothing = advancing < 0
        bank = [banks.take(taken), advancing.view(inputs, -1)]
        worth = [found, every.index_select(1, self.words).masked_fill_(nothing, -torch.inf).view(inputs, -1)]
        all_rows, all_tokens = [rows, self.word_rows], [tokens, self.word_tokens]
        stays = nothing.view(inputs, -1).all(1, keepdim=True)
        if self.progress.gaps:
            filled, token = every.index_fill(1, self.ends, -torch.inf).max(1)
            fresh = self._not_among(token, rows, tokens) & self.progress.gap(states)
            gained = banks.gather(1, self.progress.kinds(token)[:, None])[:, 0]
            bank.append(torch.where(fresh, gained, -1.0).view(inputs, -1))
            worth.append(torch.where(fresh, filled, -torch.inf).view(inputs, -1))
            all_rows.append(self.rows)
            all_tokens.append(token.view(inputs, -1))
            stays = stays & ~fresh.view(inputs, -1).any(1, keepdim=True)
        pool, values = torch.cat(bank, 1), torch.cat(worth, 1)
        best = shares(pool, values, self.beams, self.places[: pool.shape[1]])
        best = torch.where(stays, self.as_found, best)  # where nothing advances, as beam search would
        return values.gather(1, best), torch.cat(all_rows, 1).gather(1, best), torch.cat(all_tokens, 1).gather(1, best)

    def _not_among(self, token: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Whether beam search does not take row r's `token[r]` anyway: `[rows]`, bool."""
        same = (rows[:, None] == self.rows[:, :, None]) & (tokens[:, None] == token.view(self.inputs, self.beams, 1))
        return ~same.any(2).flatten()


def shares(bank: Tensor, scores: Tensor, count: int, places: Tensor) -> Tensor:
    """The best of every bank, higher banks first, then the second best of every bank, and so on.

    Args:
        bank, scores: `[inputs, n]`, float32; what may not be picked has bank -1 and score minus infinity. At
            least `count` may be picked.
        count: how many to pick.
        places: 0 to n - 1.

    Returns:
        Places of the picked candidates: `[inputs, count]`, long.
    """
    order = scores.add(bank, alpha=100).sort(dim=1, descending=True, stable=True).indices
    bank = bank.gather(1, order)
    size = bank.shape[1]
    begins = bank != bank.roll(1, 1)  # of the first place it does not matter: its product below is 0
    rank = places - (places * begins).cummax(dim=1).values  # within a run of equal banks
    turn = places.add(rank, alpha=size).masked_fill_(bank < 0, size * size)
    return order.gather(1, turn.topk(count, dim=1, largest=False, sorted=True).indices)


def report(met: Tensor) -> None:
    """Warn of results that do not meet their constraints; `met` is `[results]`, bool."""
    if not bool(met.all()):
        unmet = (~met).nonzero()[:, 0].tolist()
        warnings.warn(
            f"{len(unmet)} of {len(met)} results do not meet all constraints (numbers "
            f"{', '.join(map(str, unmet))}): the length limit came first. Give more max_new_tokens or "
            "num_beams, ask for fewer results, or constrain less",
            UnmetConstraintWarning,
            stacklevel=2,
        )
