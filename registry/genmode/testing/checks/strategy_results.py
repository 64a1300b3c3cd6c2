"""Checks of strategies: what comes out of a call."""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from torch import Tensor

from ... import errors
from ...contract import History, Kind, LogitsProcessor
from ..harness.case import Case
from ..harness.check import check, fail, inapplicable, require
from ..harness.doubles import RecordingStreamer
from ..harness.models import PAD, VOCAB, ids
from ..harness.probes import Counted, Ends, Few, Ledger, Thirds

SEEDS = [11, 12, 13]
SOME_ENDS = list(range(5, 95, 3))
"""A third of all tokens: rows that may end with any of them end soon, at different lengths."""
WITH_ENDS: tuple[dict[str, Any], ...] = ({}, {"eos_token_id": SOME_ENDS})
"""Flags of a call whose rows do not end, and of one whose rows do."""


def decoded(case: Case, result: Any, length: int = 9) -> Tensor:
    """What lies behind a prompt of `length` tokens: `[rows, decoded]`, long."""
    sequences: Tensor = getattr(result, "sequences", result)
    return sequences if sequences is result and case.encoder else sequences[:, length:]


def trimmed(tokens: Tensor, ends: list[int]) -> list[list[int]]:
    """Each row up to its first end, that included."""
    rows: list[list[int]] = tokens.tolist()
    firsts = [next((i for i, token in enumerate(row) if token in ends), len(row) - 1) for row in rows]
    return [row[: first + 1] for row, first in zip(rows, firsts, strict=True)]


def padded(tokens: Tensor, ends: list[int], fill: int) -> None:
    """Fail unless rows hold nothing but padding behind their end; transformers' beams pad with `fill`."""
    for row, kept in enumerate(trimmed(tokens, ends)):
        behind = tokens[row, len(kept) :]
        silent = bool((behind == PAD).all() or (behind == fill).all())
        require(silent, f"row {row} goes on behind its end, {kept[-1]}: {tokens[row].tolist()}")


def same(left: Tensor, right: Tensor, what: str) -> None:
    """Fail unless two results are equal."""
    if left.shape != right.shape:
        fail(f"{what}: {tuple(left.shape)} tokens, then {tuple(right.shape)}")
    if not torch.equal(left, right):
        row, column = (int(x) for x in (left != right).nonzero()[0])
        fail(f"{what}: row {row} differs from token {column} on, {left[row].tolist()} and {right[row].tolist()}")


@check(Kind.STRATEGIES)
def return_type(case: Case) -> None:
    """The result is what transformers returns: token ids, `[batch, length]`, long, behind the untouched prompt."""
    inputs = case.inputs()
    result = case.generate(inputs, seed=SEEDS)
    require(isinstance(result, Tensor), f"the result is a {type(result).__name__}; it has to be a tensor")
    require(result.dtype == torch.long, f"the result is of {result.dtype}; token ids are torch.long")
    require(result.dim() == 2 and len(result) == 3, f"3 prompts gave a result of shape {tuple(result.shape)}")
    require(torch.equal(result[:, :9], inputs["input_ids"]), "the prompt was changed")
    require(result.shape[1] > 9, "nothing was decoded")
    require(bool(((result >= 0) & (result < VOCAB)).all()), "the result has ids outside the vocabulary")


@check(Kind.STRATEGIES)
def output_classes(case: Case) -> None:
    """With `return_dict_in_generate` the same tokens come in transformers' output class, and scores where asked for."""
    plain = case.generate(seed=SEEDS)
    output = case.generate(seed=SEEDS, return_dict_in_generate=True, output_scores=True, output_logits=True)
    require(hasattr(output, "sequences"), f"the result is a {type(output).__name__} without sequences")
    same(plain, output.sequences, "asked for scores as well")
    for key in ("scores", "logits"):
        given = output[key]
        require(given is not None, f"{key} were asked for and are None")
        require(len(given) >= plain.shape[1] - 9, f"{len(given)} {key} for {plain.shape[1] - 9} tokens")
        require(all(one.dim() == 2 and one.shape[1] == VOCAB for one in given), f"{key} are not [rows, vocab]")


@check(Kind.STRATEGIES)
def determinism(case: Case) -> None:
    """With `seed=`, the same call gives the same tokens, whatever torch's generator holds."""
    torch.manual_seed(1)
    first = case.generate(seed=SEEDS)
    torch.manual_seed(2)
    same(first, case.generate(seed=SEEDS), "the same call with the same seed; draw by step.sample or session.uniform")


@check(Kind.STRATEGIES)
def torch_seed(case: Case) -> None:
    """Without `seed=`, the same `torch.manual_seed` gives the same tokens."""
    torch.manual_seed(1)
    first = case.generate()
    torch.manual_seed(1)
    same(first, case.generate(), "the same call after the same torch.manual_seed")


