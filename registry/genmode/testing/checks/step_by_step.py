"""Checks of processors and criteria: what they say of each row, whatever happens to the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import host_sync
from ...contract import Kind, Trait
from ..harness.case import Case
from ..harness.check import check, fail, inapplicable, require
from ..harness.drive import EOS, PROMPT, Drive, random_scores, random_tokens
from ..harness.guard import watched
from ..harness.models import PAD
from ..harness.traces import quiet, same_state, shared_state, steady_memory
from ..harness.waiting import model_there, never_waits

ROWS: tuple[Kind, ...] = (Kind.PROCESSORS, Kind.CRITERIA, Kind.WATERMARKERS)
STEPS = 5


def says(case: Case, drive: Drive, scores: Tensor) -> Tensor:
    """New scores of a processor, `[rows, vocab]`; which rows a criterion stops, `[rows]`."""
    return drive.check(scores) if case.kind == "criteria" else drive.process(scores)


def play(
    case: Case, rows: Sequence[int] = (0, 1, 2), steps: int = STEPS, seed: int = 0, drive: Drive | None = None,
    **options: Any,
) -> tuple[Drive, list[Tensor]]:  # fmt: skip
    """Decode made-up tokens in some of the rows of a batch, and what the component says at each step."""
    rows = list(rows)
    count = max(rows) + 1
    if drive is None:
        prompt = random_tokens(count, PROMPT, 7 + seed)[rows]
        drive = Drive(case, prompt, lines=rows, **options)
    said: list[Tensor] = []
    for step in range(steps):
        said.append(says(case, drive, random_scores(count, seed + step)[rows]))
        drive.take(random_tokens(count, 1, 90 + seed + step)[rows, 0])
    return drive, said


def next_said(case: Case, drive: Drive, rows: Sequence[int] = (0, 1, 2), seed: int = 77) -> Tensor:
    """What the component says of one more step."""
    return says(case, drive, random_scores(max(rows) + 1, seed)[list(rows)])


def alike(left: Tensor, right: Tensor, what: str) -> None:
    """Fail unless both say the same, up to the last bits."""
    if left.dtype == torch.bool:
        require(torch.equal(left, right), f"{what}: {left.tolist()}, then {right.tolist()}")
        return
    close = torch.isclose(left, right, rtol=1e-4, atol=1e-4, equal_nan=True)
    if not bool(close.all()):
        row, token = (int(x) for x in (~close).nonzero()[0])
        fail(f"{what}: token {token} of row {row} has score {float(left[row, token])}, then {float(right[row, token])}")


@check(*ROWS)
def acts(case: Case) -> None:
    """With the parameters that the checks run with it does something: else no other check would mean anything."""
    for seed in range(0, 400, 40):
        for step, said in enumerate(play(case, steps=12, seed=seed)[1]):
            if bool(said.any()) if case.kind == "criteria" else not same_scores(said, random_scores(3, seed + step)):
                return
    fail(
        "it never does anything here; give the checks parameters with which it acts, in Case(..., params=...) or as "
        "Field(..., examples=[...])"
    )


def same_scores(left: Tensor, right: Tensor) -> bool:
    """Whether both are equal, bit for bit."""
    return left.shape == right.shape and torch.equal(left, right)


@check(*ROWS)
def rows_independent(case: Case) -> None:
    """What it says of a row is what it would say of that row alone: nothing is reduced over the batch."""
    together = play(case)[1]
    for row in range(3):
        for step, alone in enumerate(play(case, [row])[1]):
            alike(together[step][row : row + 1], _of(alone, 0), f"step {step}, row {row} in a batch of 3, then alone")


def _of(said: Tensor, row: int) -> Tensor:
    return said[row : row + 1]


@check(*ROWS)
def row_order(case: Case) -> None:
    """The order of the rows does not matter."""
    order = [2, 0, 1]
    for straight, turned in zip(play(case)[1], play(case, order)[1], strict=True):
        alike(straight[order], turned, "rows in another order")


@check(*ROWS)
def left_padding(case: Case) -> None:
    """Padding in front of a prompt does not matter: columns before `history.starts` are no tokens."""
    plain, said = play(case)
    prompt = plain.history.tokens[:, :PROMPT]
    padded = Drive(case, torch.nn.functional.pad(prompt, (3, 0), value=PAD), starts=[3, 3, 3])
    for before, after in zip(said, play(case, drive=padded)[1], strict=True):
        alike(before, after, "without padding, then with 3 tokens of it in front")


@check(*ROWS)
def undefined_columns(case: Case) -> None:
    """What stands in the history's buffer behind a row's last token does not matter."""
    said = []
    for value in (-7, 8):
        drive, _ = play(case)
        drive.rollback([0, 2, 1])
        drive.spoil(value)
        said.append(next_said(case, drive))
    alike(said[0], said[1], "other values behind the last token")


@check(*ROWS)
def ragged_rows(case: Case) -> None:
    """Rows of different lengths, as drafting makes them, are each treated as if alone."""
    drive, _ = play(case)
    drive.rollback([0, 2, 1])
    together = next_said(case, drive)
    for row, back in enumerate((0, 2, 1)):
        alone, _ = play(case, [row], STEPS - back)
        said = says(case, alone, random_scores(3, 77)[row : row + 1])
        alike(
            together[row : row + 1],
            said,
            f"row {row} of {PROMPT + STEPS - back} tokens among rows of other lengths, then alone",
        )


@check(*ROWS)
def rollback(case: Case) -> None:
    """After tokens have been taken back, it says what it would say had they never been taken."""
    drive, _ = play(case)
    drive.rollback([2, 2, 2])
    drive.level(PROMPT + STEPS - 2)
    fresh, _ = play(case, steps=STEPS - 2)
    alike(
        next_said(case, fresh),
        next_said(case, drive),
        "a row that never had 2 more tokens, then one that gave them back",
    )


@check(*ROWS)
def reorder(case: Case) -> None:
    """After rows have been reordered, as beams do, each goes on as the row that it continues."""
    drive, _ = play(case)
    drive.reorder([1, 1, 0])
    straight, _ = play(case)
    scores = random_scores(3, 77)
    alike(
        says(case, straight, scores)[[1, 1, 0]],
        says(case, drive, scores[[1, 1, 0]]),
        "rows that stayed, then reordered",
    )


@check(*ROWS)
def population(case: Case) -> None:
    """After rows have been forked and others have left, each goes on as the row that it was: `reorder` may change their
    number, and what is kept of each row follows.
    """
    drive, _ = play(case)
    straight, _ = play(case)
    scores = random_scores(3, 77)
    before = says(case, straight, scores)
    for rows in ([0, 1, 2, 1, 0], [3, 4, 2], [0, 1]):
        drive.reorder(rows)
    kept = [1, 0]  # what the rows were at first: 0 1 2 1 0, then 1 0 2, then 1 0
    alike(before[kept], says(case, drive, scores[kept]), "rows that stayed, then forks of them whose siblings left")


@check(*ROWS)
def reset(case: Case) -> None:
    """An object that served a call serves the next one like a fresh one."""
    drive, _ = play(case, steps=8, seed=30)
    drive.component.reset()
    again = play(case, component=drive.component)[1]
    for fresh, used in zip(play(case)[1], again, strict=True):
        alike(fresh, used, "a fresh object, then one that has served another call; forget it in reset() and begin()")


@check(*ROWS)
def determinism(case: Case) -> None:
    """The same rows get the same answers; draws come from the context, which knows each row's seed."""
    torch.manual_seed(1)
    first = play(case)[1]
    torch.manual_seed(2)
    for before, after in zip(first, play(case)[1], strict=True):
        alike(before, after, "the same rows again; draw by context.uniform")


