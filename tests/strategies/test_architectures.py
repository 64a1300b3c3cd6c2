"""Every architecture of the installed transformers: the tokens of transformers and, under drafts, of greedy search, or a refusal.

A run takes one of `SLICES` by turns; `GENMODE_SLOW=1 pytest tests/strategies/test_architectures.py` takes them all.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from genmode.errors import DecodingError, UnsupportedError

from .architectures.build import architectures, build
from .architectures.compare import CALLS, FAULTS, judged, outcomes, prompts
from .architectures.page import FAILS, PAGE, row
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
        with pytest.raises((ImportError, ValueError, StrictDataclassError)):
            build(name)
        return
    model = build(name)
    found = outcomes(model)
    assert not [one for one in found if one.verdict in FAULTS], f"repeat with: {REPEAT} {name}"
    page, line = PAGE.read_text(encoding="utf-8"), str(row(name, model, found))
    if f"with transformers {transformers.__version__} and" in page and FAILS not in line:
        assert line in page, "write docs/architectures.md: python -m tests.strategies.architectures"


def test_the_page_has_a_line_for_each_and_no_fault() -> None:
    """Of the release that it names; what is made here but is unknown to that release is no fault of the page."""
    page = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\w+) \|", page, re.MULTILINE)
    assert lines.count("Class") == 2
    assert len(set(lines)) == len(lines) - 1
    assert UNBUILT.keys() <= set(lines)
    if f"with transformers {transformers.__version__} and" in page:
        assert set(architectures()) == {line for line in lines if line not in ("Class", "Reason")}
    assert not re.search("differs|raw error|near tie", page.partition("## Table")[2])


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
        "same": [(tokens, tokens)],
        "works": [(own, tokens)],
        "refused": [(tokens, UnsupportedError("no drafts")), (own, UnsupportedError("no drafts"))],
        "both fail": [(own, ValueError("give  pixels")), (own, DecodingError("the forward failed"))],
        "differs": [(tokens, other), (tokens, tokens[:, :2])],
        "raw error": [(tokens, own), (own, ValueError("other")), (tokens, DecodingError("the forward failed"))],
    }
    for verdict, pairs in judgements.items():
        assert [judged("greedy", want, got).verdict for want, got in pairs] == [verdict] * len(pairs)


@pytest.mark.parametrize(("step", "scale", "verdict"), [(32, 1.0, "near tie"), (33, 1.001, "differs")])
def test_near_ties_are_told_from_other_tokens(
    step: int, scale: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token has a twin of the same score, 32 further; one call ends in the twin, the other in another token."""
    model = build("LlamaForCausalLM")
    model.lm_head.weight.data[32:] = model.lm_head.weight.data[:32]

    def other(own: Any, *inputs: Any, strategy: str = "", **given: Any) -> Any:
        del strategy
        output = own.generate(*inputs, **given)
        tokens = output if isinstance(output, torch.Tensor) else output.sequences
        tokens[0, -1] = (tokens[0, -1] + step) % 64
        if "num_beams" in given and output is not tokens:
            output.sequences_scores = output.sequences_scores * scale
        return output

    monkeypatch.setattr("genmode.generate", other)
    verdicts = {one.call: one.verdict for one in outcomes(model)}
    assert {verdicts[name] for name in ("greedy", "beams", "greedy with padding", "beams with padding")} == {verdict}
    assert verdicts["sampling"] == "differs"


def test_a_model_that_looks_ahead_is_found_out() -> None:
    """One whose forward of several tokens reads them all: drafts are wrong on it, and refused."""
    verdicts = {one.call: one.verdict for one in outcomes(build("RobertaForCausalLM"))}
    assert verdicts["lookup"] == "refused"
    assert {verdicts[name] for name in CALLS} == {"same"}
