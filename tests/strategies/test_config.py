"""A config that names a built-in strategy is judged as for that strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import genmode


@pytest.mark.parametrize("keys", [
    {"strategy": "sample", "min_p": 0.1}, {"strategy": "contrastive_search", "top_k": 4, "penalty_alpha": 0.6},
    {"strategy": "beam_search", "length_penalty": 2.0}, {"strategy": "beam_search", "num_beams": 3},
])  # fmt: skip
def test_a_strategys_flags_and_parameters_make_sense(keys: dict[str, Any], tmp_path: Path) -> None:
    config = genmode.GenerationConfig(**keys)
    config.save_pretrained(tmp_path)
    loaded = genmode.GenerationConfig.from_pretrained(tmp_path)
    assert all(getattr(loaded, key) == value for key, value in keys.items())
    assert loaded.do_sample is None


def test_flags_that_the_strategy_does_not_read_are_refused_as_by_transformers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temperature"):
        genmode.GenerationConfig(strategy="greedy_search", temperature=0.5).save_pretrained(tmp_path)
