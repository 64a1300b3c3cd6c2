"""The gallery: a page for each built-in component, made of the component, its row of gallery.yml and its example.

Nothing of a page is written by hand, so that it cannot go stale: docstrings, parameters and place come from the class
(`genmode show` reads the same), "when to use it" from gallery.yml, outputs from examples.json. Needs no mkdocs.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import genmode
from genmode.cli.listing import BOUNDS, describe
from genmode.plugins.registry import registry

sys.path.insert(0, str(Path(__file__).parent))

from table import Example, Output, Use, is_current, load_examples, load_table

TITLES = {
    "strategies": "Strategies", "processors": "Processors", "criteria": "Criteria", "watermarkers": "Watermarkers",
    "drafters": "Drafters", "verifications": "Verifications",
}  # fmt: skip
NOUNS = {
    "strategies": "strategy", "processors": "processor", "criteria": "stopping criterion", "watermarkers": "watermarker",
    "drafters": "drafter", "verifications": "verification",
}  # fmt: skip
FACTS = {
    "selected_by": "Flags that select it", "flags": "Flags that it implies", "needs": "Needs of the model",
    "before": "Runs before", "after": "Runs after", "replaces": "Stands in for transformers'",
}  # fmt: skip
NEEDS = {
    "rollback": "a state that can be rolled back",
    "reorder": "rows that can be reordered",
    "population": "rows that can be copied and left",
    "level": "rows of one length throughout",
    "hidden_states": "hidden states",
    "attentions": "attentions",
}
TRAITS = {
    "weighs": "Takes tokens for other reasons than their scores as well.",
    "host_sync": "On a device the host waits in each step for the tokens that were chosen.",
    "forces": "May leave a row one token alone.",
    "chooses": "Draws the token itself, and is refused under beams and contrastive search.",
    "couples": "Drafters that draw do so with the same random numbers.",
    "probabilities": "Under sampling its drafts say what they were drawn from.",
    "verifications/keeps_distribution": "Text is distributed as that of sampling without drafts.",
    "watermarkers/keeps_distribution": "Over keys, sampled text is distributed as without the mark.",
    "reads_model": "Detection needs the model.",
}


def built_in() -> dict[str, dict[str, Any]]:
    """What is known of each built-in component, as `genmode show --json` has it, by `kind/name`."""
    found: dict[str, dict[str, Any]] = {}
    for info in genmode.components():
        if info.distribution == "genmode":
            component: Any = registry().get(info.kind, info.name)
            own = inspect.getdoc(sys.modules[component.__module__]) or ""
            found[f"{info.kind}/{info.name}"] = describe(info, component) | {
                "method": own, "further": referenced(own)
            }  # fmt: skip
    return found


def referenced(text: str) -> dict[str, str]:
    """The docstrings of built-in modules that a docstring points to: `genmode_strategies.drafters.loop`."""
    names = re.findall(r"`(genmode_(?:strategies|processors)(?:\.[a-z_]+)+)`", text)
    return {name: inspect.getdoc(importlib.import_module(name)) or "" for name in names}


def pages() -> dict[str, str]:
    """Markdown of all pages by path under `gallery/`, the front page first.

    Raises:
        KeyError: a component has no row in gallery.yml; the message says what to do.
    """
    known, uses, examples = built_in(), load_table(), load_examples()
    missing, unknown = known.keys() - {use.key for use in uses}, {use.key for use in uses} - known.keys()
    if missing or unknown:
        raise KeyError(
            f"docs/site/gallery.yml lacks {sorted(missing) or 'nothing'} and has {sorted(unknown) or 'nothing'} that is "
            "no component; write what is missing and run `python docs/site/examples.py`"
        )
    made = {"index.md": front_page(uses, known)}
    for use in uses:
        example = examples.get(use.key)
        current = example if example is not None and is_current(use, example) else None
        made[f"{use.key}.md"] = page(use, known[use.key], current, uses)
    return made


def front_page(uses: list[Use], known: dict[str, dict[str, Any]]) -> str:
    """Which component for what."""
    groups: dict[str, list[Use]] = {}
    for use in uses:
        groups.setdefault(use.need, []).append(use)
    lines = ["# Which component for what", "", f"All {len(uses)} built-in components, by what they are for.", ""]
    lines += ["| You want | Components |", "|---|---|"]
    for need, members in groups.items():
        lines.append(f"| [{need}](#{slug(need)}) | {', '.join(link(use.key, '') for use in members)} |")
    lines += ["", EXAMPLES, "", *fenced(PREPARE, "python"), PROMPT, ""]
    for need, members in groups.items():
        lines += [f"## {need[0].upper()}{need[1:]}", "", "| Component | | Use it for |", "|---|---|---|"]
        lines += [
            f"| {link(use.key, '')} | {NOUNS[use.kind]}{stage(known[use.key])} | {linked(use.use, uses, '', use.key)} |"
            for use in members
        ]
        lines.append("")
    return "\n".join(lines)


EXAMPLES = """\
Examples are run on SmolLM2-135M-Instruct, a small model that is often wrong: they show what a component does to a text,
not how good texts become. Each stands under its call, which continues these lines:"""
PREPARE = """\
import genmode
from genmode.cli import demo

