"""Components that stand in for classes of transformers."""

from __future__ import annotations

from typing import Any, ClassVar


class StandIn:
    """Derive a processor or criterion from this as well, and it takes the place of objects of transformers' own.

    transformers builds its processors and criteria of the flags of a call, to the letter; each is offered to the components
    that stand in for its class. Honoured are genmode's own components, and one that the setting `prefer` has put in the
    place of one of these: installing a plugin changes no output.

    Class attributes:
        replaces: names of classes of transformers.
    """

    replaces: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> Any:
        """The equal of an object of such a class; None to leave that one in its place.

        Args:
            theirs: an object of a class that `replaces` names, of transformers' own, not of a subclass.
            tokenizer: the call's, if it has one.
        """
        raise TypeError(f"{cls.__name__} must define adopt(theirs, tokenizer)")
