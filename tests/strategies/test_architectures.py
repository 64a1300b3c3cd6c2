"""Every architecture of the installed transformers: the tokens of transformers and, under drafts, of greedy search, or a refusal.

A run takes one of `SLICES` by turns; `GENMODE_SLOW=1 pytest tests/strategies/test_architectures.py` takes them all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import pytest
import torch

from genmode.errors import DecodingError, UnsupportedError

from .architectures.build import architectures, build
from .architectures.compare import CALLS, FAULTS, judged, outcomes, prompts
from .architectures.settings import SETTINGS, UNBUILT

SLICES = 20
RUN_NUMBERS = ("GITHUB_RUN_NUMBER", "CI_PIPELINE_IID", "BUILD_NUMBER")
"""Variables in which continuous integration counts its runs."""
REPEAT = "GENMODE_SLOW=1 pytest tests/strategies/test_architectures.py -k"


def turn(environment: Mapping[str, str], now: float) -> int:
    """Which slice is due: by the number of the run where runs are counted, else by the day."""
    numbers = [environment[name] for name in RUN_NUMBERS if environment.get(name, "").isdigit()]
    return int(numbers[0] if numbers else now // 86400) % SLICES


def due() -> list[str]:
    names = list(architectures())
    return names if os.environ.get("GENMODE_SLOW") else names[turn(os.environ, time.time()) :: SLICES]


@pytest.mark.parametrize("name", due())
def test_gives_the_tokens_of_transformers_or_is_refused(name: str) -> None:
    if name in UNBUILT:
        with pytest.raises((ImportError, ValueError)):
            build(name)
        return
    faults = [one for one in outcomes(build(name)) if one.verdict in FAULTS]
    assert not faults, f"repeat with: {REPEAT} {name}"


def test_all_are_due_within_as_many_runs_as_there_are_slices() -> None:
    names = list(architectures())
    assert len(names) > 150
    by_run = [turn({"GITHUB_RUN_NUMBER": str(run)}, 0.0) for run in range(500, 500 + SLICES)]
    by_day = [turn({"BUILD_NUMBER": "a"}, day * 86400.0) for day in range(20000, 20000 + SLICES)]
    assert {name for one in by_run for name in names[one::SLICES]} == set(names)
    assert sorted(by_day) == sorted(by_run)


def test_settings_are_of_classes_that_there_are() -> None:
    assert not (SETTINGS.keys() | UNBUILT.keys()) - architectures().keys()


def test_lookup_has_drafts_to_verify() -> None:
    """Else the sweep would compare greedy search with itself."""
    model, widths = build("LlamaForCausalLM"), []
    model.model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    assert not [one for one in outcomes(model) if one.verdict != "same"]
    assert sum(1 < width < prompts(False)["inputs"].shape[1] for width in widths) >= 4


def test_what_is_a_fault() -> None:
    tokens, other, own = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4, 6]]), ValueError("give pixels")
    judgements = {
        "same": [(tokens, tokens), (own, tokens)],
        "refused": [(tokens, UnsupportedError("no drafts")), (own, UnsupportedError("no drafts"))],
        "both fail": [(own, ValueError("give  pixels")), (own, DecodingError("the forward failed"))],
        "differs": [(tokens, other), (tokens, tokens[:, :2])],
        "raw error": [(tokens, own), (own, ValueError("other")), (tokens, DecodingError("the forward failed"))],
    }
    for verdict, pairs in judgements.items():
        assert [judged("greedy", want, got).verdict for want, got in pairs] == [verdict] * len(pairs)


def test_a_model_that_looks_ahead_is_found_out() -> None:
    """One whose forward of several tokens reads them all: drafts are wrong on it, and refused."""
    verdicts = {one.call: one.verdict for one in outcomes(build("RobertaForCausalLM"))}
    assert verdicts["lookup"] == "refused"
    assert {verdicts[name] for name in CALLS} == {"same"}