model, tokenizer = demo.load_demo()
inputs = tokenizer(prompt, return_tensors="pt")"""
PROMPT = "`prompt` is what the page names, in the model's chat template where it says so."


def page(use: Use, shown: dict[str, Any], example: Example | None, uses: list[Use]) -> str:
    """The page of one component."""
    doc = shown["doc"].split("\n\n", 1)
    lines = [f"# {shown['name']}", "", f"{NOUNS[use.kind].capitalize()}{stage(shown)}. {prose(doc[0])}", ""]
    lines += ["## When to use it", "", linked(use.use, uses, "../", use.key), ""]
    akin = [link(one.key, "../") for one in uses if one.need == use.need and one.key != use.key]
    lines += [f"For {use.need} see also {', '.join(akin)}.", ""] if akin else []
    lines += ["## How it works", "", prose(shown["method"]), ""]
    lines += [prose(doc[1]), ""] if len(doc) > 1 else []
    for name, text in shown["further"].items():
        lines += [f"### {name.split('.', 1)[1]}", "", prose(text), ""]
    lines += ["## Parameters", "", *parameters(shown), ""]
    lines += ["## Facts", "", *facts(use, shown, uses), ""]
    lines += ["## Example", "", *example_lines(use, example)]
    return "\n".join(lines) + "\n"


def stage(shown: dict[str, Any]) -> str:
    """The stage of a processor, for behind its noun."""
    return f", stage {shown['stage']}" if "stage" in shown else ""


def parameters(shown: dict[str, Any]) -> Iterable[str]:
    """The table of parameters."""
    if not shown["parameters"]:
        yield "None."
        return
    yield from ("| Name | Type | Bounds | Default | Meaning |", "|---|---|---|---|---|")
    for one in shown["parameters"]:
        bounds = ", ".join(f"{BOUNDS[rule]} {limit}" for rule, limit in one["bounds"].items())
        default = "required" if one["required"] else f"`{one['default']!r}`"
        meaning = prose(one["help"]).replace("|", "\\|")  # in code it would show
        yield f"| `{one['name']}` | `{one['type']}` | {prose(bounds)} | {default} | {meaning} |"


def facts(use: Use, shown: dict[str, Any], uses: list[Use]) -> Iterable[str]:
    """Paper, place in the chain, what it implies and needs, where it comes from."""
    rows = {"Paper": addresses(shown["paper"]) or "none stated"}
    if "stage" in shown:
        order = [one.name.lower() for one in genmode.Stage]
        rows["Place in the chain"] = " → ".join(f"**{one}**" if one == shown["stage"] else one for one in order)
        rows["Switched on by"] = "its name" if use.kind == "watermarkers" else "one of its parameters"
    for key, title in FACTS.items():
        value = shown.get(key)
        if isinstance(value, dict) and value:
            rows[title] = ", ".join(f"`{k}={v!r}`" for k, v in value.items())
        elif value and key == "needs":
            rows[title] = ", ".join(NEEDS[one] for one in value)
        elif value:
            rows[title] = ", ".join(linked(f"`{one}`", uses, "../", use.key) for one in value)
    rows["Class"] = f"`{shown['value'].replace(':', '.')}`"
    yield from (f"- {title}: {text}" for title, text in rows.items())
    stated = {f"{prefix}{trait}" for trait in shown["traits"] for prefix in ("", f"{use.kind}/")}
    yield from (f"- {text}" for trait, text in TRAITS.items() if trait in stated)


def example_lines(use: Use, example: Example | None) -> Iterable[str]:
    """The example: the call, its output, and that of the call without the component."""
    if use.no_example:
        yield f"None: {use.no_example}"
        return
    if example is None:
        yield "Not run yet: it needs SmolLM2-135M-Instruct. `python docs/site/examples.py` runs it."
        return
    yield from ("Prompt, in the chat template:" if example.chat else "Prompt:", "", *fenced(example.prompt))
    code = f"{example.setup.rstrip()}\n" if example.setup else ""
    call = f"output = genmode.generate(model, **inputs, {example.with_it.arguments})"
    if len(call) > 110:
        arguments = textwrap.indent(example.with_it.arguments, "    ")
        call = f"output = genmode.generate(\n    model, **inputs,\n{arguments},\n)"
    if example.detection:
        call += '\nfound = genmode.detect(output[0, inputs["input_ids"].shape[1] :], mark, model=model)'
    yield from fenced(code + call, "python")
    yield from told(example.with_it)
    if example.detection:
        found = example.detection["with_it"]
        yield f"The p-value is {found['p_value']}, from {found['tokens']} tokens that count."
        found = example.detection["without"]
        yield f"Of the text below, without the mark, it is {found['p_value']}, from {found['tokens']}."
        yield ""
    yield f"Without it, `{example.without.arguments}`:"
    yield ""
    if example.without.texts == example.with_it.texts:
        yield f"the same text, in {example.without.forwards} forwards of the model."
    else:
        yield from told(example.without)


def told(output: Output) -> Iterable[str]:
    """The texts of a call and what they took."""
    for text in output.texts:
        yield from fenced(text)
    tokens = f"{output.tokens} tokens" + (" in the longest of them" if len(output.texts) > 1 else "")
    yield f"{tokens}, {output.forwards} forwards of the model."
    yield ""


def fenced(text: str, language: str = "text") -> list[str]:
    """A block of code or output, whatever fences the text has."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return [f"{fence}{language}", *text.splitlines(), fence, ""]


