"""What a model's calls give through genmode, beside transformers' own `generate` and beside greedy search."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

import genmode
from genmode.errors import GenmodeError, ParameterError, UnsupportedError

PROMPT, NEW, PADDED, LARGEST = 24, 16, 5, 64

CALLS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True},
}
"""Of transformers' modes; each is called with rows of equal length and with one that is padded on the left."""
LOOKUP: dict[str, Any] = {"strategy": "prompt_lookup"}
GENERATOR_SEED = 5
NOISE = 1e-5
"""Of the largest score: how near two tokens' scores are that rounding alone can put in either order."""
FAULTS = ("differs", "raw error")


class Outcome(NamedTuple):
    """How one call went.

    Attributes:
        call: its name.
        verdict: "same", "near tie" (the first tokens that differ have scores that rounding may put in either order),
            "refused", "both fail" (transformers too), "works" (transformers fails), or one of `FAULTS`.
        detail: the error, or where the tokens part.
    """

    call: str
    verdict: str
    detail: str = ""


def prompts(padded: bool) -> dict[str, Tensor]:
    """Three rows in which most tokens of the vocabulary stand, so that most of what is decoded finds a draft."""
    ids = torch.randint(3, LARGEST, (3, PROMPT), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        ids[1, :PADDED] = mask[1, :PADDED] = 0
    return {"inputs": ids, "attention_mask": mask}


def outcomes(model: Any) -> list[Outcome]:
    """How every call of the sweep goes on a model."""
    found: list[Outcome] = []
    for padded in (False, True):
        inputs, suffix = prompts(padded), " with padding" if padded else ""
        greedy: Tensor | Exception | None = None
        for name, flags in CALLS.items():
            want, got = _tried(model.generate, inputs, flags), _tried(genmode.generate, inputs, flags, model)
            found.append(_with_ties(model, inputs, flags, judged(name + suffix, want, got), want, got))
            greedy = got if greedy is None else greedy
        drafted = _tried(genmode.generate, inputs, LOOKUP, model)
        lookup = judged("lookup" + suffix, greedy, drafted)
        found.append(_with_ties(model, inputs, CALLS["greedy"], lookup, greedy, drafted))
    return found


def judged(call: str, want: Any, got: Any) -> Outcome:
    """The outcome of a call that gave `got` where another gave `want`."""
    if isinstance(got, (ParameterError, UnsupportedError)):
        return Outcome(call, "refused", said(got))
    if isinstance(want, Exception) and isinstance(got, Exception):  # a model's own errors pass through as they are
        known = isinstance(got, GenmodeError) or said(got) == said(want)
        return Outcome(call, "both fail" if known else "raw error", said(want if known else got))
    if isinstance(got, Exception):
        return Outcome(call, "raw error", said(got))
    if isinstance(want, Exception):
        return Outcome(call, "works", said(want))
    if torch.equal(want, got):
        return Outcome(call, "same")
    parts = [f"row {row} from token {column} on" for row, column in partings(want, got)] or ["their lengths"]
    return Outcome(call, "differs", ", ".join(parts))


def partings(want: Tensor, got: Tensor) -> list[tuple[int, int]]:
    """The rows that differ, each with the first column in which it does."""
    width = min(want.shape[1], got.shape[1])
    unequal = want[:, :width] != got[:, :width]
    return [(row, int(unequal[row].int().argmax())) for row in range(len(want)) if unequal[row].any()]


def _with_ties(model: Any, inputs: Any, flags: Any, outcome: Outcome, want: Any, got: Any) -> Outcome:
    """The outcome, "near tie" instead of "differs" where what is other has as good as the same score."""
    places = partings(want, got) if outcome.verdict == "differs" and not flags["do_sample"] else []
    if not places:
        return outcome
    scored = {**inputs, **flags, "max_new_tokens": NEW, "output_scores": True, "return_dict_in_generate": True}
    theirs = model.generate(**scored)
    if "num_beams" in flags:  # of the whole sequences
        ours = genmode.generate(model, **scored).sequences_scores
        rows = [row for row, _ in places]
        apart = ((theirs.sequences_scores - ours) / theirs.sequences_scores).abs()[rows].max()
    else:
        apart = torch.stack([_margin(theirs.scores, want, got, *place) for place in places]).max()
    shown = f"{outcome.detail}: scores apart by {float(apart):.1e} of the largest"
    return Outcome(outcome.call, "near tie" if float(apart) <= NOISE else "differs", shown)


def _margin(scores: tuple[Tensor, ...], want: Tensor, got: Tensor, row: int, column: int) -> Tensor:
    """How far apart the scores of two tokens are, as a part of the largest of their step."""
    step = scores[column - (want.shape[1] - len(scores))][row]
    return (step[want[row, column]] - step[got[row, column]]).abs() / step[step.isfinite()].abs().max()


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _tried(call: Any, inputs: dict[str, Tensor], flags: dict[str, Any], *model: Any) -> Tensor | Exception:
    """What a call returns or raises, with the same random numbers for each."""
    torch.manual_seed(GENERATOR_SEED)
    own = {key: value.clone() for key, value in inputs.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokens: Tensor = call(*model, own.pop("inputs"), **own, max_new_tokens=NEW, **flags)
    except Exception as error:
        return error
    return tokens
