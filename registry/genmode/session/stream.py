"""Hands tokens to a streamer as soon as they cannot change."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ..errors import DecodingError
from .token_buffer import TokenBuffer


class EndingOnce:
    """A streamer that learns of the end once; as a context, also where what is inside fails."""

    def __init__(self, streamer: Any) -> None:
        self.streamer, self.put = streamer, streamer.put
        self.name = type(streamer).__name__
        self._ended = False

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self.streamer.end()

    def __enter__(self) -> EndingOnce:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        try:
            self.end()
        except Exception as late:  # the call's own error says more
            warnings.warn(f"after the call had failed, the streamer ({self.name}) failed in end: {late}", RuntimeWarning,
                          stacklevel=3)  # fmt: skip


class Emitter:
    """Feeds one transformers streamer.

    Args:
        streamer: an object with `put(tensor)` and `end()`.
        prompt: `[rows, length]`, long; put first, as transformers does.
        pad: what to put for rows that have ended before others.
    """

    def __init__(self, streamer: Any, prompt: Tensor, pad: int) -> None:
        self.streamer, self.pad = streamer, pad
        self.name = getattr(streamer, "name", type(streamer).__name__)
        self.sent = prompt.shape[1]
        self._prompt: Tensor | None = prompt

    def begin(self) -> None:
        """Put the prompt."""
        prompt, self._prompt = self._prompt, None
        if prompt is not None:
            self._tell("put", prompt.cpu())

    def put(self, tokens: Tensor) -> None:
        """One token of every row, `[rows]`, on the host."""
        self._tell("put", tokens)
        self.sent += 1

    def advance(self, history: TokenBuffer, unfinished: Tensor, final: Tensor | None = None) -> None:
        """Send every column that all unfinished rows have reached for good; waits for the device.

        Args:
            history: the rows.
            unfinished: `[rows]`, bool.
            final: `[rows]`, long: columns before this one can no longer change; None for all that there are.
        """
        if final is None and history.level is not None:
            end = history.level
        elif bool(unfinished.any()):
            end = int((history.lengths if final is None else final)[unfinished].min())
        else:
            end = int(history.lengths.max())
        if end > self.sent:
            self.reach(self._filled(history, end), end)

    def _filled(self, history: TokenBuffer, end: int) -> Tensor:
        """Columns `[0, end)` of every row, padded where a row has ended before."""
        tokens = history.buffer[:, :end]
        if history.level is not None:
            return tokens
        columns = torch.arange(end, device=tokens.device)
        return tokens.where(columns < history.lengths[:, None], self.pad)

    def reach(self, tokens: Tensor, length: int | None) -> None:
        """Send the columns of `tokens` `[rows, ...]` up to `length`, or all, that were not sent yet."""
        end = tokens.shape[1] if length is None else length
        if end > self.sent:
            for column in tokens[:, self.sent : end].cpu().unbind(1):
                self.put(column.clone())

    def end(self) -> None:
        """No more tokens."""
        self._tell("end")

    def _tell(self, method: str, *arguments: Tensor) -> None:
        try:
            getattr(self.streamer, method)(*arguments)
        except Exception as error:
            raise DecodingError(
                f"the streamer ({self.name}) failed in {method}: {type(error).__name__}: {error}"
            ) from error