@check(*ROWS)
def generator_untouched(case: Case) -> None:
    """torch's generator is neither drawn from nor seeded where the call has a seed."""
    before = torch.get_rng_state()
    play(case)
    require(
        torch.equal(before, torch.get_rng_state()),
        "the state of torch's generator has changed; draw by context.uniform",
    )


@check(*ROWS)
def inputs_untouched(case: Case) -> None:
    """The history and the tokens are only read; the scores of a criterion too."""
    drive = Drive(case, random_tokens(3, PROMPT, 7))
    for step in range(STEPS):
        history = drive.history
        before = (history.tokens.clone(), history.lengths.clone(), history.starts.clone())
        scores = random_scores(3, step)
        kept = scores.clone()
        says(case, drive, scores)
        after = (history.tokens, history.lengths, history.starts)
        require(all(map(torch.equal, before, after)), "it writes into the history")
        require(case.kind != "criteria" or torch.equal(scores, kept), "it writes into the scores")
        tokens = random_tokens(3, 1, step)[:, 0]
        drive.take(tokens)
        require(torch.equal(tokens, random_tokens(3, 1, step)[:, 0]), "it writes into the tokens")


@check(*ROWS)
def parameters_untouched(case: Case) -> None:
    """The parameters are the same after a call."""
    drive, _ = play(case)
    params = drive.component.params
    require(params == case.component.Params(**case.values), f"the parameters are now {params!r}")


