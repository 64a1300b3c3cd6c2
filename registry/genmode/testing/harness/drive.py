"""Drives a processor or a criterion step by step, on rows and scores that a check makes up.

The state of the call is a real one, with its history, random numbers and parts, but no model runs beneath it. Models that
a component asks for beside the rows, as guidance does, do run, and follow the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig

from ...call.engines import open_side_engine
from ...contract.traits import Trait
from ...session.chain import Chain
from ...session.context import CallContext
from ...session.noise import SeededNoise, row_seeds
from ...session.outputs import Recorder
from ...session.state import Abilities, DecodeState, Given, Surroundings, Vocabulary
from ...session.stopping import Stopping
from ...session.token_buffer import TokenBuffer
from . import models
from .case import Case

EOS = 4
PROMPT = 6
MOST_ROWS = 8
DEVICE = torch.device("cpu")


def random_tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    """Few different tokens, so that rows repeat themselves: `[rows, length]`, long; row i whatever `rows` is."""
    return torch.randint(5, 13, (MOST_ROWS, length), generator=torch.Generator().manual_seed(seed))[:rows]


def random_scores(rows: int, seed: int = 0) -> Tensor:
    """Scores of one step: `[rows, vocab]`, float32; a fifth of them -inf. Row i whatever `rows` is."""
    generator = torch.Generator().manual_seed(1000 + seed)
    scores = 3 * torch.randn(MOST_ROWS, models.VOCAB, generator=generator)
    scores[torch.rand(MOST_ROWS, models.VOCAB, generator=generator) < 0.2] = -torch.inf
    scores[:, 5] = 1.0
    return scores[:rows]


class SideEngine:
    """An engine of a model beside the rows, which records no gradients, as none does in a call."""

    def __init__(self, model: Any, ids: Tensor, mask: Tensor, longest: int, encoder: dict[str, Any] | None) -> None:
        self._engine = open_side_engine(model, ids, mask, longest, True, False, encoder, True)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        return torch.no_grad()(value) if callable(value) else value

    def select(self, rows: Tensor, within: bool) -> None:
        """Rows of the checks continue rows of other inputs as well, which in a call they never do."""
        self._engine.select(rows, False)


class ProbedModel:
    """Stands in for the engine where a component probes the model: whole forwards, of each row alone."""

    outputs = None

    def __init__(self, model: Any, history: TokenBuffer, encoder: Tensor | None) -> None:
        self.model, self.history, self.encoder = model, history, encoder

    @torch.no_grad()
    def probe(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Logits behind `tokens` `[rows, k]`, long: `[rows, k, vocab]`."""
        history, found = self.history, list[Tensor]()
        for row, (start, end) in enumerate(zip(history.starts.tolist(), history.lengths.tolist(), strict=True)):
            ids = torch.cat([history.tokens[row, start:end], tokens[row]])[None]
            given = {"input_ids": ids}
            if self.encoder is not None:
                given = {"input_ids": self.encoder[row : row + 1], "decoder_input_ids": ids}
            found.append(self.model(**given).logits[0, -tokens.shape[1] :])
        return torch.stack(found), None


class Drive:
    """One component in a call of its own.

    Args:
        case: the component.
        prompt: `[rows, length]`, long.
        starts: how much left padding each row has.
        lines: numbers of the rows, from which their random numbers and encoder inputs follow.
        component: an object to go on with, instead of a fresh one.
        begins: whether to tell the component that the call begins.
    """

    def __init__(
        self, case: Case, prompt: Tensor, starts: Sequence[int] | None = None, lines: Sequence[int] | None = None,
        component: Any = None, begins: bool = True, tokenizer: bool = True,
    ) -> None:  # fmt: skip
        rows, length = prompt.shape
        tokens = torch.full((rows, length + 40), -7)
        tokens[:, :length] = prompt
        first = torch.tensor(list(starts) if starts is not None else [0] * rows)
        self.history = TokenBuffer(tokens, None, first, length, length)
        self.component = case.make() if component is None else component
        config = GenerationConfig(pad_token_id=models.PAD, eos_token_id=EOS, max_length=length + 12)
        lines = list(range(rows)) if lines is None else list(lines)
        encoder = models.ids(MOST_ROWS, 7, 5)[lines] if case.encoder else None
        read = None if encoder is None else {"inputs": encoder, "attention_mask": torch.ones_like(encoder)}
        self.state = DecodeState(
            given=Given(case.tiny(), models.tokenizer() if tokenizer else None, config, encoder_input_ids=encoder),
            vocabulary=Vocabulary(models.VOCAB, [EOS], models.PAD),
            abilities=Abilities(
                rewinds=True, drafts=False, backtracks=False, probes=Trait.PROBES in self.component.traits
            ),
            surroundings=Surroundings(
                lambda model, ids, mask, longest: cast("Any", SideEngine(model, ids, mask, longest, read))
            ),
            engine=cast("Any", ProbedModel(case.tiny(), self.history, encoder)), history=self.history, chain=Chain([]),
            stopping=Stopping(length + 12, None, [EOS], DEVICE, []),
            noise=SeededNoise(row_seeds([20 + line for line in lines], rows, 1, DEVICE)),
            recorder=Recorder(config, case.encoder), emitter=None, num_inputs=rows,
        )  # fmt: skip
        self.state.step_index = 0
        self.context = CallContext(self.state)
        if begins:
            self.component.begin(self.context)

    def process(self, scores: Tensor) -> Tensor:
        """What a processor makes of the scores `[rows, vocab]`, which are left as they are."""
        result: Tensor = self.component.process(scores.clone(), self.history)
        return result

    def check(self, scores: Tensor | None = None) -> Tensor:
        """Which rows a criterion stops."""
        more = (scores,) if Trait.READS_SCORES in self.component.traits else ()
        result: Tensor = self.component.check(self.history, *more)
        return result

    def take(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`, all rows being of one length."""
        self.history.append(tokens)
        self.state.chain.accept(tokens)
        if hasattr(self.component, "accept"):
            self.component.accept(tokens.clone())
        self.state.noise.move(self.state)

    def reorder(self, rows: Sequence[int]) -> None:
        """Row i continues what row `rows[i]` was."""
        index, state = torch.tensor(list(rows)), self.state
        self.history.select(index)
        state.unfinished, state.inputs = state.unfinished.index_select(0, index), state.inputs.index_select(0, index)
        self.state.chain.reorder(index)
        self.component.reorder(index)
        noise = (
            self.state.noise
        )  # the numbers of the row that each continues, of which forks would get others in a call
        if isinstance(noise, SeededNoise):
            noise.keys, noise.decoded = noise.keys.index_select(0, index), noise.decoded.index_select(0, index)

    def rollback(self, counts: Sequence[int]) -> None:
        """Row i takes back its last `counts[i]` tokens."""
        back = torch.tensor(list(counts))
        lengths = self.history.lengths - back
        self.state.chain.rollback(back)
        self.component.rollback(back)
        self.history.set_lengths(lengths, int(lengths.max()))
        self.state.noise.move(self.state)

    def spoil(self, value: int) -> None:
        """Fill what stands behind each row's last token."""
        columns = torch.arange(self.history.buffer.shape[1])
        self.history.buffer.masked_fill_(columns >= self.history.lengths[:, None], value)

    def level(self, length: int) -> None:
        """The host notices that all rows have this length."""
        self.history.set_level(length)
