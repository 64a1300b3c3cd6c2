"""What of a call's own work a device may record and replay, offered to strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .noise import TorchNoise, drawn_freely

if TYPE_CHECKING:
    from .state import DecodeState


class CallReplay:
    """See `genmode.contract.session.Replay`."""

    def __init__(self, state: DecodeState) -> None:
        self._state = state

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._state.engine.replay(function, *arguments)

    @property
    def processors(self) -> Callable[[Tensor], Tensor] | None:
        state = self._state
        return state.chain.pure if state.engine.replays and state.draft is None else None

    @property
    def multinomial(self) -> Callable[[Tensor, int], Tensor] | None:
        return drawn_freely if isinstance(self._state.noise, TorchNoise) else None

    @property
    def endings(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        return self._state.stopping.by_tokens

    def buffer(self, width: int) -> Tensor:
        self._state.history.reserve(width)
        return self._state.history.buffer
