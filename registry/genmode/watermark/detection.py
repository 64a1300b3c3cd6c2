"""Looking for a watermark in texts: tokens, the watermarker that is meant, and what it reads of the model's predictions.

A scheme says what each token says for the mark (`Watermarker.evidence`) and how that is distributed without one (`null`);
`decision` decides.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ..contract import Detection, Trait, Watermarker
from ..contract.kinds import Kind
from ..errors import ParameterError
from ..plugins.adoption import adopted, adopters_of
from ..plugins.registry import registry
from .config import WatermarkingConfig
from .decision import judge


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
        statistic: Tensor | None = None
        if Trait.READS_MODEL in mark.traits:
            statistic = read_statistic(mark, model, tokens, prompts[begin : begin + batch_size])
        found += judge(mark, tokens, statistic, fpr, window)
    return found[0] if single else found


def read_statistic(mark: Watermarker, model: Any, tokens: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
    """`Watermarker.statistic` of the prediction of each token: `[texts, length]`, float32, NaN where there is none.

    Args:
        mark: the watermarker.
        model: what the texts were decoded from.
        tokens: `[texts, length]`, long; negative ids are padding, behind the text.
        prompts: what each text was the answer to; empty for nothing.

    Raises:
        ParameterError: there is no model, or a token is outside its vocabulary.
    """
    if model is None:
        raise ParameterError(f"watermarker {mark.name!r} is read with the model's predictions; pass model=")
    vocab = int(model.config.get_text_config(decoder=True).vocab_size)
    if (highest := max(int(tokens.max()), *(max(head, default=-1) for head in prompts))) >= vocab:
        raise ParameterError(
            f"token {highest} is outside the model's vocabulary of {vocab}: the text was not tokenized for this model"
        )
    lengths = (tokens >= 0).sum(1).tolist()
    whole = padded([[*head, *row[:n]] for head, row, n in zip(prompts, tokens.tolist(), lengths, strict=True)])
    statistic = torch.full(tokens.shape, torch.nan)
    with torch.no_grad():
        logits = model(
            input_ids=whole.clamp(min=0).to(model.device), attention_mask=(whole >= 0).long().to(model.device)
        ).logits
    for text, (head, length) in enumerate(zip(prompts, lengths, strict=True)):
        first = 0 if head else 1  # a text's first token is predicted by nothing
        begin = len(head) + first
        if length > first:
            predictions = logits[text, begin - 1 : len(head) + length - 1].float()  # [length - first, vocab]
            statistic[text, first:length] = mark.statistic(predictions).cpu()
    return statistic


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
        watermark = adopted(watermark.construct_processor(vocab, "cpu"), adopters_of(registry(), Kind.WATERMARKERS))
    if not isinstance(watermark, Watermarker):
        raise ParameterError(
            f"a watermark of type {type(watermark).__name__} cannot be read; give a WatermarkingConfig, a watermarker or the name of one"
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
        if texts.is_floating_point() or texts.dim() not in (1, 2) or not texts.numel():
            raise ParameterError(
                f"texts: a tensor {list(texts.shape)} of {texts.dtype} is no text; give token ids, [length] or [texts, length]"
            )
        rows = [[token for token in row if token >= 0] for row in texts.reshape(-1, texts.shape[-1]).tolist()]
        return rows, texts.dim() == 1
    if not isinstance(texts, Collection) or isinstance(texts, Mapping):
        raise ParameterError(f"texts: {texts!r} is no text; give a string, token ids, or a list of these")
    single = isinstance(texts, str) or isinstance(next(iter(texts), None), int)
    many = cast("Sequence[Any]", [texts] if single else list(texts))
    ids: list[list[int]] = []
    for text in many:
        if isinstance(text, str):
            if tokenizer is None:
                raise ParameterError("texts are strings and there is no tokenizer; pass tokenizer=, or token ids")
            ids.append(tokenizer(text, add_special_tokens=False, return_tensors=None)["input_ids"])
        else:
            try:
                ids.append([operator.index(token) for token in text])
            except TypeError as error:
                raise ParameterError(f"texts: {text!r} is no text; give a string or a list of token ids") from error
    return ids, single


def padded(ids: Sequence[Sequence[int]]) -> Tensor:
    """`[texts, length]`, long, with -1 behind the shorter ones."""
    tokens = torch.full((len(ids), max([1, *map(len, ids)])), -1)
    for row, one in enumerate(ids):
        tokens[row, : len(one)] = torch.tensor(one, dtype=torch.long)
    return tokens
