"""Run the gallery's examples on SmolLM2-135M-Instruct and write examples.json.

    python docs/site/examples.py            what is new in gallery.yml, or has changed there
    python docs/site/examples.py --all      everything, after a change of a component
    python docs/site/examples.py --check    everything, and say what differs, without writing

Seeds are stated in the calls, so that the same versions give the same texts.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

import genmode
from genmode.cli import demo

sys.path.insert(0, str(Path(__file__).parent))

from table import Example, Output, Use, calls, is_current, load_examples, load_table, save_examples


def run(use: Use) -> Example:
    """Run one example."""
    model, tokenizer = _load()
    if use.chat:
        turns = [{"role": "user", "content": use.prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    else:
        inputs = tokenizer(use.prompt, return_tensors="pt")
    names: dict[str, Any] = {"genmode": genmode, "model": model, "tokenizer": tokenizer, "inputs": inputs}
    exec(use.setup, names)
    (plain, without), (ids, with_it) = (_call(arguments, names) for arguments in calls(use))
    found = {}
    if use.kind == "watermarkers":
        for name, text in (("without", plain), ("with_it", ids)):
            detection = genmode.detect(text[0], names["mark"], model=model)
            found[name] = {"p_value": float(f"{detection.p_value:.2g}"), "tokens": detection.tokens}
    return Example(use.prompt, use.chat, use.setup, without, with_it, found)


def _call(arguments: str, names: dict[str, Any]) -> tuple[Tensor, Output]:
    """The new tokens, and what is told of them."""
    with warnings.catch_warnings(), genmode.trace() as traced:
        warnings.simplefilter("ignore")  # of results that are cut by the length limit
        ids = eval(f"genmode.generate(model, **inputs, {arguments})", names)
    new = ids[:, names["inputs"]["input_ids"].shape[1] :]
    texts = names["tokenizer"].batch_decode(new, skip_special_tokens=True)
    forwards = sum(part.runs for part in traced.calls[0].parts if (part.kind, part.name) == ("forward", ""))
    return new, Output(arguments, [one.strip() for one in texts], new.shape[1], forwards)


@functools.cache
def _load() -> tuple[Any, Any]:
    return demo.load_demo()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    uses = load_table()
    kept = load_examples()
    fresh, differ = {}, []
    for use in uses:
        if use.no_example:
            continue
        old = kept.get(use.key)
        if not (given.all or given.check) and old is not None and is_current(use, old):
            fresh[use.key] = old
            continue
        print(use.key, flush=True)
        fresh[use.key] = run(use)
        if fresh[use.key] != old:
            differ.append(use.key)
    if not given.check:
        save_examples(fresh)
    print(f"differ: {', '.join(differ) or 'none'}")
    return int(given.check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
