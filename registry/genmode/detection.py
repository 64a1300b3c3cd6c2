"""Reading a mark: from texts and a watermarker to decisions.

A scheme says what each token says for the mark (`Watermarker.evidence`) and how that is distributed without one
(`null`). Here tokens that read the same draw of the key are counted once, the rest are added up, and the exact tail
gives the p-value; a text is marked where it is at most `fpr`. With `window=` the text is read in overlapping windows
as well, p is the least of theirs times their number (Bonferroni), and the passage is where windows agree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .call.adopters import adopters_of
from .call.processors import native
from .contract import Detection, Evidence, Null, Watermarker
from .errors import ParameterError, UnsupportedError
from .registry import registry
from .watermarking import WatermarkingConfig

FEW = 20
"""Where fewer tokens count, the note of a text without a mark says so."""


def detect(
    texts: Any, watermark: Any, *, tokenizer: Any = None, model: Any = None, fpr: float = 0.01,
    window: int | None = None, prompt: Any = None, batch_size: int = 8,
) -> Any:  # fmt: skip
    """Look for a watermark.

    Leave the prompt out where you can: it is not marked, and weakens the evidence.

    Args:
        texts: one text or a list of them, each a string or token ids (a list or a tensor `[length]`); or a tensor
            `[texts, length]`, long, in which negative ids are padding.
        watermark: a `WatermarkingConfig`, also transformers' own, a watermarker, or the name of one that needs
            no parameters.
        tokenizer: for strings; the tokenizer, or its name or folder.
        model: for schemes that read the model's predictions, and where a scheme needs the size of its vocabulary.
        fpr: the share of unmarked texts that may be taken for marked.
        window: how many tokens a passage has at least; looks for one inside longer texts.
        prompt: what the text, or each of the texts, was the answer to, for schemes that read the model's predictions;
            they are better with it.
        batch_size: texts in one forward of the model.

    Returns:
        a `Detection` for one text, a list of them for several.

    Raises:
        ParameterError: the arguments do not fit each other, or the key or tokenizer is not that of the configuration.
    """
    if not 0 < fpr < 1:
        raise ParameterError(f"fpr={fpr!r} is not allowed; it has to lie between 0 and 1")
    if window is not None and window < 1:
        raise ParameterError(f"window={window!r} is not allowed; it has to be a number of tokens, at least 1")
    tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
    mark = as_watermarker(watermark, tokenizer, model)
    ids, single = token_ids(texts, tokenizer)
    prompts: list[list[int]] = [[]] * len(ids)
    if prompt is not None:
        prompts, alone = token_ids(prompt, tokenizer)
        prompts = prompts * len(ids) if alone else prompts
        if len(prompts) != len(ids):
            raise ParameterError(f"{len(prompts)} prompts for {len(ids)} texts; give one for all, or one for each")
    found: list[Detection] = []
    for begin in range(0, len(ids), batch_size):
        tokens = padded(ids[begin : begin + batch_size])
        gist = read_gist(mark, model, tokens, prompts[begin : begin + batch_size]) if mark.reads_model else None
        found += judge(mark, tokens, gist, fpr, window)
    return found[0] if single else found


def judge(
    mark: Watermarker, tokens: Tensor, gist: Tensor | None = None, fpr: float = 0.01, window: int | None = None
) -> list[Detection]:
    """The decisions on texts that are tensors: `[texts, length]`, long; negative ids are padding.

    Raises:
        ParameterError: the scheme reads the model's predictions, and `gist` is None.
    """
    if type(mark).detect is not Watermarker.detect:
        if window is not None:
            raise UnsupportedError(f"watermarker {mark.name!r} has a detector of its own, which knows no windows")
        return mark.detect(tokens)
    if mark.reads_model and gist is None:
        raise ParameterError(
            f"watermarker {mark.name!r} is read with the model's predictions; call genmode.detect(..., model=model)"
        )
    lengths = (tokens >= 0).sum(1).tolist()
    values, draws, weights = (None if x is None else x.cpu() for x in mark.evidence(tokens, gist))
    if values is None or draws is None:
        raise ParameterError(f"watermarker {mark.name!r} gave no evidence")
    null = mark.null()
    found: list[Detection] = []
    for text, length in enumerate(lengths):
        one = Evidence(
            values[text, :length].double(), draws[text, :length],
            None if weights is None else weights[text, :length].double(),
        )  # fmt: skip
        found.append(_judge_text(one, null, fpr, window))
    return found


def _judge_text(evidence: Evidence, null: Null, fpr: float, window: int | None) -> Detection:
    values, draws, weights = evidence
    counted = first_of_each(draws, ~values.isnan())
    deviation = math.sqrt(null.variance)
    shown = tuple(
        (value - null.mean) / deviation if use else None
        for value, use in zip(values.tolist(), counted.tolist(), strict=True)
    )
    spans = [(0, len(values))]
    if window is not None and len(values) > window:
        stride = max(1, window // 4)
        starts = [*range(0, len(values) - window, stride), len(values) - window]
        spans = [(start, start + window) for start in starts]
    tails = [_tail(null, values, weights, counted, span) for span in spans]
    best = min(range(len(spans)), key=lambda i: tails[i])
    p_value = min(1.0, tails[best] * len(spans))
    begin, end = spans[best]
    used = counted[begin:end].nonzero()[:, 0] + begin
    least = min(1.0, (null.least(len(used)) if len(used) else 1.0) * len(spans))
    passage = None
    if window is not None and p_value <= fpr:
        low, high = best, best
        while low > 0 and tails[low - 1] * len(spans) <= fpr:
            low -= 1
        while high + 1 < len(spans) and tails[high + 1] * len(spans) <= fpr:
            high += 1
        passage = (spans[low][0], spans[high][1])
    note = ""
    if least > fpr:
        note = (
            f"too short: {len(used)} tokens count, and even if all spoke for the mark, p would be {least:.2g} "
            f"and not {fpr:g}"
        )
    elif p_value > fpr:
        note = "no mark of this key and scheme; another key, tokenizer or model reads as no mark too"
        if len(used) < FEW:
            note += f"; {len(used)} tokens that count are few: marked text of that length is often missed"
    return Detection(
        score=_z(null, values[used], None if weights is None else weights[used]), p_value=p_value,
        tokens=len(used), marked=None if least > fpr else p_value <= fpr, fpr=fpr, evidence=shown, passage=passage,
        note=note,
    )  # fmt: skip


def first_of_each(draws: Tensor, there: Tensor) -> Tensor:
    """Which of `draws` `[length]` come for the first time among those that are `there`: `[length]`, bool."""
    seen: set[int] = set()
    fresh: list[bool] = []
    for draw, use in zip(draws.tolist(), there.tolist(), strict=True):
        fresh.append(use and draw not in seen)
        if use:
            seen.add(draw)
    return torch.tensor(fresh, dtype=torch.bool)


def _tail(null: Null, values: Tensor, weights: Tensor | None, counted: Tensor, span: tuple[int, int]) -> float:
    used = counted[span[0] : span[1]].nonzero()[:, 0] + span[0]
    return null.tail(values[used], None if weights is None else weights[used]) if len(used) else 1.0


def _z(null: Null, values: Tensor, weights: Tensor | None) -> float:
    if not len(values):
        return 0.0
    weights = torch.ones_like(values) if weights is None else weights
    spread = math.sqrt(null.variance * float(weights.square().sum()))
    return float((weights * (values - null.mean)).sum()) / spread if spread > 0 else 0.0


def read_gist(mark: Watermarker, model: Any, tokens: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
    """What the scheme keeps of the prediction of each token: `[texts, length]`, float32, NaN where there is none."""
    if model is None:
        raise ParameterError(f"watermarker {mark.name!r} is read with the model's predictions; pass model=")
    vocab = int(model.config.get_text_config(decoder=True).vocab_size)
    if (highest := max(int(tokens.max()), *(max(head, default=-1) for head in prompts))) >= vocab:
        raise ParameterError(
            f"token {highest} is outside the model's vocabulary of {vocab}: the text was not tokenized for this model"
        )
    lengths = (tokens >= 0).sum(1).tolist()
    whole = padded([[*head, *row[:n]] for head, row, n in zip(prompts, tokens.tolist(), lengths, strict=True)])
    gist = torch.full(tokens.shape, torch.nan)
    with torch.no_grad():
        logits = model(
            input_ids=whole.clamp(min=0).to(model.device), attention_mask=(whole >= 0).long().to(model.device)
        ).logits
    for text, (head, length) in enumerate(zip(prompts, lengths, strict=True)):
        first = 0 if head else 1  # a text's first token is predicted by nothing
        begin = len(head) + first
        if length > first:
            gist[text, first:length] = mark.gist(logits[text, begin - 1 : len(head) + length - 1].float()).cpu()
    return gist


def as_watermarker(watermark: Any, tokenizer: Any = None, model: Any = None) -> Watermarker:
    """The watermarker that is meant, checked against the tokenizer and completed from the model."""
    vocab = None if model is None else int(model.config.get_text_config(decoder=True).vocab_size)
    if isinstance(watermark, str):
        watermark = WatermarkingConfig(watermark)
    if isinstance(watermark, WatermarkingConfig):
        watermark.check_tokenizer(tokenizer)
        watermark = watermark.build()
    elif hasattr(watermark, "construct_processor"):  # a configuration of transformers
        if vocab is None:
            raise ParameterError(
                f"{type(watermark).__name__} does not say how large the vocabulary is; pass model=, or a "
                "genmode.WatermarkingConfig with vocab_size"
            )
        watermark = native(watermark.construct_processor(vocab, "cpu"), adopters_of(registry(), "processors"))
    if not isinstance(watermark, Watermarker):
        raise ParameterError(
            f"watermark={watermark!r} cannot be read; give a WatermarkingConfig, a watermarker or the name of one"
        )
    mark: Watermarker = watermark
    if vocab is not None and "vocab_size" in type(mark).Params.model_fields and not mark.params.vocab_size:
        mark = type(mark)(mark.params.model_copy(update={"vocab_size": vocab}))
    return mark


def load_tokenizer(name: str) -> Any:
    """A tokenizer by its name on the Hub or its folder.

    Raises:
        ParameterError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers raises nearly anything for what is no tokenizer
        reason = str(error).strip().split("\n", 1)[0]
        raise ParameterError(f"tokenizer={name!r}: no tokenizer could be loaded from it: {reason}") from error


