"""A picture of texts with their marked tokens coloured: one HTML page that needs nothing else.

Each token is shaded by its own evidence: green where it speaks for the mark, red where it speaks against it, grey
where it was not counted. A passage that windowed detection found is underlined.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from ..contract import Detection

STRONG = 2.5
"""Standard deviations of evidence that get the full colour."""
STYLE = """body { font: 16px/1.7 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
p { white-space: pre-wrap; } .none { color: #999; } .passage { border-bottom: 2px solid #156; }"""


def page(pieces: Sequence[Sequence[str]], detections: Sequence[Detection], title: str = "watermark") -> str:
    """The page.

    Args:
        pieces: the text of each token, of each text.
        detections: what was found in each, with as many tokens.
        title: of the page.
    """
    parts = [
        f"<!doctype html><html><head><meta charset='utf-8'><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>",
    ]
    for text, found in zip(pieces, detections, strict=True):
        verdict = {True: "marked", False: "no mark found", None: "cannot tell"}[found.marked]
        head = f"{verdict}: p = {found.p_value:.3g}, z = {found.score:.2f}, {found.tokens} tokens counted"
        parts.append(f"<h2>{html.escape(head)}</h2>")
        if found.note:
            parts.append(f"<p>{html.escape(found.note)}</p>")
        shown = [_token(piece, said, _inside(found, place)) for place, (piece, said) in enumerate(_pairs(text, found))]
        parts.append(f"<p>{''.join(shown)}</p>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _pairs(text: Sequence[str], found: Detection) -> list[tuple[str, float | None]]:
    return list(zip(text, found.evidence or (None,) * len(text), strict=True))


def _inside(found: Detection, place: int) -> bool:
    return found.passage is not None and found.passage[0] <= place < found.passage[1]


def _token(piece: str, said: float | None, inside: bool) -> str:
    names = [name for name, on in (("none", said is None), ("passage", inside)) if on]
    shade = "" if said is None else f" style='background: {_colour(said)}' title='{said:+.2f}'"
    classes = f" class='{' '.join(names)}'" if names else ""
    return f"<span{classes}{shade}>{html.escape(piece)}</span>"


def _colour(said: float) -> str:
    strength = min(1.0, abs(said) / STRONG)
    red, green, blue = (60, 170, 90) if said > 0 else (210, 80, 70)
    return f"rgba({red}, {green}, {blue}, {0.1 + 0.5 * strength:.2f})"
