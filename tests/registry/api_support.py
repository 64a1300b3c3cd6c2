"""What the tests of calls share: a call, a streamer that keeps what it gets, a model that waits."""

from __future__ import annotations

import threading
from typing import Any

import transformers
from torch import Tensor

from genmode.testing.harness.models import fresh, prompt, tokenizer

LENGTH = 9
FLAGS: dict[str, Any] = {"do_sample": False, "max_new_tokens": LENGTH}
ONE = prompt("llama", 1)


class Recording(transformers.generation.BaseStreamer):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def put(self, value: Tensor) -> None:
        self.pieces.append(value.tolist())

    def end(self) -> None:
        self.pieces.append("end")


def forwards(model: Any) -> list[int]:
    """A list that grows with every forward of the model."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


def waiting(count: int, cancel: threading.Event, reached: threading.Event | None = None) -> tuple[Any, list[int]]:
    """A model whose forward number `count` says that it was reached and goes on when the call is cancelled."""
    model = fresh("llama")
    seen = forwards(model)

    def wait(*_: object) -> None:
        if len(seen) == count:
            if reached is not None:
                reached.set()
            assert cancel.wait(60)

    model.register_forward_pre_hook(wait)
    return model, seen


def words(tokens: Tensor) -> str:
    text: str = tokenizer().decode(tokens, skip_special_tokens=True)
    return text


def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
    raise ArithmeticError("no good")
