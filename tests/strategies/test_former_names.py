"""Names of transformers 4 that lead to their present home."""

from __future__ import annotations

from typing import Any

import genmode
from genmode.testing.harness.models import prompt, tiny
from genmode_strategies import former_names
from genmode_strategies.beams.constraints import DisjunctiveConstraint

FLAGS: dict[str, Any] = {"num_beams": 4, "max_new_tokens": 12}


def test_names_of_transformers_4_have_a_home() -> None:
    result = genmode.generate(
        tiny("llama"), **prompt("llama", 1), **FLAGS, constraints=[former_names.PhrasalConstraint([33])],
        return_dict_in_generate=True,
    )  # fmt: skip
    assert isinstance(result, former_names.BeamSearchDecoderOnlyOutput)
    assert former_names.DisjunctiveConstraint is DisjunctiveConstraint
