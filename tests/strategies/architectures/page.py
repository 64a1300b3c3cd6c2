"""docs/architectures.md: what the sweep found for each architecture, as a table."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import genmode

from .compare import CALLS, NEW, Outcome, prompts
from .settings import UNBUILT

PAGE = Path(__file__).parents[3] / "docs" / "architectures.md"

FAILS = "fails in transformers too"

INTRODUCTION = """# Architectures

Every class for causal and sequence-to-sequence generation of the installed transformers, as a tiny model of random weights
in float32 on the CPU: {built} of {all} can be made so. Each decodes three prompts with transformers' own `generate` and with
genmode: greedy search, three beams, and sampling behind the same `torch.manual_seed`, once with rows of equal length and
once with one that is padded on the left; then greedy search with drafts of `prompt_lookup`, beside greedy search without.

- **same**: token by token; or up to two tokens whose scores lie within 1e-5 of the largest, where rounding decides.
- **works here**: transformers' own call fails.
- **refused**: genmode says so before it returns a token, with the reason; see [the reasons](#what-the-refusals-say).
- **fails in transformers too**: the model needs more than text, or is at fault itself.

In {same} every call gives the same; {drafts} take drafts. None differs. On CUDA, what is *static* here runs as captured
graphs. A model with a sliding window is *static* while the result fits the window, which is tiny here.

Written by `python -m tests.strategies.architectures` with transformers {transformers} and torch {torch}.
`tests/strategies/test_architectures.py` repeats a part of it in each run, and all of it with `GENMODE_SLOW=1`.

"""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    engine: str
    modes: str
    drafts: str

    def __str__(self) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in self)} |"


def row(name: str, model: Any, found: list[Outcome]) -> Row:
    """What was found for a class: of transformers' modes together where they went alike, and of drafts."""
    modes = [one for one in found if not one.call.startswith("lookup")]
    drafts = [one for one in found if one.call.startswith("lookup")]
    assert len(modes) == 2 * len(CALLS)
    return Row(name, engine(model), _together(name, modes), _together(name, drafts))


def engine(model: Any) -> str:
    """Which engine serves a model, and why no faster one."""
    try:
        plan = genmode.explain(model, **prompts(False), max_new_tokens=NEW)
    except Exception:  # one that the calls beside this one show to fail
        return "none"
    return plan.engine if plan.engine == "static" else f"{plan.engine}: {plan.engine_why}".removesuffix(": ")


def _together(name: str, found: list[Outcome]) -> str:
    said: dict[str, list[str]] = {}
    for one in found:
        said.setdefault(short(name, one), []).append(one.call)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(calls)}: {what}" for what, calls in said.items() if what != "same")


def short(name: str, outcome: Outcome) -> str:
    """An outcome in a few words. A near tie counts as the same: which token comes first is up to rounding."""
    reason = outcome.detail.partition(": ")[2].replace(name, "it")
    if outcome.verdict == "refused":
        return "refused: " + re.split(r"[:;,]", reason)[0].removeprefix("it ")
    if outcome.verdict == "both fail":
        return f"{FAILS}: " + reason[:60].rsplit(" ", 1)[0]
    return {"near tie": "same", "works": "works here"}.get(outcome.verdict, outcome.verdict)


def write(rows: list[Row], refusals: dict[str, str]) -> None:
    """Write the page; `refusals` has one whole message for each short reason."""
    counts = Counter(line.modes == line.drafts == "same" for line in rows)
    figures = {
        "built": len(rows), "all": len(rows) + len(UNBUILT), "same": f"{counts[True]} of {len(rows)}",
        "drafts": sum(line.drafts == "same" for line in rows), "transformers": version("transformers"),
        "torch": version("torch").partition("+")[0],
    }  # fmt: skip
    lines = [INTRODUCTION.format(**figures), "## Table\n\n"]
    lines += ["| Class | Engine | Greedy search, beams, sampling | Drafts |\n|---|---|---|---|\n"]
    lines += [f"{line}\n" for line in rows]
    lines += ["\n## What the refusals say\n\n", "| Reason | Message, of one of these classes |\n|---|---|\n"]
    lines += [f"| {reason} | {message} |\n" for reason, message in sorted(refusals.items())]
    lines += ["\n## Not made\n\n", "| Class | Why |\n|---|---|\n"]
    lines += [f"| {name} | {why} |\n" for name, why in sorted(UNBUILT.items())]
    PAGE.write_text("".join(lines), encoding="utf-8")
