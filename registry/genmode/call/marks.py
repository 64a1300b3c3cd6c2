"""What a call's watermark can and cannot do beside the strategy and the other processors.

A combination that would leave text unmarked or senseless is refused; one that costs a promise is said: in the plan,
and as a warning of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..contract import Need, Trait, Watermarker
from ..errors import ParameterError

if TYPE_CHECKING:
    from ..session.links import Link
    from .request import Request


def notes(request: Request, links: Sequence[Link], config: Any) -> tuple[str, ...]:
    """What the watermarks of a call lose.

    Raises:
        ParameterError: a watermark that draws the token itself meets a strategy that weighs several.
    """
    marks = [one for one in links if isinstance(one.processor, Watermarker)]
    if not marks:
        return ()
    strategy, beams = request.strategy, (config.num_beams or 1) > 1
    several = beams or Need.REORDER in strategy.needs or Trait.WEIGHS in strategy.traits
    found: list[str] = []
    for one in marks:
        traits = one.processor.traits
        if Trait.CHOOSES in traits and several:
            raise ParameterError(
                f"watermark {one.name!r} draws each token itself, and strategy {request.name!r} weighs several for "
                "each row; take sampling, or a watermark that leaves several, such as 'kgw'"
            )
        if Trait.CHOOSES in traits and not config.do_sample:
            found.append(f"watermark {one.name!r} draws each token itself: {request.name!r} gives a sampled text")
        elif Trait.KEEPS_DISTRIBUTION in traits and (several or not config.do_sample):
            found.append(
                f"watermark {one.name!r} keeps the distribution of sampled text, and {request.name!r} does not sample: "
                "text is marked, and changed by it"
            )
    forcing = sorted({one.name for one in links if Trait.FORCES in one.processor.traits})
    if forcing:
        found.append(
            f"tokens that {', '.join(forcing)} forces carry no mark; the detector takes them for chance, and needs more "
            "text"
        )
    if len(marks) > 1:
        found.append(
            f"watermarks {' and '.join(one.name for one in marks)} act one after the other; each is found on its own, "
            "and weakens the others"
        )
    return tuple(found)
