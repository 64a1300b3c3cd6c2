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
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import transformers.generation.candidate_generator as generators
from torch import Tensor
from transformers.utils.generic import ModelOutput

import genmode

from .sources import refuse_others


class GeneratorDrafter(genmode.Drafter):
    """Has a generator of transformers draft for each row; for subclasses, which say which one."""

    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.HIDDEN_STATES})

    def open(self, session: genmode.Session, config: Any) -> Any:
        """A generator that was not used yet, given the generation config."""
        raise NotImplementedError

    def begin(self, session: genmode.Session, verification: genmode.Verification | None) -> None:
        config = copy.copy(session.generation_config)
        config.do_sample, config.max_length = False, session.max_length
        first = self.open(session, config)
        self.generators = [fresh(first) for _ in range(session.rows)]
        self._begun = False
        self._states: tuple[Tensor, ...] = ()
        self._agreed: Tensor | None = None

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        self._states, self._agreed = tuple(step.outputs["hidden_states"]), agreed

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        history = session.history
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
        counts = torch.tensor([len(guess) for guess in guesses], device=session.device)
        return genmode.Draft(torch.tensor(filled, device=session.device), counts=counts)

    def reset(self) -> None:
        self.generators, self._states, self._agreed = [], (), None

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


class MtpDrafter(GeneratorDrafter):
    """Drafts with the heads that the model ships. Shapes: drafts `[rows, k]`, k being how many heads there are."""

    contract_version = 1
    name = "mtp"
    paper = "Gloeckle et al. 2024, Multi-token Prediction, https://arxiv.org/abs/2404.19737"

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        return bool(call.get("use_mtp"))

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, "use_mtp")
        check_decoder(cls.name, call["model"])
        if getattr(call["model"].config.get_text_config(), "num_mtp_layers", None) is None:
            raise genmode.UnsupportedError(
                f"use_mtp=True: {type(call['model']).__name__} ships no heads that predict several tokens (its config has "
                "no num_mtp_layers); draft with assistant_model or prompt_lookup_num_tokens instead"
            )

    def open(self, session: genmode.Session, config: Any) -> Any:
        return generator_class("MTPCandidateGenerator", "use_mtp=True")(session.model, config, {})


class DFlashDrafter(GeneratorDrafter):
    """Drafts with a DFlash model, the call's assistant. Shapes: drafts `[rows, k]`, k being what it denoises at a time."""

    contract_version = 1
    name = "dflash"

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        return call.get("speculation_type") == "dflash"

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, "assistant_model")
        check_decoder(cls.name, call["model"])
        assistant = call.get("assistant_model")
        if getattr(getattr(assistant, "config", None), "target_layer_ids", None) is None:
            given = "nothing was given" if assistant is None else f"{type(assistant).__name__} is none"
            raise genmode.ParameterError(f"speculation_type='dflash' needs a DFlash model as assistant_model; {given}")

    def open(self, session: genmode.Session, config: Any) -> Any:
        cls = generator_class("DFlashTokenCandidateGenerator", "speculation_type='dflash'")
        ends = session.model.get_input_embeddings(), session.model.get_output_embeddings()
        return cls(session.assistant_model, *ends, config)


def check_decoder(name: str, model: Any) -> None:
    """Refuse a model with an encoder."""
    if model.config.is_encoder_decoder:
        raise genmode.UnsupportedError(
            f"drafter {name!r} drafts for decoder-only models; {type(model).__name__} is none"
        )
