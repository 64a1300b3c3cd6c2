"""The logits of one step and what the processors make of them, each computed when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling import candidates
from ..sampling.selection import first_best, highest_values, log_softmax
from .links import as_scores
from .noise import SeededNoise, TorchNoise
from .pure_chain import best_processed, drawn, drawn_for_seeds, log_processed
from .trees import paths_of

if TYPE_CHECKING:
    from ..contract.history import History
    from ..engines.engine import TreeForm
    from .pure_chain import PureChain
    from .state import DecodeState


class StepScores:
    """Of one forward.

    Attributes:
        raw: the logits as the model gave them, `[rows, vocab]` or `[rows, k + 1, vocab]`, or as `logits` once these
            were asked for.
        draft: `[rows, k]`, long: the drafted tokens that this forward has run; None if there are none.
        form: how they hang together, where they are trees.
        walked: whether the processors have accepted the draft on the way to its scores.
        judged: `[rows, vocab]`, float32: what tokens are chosen from, after those processors that can mask every token;
            None where they are chosen from the logits. Once a draft is committed, `[rows, 1]`: the lowest that `highest` gave.
        chosen: the tokens that `best` or `sample` gave last, of each position or of one.
    """

    __slots__ = (
        "_each", "_each_scores", "_highest", "_recorded", "_scores", "_state", "chosen", "draft", "form", "judged", "raw",
        "walked",
    )  # fmt: skip

    def __init__(self, state: DecodeState, raw: Tensor, draft: Tensor | None) -> None:
        self._state, self.raw, self.draft = state, raw, draft
        self.form, state.form = state.form, None
        self._scores: Tensor | None = None
        self._each: Tensor | None = None
        self._each_scores: Tensor | None = None
        self.judged: Tensor | None = None
        self.chosen: Tensor | None = None
        self._highest: list[Tensor] = []
        """Of each position of a draft the highest score of each row, `[rows]`."""
        self.walked = self._recorded = False

    @property
    def logits(self) -> Tensor:
        """The model's logits of the next token, before any processor: `[rows, vocab]`, float32."""
        raw, state = self.raw, self._state
        if raw.dim() == 3:
            raw = raw[:, 0]
        if raw.dtype != torch.float32 or raw.device != state.device:
            if self.draft is None and raw.device == state.device:
                raw = state.engine.in_float32(raw)
            else:
                raw = raw.to(device=state.device, dtype=torch.float32)
            self.raw = raw if self.draft is None else self.raw
        return raw

    @property
    def given(self) -> Tensor:
        """The logits of the next token in the model's dtype, or as `logits` once these were asked for."""
        raw = self.raw
        if raw.device != self._state.device:
            return self.logits
        return raw if raw.dim() == 2 else self._state.engine.next_logits(raw)

    @property
    def scores(self) -> Tensor:
        """The logits after all processors: `[rows, vocab]`, float32. Those that are set take their place."""
        scores = self._scores
        if scores is None:
            pure = self.pure
            if pure is None or not pure.key:
                scores = self.process(self.logits)
            else:
                scores = self._state.engine.replay(pure, self.given)
            self._settle(scores)
        return scores

    @scores.setter
    def scores(self, value: Tensor) -> None:
        self._scores = self.judged = as_scores(value, self.logits)

    def _settle(self, scores: Tensor) -> None:
        self._scores = scores
        self.judged = scores if len(self._state.chain) else None

    @property
    def pure(self) -> PureChain | None:
        """The processors as a constant for `replay`; None where they cannot be replayed, or nothing can."""
        state = self._state
        return state.chain.pure if state.engine.replays and self.draft is None else None

    @property
    def log_probabilities(self) -> Tensor:
        """log_softmax of `logits`: `[rows, vocab]`, float32."""
        found: Tensor = self._state.engine.replay(log_softmax, self.given)
        return found

    @property
    def log_scores(self) -> Tensor:
        """Log-probabilities after all processors, which here act on them; they become the scores."""
        scores = self._scores
        if scores is None:
            pure = self.pure
            if pure is None:
                scores = self.process(log_softmax(self.logits))
            else:
                scores = self._state.engine.replay(log_processed, self.given, pure)
            self._settle(scores)
        return scores

    @property
    def each_logits(self) -> Tensor:
        """Logits behind the last token and behind each drafted one: `[rows, k + 1, vocab]`, float32."""
        if self._each is None:
            raw = self.raw if self.raw.dim() == 3 else self.raw[:, None]
            self._each = raw.to(device=self._state.device, dtype=torch.float32)
        return self._each

    @property
    def each_scores(self) -> Tensor:
        """The same after all processors, each position with its own history: `[rows, k + 1, vocab]`."""
        if self._each_scores is None:
            if not len(self._state.chain):
                self._each_scores = self.each_logits
            else:
                self._each_scores = torch.stack(self._walk(self._processed), dim=1)
            self._state.noise.keep_apart(self._state)
        return self._each_scores

    def process(self, values: Tensor) -> Tensor:
        """Run the processors on values of the strategy's own, which are left as they are: `[rows, vocab]`, float32."""
        state = self._state
        return state.chain.process(values.clone(), state.history) if len(state.chain) else values

    def best(self) -> Tensor:
        """The token with the highest score in each row, the first of equals: `[rows]`, long."""
        pure = self.pure
        tokens: Tensor
        if pure is None or self._scores is not None or self._state.reads_scores:
            tokens = first_best(self.scores)
        else:
            tokens, self.judged = self._state.engine.replay(best_processed, self.given, pure)
        self.chosen = tokens
        return tokens

    def best_each(self) -> Tensor:
        """The same at each position of the draft and behind it: `[rows, k + 1]`, long."""
        scores = self.each_scores
        self.chosen = first_best(scores.flatten(0, 1)).view(scores.shape[:2])
        return self.chosen

    def sample(self) -> Tensor:
        """A token of each row from softmax(scores): `[rows]`, long."""
        state, noise, pure = self._state, self._state.noise, self.pure
        tokens: Tensor
        if self._scores is not None or state.reads_scores:
            tokens = candidates.draw([], self.scores, state.history, noise)
        elif pure is not None and isinstance(noise, TorchNoise):
            tokens, self.judged = state.engine.replay(drawn, self.given, pure)
        elif pure is not None and isinstance(noise, SeededNoise):
            tokens, self.judged = state.engine.replay(drawn_for_seeds, self.given, noise.keys, noise.decoded, pure)
        else:
            tokens = self._draw(self.logits, state.history)
        self.chosen = tokens
        return tokens

    def sample_each(self) -> Tensor:
        """The same at each position of the draft and behind it: `[rows, k + 1]`, long."""
        drawn: list[Tensor]
        if self._each_scores is not None or self._state.reads_scores:
            scores, state = self.each_scores, self._state
            drawn = []
            ahead = None if self.form is None else self.form.ahead()
            for offset in range(scores.shape[1]):
                state.noise.move(state, offset if ahead is None else ahead[:, offset])
                drawn.append(candidates.draw([], scores[:, offset], state.history, state.noise))
        else:
            drawn = self._walk(self._draw)
        self.chosen = torch.stack(drawn, dim=1)
        return self.chosen

    def highest(self, counts: Tensor | None = None) -> Tensor | None:
        """The highest of the scores that each token was chosen from: `[rows, n]`, float32; NaN where there is one.

        Args:
            counts: `[rows]`, long: how many tokens each row takes, 0 stands for the others; None for one each.

        Returns:
            None where they were chosen from the model's logits.
        """
        if self._highest and counts is not None:
            highest = torch.stack(self._highest, dim=1)
            positions = torch.arange(highest.shape[1], device=highest.device)
            return highest.masked_fill(positions >= counts[:, None], 0.0)
        return None if self.judged is None else highest_values(self.judged)[:, None]

    def follow(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was."""
        for name in ("raw", "draft", "judged", "_scores", "_each", "_each_scores"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value.index_select(0, rows))
        self._highest = [one.index_select(0, rows) for one in self._highest]

    def keep(self, path: Tensor) -> None:
        """Of a tree nothing is left but the nodes `path` `[rows, m]`, a chain."""
        places = torch.nn.functional.pad(path + 1, (1, 0))
        for name in ("raw", "_each", "_each_scores"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value.gather(1, places[..., None].expand(-1, -1, value.shape[2])))
        if self._highest:
            self._highest = list(torch.stack(self._highest, dim=1).gather(1, places).unbind(1))
        self.draft = None if self.draft is None else self.draft.gather(1, path)
        self.form = None

    def sound(self) -> bool:
        """Whether one cheap look shows that each row's token was chosen from scores that are numbers, one of them finite.

        False where the look does not tell; then `highest` does. Reads the device.
        """
        scores = self.judged
        if scores is None or self._highest:
            return not self._highest
        return math.isfinite(float(scores.amax() if len(scores) == 1 else scores.amax(-1).sum()))

    def record(self) -> None:
        """Record what the call returns of this step, if that was not done yet."""
        recorder = self._state.recorder
        if recorder.active and not self._recorded:
            scores = self.scores if recorder.scores is not None else None
            recorder.step(self.logits, scores, self._state.engine.outputs)
        self._recorded = True

    def _draw(self, logits: Tensor, history: History) -> Tensor:
        chain, scores = self._state.chain, logits
        if len(chain):
            scores = self.judged = chain.process(logits.clone(), history, head=True)
        return candidates.draw(chain.tail, scores, history, self._state.noise)

    def _processed(self, logits: Tensor, history: History) -> Tensor:
        self.judged = self._state.chain.process(logits, history)
        return self.judged

    def _walk(self, function: Callable[[Tensor, History], Tensor]) -> list[Tensor]:
        """Apply `function(logits, history)` at each position, the draft being accepted on the way."""
        state, each = self._state, self.each_logits
        if self.draft is None:
            return [function(each[:, 0].clone(), state.history)]
        if self.form is not None:
            return self._climb(self.form, function)
        if self.walked:
            raise RuntimeError("a step's draft is scored once: take best(each=True) or sample(each=True), not both")
        state.history.write(self.draft)
        results: list[Tensor] = []
        for offset in range(each.shape[1]):
            state.noise.move(state, offset)
            state.ahead = offset
            results.append(function(each[:, offset].clone(), state.history.ahead(offset)))
            if self.judged is not None:
                self._highest.append(highest_values(self.judged))
            if offset < self.draft.shape[1]:
                state.chain.accept(self.draft[:, offset])
        state.ahead = 0
        self.walked = True
        return results

    def _climb(self, form: TreeForm, function: Callable[[Tensor, History], Tensor]) -> list[Tensor]:
        """Apply `function(logits, history)` behind the last token and behind each node, with its way accepted meanwhile."""
        state, each, draft = self._state, self.each_logits, self.draft
        chain, history = state.chain, state.history
        results: list[Tensor] = []
        state.step_width = max(state.step_width, form.deepest)  # so far may rows be ahead of the history
        for place, depths in enumerate(form.ahead().unbind(1)):
            state.noise.move(state, depths)
            behind: History = history
            if place and draft is not None:
                way = draft.gather(1, paths_of(form, place - 1))  # [rows, deepest], beyond the node's depth anything
                behind = history.branch(way, depths)
                if chain.stateful:
                    for token in way.unbind(1):
                        chain.accept(token)
                    chain.rollback(way.shape[1] - depths)
            results.append(function(each[:, place].clone(), behind))
            if self.judged is not None:
                self._highest.append(highest_values(self.judged))
            if place and chain.stateful:
                chain.rollback(depths)
        return results
