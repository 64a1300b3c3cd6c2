"""Looking for a watermark in texts: padding, batches, prompts, and what does not fit."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import genmode
from genmode.watermark import judge

from .detection_support import config

pytestmark = pytest.mark.usefixtures("schemes")


def test_batches_lists_and_padding() -> None:
    texts = [[1] * 10, [2] * 4, [3] * 7]
    alone = [genmode.detect(text, config()) for text in texts]
    assert genmode.detect(texts, config()) == alone
    assert genmode.detect(texts, config(), batch_size=1) == alone
    padded = torch.tensor([[1] * 10, [2] * 4 + [-1] * 6, [3] * 7 + [-1] * 3])
    assert genmode.detect(padded, config()) == alone
    assert judge(config().build(), padded) == alone
    assert len(alone[1].evidence) == 4


def test_a_scheme_that_reads_the_model() -> None:
    class Model:
        device = torch.device("cpu")
        seen: ClassVar[list[Tensor]] = []

        def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            self.seen.append(input_ids)
            scores = torch.nn.functional.one_hot(input_ids, 100).float() * input_ids[:, :, None]
            return type("Output", (), {"logits": scores})

    model: Any = Model()
    model.config = type("Config", (), {"get_text_config": lambda self, decoder: type("T", (), {"vocab_size": 100})})()
    reader = genmode.WatermarkingConfig("reader", key=0)
    with pytest.raises(genmode.ParameterError, match="pass model="):
        genmode.detect([1] * 9, reader)
    with pytest.raises(genmode.ParameterError, match="model=model"):
        judge(reader.build(), torch.tensor([[1] * 9]))
    assert genmode.detect([1] * 9, reader, model=model).tokens == 8  # nothing predicts the first
    several = genmode.detect([[1] * 9, [1] * 4], reader, model=model, prompt=[[5, 6], [7]])
    assert [one.tokens for one in several] == [9, 4]
    assert model.seen[-1].tolist() == [[5, 6] + [1] * 9, [7] + [1] * 4 + [0] * 6]
    for text, head in (([1, 100], None), ([1, 2], [[100]])):
        with pytest.raises(genmode.ParameterError, match="token 100 is outside the model's vocabulary of 100"):
            genmode.detect([text], reader, model=model, prompt=head)
    with pytest.raises(genmode.ParameterError, match="1 prompts for 2 texts"):
        genmode.detect([[1] * 9, [1] * 4], reader, model=model, prompt=[[5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"fpr": 0}, "fpr=0 is not allowed"),
        ({"window": 0}, "window=0 is not allowed"),
        ({"texts": "words"}, "there is no tokenizer"),
        ({"texts": "words", "tokenizer": "no/such-tokenizer"}, "no tokenizer could be loaded"),
        ({"texts": None}, "None is no text; give a string"),
        ({"texts": {"input_ids": [1]}}, "is no text; give a string"),
        ({"texts": torch.zeros(0, dtype=torch.long)}, r"texts: a tensor \[0\] of torch.int64 is no text"),
        ({"texts": torch.zeros(2, 0, dtype=torch.long)}, r"texts: a tensor \[2, 0\] of torch.int64 is no text"),
        ({"texts": [None]}, "texts: None is no text"),
        ({"texts": [[1.5]]}, r"texts: \[1.5\] is no text"),
        ({"texts": torch.rand(1, 4)}, r"a tensor \[1, 4\] of torch.float32 is no text"),
        ({"watermark": 3}, "a watermark of type int cannot be read"),
        ({"watermark": genmode.WatermarkingConfig("parity")}, "key has to be given"),
    ],
)
def test_bad_input(call: dict[str, Any], message: str) -> None:
    arguments = {"texts": [1, 2], "watermark": config(), **call}
    with pytest.raises(genmode.ParameterError, match=message):
        genmode.detect(arguments.pop("texts"), arguments.pop("watermark"), **arguments)
