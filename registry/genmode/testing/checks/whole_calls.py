"""Checks of processors and criteria in whole calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import errors, host_sync
from ...contract import Kind, Stage, Trait
from ...sampling import candidates
from ..harness.case import Case
from ..harness.check import check, fail, inapplicable, require
from ..harness.doubles import RecordingStreamer
from ..harness.drive import EOS, PROMPT, Drive, random_tokens
from ..harness.models import PAD
from ..harness.traces import model_traces, nothing_left, torch_traces, unchanged
from .strategy_results import SEEDS, same

ROWS: tuple[Kind, ...] = (Kind.PROCESSORS, Kind.CRITERIA, Kind.WATERMARKERS)
ENDS = list(range(5, 95, 6))


@check(*ROWS)
def batch_invariance(case: Case) -> None:
    """In a call, a row alone gives what it gives in a batch."""
    inputs = case.inputs()
    together = case.generate(inputs, do_sample=True, seed=SEEDS, eos_token_id=EOS)
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        alone = case.generate(one, do_sample=True, seed=SEEDS[row], eos_token_id=EOS)
        rest = together[row : row + 1, alone.shape[1] :]
        same(together[row : row + 1, : alone.shape[1]], alone, f"prompt {row} in a batch of 3, then alone")
        require(bool((rest == rest[:, :1]).all()), f"row {row} goes on in a batch: {rest.tolist()}")


@check(*ROWS)
def call_determinism(case: Case) -> None:
    """A call with `seed=` gives the same tokens again, and leaves torch's generator alone."""
    state = torch.get_rng_state()
    first = case.generate(do_sample=True, seed=SEEDS, eos_token_id=EOS)
    require(torch.equal(state, torch.get_rng_state()), "the state of torch's generator has changed")
    same(first, case.generate(do_sample=True, seed=SEEDS, eos_token_id=EOS), "the same call with the same seed")


@check(*ROWS)
def early_end(case: Case) -> None:
    """Rows that end early hold padding, and nothing fails while others go on."""
    result = case.generate(do_sample=True, seed=SEEDS, eos_token_id=ENDS, pad_token_id=0, max_new_tokens=12)
    length = 1 if case.encoder else 9
    for row in result[:, length:].tolist():
        first = next((i for i, token in enumerate(row) if token in ENDS), len(row))
        require(not any(row[first + 1 :]), f"a row goes on behind its end: {row}")


@check(*ROWS)
def streaming(case: Case) -> None:
    """What is streamed is the result, and the result is the same if nobody listens."""
    flags: dict[str, Any] = {"do_sample": True, "seed": SEEDS, "eos_token_id": ENDS, "pad_token_id": PAD}
    streamer = RecordingStreamer()
    plain = case.generate(max_new_tokens=10, **flags)
    streamed = case.generate(max_new_tokens=10, streamer=streamer, **flags)
    same(plain, streamed, "nobody listens, then a streamer does")
    prompt = 1 if case.encoder else 9
    same(streamed[:, prompt:], streamer.tokens, "the result, then what was streamed")


@check(*ROWS)
def under_beams(case: Case) -> str:
    """It works under beam search, which reorders rows and looks at candidates."""
    try:
        result = case.generate(num_beams=3, do_sample=False, eos_token_id=EOS)
    except (errors.UnsupportedError, errors.ParameterError) as error:
        require(len(str(error).split()) >= 5, f"beams are refused without saying why: {error}")
        return f"refuses beams: {error}"
    require(len(result) == 3, f"3 prompts gave {len(result)} results")
    return "runs beams"


@check(*ROWS)
def under_drafts(case: Case) -> None:
    """Drafting, which guesses tokens and takes them back, changes no token."""
    for sampling in (False, True):
        more: dict[str, Any] = {"do_sample": sampling, "seed": SEEDS, "eos_token_id": EOS, "pad_token_id": PAD}
        drafts: dict[str, Any] = {
            **more,
            "strategy": "prompt_lookup",
            "prompt_lookup_num_tokens": 3,
            "max_matching_ngram_size": 1,
        }
        plain = case.generate(max_new_tokens=14, **more)
        same(plain, case.generate(max_new_tokens=14, **drafts), f"without drafts, then with them, do_sample={sampling}")


@check(Kind.PROCESSORS, Kind.WATERMARKERS)
def whole_and_fused(case: Case) -> None:
    """Where the end of the chain is fused, by a `narrow` of its own, the tokens are those of `process`."""
    with candidates.never_whole():
        plain = case.generate(do_sample=True, seed=SEEDS, eos_token_id=EOS)
    asked = case.generate(
        do_sample=True, seed=SEEDS, eos_token_id=EOS, return_dict_in_generate=True, output_scores=True
    )
    same(plain, asked.sequences, "fused, then whole")


