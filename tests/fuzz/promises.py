"""What holds for every call. `verdict` runs one and says how it went, or which promise is broken."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genmode.errors import DecodingError, GenmodeError, ParameterError, UnsupportedError
from genmode.plugins.parameters import flag_defaults
from genmode.testing.harness.models import PAD, VOCAB

from .call import NOT_FLAGS, Call
from .running import Late, Outcome, ours, stock, streamed

BY_WIDTH = ("max_length", "min_length", "max_time", "forced_bos_token_id", "token_healing")
"""Flags that count padding, as in transformers, or time, or change the prompt: a row alone may rightly differ."""
FORCES_ENDS = ("max_characters", "max_sentences", "max_words")
"""Keys that leave all ends of sequence equally good; which of them a beam takes is chance."""
FORCING = ("forced_bos_token_id", "forced_eos_token_id", "thinking_budget", "token_healing")
"""Keys by which a token comes that another key bans: what forces acts behind what bans, as in transformers."""
DRAFTS = ("prompt_lookup_num_tokens", "assistant_model", "assistant_early_exit")
READ_PADDING = (
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "sequence_bias", "repetition_penalty",
    "encoder_repetition_penalty",
)  # fmt: skip
"""Flags that count padding as text in transformers, and not here."""
MASKS_ENDS = (
    "min_length", "min_new_tokens", "row_min_new_tokens", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "begin_suppress_tokens", "bad_words_ids", "prefix_allowed_tokens_fn", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
)  # fmt: skip
"""Flags that may mask an end of sequence, whose score transformers makes NaN under a decay."""
ENDS_ROWS = (
    "stop_when",
    "stop_regex",
    "stop_strings",
    "stop_confidence",
    "stop_entropy",
    "row_max_new_tokens",
    "ngram_loop_size",
)
"""Criteria of rows, which end whole calls of constrained beams."""
SMALL = 1e-3
SHORT_S = 1.0
"""A `max_time` below it may be over before the first tokens."""
ROUNDED = ("alone", "stock", "stream")
"""Promises that rounding may break, where two tokens are as good as equal."""


@dataclass(frozen=True)
class Verdict:
    """How a call went.

    Args:
        outcome: "result", the name of an error's class, "as transformers" for an error that it raises too,
            "rounding", or "broken".
        promise: which one is broken, "" for none.
        what: what was found, in words.
        kind: what tells one fault from another: the error's class and where it was raised.
        stricter: the message of a refusal where transformers gives a result.
    """

    outcome: str
    promise: str = ""
    what: str = ""
    kind: str = ""
    stricter: str = ""


def verdict(call: Call) -> Verdict:
    """Run a call and hold it against every promise. One that only rounding breaks is kept in double precision."""
    found = _verdict(call)
    if found.promise not in ROUNDED or call.dtype == "float64":
        return found
    exact = _verdict(replace(call, dtype="float64"))
    return found if exact.promise or exact.outcome != "result" else Verdict("rounding")


def _verdict(call: Call) -> Verdict:
    first = ours(call)
    if first.changed:
        return Verdict("broken", "model", f"the call has changed {first.changed}", first.changed)
    if first.error is not None:
        return _of_error(call, first.error)
    checks = {"values": _values, "again": _again, "stream": _stream, "alone": _alone, "stock": _stock}
    for promise, check in checks.items():
        if wrong := check(call, first):
            return Verdict("broken", promise, wrong, _subject(call))
    return Verdict("result")


def _of_error(call: Call, error: BaseException) -> Verdict:
    """An error of the documented families, or one that transformers raises as well."""
    cause = error.__cause__
    raw = error if not isinstance(error, GenmodeError) else cause if isinstance(error, DecodingError) else None
    if raw is None or isinstance(raw, GenmodeError):
        gives = call.of_stock and call.via != "stream" and stock(call).error is None
        return Verdict(type(error).__name__, stricter=str(error) if gives else "")
    if isinstance(raw, Late):
        return Verdict("broken", "time", str(raw), _place(raw))
    kept = {key: value for key, value in call.keys.items() if key in flag_defaults() or key in NOT_FLAGS}
    theirs = stock(replace(call, via="generate", keys=kept)).error
    if type(theirs) is type(raw):
        return Verdict("as transformers")
    return Verdict("broken", "errors", f"{type(error).__name__}: {error}"[:300], f"{type(raw).__name__} {_place(raw)}")


def _place(error: BaseException) -> str:
    """Where in genmode, or else where at all, an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "/genmode" in frame.filename]
    frame = (inside or frames)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.name}"


def _subject(call: Call) -> str:
    return " ".join(sorted(key for key in call.keys if not key.startswith(("output_", "return_"))))


