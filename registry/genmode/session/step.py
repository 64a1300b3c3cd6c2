"""One forward and what follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import candidates
from ..selection import first_best, log_softmax
from .commit import advance, advance_unevenly, record
from .pure import Pure, best_processed, drawn, drawn_for_seeds, log_processed
from .random import SeededNoise, TorchNoise
from .replay import stay, stays

if TYPE_CHECKING:
    from .history import History
    from .session import Session


class Look(NamedTuple):
    """What the model says behind each candidate of `Step.look`.

    Attributes:
        logits: `[rows, k, vocab]`, float32.
        hidden: `[rows, k, size]`, the last layer's hidden states in the model's dtype; None unless the
            strategy needs "hidden_states".
    """

    logits: Tensor
    hidden: Tensor | None


class Step:
    """What the model says of each row's next token, until the strategy commits its choice.

    Tensors read from a step are valid until the next one.

    Attributes:
        index: counted from 0; step 0 is the prompt's.
        draft: `[rows, k]`, long: the tokens that `session.draft` proposed and this forward has run; None
            if there are none.
        raw: the logits as the model gave them, or as `logits` once these were asked for.
    """

    __slots__ = (
        "_each",
        "_each_scores",
        "_look",
        "_scores",
        "_session",
        "_walked",
        "committed",
        "draft",
        "index",
        "raw",
        "recorded",
    )

    def __init__(self, session: Session, index: int, raw: Tensor, draft: Tensor | None) -> None:
        self._session, self.index, self.raw, self.draft = session, index, raw, draft
        self._scores: Tensor | None = None
        self._each: Tensor | None = None
        self._each_scores: Tensor | None = None
        self._look: Look | None = None
        self._walked = False
        self.committed = self.recorded = False

    @property
    def logits(self) -> Tensor:
        """The model's logits of the next token, before any processor: `[rows, vocab]`, float32."""
        raw = self.raw
        if raw.dim() == 3:
            raw = raw[:, 0]
        session = self._session
        if raw.dtype != torch.float32 or raw.device != session.device:
            if self.draft is None and raw.device == session.device:
                raw = session.engine.in_float32(raw)
            else:
                raw = raw.to(device=session.device, dtype=torch.float32)
            self.raw = raw if self.draft is None else self.raw
        return raw

    @property
    def scores(self) -> Tensor:
        """The logits after all processors: `[rows, vocab]`, float32."""
        scores = self._scores
        if scores is None:
            pure = self.pure
            if pure is None or not pure.key:
                scores = self.process(self.logits)
            else:
                scores = self._session.replay(pure, self._given)
            self._scores = scores
        return scores

    @scores.setter
    def scores(self, value: Tensor) -> None:
        """Scores of the strategy's own, `[rows, vocab]`, float32: `sample` draws from them and they are recorded."""
        self._scores = value

    @property
    def log_probabilities(self) -> Tensor:
        """log_softmax of `logits`: `[rows, vocab]`, float32."""
        found: Tensor = self._session.replay(log_softmax, self._given)
        return found

    @property
    def log_scores(self) -> Tensor:
        """Log-probabilities after all processors, which here act on them: `[rows, vocab]`, float32.

        What beam strategies add up. They become the step's scores.
        """
        scores = self._scores
        if scores is None:
            pure = self.pure
            if pure is None:
                scores = self.process(log_softmax(self.logits))
            else:
                scores = self._session.replay(log_processed, self._given, pure)
            self._scores = scores
        return scores

    def best(self) -> Tensor:
        """The token with the highest score in each row: `[rows]`, long; of equals the first.

        What `scores.argmax(-1)` gives; on a device it costs less.
        """
        pure = self.pure
        if pure is None or self._scores is not None or self._session.reads_scores:
            return first_best(self.scores)
        found: Tensor = self._session.replay(best_processed, self._given, pure)
        return found

    def best_each(self) -> Tensor:
        """The token with the highest score at each position of the draft, as `best`: `[rows, k + 1]`, long."""
        scores = self.each_scores
        return first_best(scores.flatten(0, 1)).view(scores.shape[:2])

    @property
    def _given(self) -> Tensor:
        """The logits of the next token in the model's dtype, or as `logits` once these were asked for."""
        raw = self.raw
        if raw.device != self._session.device:
            return self.logits
        return raw if raw.dim() == 2 else stay(raw[:, 0]) if stays(raw) else raw[:, 0]

    @property
    def pure(self) -> Pure | None:
        """The processors as a constant for `session.replay`, to be called on values like `process`.

        None where they cannot be replayed, or nothing can: then call `process`, and the function itself.
        """
        session = self._session
        return session.chain.pure if session.engine.replays and self.draft is None else None

    @property
    def each_logits(self) -> Tensor:
        """Logits behind the last token and behind each drafted one: `[rows, k + 1, vocab]`, float32."""
        if self._each is None:
            raw = self.raw if self.raw.dim() == 3 else self.raw[:, None]
            self._each = raw.to(device=self._session.device, dtype=torch.float32)
        return self._each

    @property
    def each_scores(self) -> Tensor:
        """The same after all processors, each position with its own history: `[rows, k + 1, vocab]`."""
        if self._each_scores is None:
            chain = self._session.chain
            if not len(chain):
                self._each_scores = self.each_logits
            else:
                self._each_scores = torch.stack(self._walk(lambda x, history: chain.process(x, history)), dim=1)
        return self._each_scores

    @property
    def outputs(self) -> Any:
        """What the model returned, for strategies that need hidden states or attentions."""
        return self._session.engine.outputs

    def process(self, values: Tensor) -> Tensor:
        """Run the processors on values of the strategy's own, e.g. log-probabilities: `[rows, vocab]`, float32.

        `values` is left as it is. Returns it unchanged if the call has no processors.
        """
        session = self._session
        if not len(session.chain):
            return values
        return session.chain.process(values.clone(), session.history)

    def sample(self) -> Tensor:
        """Draw each row's next token from softmax(scores): `[rows]`, long.

        The same token that transformers' sampling would draw from torch's generator, or under `seed=` one
        that depends on the row alone.
        """
        if self._scores is not None or self._session.reads_scores:
            return candidates.draw([], self.scores, self._session.history, self._session.noise)
        session, noise, pure = self._session, self._session.noise, self.pure
        if pure is not None and isinstance(noise, TorchNoise):
            token: Tensor = session.replay(drawn, self._given, pure)
            return token
        if pure is not None and isinstance(noise, SeededNoise):
            token = session.replay(drawn_for_seeds, self._given, noise.keys, noise.decoded, pure)
            return token
        return self._draw(self.logits, session.history)

    def sample_each(self) -> Tensor:
        """Draw a token at each position of the draft: `[rows, k + 1]`, long.

        As long as the drawn tokens equal the draft, later draws have the right history, so accepting the
        longest such prefix and the draw behind it gives exactly the distribution of plain sampling.
        """
        if self._each_scores is not None or self._session.reads_scores:
            scores, session = self.each_scores, self._session
            drawn: list[Tensor] = []
            for offset in range(scores.shape[1]):
                session.noise.move(session, offset)
                drawn.append(candidates.draw([], scores[:, offset], session.history, session.noise))
            return torch.stack(drawn, dim=1)
        return torch.stack(self._walk(self._draw), dim=1)

    def _draw(self, logits: Tensor, history: History) -> Tensor:
        session = self._session
        scores = logits
        if len(session.chain):
            scores = session.chain.process(logits.clone(), history, head=True)
        return candidates.draw(session.chain.tail, scores, history, session.noise)

    def _walk(self, function: Any) -> list[Tensor]:
        """Apply `function(logits, history)` at each position, the draft being accepted on the way."""
        session, each = self._session, self.each_logits
        if self.draft is None:
            return [function(each[:, 0].clone(), session.history)]
        if self._walked:
            raise RuntimeError("a step's draft is walked once; read each_scores first and sample from them")
        session.history.write(self.draft)
        results: list[Tensor] = []
        for offset in range(each.shape[1]):
            session.noise.move(session, offset)
            results.append(function(each[:, offset].clone(), session.history.ahead(offset)))
            if offset < self.draft.shape[1]:
                session.chain.accept(self.draft[:, offset])
        self._walked = True
        return results

    def look(self, tokens: Tensor, *, one_by_one: bool = False) -> Look:
        """Run several candidates for each row's next token, each as if it were the only one.

        Args:
            tokens: `[rows, k]`, long.
            one_by_one: run them in k forwards instead of one, which takes less memory.

        Returns:
            What the model says behind each candidate. Commit one of them with `taken=` and its forward is
            not run again.

        Raises:
            ValueError: if rows differ in length, or a draft is under way.
        """
        session = self._session
        if session.history.uniform is None or self.draft is not None or session.retracts:
            raise ValueError(
                'look needs rows of one length and no draft; a strategy that looks states needs = {"level"}'
            )
        record(session, self)  # of this step's forward, before the candidates' takes its place
        logits, states = session.engine.look(tokens, one_by_one)
        self._look = Look(logits.to(device=session.device, dtype=torch.float32), states)
        return self._look

    def commit(
        self, tokens: Tensor, *, rows: Tensor | None = None, counts: Tensor | None = None,
        taken: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Each row continues with its token; ends the step.

        Args:
            tokens: `[rows]`, long; or `[rows, k + 1]` together with `counts`.
            rows: `[rows]`, long: row i continues what row `rows[i]` was. It must be a row of the same input.
            counts: `[rows]`, long: how many of its tokens each row takes, at least 1. The first
                `counts - 1` must equal the draft.
            taken: `[rows]`, long: which of the candidates of `look` each row's token is. Not with `rows`.

        A finished row takes the padding token instead (with `counts`, nothing).
        """
        if self.committed:
            raise RuntimeError("this step is already committed; take the next one from session.steps()")
        self.committed = True
        if taken is not None:
            if self._look is None or rows is not None:
                raise ValueError("commit(taken=...) follows look() and does not go with rows=")
            advance(self._session, self, tokens, None)
            self._session.foresee(self._look.logits, taken)
        elif self.draft is None and counts is None and not self._session.retracts:
            advance(self._session, self, tokens, rows)
        else:
            tokens = tokens if tokens.dim() == 2 else tokens[:, None]
            counts = torch.ones_like(tokens[:, 0]) if counts is None else counts
            if rows is not None:
                raise ValueError(
                    "a step with a draft, or whose tokens a processor may take back, cannot reorder rows; a strategy "
                    'that reorders states needs = {"reorder"}, and commits one token a row'
                )
            advance_unevenly(self._session, self, tokens, counts, self._walked)