@check(*ROWS)
def late_result(case: Case) -> None:
    """The result is the same where the host learns of each step one step late, as it does from an accelerator."""
    expected = case.generate(do_sample=True, seed=SEEDS, eos_token_id=ENDS)
    with host_sync.late_host():
        same(
            expected,
            case.generate(do_sample=True, seed=SEEDS, eos_token_id=ENDS),
            "a host that learns at once, then late",
        )


@check(*ROWS)
def encoder_decoder(case: Case) -> str:
    """Encoder-decoder models work, or are refused by UnsupportedError or ParameterError with a reason."""
    try:
        case.generate(family="bart", eos_token_id=EOS)
    except (errors.UnsupportedError, errors.ParameterError) as error:
        require(len(str(error).split()) >= 5, f"refused without saying why: {error}")
        return f"refuses: {error}"
    return "runs"


@check(*ROWS)
def missing_tokenizer(case: Case) -> str:
    """Without a tokenizer it works, or is refused by an error that asks for one."""
    try:
        Drive(case, random_tokens(2, PROMPT), tokenizer=False)
    except errors.ParameterError as error:
        require("tokenizer" in str(error), f"refused without naming the tokenizer: {error}")
        return f"refuses: {error}"
    return "needs none"


@check(*ROWS)
def model_untouched(case: Case) -> None:
    """The model is left as it was, and so are torch's settings."""
    model = case.fresh()
    before, settings = model_traces(model), torch_traces()
    try:
        case.generate(model=model, max_new_tokens=3, eos_token_id=EOS)
        unchanged(before, model_traces(model), "the model")
        unchanged(settings, torch_traces(), "torch")
    finally:
        torch.set_grad_enabled(settings["grad mode"])
        torch.set_default_dtype(settings["default dtype"])
        torch.use_deterministic_algorithms(settings["deterministic algorithms"])


@check(*ROWS)
def no_memory_without_collection(case: Case) -> None:
    """An object that has served a call keeps no session, and objects that are gone leave no tensors, Python's garbage
    collector being off: the caller may hold the object for long, and a session holds the memory of a cache.
    """
    kept: list[Any] = []

    def run() -> None:
        kept[:] = [case.make()]
        case.generate(max_new_tokens=4, eos_token_id=EOS, **{case.argument: kept[0]})

    nothing_left(run)


@check(Kind.PROCESSORS, Kind.WATERMARKERS)
def found_in_plan(case: Case) -> None:
    """`explain` shows it in the call's chain, at the stage that it declares."""
    plan = case.explain(do_sample=True)
    stage = {one.name: one.stage for one in plan.processors}.get(case.component.name)
    if stage is None:
        fail(f"the call's chain is {[one.name for one in plan.processors]}")
    declared: Stage = getattr(case.component, "stage")  # noqa: B009 - of processors alone
    require(stage == declared.name.lower(), f"it runs at stage {stage} and declares {declared.name.lower()}")


@check(Kind.CRITERIA)
def ends_calls(case: Case) -> str:
    """In a call each row ends with the first token at which the criterion says so, and holds padding behind it."""
    if Trait.READS_SCORES in case.component.traits:
        inapplicable("what it says depends on scores, which only the call has")
    inputs, start = case.inputs(), 1 if case.encoder else 9
    plain: Tensor = case.generate(inputs, criteria=None, do_sample=False, max_new_tokens=24)
    ended: Tensor = case.generate(inputs, do_sample=False, max_new_tokens=24, eos_token_id=EOS, pad_token_id=PAD)
    padding = [0] * 3 if case.encoder else (inputs["attention_mask"] == 0).sum(1).tolist()
    drive, ends = Drive(case, plain[:, :start], starts=padding), [24] * 3
    for step, tokens in enumerate(plain[:, start:].unbind(1)):
        drive.take(tokens)
        done = drive.check() | (tokens == EOS)
        ends = [min(end, step + 1) if stops else end for end, stops in zip(ends, done.tolist(), strict=True)]
    require(
        ended.shape[1] - start == max(ends),
        f"rows should end after {ends}, and the result has {ended.shape[1] - start}",
    )
    for row, end in enumerate(ends):
        line = ended[row, start:].tolist()
        wanted = plain[row, start : start + end].tolist() + [PAD] * (max(ends) - end)
        require(line == wanted, f"row {row} should end after {end} tokens: {line}")
    return f"rows end after {ends} of 24 tokens"