@check(Kind.STRATEGIES)
def generator_untouched(case: Case) -> None:
    """With `seed=`, torch's generator is neither drawn from nor seeded: both would reach into the user's program."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    case.generate(seed=SEEDS)
    require(
        torch.equal(before, torch.get_rng_state()),
        "the state of torch's generator has changed; draw by step.sample, session.uniform or session.multinomial",
    )


@check(Kind.STRATEGIES)
def batch_invariance(case: Case) -> None:
    """A row alone gives what it gives in a batch."""
    inputs = case.inputs()
    together = case.generate(inputs, seed=SEEDS)
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        alone = case.generate(one, seed=SEEDS[row])
        same(together[row : row + 1, : alone.shape[1]], alone, f"prompt {row} in a batch of 3, then alone")


@check(Kind.STRATEGIES)
def order_invariance(case: Case) -> None:
    """The order of the prompts in a batch does not matter."""
    inputs, order = case.inputs(), torch.tensor([2, 0, 1])
    straight = case.generate(inputs, seed=SEEDS)
    turned = case.generate({key: value[order] for key, value in inputs.items()}, seed=[SEEDS[i] for i in order])
    same(straight[order], turned, "prompts in another order")


@check(Kind.STRATEGIES)
def left_padding_invariance(case: Case) -> None:
    """Padding in front of a prompt does not matter."""
    tokens = ids(2, 7)
    plain = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    padded = {key: torch.nn.functional.pad(value, (4, 0)) for key, value in plain.items()}  # PAD is 0 as well
    same(
        case.generate(plain, seed=SEEDS[:2])[:, 7:],
        case.generate(padded, seed=SEEDS[:2])[:, 11:],
        "prompts without padding, then with 4 tokens of it",
    )


@check(Kind.STRATEGIES)
def early_end(case: Case) -> None:
    """A row that has met an end-of-sequence token holds nothing but padding behind it, and disturbs no other row."""
    inputs = case.inputs()
    together = case.generate(inputs, seed=SEEDS, eos_token_id=SOME_ENDS, max_new_tokens=12)[:, 9:]
    rows = trimmed(together, SOME_ENDS)
    padded(together, SOME_ENDS, SOME_ENDS[0])
    if all(len(row) == 12 for row in rows):
        inapplicable(f"no row meets any of {len(SOME_ENDS)} ends: {together.tolist()}")
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        alone = case.generate(one, seed=SEEDS[row], eos_token_id=SOME_ENDS, max_new_tokens=12)[:, 9:]
        require(
            trimmed(alone, SOME_ENDS)[0] == rows[row],
            f"row {row} is {rows[row]} in a batch and {alone[0].tolist()} alone",
        )


@check(Kind.STRATEGIES)
def ends_when_all_end(case: Case) -> None:
    """Decoding ends as soon as all rows have ended."""
    length = case.generate(seed=SEEDS, eos_token_id=4, processors=[Ends()], max_new_tokens=12).shape[1] - 9
    require(length <= 2, f"every row should end with its first token, and {length} were decoded")


@check(Kind.STRATEGIES)
def max_new_tokens(case: Case) -> None:
    """`max_new_tokens` is reached where nothing ends a row, and never passed; 1 is allowed."""
    for count in (1, 2, 7):
        found = case.generate(seed=SEEDS, max_new_tokens=count).shape[1] - 9
        require(found == count, f"max_new_tokens={count} gave {found} tokens")


@check(Kind.STRATEGIES)
def max_length(case: Case) -> None:
    """`max_length` counts the prompt as well."""
    found = case.generate(seed=SEEDS, max_new_tokens=None, max_length=13).shape[1]
    require(found == 13, f"max_length=13 gave rows of {found}")


@check(Kind.STRATEGIES)
def stopping_criteria(case: Case) -> None:
    """A stopping criterion that stops all rows ends the call."""
    length = case.generate(seed=SEEDS, criteria=[Counted()], max_new_tokens=12).shape[1] - 9
    require(1 <= length <= 3, f"a criterion that stops rows after 3 tokens got {length}")


@check(Kind.STRATEGIES)
def row_criteria(case: Case) -> None:
    """A stopping criterion that stops a row leaves nothing but padding behind it there."""
    result = case.generate(seed=SEEDS, criteria=[Thirds()], max_new_tokens=12, eos_token_id=4)[:, 9:]
    padded(result, [*range(2, VOCAB, 3), 4], 4)


@check(Kind.STRATEGIES)
def processors_obeyed(case: Case) -> None:
    """Tokens come from the scores that the processors leave: a masked token is never chosen."""
    result = case.generate(seed=SEEDS, processors=[Few()])[:, 9:]
    strays = sorted(set(result.flatten().tolist()) - set(Few.tokens))
    require(not strays, f"tokens {strays} are masked and were chosen; choose from step.scores or by step.sample()")


@check(Kind.STRATEGIES)
def processors_informed(case: Case) -> None:
    """Processors learn of every token, reordering and rollback, and are reset: their state fits the rows."""
    ledger = Ledger()
    case.generate(seed=SEEDS, processors=[ledger], eos_token_id=SOME_ENDS[::3], max_new_tokens=12)
    require(ledger.ended == 1, f"processors were reset {ledger.ended} times in one call")


@check(Kind.STRATEGIES)
def streaming(case: Case) -> None:
    """What is streamed is the result, the prompt first."""
    for more in WITH_ENDS:
        streamer = RecordingStreamer()
        result = case.generate(seed=SEEDS, streamer=streamer, max_new_tokens=10, **more)
        require(streamer.ended == 1, f"the streamer was ended {streamer.ended} times")
        require(
            streamer.prompt is not None and torch.equal(streamer.prompt, result[:, :9]), "the prompt was not streamed"
        )
        same(result[:, 9:], streamer.tokens, "the result, then what was streamed")


@check(Kind.STRATEGIES)
def cancellation(case: Case) -> None:
    """A call that is cancelled ends by CancelledError and keeps what was decoded."""
    event = threading.Event()

    class Cancels(LogitsProcessor):
        contract_version = 1
        steps = 0

        def process(self, scores: Tensor, history: History) -> Tensor:
            if history.tokens.shape[1] > history.prompt + 1:
                event.set()
            return scores

    try:
        case.generate(seed=SEEDS, processors=[Cancels()], cancel=event, max_new_tokens=40)
    except errors.CancelledError as error:
        require(error.sequences is not None, "the error does not hold what was decoded")
        return
    fail("a cancelled call went on to its end; let errors of the session pass")


@check(Kind.STRATEGIES)
def single_token_prompt(case: Case) -> None:
    """A prompt of one token is enough."""
    inputs = {"input_ids": torch.tensor([[17]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)}
    found = case.generate(inputs, seed=3, max_new_tokens=4).shape
    require(found == (1, 5), f"a prompt of one token and 4 new ones gave shape {tuple(found)}")


@check(Kind.STRATEGIES)
def return_sequences(case: Case) -> None:
    """`num_return_sequences` gives so many results for each prompt, or is refused with a reason."""
    try:
        result = case.generate(seed=SEEDS, num_return_sequences=2)
    except (errors.ParameterError, errors.UnsupportedError, ValueError) as error:
        require("num_return_sequences" in str(error), f"it is refused without being named: {error}")
        return
    require(len(result) == 6, f"2 results for each of 3 prompts came as {len(result)} rows")


def _runs_or_says_why(case: Case, family: str) -> str:
    try:
        result = case.generate(family=family, seed=SEEDS)
    except (errors.UnsupportedError, errors.ParameterError) as error:
        require(len(str(error).split()) >= 5, f"{family}: refused without saying why: {error}")
        return f"refuses {family}: {error}"
    start = 1 if case.tiny(family).config.is_encoder_decoder else 9
    require(result.shape[0] == 3 and result.shape[1] > start, f"{family}: 3 prompts gave shape {tuple(result.shape)}")
    return f"runs {family}"


@check(Kind.STRATEGIES)
def encoder_decoder(case: Case) -> str:
    """Encoder-decoder models work, or are refused by UnsupportedError or ParameterError with a reason."""
    return "; ".join(_runs_or_says_why(case, family) for family in ("t5", "bart"))


@check(Kind.STRATEGIES)
def recurrent(case: Case) -> str:
    """Models with a recurrent state work, or are refused by UnsupportedError or ParameterError with a reason."""
    return _runs_or_says_why(case, "mamba")


@check(Kind.STRATEGIES)
def families(case: Case) -> str:
    """Decoder-only models of other families than the first work, and a row gives there what it gives alone."""
    for family in ("gpt2", "qwen2"):
        inputs = case.inputs(family=family)
        together = case.generate(inputs, family=family, seed=SEEDS)
        one = {key: value[:1] for key, value in inputs.items()}
        same(
            together[:1],
            case.generate(one, family=family, seed=SEEDS[0]),
            f"{family}: prompt 0 in a batch of 3, then alone",
        )
    return "gpt2, qwen2"


@check(Kind.STRATEGIES)
def engines_agree(case: Case) -> str:
    """Whichever engine runs the model, the tokens are the same."""
    from transformers import DynamicCache

    fast = case.explain()
    if fast.engine == "portable":
        inapplicable(f"the call runs on the portable engine alone: {fast.engine_why}")
    same(
        case.generate(seed=SEEDS),
        case.generate(seed=SEEDS, past_key_values=DynamicCache()),
        f"{fast.engine}, then portable",
    )
    return f"{fast.engine} and portable"


@check(Kind.STRATEGIES)
def half_precision(case: Case) -> None:
    """A model in bfloat16 works: `step.logits` and `step.scores` are float32 whatever the model computes in."""
    model = copy.deepcopy(case.fresh()).to(torch.bfloat16)
    result = case.generate(seed=SEEDS, model=model)
    require(result.dtype == torch.long and result.shape[1] > 9, f"a result of {result.dtype}, {tuple(result.shape)}")
