"""DoLa: what the last layer knows that an earlier one does not.

Chuang et al. 2023, "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models". With
P the model's distribution of the next token and Q_l the one that its head reads off layer l,

    l*  = argmax over candidate layers of JS(P, Q_l),   averaged over the rows of the batch
    s_v = log P(v) - log Q_l*(v)   where P(v) >= 0.1 max P, else minus infinity

and the call's processors act on s. As in transformers 4.49, JS is 0.5 KL(M, P) + 0.5 KL(M, Q) with M their
mean, averaged over the vocabulary; one layer serves the whole batch; and Q is read without the final norm.

`dola_layers`: "low" takes every second layer of the lower half, "high" of the upper half (of the first and
last 20 if there are more than 40 layers); or the layers themselves, 0 being the embedding. The last layer and
numbers beyond it are dropped. With tied embeddings "low" begins at layer 2, since the head reads the input
itself off the embedding.

On ties the lowest layer wins, and torch.argmax decides between tokens. Not supported: encoder-decoder models,
beams. A repetition penalty of at least 1.2 is advised: contrasting favours repetition.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import highest_values, log_softmax, sums

RELATIVE_TOP = 0.1
"""Tokens less probable than this share of the most probable one are left out."""

ADVISED_PENALTY = 1.2


class DolaGeneration(genmode.Strategy):
    """Contrasts the last layer with an earlier one. Shapes: scores are `[rows, vocab]`."""

    contract_version = 1
    paper = "Chuang et al. 2023, DoLa, https://arxiv.org/abs/2309.03883"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1, "do_sample": False}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.HIDDEN_STATES})
    selected_by = ("dola_layers",)
    skip_checks: ClassVar[Mapping[str, str]] = {
        "processors_obeyed": "where the processors leave none of the plausible tokens, nothing is left to choose from",
    }

    class Params(genmode.Params):
        """Parameters of DoLa."""

        dola_layers: Literal["low", "high"] | list[int] = Field(
            "high", description="layers to contrast with: 'low', 'high', or numbers, 0 being the embedding"
        )
        do_sample: bool = Field(False, description="sample instead of taking the highest score")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        layers = params.dola_layers
        if isinstance(layers, list) and (not layers or min(layers) < 0):
            raise genmode.ParameterError(f"dola_layers={layers}: give one or more layers, counted from 0")
        penalty = call["repetition_penalty"]
        if penalty is None or penalty < ADVISED_PENALTY:
            warnings.warn(
                f"dola_layers is used with repetition_penalty={penalty}: contrasting layers favours "
                f"repetition, and a repetition_penalty of {ADVISED_PENALTY} or more is advised",
                UserWarning,
                stacklevel=2,
            )

    def decode(self, session: genmode.Session, params: Any) -> None:
        model = session.model
        head = model.get_output_embeddings()
        if model.config.is_encoder_decoder or head is None:
            raise genmode.UnsupportedError(
                f"DoLa reads the next token off the layers of a decoder-only model; {type(model).__name__} "
                + ("has no output embeddings" if head is None else "is an encoder-decoder model")
            )
        config = model.config.get_text_config()
        tied = bool(getattr(config, "tie_word_embeddings", False))
        layers = candidate_layers(params.dola_layers, config.num_hidden_layers, tied)
        weight = next(head.parameters())
        size = weight.shape[-1]
        for step in session.steps():
            states = step.outputs.hidden_states
            if max(layers) >= len(states):
                raise genmode.UnsupportedError(
                    f"DoLa contrasts layer {max(layers)}, and {type(model).__name__} returns hidden states of "
                    f"{len(states) - 1} layers; give dola_layers below that"
                )
            # with the weight's dtype too: Mamba keeps its hidden states in float32
            hidden = torch.stack([states[layer][:, -1].to(weight) for layer in layers])  # [layers, rows, size]
            if hidden.shape[2:] != (size,):
                raise genmode.UnsupportedError(
                    f"DoLa reads the next token off each layer by the model's head, which takes {size} numbers a token; "
                    f"layers of {type(model).__name__} have {tuple(hidden.shape[2:])}"
                )
            early = head(hidden).to(session.device)  # [layers, rows, vocab]
            step.scores = step.process(session.replay(contrast, step.log_probabilities, early))
            step.commit(step.sample() if params.do_sample else step.best())


def candidate_layers(chosen: str | list[int], count: int, tied: bool) -> list[int]:
    """The layers to contrast with, of a model of `count` layers.

    Raises:
        ParameterError: none of the chosen layers lies before the last.
    """
    start = (2 if count > 2 else count // 2) if tied else 0
    half = count // 2
    if chosen == "low":
        layers = [start] if start == half else list(range(start, half if count <= 40 else 20, 2))
    elif chosen == "high":
        layers = list(range(half if count <= 40 else count - 20, count, 2))
    else:
        layers = list(dict.fromkeys(layer for layer in chosen if isinstance(layer, int) and layer < count))
    if not layers:
        raise genmode.ParameterError(
            f"dola_layers={chosen!r} leaves no layer of a model of {count} layers"
            f"{' with tied embeddings' if tied else ''}; give numbers from 0 to {count - 1}"
        )
    return layers


def contrast(final: Tensor, early: Tensor) -> Tensor:
    """Scores of the next token: `[rows, vocab]`, float32.

    Args:
        final: `[rows, vocab]`, float32: log-probabilities of the last layer.
        early: `[layers, rows, vocab]`, floating point: logits of the candidate layers.
    """
    early = log_softmax(early.flatten(0, 1)).view(early.shape)
    if early.shape[0] == 1:
        base = early[0]
    else:
        base = early.index_select(0, divergence(final, early).mean(1).argmax(0, keepdim=True))[0]
    least = highest_values(final)[:, None] + math.log(RELATIVE_TOP)
    return (final - base).masked_fill(final < least, -torch.inf)


def divergence(final: Tensor, early: Tensor) -> Tensor:
    """Jensen-Shannon divergence of each layer from the last: `[layers, rows]`, nats for each token id.

    Args:
        final, early: log-probabilities `[rows, vocab]` and `[layers, rows, vocab]`.
    """
    middle = 0.5 * (final.exp() + early.exp())
    # 0.5 (M log M - M log P) + 0.5 (M log M - M log Q)
    distances = torch.xlogy(middle, middle) - 0.5 * middle * (final + early)
    return sums(distances.flatten(0, 1)).view(distances.shape[:2]) / distances.shape[2]
