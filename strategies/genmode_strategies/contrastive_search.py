"""Contrastive search: a probable token that does not repeat the context.

Su et al. 2022, "A Contrastive Framework for Neural Text Generation". Of the `top_k` most probable tokens v,
with h_v the last layer's hidden state after v, and h_1 .. h_t those of the text so far,

    y = argmax_v (1 - penalty_alpha) p(v) - penalty_alpha max_j cos(h_v, h_j)

The candidates of a step run in one forward, side by side, and the chosen one's is the forward of the next
step. Left padding is no part of the context. With `low_memory`, models that cannot run candidates side by
side in one row run them one after another instead of on copies of the cache.

On ties between candidates the more probable one wins; torch.topk decides which are candidates. Not supported:
sampling, beams, models whose state cannot go back, a prompt that is run in chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.sampling import softmax, topk


class ContrastiveSearch(genmode.Strategy):
    """Weighs probability against likeness to the context. Shapes: candidates `[rows, top_k]`."""

    contract_version = 1
    paper = "Su et al. 2022, A Contrastive Framework for Neural Text Generation, https://arxiv.org/abs/2202.06417"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1, "do_sample": False, "top_k": 4}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset(
        {genmode.Need.HIDDEN_STATES, genmode.Need.ROLLBACK, genmode.Need.LEVEL}
    )
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.WEIGHS})
    selected_by = ("penalty_alpha",)

    class Params(genmode.Params):
        """Parameters of contrastive search."""

        penalty_alpha: float = Field(0.6, ge=0, le=1, description="weight of the likeness to the context")
        top_k: int = Field(4, ge=1, description="candidates for each token")
        low_memory: bool = Field(False, description="run candidates one by one rather than on copies")

    def decode(self, session: genmode.Session, params: Any) -> None:
        alpha, past = params.penalty_alpha, None
        for step in session.steps():
            if past is None:
                past = ContextStates(session, step)
            likely, tokens = topk(softmax(step.scores), min(params.top_k, step.scores.shape[1]))  # [rows, k]
            look = step.look(tokens, one_by_one=params.low_memory)
            if look.hidden is None:
                raise genmode.UnsupportedError(f"{type(session.model).__name__} gives no hidden states")
            states = unit(look.hidden)  # [rows, k, size]
            worth = ((1 - alpha) * likely).sub(past.likeness(states), alpha=alpha)
            worth = worth.masked_fill(step.scores.gather(1, tokens).isneginf(), -torch.inf)
            chosen = worth.argmax(1, keepdim=True)
            step.commit(tokens.gather(1, chosen)[:, 0], taken=chosen[:, 0])
            past.add(states.gather(1, chosen[:, :, None].expand(-1, -1, states.shape[2])))


class ContextStates:
    """The directions of the text's hidden states, in a buffer `[rows, capacity, size]`, float32."""

    def __init__(self, session: genmode.Session, step: genmode.Step) -> None:
        hidden = last_hidden(step.outputs)  # [rows, prompt, size]
        if hidden.shape[1] < session.prompt_length:
            raise genmode.UnsupportedError(
                f"contrastive search needs the hidden states of all {session.prompt_length} tokens of the "
                f"prompt, and the model gave those of {hidden.shape[1]}; leave prefill_chunk_size out"
            )
        self.states, self.length = unit(hidden.to(session.device)), hidden.shape[1]
        columns = torch.arange(hidden.shape[1], device=session.device)
        padding = columns < session.history.starts[:, None]
        self.padding = None if host_sync.surely_none(padding) else padding[:, None]  # [rows, 1, prompt]

    def likeness(self, states: Tensor) -> Tensor:
        """The largest cosine between each candidate `[rows, k, size]` and the text: `[rows, k]`."""
        cosines = torch.bmm(states, self.states[:, : self.length].transpose(1, 2))  # [rows, k, length]
        if self.padding is not None:
            cosines[:, :, : self.padding.shape[2]].masked_fill_(self.padding, -torch.inf)
        return cosines.amax(-1)

    def add(self, states: Tensor) -> None:
        """The text goes on with `states` `[rows, 1, size]`."""
        if self.length == self.states.shape[1]:
            self.states = torch.cat([self.states, torch.zeros_like(self.states)], dim=1)
        self.states[:, self.length] = states[:, 0]
        self.length += 1


def last_hidden(outputs: Any) -> Tensor:
    """The last layer's hidden states of a forward, `[rows, tokens, size]`, of any kind of model."""
    states = outputs.get("decoder_hidden_states")
    last: Tensor = (states if states is not None else outputs["hidden_states"])[-1]
    return last


def unit(states: Tensor) -> Tensor:
    """Vectors of length one, float32."""
    states = states.float()
    length: Tensor = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return states / length.clamp_min_(1e-12)