def token_ids(texts: Any, tokenizer: Any) -> tuple[list[list[int]], bool]:
    """The ids of each text, and whether it was one text alone.

    Raises:
        ParameterError: a string without a tokenizer, or what is no text.
    """
    if isinstance(texts, Tensor):
        if texts.is_floating_point() or texts.dim() not in (1, 2):
            raise ParameterError(
                f"a tensor {list(texts.shape)} of {texts.dtype} is no text; give token ids, [length] or [texts, length]"
            )
        rows = [[token for token in row if token >= 0] for row in texts.reshape(-1, texts.shape[-1]).tolist()]
        return rows, texts.dim() == 1
    if not isinstance(texts, Collection) or isinstance(texts, Mapping):
        raise ParameterError(f"{texts!r} is no text; give a string, token ids, or a list of these")
    single = isinstance(texts, str) or isinstance(next(iter(texts), None), int)
    many = cast("Sequence[Any]", [texts] if single else list(texts))
    ids: list[list[int]] = []
    for text in many:
        if isinstance(text, str):
            if tokenizer is None:
                raise ParameterError("texts are strings and there is no tokenizer; pass tokenizer=, or token ids")
            ids.append(tokenizer(text, add_special_tokens=False, return_tensors=None)["input_ids"])
        else:
            ids.append([int(token) for token in text])
    return ids, single


def padded(ids: Sequence[Sequence[int]]) -> Tensor:
    """`[texts, length]`, long, with -1 behind the shorter ones."""
    tokens = torch.full((len(ids), max([1, *map(len, ids)])), -1)
    for row, one in enumerate(ids):
        tokens[row, : len(one)] = torch.tensor(one, dtype=torch.long)
    return tokens
