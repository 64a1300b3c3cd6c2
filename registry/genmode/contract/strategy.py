"""The contract of strategies: a whole decoding loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .component import Component
from .traits import Need

if TYPE_CHECKING:
    from .drafter import Drafter
    from .session import Session
    from .verification import Verification


class Strategy(Component):
    """A whole decoding loop. See `Session` for all that it may use.

    Class attributes:
        flags: transformers flags that naming this strategy implies, e.g. `{"do_sample": True}`. The
            temperature and truncation processors of a config are active only under `do_sample`, and
            `num_beams` rows are decoded for each input only where this says that the strategy keeps
            beams (`{"num_beams": ...}` is then a default that the call may override).
        needs: what it asks of the model and the session, see `Need`. A model that cannot is refused before it runs.
        mode: the mode of transformers (`GenerationConfig.get_generation_mode`) that it serves; its own name by default.
        selected_by: flags that ask for it, and `assistant_model` where an assistant does. Of strategies that serve the
            mode of a call, one whose flags are set serves it; a flag that by itself asks for another mode is refused.
            transformers is not told of these flags.
        drafts: for strategies that decode with `drafter` and `verification`: the name of the drafter; "" for the one that
            the call names, or whose flags it sets. Others refuse `draft=` and `verify=`.

    Attributes:
        drafter: what guesses in this call, not begun yet; None for a strategy without `drafts`.
        verification: how its guesses are verified; None where rows take the most probable token.
    """

    flags: ClassVar[Mapping[str, Any]] = {}
    needs: ClassVar[frozenset[Need]] = frozenset()
    mode: ClassVar[str] = ""
    selected_by: ClassVar[tuple[str, ...]] = ()
    drafts: ClassVar[str | None] = None
    drafter: Drafter | None = None
    verification: Verification | None = None

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Refuse contradictory flags before the model runs.

        Args:
            params: this strategy's parameters, already of the right types and within their bounds.
            call: the transformers flags in force for the call, and under `model`, `tokenizer`, `assistant_model`,
                `assistant_tokenizer`, `draft` and `verify` what the call brings of these.

        Raises:
            ParameterError: naming the flags.
        """

    @classmethod
    def rows_per_input(cls, params: Any, results: int) -> int:
        """How many rows an input starts with, for strategies that need "population"; the prompt is run once for them.

        Args:
            params: this strategy's parameters.
            results: how many results the call asks for (`num_return_sequences`).

        Returns:
            At least 1. Row j draws the numbers that row j of `num_return_sequences` draws under the same seed.
        """
        return results

    def decode(self, session: Session, params: Any) -> None:
        """Decode until `session.steps()` ends, or return earlier."""
        raise TypeError(f"{type(self).__name__} must define decode(session, params)")