def prose(text: str) -> str:
    """A docstring as Markdown: code and formulas as they stand, nothing else taken for markup."""
    lines = []
    for line in re.sub(r"(?m)^(Args|Raises|Returns):\n", r"\1:\n\n", text).splitlines():
        if not line.startswith("    "):
            parts = re.split(r"(`[^`]*`)", line)
            line = "".join(
                part if part.startswith("`") else re.sub(r"([\[\]*])", r"\\\1", part.replace("<", "&lt;"))
                for part in parts
            )
            line = addresses(line)
        lines.append(line)
    return "\n".join(lines)


def addresses(text: str) -> str:
    """Links for arXiv numbers and addresses."""
    text = re.sub(r"https?://[^\s,;)]*[^\s,;).]", r"<\g<0>>", text)
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"(?<![/\w.<])(github\.com/[^\s,;)]*\w)", r"[\1](https://\1)", text)


def linked(text: str, uses: list[Use], up: str, itself: str = "") -> str:
    """The text with names of components in backticks as links to their pages; `up` leads to the gallery."""
    # of components with one name the first one is meant: a strategy before the drafter that it runs
    keys = {use.key.split("/")[1]: use.key for use in reversed(uses) if use.key != itself}
    return re.sub(r"(?<!\[)`(\w+)`", lambda found: link(keys[found[1]], up) if found[1] in keys else found[0], text)


def link(key: str, up: str) -> str:
    """A link to a component's page."""
    return f"[`{key.split('/')[1]}`]({up}{key}.md)"


def slug(title: str) -> str:
    """The anchor that Markdown gives a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower())).strip("-")
