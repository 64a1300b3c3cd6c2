"""Drafts that transformers' own generators make from the model's hidden states: MTP heads and DFlash.

Multi-token prediction (Gloeckle et al. 2024, https://arxiv.org/abs/2404.19737; DeepSeek-V3): heads that come with the
model predict the tokens behind the next one. DFlash: a small model denoises a block of tokens at once, given the
hidden states of some layers. Both are transformers' `MTPCandidateGenerator` and `DFlashTokenCandidateGenerator`,
which know one text each: every row has a generator with a cache of its own, and they run one after another.

Drafts are the most probable tokens, without processors; a row's prompt is handed over without its padding.

Not supported: encoder-decoder models, and assistants that read the model's keys and values (Gemma 4's).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers.generation.candidate_generator as generators
from torch import Tensor
from transformers.utils.generic import ModelOutput

import genmode


class GeneratorDrafter:
    """See `genmode_strategies.drafters.verification.Drafter`.

    Args:
        session: the session, before its first step.
        make: makes a generator, given the generation config.
    """

    def __init__(self, session: genmode.Session, make: Callable[[Any], Any]) -> None:
        self.session = session
        config = copy.copy(session.generation_config)
        config.do_sample, config.max_length = False, session.max_length
        first = make(config)
        self.generators = [fresh(first) for _ in range(session.rows)]
        self._begun = False
        self._states: tuple[Tensor, ...] = ()
        self._agreed: Tensor | None = None

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        self._states, self._agreed = tuple(step.outputs["hidden_states"]), agreed

    def draft(self) -> Tensor | None:
        session, history = self.session, self.session.history
        if self._agreed is None or session.draft_room < 1:
            return None
        rows = zip(
            range(session.rows), history.starts.tolist(), history.lengths.tolist(), self._agreed.tolist(),
            session.unfinished.tolist(), strict=True,
        )  # fmt: skip
        guesses: list[list[int]] = []
        for row, start, length, matches, running in rows:
            ids = history.tokens[row : row + 1, start:length]
            guesses.append(self._guess(row, ids, matches, start) if running else [])
        self._begun = True
        width = max(len(guess) for guess in guesses)
        if width == 0:
            return None
        filled = [(guess + [guess[-1] if guess else 0] * width)[:width] for guess in guesses]
        return torch.tensor(filled, device=session.device)

    def _guess(self, row: int, ids: Tensor, matches: int, start: int) -> list[int]:
        front = 0 if self._begun else start  # the first forward ran the padding as well
        # Copied, since the next forward may write where these are.
        states = tuple(layer[row : row + 1, front:].clone() for layer in self._states)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        found, _ = self.generators[row].get_candidates(
            ids, model_kwargs={"position_ids": positions, "attention_mask": torch.ones_like(ids)},
            model_outputs=ModelOutput(hidden_states=states), is_first_iteration=False, n_last_matches=matches,
        )  # fmt: skip
        guess: list[int] = found[0, ids.shape[1] :].tolist()
        return guess


def fresh(first: Any) -> Any:
    """Another generator like one that was not used yet: the same model, a cache of its own."""
    one = copy.copy(first)
    for name in ("mtp_cache", "cache"):
        if hasattr(one, name):
            setattr(one, name, copy.deepcopy(getattr(one, name)))
    return one


def generator_class(name: str, flag: str) -> Any:
    """transformers' candidate generator of that name.

    Raises:
        UnsupportedError: this transformers has none.
    """
    found = getattr(generators, name, None)
    if found is None:
        raise genmode.UnsupportedError(
            f"{flag} needs transformers' {name}, which this version does not have: pip install --upgrade transformers"
        )
    return found


def mtp_drafter(session: genmode.Session) -> GeneratorDrafter:
    """Drafts of the heads that come with the model.

    Raises:
        UnsupportedError: the model has no such heads.
    """
    cls = generator_class("MTPCandidateGenerator", "use_mtp=True")
    return GeneratorDrafter(session, lambda config: cls(session.model, config, {}))


def dflash_drafter(session: genmode.Session) -> GeneratorDrafter:
    """Drafts of a DFlash model, which is the call's assistant."""
    cls = generator_class("DFlashTokenCandidateGenerator", "speculation_type='dflash'")
    ends = session.model.get_input_embeddings(), session.model.get_output_embeddings()
    return GeneratorDrafter(session, lambda config: cls(session.assistant_model, *ends, config))