@check(*ROWS)
def no_state_between_calls(case: Case) -> None:
    """Two objects do not disturb each other: nothing is kept on the class or in the module."""
    alone = play(case)[1]
    before = shared_state(case.component)
    drive = Drive(case, random_tokens(3, PROMPT, 7))
    for step in range(STEPS):
        said = says(case, drive, random_scores(3, step))
        drive.take(random_tokens(3, 1, 90 + step)[:, 0])
        play(case, [0, 1], 2, seed=60 + step)
        alike(alone[step], said, "alone, then with another call in between")
    same_state(case.component, before)


@check(*ROWS)
def no_synchronisation(case: Case) -> str | None:
    """Between begin and reset it reads no tensor on the host, and does nothing whose result's size depends on values:
    on an accelerator the host would wait there in every step. Where there is a CUDA device, torch itself says so.

    A processor that cannot do without states `Trait.HOST_SYNC`, which `explain` tells the user.
    """
    if Trait.HOST_SYNC in case.component.traits:
        inapplicable("it declares that the host waits for its tokens, and `explain` says so")
    model = model_there(case)
    if model is not None:
        return never_waits(case, model, do_sample=True, seed=7, eos_token_id=EOS)
    drive, _ = play(case, steps=1)
    with host_sync.late_host(), watched(case.component) as seen:
        play(case, steps=3, drive=drive)
        drive.reorder([1, 0, 2])
        next_said(case, drive)
        drive.rollback([0, 1, 1])
        next_said(case, drive)
    require(
        not seen.waits,
        f"waits for the device {len(seen.waits)} times, first by {'; '.join(list(dict.fromkeys(seen.waits))[:3])}; "
        "use torch.where, gather and masked_fill",
    )
    return None


def operations(case: Case, copies: int, steps: int) -> int:
    """Operations of its own in the step behind so many, the tokens told included, for so many copies of two rows."""
    rows = [0, 1] * copies
    drive, _ = play(case, rows, steps)
    with watched(case.component) as seen:
        next_said(case, drive, rows)
        drive.take(random_tokens(2, 1, 91)[rows, 0])
    return seen.own


@check(*ROWS)
def cost_of_rows(case: Case) -> str:
    """More rows take no more operations: no Python loop over the batch."""
    few, many = (operations(case, copies, 3) for copies in (1, 4))
    require(many < few + 3, f"{few} operations a step for 2 rows, {many} for 8; do all rows in one operation")
    return f"{few} operations a step"


@check(*ROWS)
def cost_of_length(case: Case) -> str:
    """Later steps take no more operations than early ones: no Python loop over the tokens."""
    early, late = (operations(case, 1, steps) for steps in (3, 23))
    require(late < 1.25 * early + 12, f"{early} operations in step 3, {late} in step 23")
    return f"{early} operations early, {late} later"


@check(*ROWS)
def cost_of_step(case: Case) -> str:
    """A step takes few operations, counted, not timed: no Python loop over the vocabulary."""
    own = operations(case, 1, 3)
    require(own <= 95, f"{own} operations of its own a step; at most 95 are allowed")
    return f"{own} operations a step"


@check(*ROWS)
def no_memory_between_runs(case: Case) -> str:
    """Tensors of a call are freed when it ends."""

    def run() -> None:
        drive, _ = play(case)
        drive.component.reset()

    return steady_memory(run)


@check(*ROWS)
def silence(case: Case) -> None:
    """It prints nothing and warns of nothing."""
    quiet(lambda: play(case))
