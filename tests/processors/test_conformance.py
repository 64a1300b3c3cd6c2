"""Every built-in processor and criterion passes the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import genmode
from genmode.testing import Case, parametrize_with_checks
from genmode.testing.harness.host import plain_host
from genmode.testing.harness.models import ids, near


def some_tokens(row: int, ids: Tensor) -> list[int]:
    """What `prefix_allowed_tokens` allows."""
    return list(range(5, 60))


def long_enough(history: genmode.History) -> Tensor:
    """Which rows `callable` stops."""
    return history.lengths - history.starts > 9


def of(*names: str, **more: Any) -> dict[str, Any]:
    return {"params": dict(more), **dict.fromkeys(names, True)}


def marking(*unread: str, **skip: str) -> dict[str, Any]:
    """A watermarker under a key; `unread` says why its detector needs more than tokens."""
    skip = {"parameters_have_defaults": "a key is a secret, and has no default", **skip}
    if unread:
        skip |= dict.fromkeys(DETECTION, unread[0])
    return {"params": {"key": 20261}, "skip": skip}


DETECTION = (
    "detection_type", "p_values_in_range", "round_trip", "wrong_key", "false_positives", "p_values_uniform",
    "texts_independent", "padding_ignored", "no_text", "detects_alone", "texts_untouched",
)  # fmt: skip
PREDICTIONS = "it is read with the model's predictions: see watermarks/test_detection.py"
HASHED = {"cost_of_step": "it hashes and weighs every token of the vocabulary"}
ON_CPU = {
    "no_synchronisation": "these reads belong to the path of the CPU; the other is checked in watermarks/test_device.py"
}

CASES: Mapping[str, Mapping[str, Any]] = {
    "bad_words": of(bad_words_ids=[[7], [8, 9]]),
    "banned_phrases": of(banned_phrases=["b2", "c"]),
    "classifier_free_guidance": of(guidance_scale=1.5),
    "context_aware": of(context_free_ids=ids(1, 4)),
    "contrastive_decoding": {"params": {"amateur_model": near("llama")}},
    "dexperts": {"params": {"anti_expert_model": near("llama")}},
    "grammar": {"params": {"grammar": {"regex": "[b-h0-9 ]*"}}, "call": {"eos_token_id": 4}},
    "callable": of(stop_when=long_enough),
    "confidence": of(stop_confidence=0.3),
    "dry": of(dry_multiplier=1.0, dry_allowed_length=1),
    "dynamic_temperature": of(dynatemp_low=0.5, dynatemp_high=1.5),
    "edt": of(edt_temperature=1.2),
    "encoder_no_repeat_ngram": of("encoder", encoder_no_repeat_ngram_size=1),
    "encoder_repetition_penalty": of("encoder", encoder_repetition_penalty=1.5),
    "entropy": of(stop_entropy=2.0),
    "eos": of(eos_token_id=[7]),
    "dip": marking(**HASHED, **ON_CPU),
    "ewd": marking(PREDICTIONS),
    "gumbel": marking(**HASHED, **ON_CPU),
    "kgw": marking(
        "transformers' permutation of the vocabulary is made for a size that the call of the kit does not give",
        no_synchronisation="transformers' generator permutes on the host, once for each new context",
    ),
    "permute_and_flip": marking(**HASHED, **ON_CPU),
    "sweet": marking(PREDICTIONS),
    "synthid": marking(**HASHED),
    "unbiased": marking(**HASHED, **ON_CPU),
    "unigram": marking(p_values_uniform="one list serves all texts: p-values are uniform over keys, not over texts"),
    "epsilon_cutoff": of(epsilon_cutoff=0.01),
    "eta_cutoff": of(eta_cutoff=0.01),
    "exponential_decay_length": of(exponential_decay_length_penalty=(2, 1.1)),
    "forced_bos": {
        "params": {"forced_bos_token_id": 7},
        "skip": {"acts": "it acts on the first token of a row, and rows of the checks have one"},
    },
    "forced_eos": of(forced_eos_token_id=[4]),
    "frequency_penalty": of(frequency_penalty=1.5),
    "max_length": of(max_length=9),
    "max_time": of(max_time=0.0),
    "min_length": of(min_length=9),
    "min_new_tokens": of(min_new_tokens=6),
    "min_p": of(min_p=0.1),
    "ngram_loop": of(ngram_loop_size=2, ngram_loop_repeats=2),
    "no_repeat_ngram": of(no_repeat_ngram_size=2),
    "prefix_allowed_tokens": of(prefix_allowed_tokens_fn=some_tokens),
    "presence_penalty": of(presence_penalty=1.5),
    "repetition_penalty": of(repetition_penalty=1.5),
    "row_limits": of(row_max_new_tokens=[3]),
    "row_min_new_tokens": of(row_min_new_tokens=[6]),
    "sequence_bias": of(sequence_bias=[[[7], 1.0], [[8, 9], -2.0]]),
    "smoothing": of(smoothing_factor=0.3),
    "stop_regex": of(stop_regex=["e0|c1|dd"]),
    "stop_strings": of(stop_strings=["b3", "c"]),
    "suppress_tokens": of(suppress_tokens=[7, 9]),
    "suppress_tokens_at_begin": of(begin_suppress_tokens=[7, 9]),
    "temperature": of(temperature=0.7),
    "text_length": {"params": {"min_characters": 4, "max_characters": 12}, "call": {"eos_token_id": 4}},
    "thinking_budget": of(thinking_budget=2, think_start=[7], think_end=[8]),
    "top_a": of(top_a=0.2),
    "top_k": of(top_k=5),
    "top_p": of(top_p=0.8),
    "typical_p": of(typical_p=0.8),
}
"""Parameters with which a component acts, where its defaults leave it idle."""


def cases() -> list[Case]:
    host = plain_host()
    names = [(kind, info.name) for kind in ("processors", "criteria", "watermarkers") for info in host.components(kind)]
    return [Case(host.get(kind, name), **CASES.get(name, {})) for kind, name in names]


@parametrize_with_checks(cases())
def test_conformance(check: Any) -> None:
    check()


def test_looking_at_candidates_leaves_stop_strings_as_it_was() -> None:
    """A strategy that looks at five candidates of three rows before it goes on."""
    from genmode_processors.criteria import StopStrings

    class Looks(genmode.Strategy):
        contract_version = 1

        def decode(self, session: genmode.Session, params: Any) -> None:
            for step in session.steps():
                session.done_after(torch.tensor([2, 2, 1, 0, 0]), torch.tensor([5, 6, 7, 8, 9]))
                step.commit(step.scores.argmax(-1))

    case = Case(StopStrings, {"stop_strings": ["b3", "c"]})
    call = {"do_sample": False, "eos_token_id": 4, "max_new_tokens": 20}
    assert torch.equal(case.generate(strategy=Looks, **call), case.generate(**call))
