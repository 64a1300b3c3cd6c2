"""Reads the goldens, decodes their cases anew, and compares."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import torch
from torch import Tensor

import genmode
from genmode_strategies.beams.constraints import DisjunctiveConstraint, PhrasalConstraint

from .models import ENCODER_DECODER, build

TOLERANCE = 1e-4
RELATIVE = 5e-6
"""Of float32 scores; processors round differently."""
LINES = [(name, key) for name in ("llama", "gpt2", "qwen2") for key in ("one", "three", "padded")]
LINES += [(name, key) for name in ENCODER_DECODER for key in ("one", "three")]
"""The model and inputs of the cases that one test runs."""

model = functools.cache(build)


@functools.cache
def load(mode: str) -> dict[str, Any]:
    """The golden file of a mode."""
    text = (pathlib.Path(__file__).parent / f"{mode}.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def cases(mode: str, name: str, key: str) -> list[dict[str, Any]]:
    """The cases of one model on one kind of input; at least one."""
    found = [case for case in load(mode)["cases"] if case["model"] == name and case["input"] == key]
    assert found
    return found


def tensors(mode: str, key: str) -> dict[str, Tensor]:
    """The inputs of a call."""
    return {name: torch.tensor(value) for name, value in load(mode)["inputs"][key].items()}


def flags(case: dict[str, Any]) -> dict[str, Any]:
    """The flags of a call, constraints as objects."""
    kinds = {"phrasal": PhrasalConstraint, "disjunctive": DisjunctiveConstraint}
    found = dict(case["flags"])
    if "constraints" in found:
        found["constraints"] = [kinds[kind](ids) for kind, ids in found["constraints"]]
    return found


def decode(mode: str, case: dict[str, Any], **more: Any) -> Any:
    """What genmode gives for a case."""
    return genmode.generate(
        model(case["model"], case["layers"]),
        **tensors(mode, case["input"]),
        **{**flags(case), "max_new_tokens": load(mode)["max_new_tokens"], "return_dict_in_generate": True},
        **{"output_scores": True, **more},
    )


def compare(result: Any, case: dict[str, Any]) -> None:
    """Sequences exactly, scores up to `TOLERANCE`, beam indices where 4.49 has them right."""
    told = f"{case['model']}, {case['input']}, {case['flags']}"
    ends = case["flags"].get("eos_token_id", [])
    assert _one_end(result.sequences.tolist(), ends) == _one_end(case["sequences"], ends), told
    if "sequences_scores" in case:
        expected = torch.tensor(case["sequences_scores"])
        torch.testing.assert_close(result.sequences_scores, expected, atol=TOLERANCE, rtol=0, msg=told)
    if "beam_indices" in case:
        ours, theirs = (_without_fill(rows) for rows in (result.beam_indices.tolist(), case["beam_indices"]))
        assert ours == theirs, told


def compare_scores(result: Any, case: dict[str, Any], cumulative: bool = False, edges: int = 0) -> None:
    """The recorded scores of each step, of all rows that are not done.

    Args:
        cumulative: the golden's scores have the score of the row so far added.
        edges: how often another processor's rounding may drop a token that the golden keeps, or the reverse.
    """
    if case["scores"] is None:
        return
    assert len(result.scores) == len(case["scores"]), case["flags"]
    weights = (torch.arange(result.scores[0].shape[-1]) * 37 % 101) / 101
    for number, (scores, golden) in enumerate(zip(result.scores, case["scores"], strict=True)):
        finite = scores.isfinite()
        largest = scores.amax(-1).double()
        digest = (scores.double().masked_fill(~finite, 0) * weights).mean(-1)
        for row, expected in enumerate(golden):
            if expected is None or expected[0] < -1e8:  # done, or not begun
                continue
            added = expected[0] - float(largest[row]) if cumulative else 0.0
            moved = added * float((finite[row] * weights).mean())
            found = (float(largest[row]) + added, float(digest[row]) + moved)
            told = f"{case['model']}, {case['input']}, {case['flags']}, step {number}, row {row}"
            tolerance = TOLERANCE + RELATIVE * abs(expected[0])
            assert abs(found[0] - expected[0]) < tolerance, told
            edges -= abs(found[1] - expected[1]) >= tolerance
            assert edges >= 0, told


def _one_end(rows: list[list[int]], ends: list[int]) -> list[list[int]]:
    """All tokens that end a sequence written as the first of them, which is what 4.49's beams show."""
    return [[ends[0] if token in ends else token for token in row] for row in rows]


def _without_fill(rows: list[list[int]]) -> list[list[int]]:
    return [[index for index in row if index >= 0] for row in rows]
