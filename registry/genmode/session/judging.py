"""What components returned, before it is used: scores of the right form, a token left in each row, tokens that there are.

On the CPU all of it is looked at in the step. From a device the highest score of each row comes one step late, with the
flags of the step (`step_end`); tokens are not looked at there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DecodingError

if TYPE_CHECKING:
    from ..contract.history import History
    from .links import Link
    from .scores import StepScores
    from .state import DecodeState


def check_tokens(state: DecodeState, scores: StepScores, tokens: Any, unevenly: bool) -> None:
    """Look at the tokens that a strategy commits, unless the session chose them.

    Raises:
        ValueError: they are no tensor `[rows]`, or `[rows, n]` where `unevenly`, of dtype long on the device of the call,
            or, where the host may look, not all of the vocabulary.
    """
    if tokens is scores.chosen and tokens is not None and (unevenly or tokens.dim() == 1):
        return
    rows, size = state.rows, scores.raw.shape[-1]
    form = "[rows, n]" if unevenly else "[rows]"
    if not isinstance(tokens, Tensor):
        raise ValueError(f"commit takes a tensor {form} of dtype long, not {type(tokens).__name__}")
    fits = tokens.dim() in ((1, 2) if unevenly else (1,)) and len(tokens) == rows
    if not fits or tokens.dtype != torch.long or tokens.device != state.device:
        raise ValueError(
            f"commit takes a tensor {form} of dtype long on {state.device}, here of {rows} rows, not {tokens.dtype} of "
            f"shape {list(tokens.shape)} on {tokens.device}"
        )
    if state.host_reads_freely and tokens.numel():
        least, most = (int(one) for one in torch.aminmax(tokens))
        if least < 0 or most >= size:
            raise ValueError(
                f"commit got token {least if least < 0 else most}; the model's vocabulary has tokens 0 to {size - 1}"
            )


def check_path(form: Any, tokens: Tensor, rows: Tensor | None, path: Any) -> None:
    """Raises ValueError if the path of a commit does not fit the draft."""
    if form is None and path is None:
        return
    if form is None:
        raise ValueError("commit(path=...) takes the nodes of a drafted tree, and this step has none; leave path out")
    if path is None or rows is not None:
        raise ValueError("a step whose draft is a tree is committed with path= and without rows=; see Step.accepted")
    if not isinstance(path, Tensor) or path.dim() != 2 or tokens.shape[1:] != (path.shape[1] + 1,):
        raise ValueError(
            f"commit(path=...) takes nodes [{len(tokens)}, m], long, beside tokens [{len(tokens)}, m + 1]; given tokens "
            f"{list(tokens.shape)} and path {list(path.shape) if isinstance(path, Tensor) else type(path).__name__}"
        )


def check_draft(state: DecodeState, tokens: Any) -> None:
    """Look at the tokens that a strategy drafts.

    Raises:
        ValueError: they are no tensor `[rows, k]` of dtype long.
    """
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.long or tokens.dim() != 2 or len(tokens) != state.rows:
        given = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"draft takes tokens [{state.rows}, k] of dtype long on {state.device}; given {given}")


def check_choice(state: DecodeState, scores: StepScores, counts: Tensor | None = None) -> None:
    """Look at the scores that tokens were chosen from, where the host may; else `step_end` does.

    Args:
        counts: `[rows]`, long: how many tokens each row takes; None for one.

    Raises:
        DecodingError: they are NaN, or a row that goes on has no token left.
    """
    if not state.host_reads_freely:
        if counts is not None and (best := scores.highest(counts)) is not None:
            scores.judged = best.amin(1, keepdim=True)
        return
    if scores.sound():  # one look, at every step
        return
    best = scores.highest(counts)
    if best is None or math.isfinite(float(best.sum())):  # a sum that overflows is looked at closer
        return
    if bool(best.isnan().any()):
        raise unsound(int(best.isnan().any(1).long().argmax()), state)
    dead = best.isneginf() & state.unfinished[:, None]
    if state.ending and bool(dead.any()):
        row = int(dead.any(1).long().argmax())
        raise exhausted(state, row, int(dead[row].long().argmax()), scores)


def crossed() -> ValueError:
    """The error for a row that was to continue a row of another input."""
    return ValueError(
        "commit(rows=...) lets a row continue a row of another input, whose prompt it does not have; rows[i] is to be a row "
        "of the same input as row i (session.inputs)"
    )


def check_result(state: DecodeState, scores: Tensor) -> None:
    """Look at the scores of the results, `[results]`, those of an input together; reads the device.

    Raises:
        DecodingError: one is minus infinity, since no token was left that it could have gone on with.
    """
    dead = scores.isneginf()
    if not bool(dead.any()):
        return
    row, each = int(dead.long().argmax()), max(1, len(scores) // state.num_inputs)
    raise DecodingError(
        f"input {row // each} has no token left to choose for {'any beam' if each == 1 else f'{each} results'}: the "
        f"processors {_named(state.chain.links)} mask all others. Ban less, allow more"
        + ("" if each == 1 else ", ask for fewer results (num_return_sequences)")
        + ", or let rows end (eos_token_id) where nothing else may be said",
        row=row,
    )


def unsound(row: int, state: DecodeState | None = None) -> DecodingError:
    """The error for scores that are not numbers.

    Args:
        state: the call, where processors made them so, or may have; None where the model did.
    """
    if state is None or not len(state.chain):
        what = f"the model's logits are not numbers (NaN or infinite) in row {row}"
    else:
        what = f"the scores are not numbers (NaN) in row {row}, by one of the processors {_named(state.chain.links)}"
    return DecodingError(
        f"{what}; look for overflow in float16 (bfloat16 or float32 avoid it), for damaged weights, or set "
        "remove_invalid_values=True to go on",
        row=row,
    )


def exhausted(state: DecodeState, row: int, ahead: int = 0, scores: StepScores | None = None) -> DecodingError:
    """The error for a row that has no token left.

    Args:
        ahead: how many tokens of its draft the row takes before.
        scores: of the step, if they are still at hand: without a draft they tell how many tokens each processor masked.
    """
    links, place = state.chain.links, ""
    shares = {links[0].name: _named(links)} if len(links) == 1 else {}
    if scores is not None:
        place = f" at position {int(state.decoded[row]) + ahead} of its output"
        if scores.draft is None:
            shares = _shares(links, scores.logits, state.history, row)
    return DecodingError(
        f"row {row} has no token left to choose{place}: every score is minus infinity after the processors "
        f"{', '.join(shares.values()) or _named(links)}. Ban less, allow more, or let the row end (eos_token_id) where "
        "nothing else may be said",
        row=row,
        component=next(reversed(shares), None),
    )


def _named(links: list[Link]) -> str:
    return ", ".join(f"{one.name!r} (from {one.origin})" for one in links)


def _shares(links: list[Link], logits: Tensor, history: History, row: int) -> dict[str, str]:
    """How many tokens of a row each processor masks, in words, by its name; those that mask none are left out."""
    told: dict[str, str] = {}
    scores, open_before = logits.clone(), logits.shape[-1]
    for one in links:
        scores = one.processor.process(scores, history)
        left = int((scores[row] > -torch.inf).sum())
        if left < open_before:
            masked = f"masked {open_before - left} of {logits.shape[-1]} tokens"
            told[one.name] = f"{one.name!r} (from {one.origin}; {masked})"
        open_before = left
    return told