def _values(call: Call, found: Outcome) -> str:
    """No NaN, no token outside of the vocabulary, none that was banned or has the score -inf."""
    tokens = found.tokens
    if bool(((tokens < 0) | (tokens >= VOCAB)).any()):
        return f"a token outside of the vocabulary: {tokens.tolist()}"
    for name in ("scores", "logits"):
        if any(bool(one.isnan().any()) for one in found.recorded(name)):
            return f"{name} hold NaN"
    rows = _decoded(call, tokens)
    pads = _numbers(call.keys.get("pad_token_id")) or [PAD]
    ended = any(key in call.keys for key in ENDS_ROWS)
    scores = found.recorded("scores") if not call.keys.get("token_healing") else ()  # which changes the prompt's length
    for row, decoded in enumerate(rows):
        if (
            len(scores) >= len(decoded)
            and len(scores)
            and len(scores[0]) == len(rows)
            and "beam_indices" not in found.output
        ):
            # the end of a row that a criterion may have ended is its padding, where both are the same id
            sure = decoded[:-1] if ended and decoded[-1:] == pads[:1] else decoded
            impossible = [i for i, token in enumerate(sure) if scores[i][row, token] == -torch.inf]
            if impossible:
                return f"row {row} decoded {decoded}, whose tokens {impossible} have the score -inf"
        if not any(call.keys.get(key) is not None for key in FORCING) and (
            banned := _banned(call, row, len(rows), decoded)
        ):
            return f"row {row} decoded {decoded} with {banned}"
    return ""


def _decoded(call: Call, tokens: Tensor) -> list[list[int]]:
    """What each row decoded, up to its end: an end of sequence, or padding to the last column."""
    width = 1 if call.family == "t5" or call.lengths is None else call.inputs()["input_ids"].shape[1]
    ends = set(_numbers(call.keys.get("eos_token_id")))
    pads = {PAD, *_numbers(call.keys.get("pad_token_id")), *ends}
    # an end of sequence that is banned is no choice of a row's, but its padding, where there is no other
    blank = (
        ends.intersection(_numbers(call.keys.get("suppress_tokens")) + _numbers(call.keys.get("begin_suppress_tokens")))
        if call.keys.get("pad_token_id") is None
        else set()
    )
    rows: list[list[int]] = []
    for row in tokens[:, width:].tolist():
        last = next((i for i, token in enumerate(row) if token in ends), None)
        row = row if last is None else row[: last + 1]
        if row and row[-1] in blank:  # a token that cannot be chosen, and pads: the row ended otherwise, or is empty
            row.pop()
        while last is None and row and row[-1] in pads:
            row.pop()
        rows.append(row)
    return rows


def _banned(call: Call, row: int, rows: int, decoded: list[int]) -> str:
    """Which ban a row's tokens break; "" for none. An end that is forced is none."""
    ends = _numbers(call.keys.get("eos_token_id"))
    forced = ends if any(key in call.keys for key in FORCES_ENDS) else []
    for token in _numbers(call.keys.get("suppress_tokens")):
        if token in decoded and token not in forced:
            return f"the suppressed token {token}"
    if decoded and decoded[0] in _numbers(call.keys.get("begin_suppress_tokens")) and decoded[0] not in forced:
        return f"the token {decoded[0]}, which is suppressed at the beginning"
    # A row begins with its prompt: a banned sequence may have begun there.
    begun = call.prompt(row * call.rows // rows) if call.lengths is not None and call.family != "t5" else []
    text = [*begun, *decoded]
    for key in ("bad_words_ids", "banned_phrases"):
        for word in _words(call.keys.get(key)):
            spots = range(max(len(begun) - len(word) + 1, 0), len(text) - len(word) + 1)
            allowed = word[-1] in forced or (len(word) == 1 and word[0] in ends)
            if not allowed and any(text[i : i + len(word)] == word for i in spots):
                return f"the banned sequence {word}"
    return ""


def _numbers(value: Any) -> list[int]:
    return [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, int)]


def _words(value: Any) -> list[list[int]]:
    lists: Iterable[Any] = value if isinstance(value, list) else []
    return [list(one) for one in lists if isinstance(one, (list, tuple)) and one]


def _again(call: Call, first: Outcome) -> str:
    """The same call gives the same again; scores up to rounding, since a model's first draft is compared with its forwards."""
    second = ours(call)
    if second.error is not None:
        return f"the second time: {type(second.error).__name__}: {second.error}"[:300]
    return _differ(first, second)


def _stream(call: Call, first: Outcome) -> str:
    """What is streamed is the result."""
    if call.via == "generate":
        return ""
    if call.via == "stream":
        found = streamed(call)
        if isinstance(found.error, (ParameterError, UnsupportedError)):
            return ""  # not every call can be streamed
        if found.error is not None:
            return f"streamed: {type(found.error).__name__}: {found.error}"[:300]
        got = found.tokens
    else:
        got = first.streamed if first.streamed is not None else torch.zeros(len(first.tokens), 0, dtype=torch.long)
    width = first.tokens.shape[1] - got.shape[1]
    least = 1 if call.family == "t5" or call.lengths is None else max(call.lengths)
    if width != least and not call.keys.get("token_healing"):  # which decodes the end of the prompt anew
        return f"streamed {got.shape[1]} tokens of each row, of {first.tokens.shape[1] - least}"
    same = torch.equal(first.tokens[:, width:], got)
    return "" if same else f"streamed {got.tolist()}, the result is {first.tokens[:, width:].tolist()}"


