"""The contract of strategies: a whole decoding loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .component import Component

if TYPE_CHECKING:
    from ..session import Session


class Strategy(Component):
    """A whole decoding loop. See `genmode.session.Session` for all that it may use.

    Class attributes:
        flags: transformers flags that naming this strategy implies, e.g. `{"do_sample": True}`. The
            temperature and truncation processors of a config are active only under `do_sample`, and
            `num_beams` rows are decoded for each input only where this says that the strategy keeps
            beams (`{"num_beams": ...}` is then a default that the call may override).
        needs: what the session must be able to do, a subset of
            {"rollback", "reorder", "level", "hidden_states", "attentions"}. A model that cannot is refused
            before it runs. Under "reorder" (beams) and "level" (rows of one length throughout, as `step.look`
            asks for) processors take nothing back.
        weighs: True if it takes tokens for other reasons than their scores as well, as contrastive search
            does, so that a processor which leaves one token of a row may be overruled.
    """

    flags: ClassVar[Mapping[str, Any]] = {}
    needs: ClassVar[frozenset[str]] = frozenset()
    weighs: ClassVar[bool] = False

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Refuse contradictory flags before the model runs.

        Args:
            params: this strategy's parameters, already of the right types and within their bounds.
            call: the transformers flags in force for the call, and under `model`, `tokenizer`, `assistant_model`
                and `assistant_tokenizer` what the call brings of these.

        Raises:
            ParameterError: naming the flags.
        """

    def decode(self, session: Session, params: Any) -> None:
        """Decode until `session.steps()` ends, or return earlier."""
        raise TypeError(f"{type(self).__name__} must define decode(session, params)")