def _alone(call: Call, first: Outcome) -> str:
    """With `seed=` a row alone is the row of the batch."""
    if call.rows < 2 or call.keys.get("seed") is None or any(key in call.keys for key in BY_WIDTH):
        return ""
    assert call.lengths is not None
    row = call.text % call.rows
    if call.lengths[row] == 0 or not (call.masked or len(set(call.lengths)) == 1) or _of_the_batch(call):
        return ""
    alone = ours(call, row)
    if alone.error is not None:
        return f"row {row} alone: {type(alone.error).__name__}: {alone.error}"[:300]
    copies = len(first.tokens) // call.rows
    width = 1 if call.family == "t5" else max(call.lengths)
    of_batch = first.tokens[row * copies : (row + 1) * copies, width:]
    by_itself = alone.tokens[:, (1 if call.family == "t5" else call.lengths[row]) :]
    count = min(by_itself.shape[1], of_batch.shape[1])
    rest = [*by_itself[:, count:].flatten().tolist(), *of_batch[:, count:].flatten().tolist()]
    if torch.equal(of_batch[:, :count], by_itself[:, :count]) and len(set(rest)) <= 1:
        return ""
    return f"row {row} is {of_batch.tolist()} in the batch and {by_itself.tolist()} alone"


def _of_the_batch(call: Call) -> bool:
    """Whether the strategy says that rows of a batch depend on each other, or chance decides between equals."""
    keys = {key for key, value in call.keys.items() if value is not None}
    constrained = bool(keys & {"force_words_ids", "constraints"})
    beams = constrained or call.keys.get("num_beams", 1) != 1 or "beam" in str(call.keys.get("strategy"))
    layers = call.keys.get("dola_layers")
    return (
        (call.family == "t5" and "prefill_chunk_size" in keys)  # a chunk's mask hides the rest of the encoder's input
        or (beams and not keys.isdisjoint((*FORCES_ENDS, *ENDS_ROWS)))  # what fills up results hangs on when all end
        or (layers is not None and not (isinstance(layers, list) and len(layers) == 1))  # one layer for all rows
    )


def _stock(call: Call, first: Outcome) -> str:
    """Where transformers takes the call, tokens, scores and random numbers are its own."""
    if not call.of_stock or _stated_to_differ(call):
        return ""
    theirs = stock(call)
    if theirs.error is not None:
        return ""
    if call.keys.get("num_beams", 1) != 1:  # transformers fills up beams that a criterion ends with -1
        fill = next(iter(_numbers(call.keys.get("pad_token_id"))), PAD)
        theirs.tokens[(theirs.tokens == -1) | (theirs.tokens >= VOCAB)] = fill
    return _differ(first, theirs)


def _stated_to_differ(call: Call) -> bool:
    """Whether docs/differences.md says that the call's result is another on purpose."""
    keys = {key for key, value in call.keys.items() if value is not None and value is not False}
    drafts = not keys.isdisjoint(DRAFTS)
    padded = call.lengths is not None and len(set(call.lengths)) > 1
    return (
        (drafts and "do_sample" in keys)
        or ("guidance_scale" in keys and drafts)
        or (padded and not keys.isdisjoint(READ_PADDING))
        or "token_healing" in keys
        or ("exponential_decay_length_penalty" in keys and not keys.isdisjoint(MASKS_ENDS))
        or ("encoder_repetition_penalty" in keys and not keys.isdisjoint(("num_beams", "num_return_sequences")))
        or ("remove_invalid_values" in keys and "output_scores" in keys)  # masked tokens stay masked
        or (drafts and call.keys.get("max_time", SHORT_S) < SHORT_S)  # over when the first draft is verified there
        or (drafts and ("stop_strings" in keys or _begins_ended(call)))
        or ("guidance_scale" in keys and call.dtype in ("float16", "bfloat16"))  # of other kernels, rounded otherwise
    )


def _begins_ended(call: Call) -> bool:
    """Whether a prompt ends in an end of sequence."""
    ends = _numbers(call.keys.get("eos_token_id"))
    return call.lengths is not None and any(call.prompt(row)[-1:] == [end] for row in range(call.rows) for end in ends)


def _differ(one: Outcome, other: Outcome) -> str:
    """How two outcomes differ; "" where they are the same."""
    if type(one.output) is not type(other.output):
        return f"{type(one.output).__name__}, and {type(other.output).__name__}"
    if not torch.equal(one.tokens, other.tokens):
        return f"{one.tokens.tolist()}, and {other.tokens.tolist()}"
    for name in ("scores", "logits"):
        pairs = list(zip(one.recorded(name), other.recorded(name), strict=False))
        if len(one.recorded(name)) != len(other.recorded(name)):
            return f"{name} of {len(one.recorded(name))} steps, and of {len(other.recorded(name))}"
        for step, (mine, theirs) in enumerate(pairs):
            if not _close(mine, theirs):
                return f"{name} of step {step} differ"
    return "" if torch.equal(one.state, other.state) else "torch's generator is left in another state"


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return torch.allclose(one.double(), other.double(), rtol=SMALL, atol=SMALL, equal_nan=True)
