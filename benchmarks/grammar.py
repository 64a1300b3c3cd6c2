"""What a grammar costs in each step, by engine, and what drafting the text that it forces saves.

    python benchmarks/grammar.py [--threads 1] [--minutes 6] [--docs docs/structured-output.md] [--out FOLDER]

`masks`: time of the processor alone in each step (catch up with the rows, work out masks, put them onto scores
`[rows, vocab]`), on the tokens of an output that is known, with the vocabulary of SmolLM2 (49 152 tokens). Beside it
the time of compiling the grammar, the first time (with the first grammar of an engine, reading the vocabulary as well)
and again. `apply`: the last part alone, also for 128 256 tokens.

`generate`: sampling with SmolLM2-135M-Instruct with a grammar and without one, all in turn. The cost in a step is the
difference by tokens decoded; every output runs for the same number of tokens, since nothing lets it end. `jump`: greedy
search and sampling on a JSON schema with and without jump-forward; the tokens are checked to be the same.

On the CPU `generate` and `jump` count the process's own seconds, which others on the machine disturb less.

Engines that are not installed are left out, and so is a case that fails, with its error, and all that would begin
after `--minutes`. The file and the page are written anew after each case; the file says what was left out.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import common
import torch
import transformers

import genmode
from genmode.cli import demo
from genmode_processors.grammar import Grammar, UnmetGrammarWarning, installed
from genmode_processors.grammar.matchers import OFFERS, compiled
from genmode_processors.grammar.requests import wanted

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "pattern": "^[A-Z][a-z]{1,11}$"},
        "last_name": {"type": "string", "pattern": "^[A-Z][a-z]{1,11}$"},
        "occupation": {"enum": ["carpenter", "teacher", "nurse", "retired", "other"]},
        "address": {
            "type": "object",
            "properties": {
                "street_and_number": {"type": "string", "pattern": "^[A-Za-z ]{3,20} [1-9][0-9]?$"},
                "postal_code": {"type": "string", "pattern": "^[0-9]{5}$"},
                "country_is_known": {"type": "boolean"},
            },
            "required": ["street_and_number", "postal_code", "country_is_known"],
            "additionalProperties": False,
        },
        "previous_occupations": {"type": "array", "items": {"enum": ["carpenter", "teacher"]}, "maxItems": 2},
    },
    "required": ["first_name", "last_name", "occupation", "address", "previous_occupations"],
    "additionalProperties": False,
}
OUTPUT = (
    '{"first_name":"Ada","last_name":"Lovelace","occupation":"other","address":{"street_and_number":"St James Square 12",'
    '"postal_code":"10115","country_is_known":true},"previous_occupations":["teacher"]}'
)
GRAMMARS: dict[str, tuple[Any, str]] = {
    "JSON schema": (PERSON, OUTPUT),
    "regex": ({"regex": r"([a-z]+@[a-z]+\.(com|org|net); )+"}, "ada@engine.org; charles@difference.com; " * 4),
    "EBNF": (
        {"ebnf": 'root ::= term (op term)*\nop ::= " + " | " * "\nterm ::= [0-9]+ | "(" root ")"'},
        "(12 + 34 * (5 + 678)) * 90 + (((1 + 2) * 3) + 4) * 55 + 66 * (7 + 8)",
    ),
}
ENDLESS = {"regex": r"([A-Za-z0-9 ,.;:'\n-])+QQ"}
ROWS = (1, 8)
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time


def masks(tokenizer: Any, engine: str, name: str, rows: int, repeats: int) -> dict[str, Any]:
    """Microseconds of a step with a grammar, and milliseconds of compiling it."""
    given, text = GRAMMARS[name]
    tokens = tokenizer.encode(text, add_special_tokens=False)
    vocab = len(tokenizer)
    context: Any = SimpleNamespace(
        tokenizer=tokenizer, eos_token_ids=[tokenizer.eos_token_id], vocab_size=vocab, rows=rows, history=None,
        device=torch.device("cpu"), unfinished=torch.ones(rows, dtype=torch.bool), prompt_length=0, max_length=9999,
        processors=(),
    )  # fmt: skip
    times = [time.perf_counter()]
    for _ in range(2):
        compiled(wanted(given), engine, False, context)
        times.append(time.perf_counter())
    scores, best = torch.zeros(rows, vocab), float("inf")
    for _ in range(repeats + 1):  # the first round warms up
        grammar = Grammar(grammar=given, grammar_engine=engine)
        grammar.begin(context)
        history: Any = SimpleNamespace()
        begin = time.perf_counter()
        for token in tokens:
            grammar.process(scores, history)
            grammar.accept(torch.full((rows,), token))
        best = min(best, time.perf_counter() - begin)
        scores.zero_()
    return {
        "grammar": name, "engine": engine, "vocabulary": vocab, "rows": rows, "tokens": len(tokens),
        "us a step": round(best / len(tokens) * 1e6, 1), "first ms": round((times[1] - times[0]) * 1e3, 1),
        "again ms": round((times[2] - times[1]) * 1e3, 3),
    }  # fmt: skip


def apply_only(vocab: int, rows: int) -> Any:
    """Putting masks onto scores, alone."""
    import numpy as np

    from genmode_processors.grammar.row_state import forbid_all_but

    words, scores = np.full((rows, (vocab + 31) // 32), 0x55555555, dtype=np.int32), torch.zeros(rows, vocab)
    return lambda: forbid_all_but(scores, words)


def loaded() -> tuple[Any, Any, str]:
    """SmolLM2 with its tokenizer."""
    model, tokenizer = demo.load_demo()
    return model.eval(), tokenizer, "SmolLM2-135M-Instruct"


def stepwise(
    model: Any, tokenizer: Any, engines: list[str], rows: int, tokens: int, repeats: int
) -> list[dict[str, Any]]:
    """Milliseconds a step of sampling without a grammar and with one, by engine."""
    inputs = tokenizer(["The quick brown fox"] * rows, return_tensors="pt")
    plain: dict[str, Any] = {
        **inputs, "tokenizer": tokenizer, "max_new_tokens": tokens, "do_sample": True, "top_k": 0, "seed": 1,
        "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip

    def run(**more: Any) -> Any:
        def quietly() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnmetGrammarWarning)
                genmode.generate(model, **plain, **more)

        return quietly

    cases = {"none": run(suppress_tokens=[tokenizer.eos_token_id])}
    fast = [one for one in engines if one != "lm-format-enforcer"]
    cases |= {engine: run(grammar=ENDLESS, grammar_engine=engine) for engine in fast}
    best = common.best_of(cases, repeats, clock=CLOCK)
    return [
        {
            "grammar": name, "rows": rows, "ms a step": round(seconds / tokens * 1e3, 3),
            "ms more": round((seconds - best["none"]) / tokens * 1e3, 3), "ratio": round(seconds / best["none"], 3),
        }
        for name, seconds in best.items()
    ]  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {"greedy": {}, "sampling, seed=1": {"do_sample": True, "seed": 1}}


def jump(model: Any, tokenizer: Any, way: str, engine: str, rows: int) -> dict[str, Any]:
    """A JSON schema with and without jump-forward, each once for its tokens and once for its time."""
    names = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Leslie", "Tony"][:rows]
    chats = [[{"role": "user", "content": f"Describe {name}, a computer scientist, as JSON."}] for name in names]
    prompts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    counts: dict[bool, int] = {}
    found: dict[bool, Any] = {}

    def run(on: bool) -> Callable[[], None]:
        def call() -> None:
            counts[on] = 0
            handle = model.register_forward_hook(lambda *_: counts.update({on: counts[on] + 1}))
            found[on] = genmode.generate(
                model, **inputs, tokenizer=tokenizer, max_new_tokens=160, grammar=PERSON, grammar_engine=engine,
                grammar_jump_forward=on, pad_token_id=tokenizer.eos_token_id, **WAYS[way],
            )  # fmt: skip
            handle.remove()

        return call

    best = common.best_of({"masked": run(False), "jump": run(True)}, 1, clock=CLOCK)
    if not torch.equal(found[True], found[False]):
        raise RuntimeError("the tokens differ")
    json.loads(tokenizer.decode(found[True][0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return {
        "way": way, "engine": engine, "rows": rows, "forwards masked": counts[False], "forwards": counts[True],
        "s masked": round(best["masked"], 3), "s": round(best["jump"], 3),
        "ratio": round(best["masked"] / best["jump"], 2),
    }  # fmt: skip


class Cases:
    """Runs one measurement after the other, and notes what did not come about.

    Attributes:
        left_out: of each case that failed or would have begun too late, its name and why.
    """

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.left_out = {offer.name: "not installed" for offer in OFFERS if offer.name not in installed()}

    def run(self, name: str, measure: Callable[..., Any], *arguments: Any) -> list[dict[str, Any]]:
        """The rows of a measurement; none if there is no time for it, or it fails."""
        if time.monotonic() > self.end:
            self.left_out[name] = "no time left"
            return []
        try:
            rows = measure(*arguments)
        except Exception as error:  # an engine's, of any kind; the other cases go on
            self.left_out[name] = f"{type(error).__name__}: {error}"
            return []
        return rows if isinstance(rows, list) else [rows]


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0])
    arguments.add_argument("--tokens", type=int, default=64, help="tokens of each output of `generate`")
    arguments.add_argument("--parts", nargs="*", default=["generate", "jump"], help="of generate and jump, what to run")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--minutes", type=float, default=6, help="no case begins later than that")
    arguments.add_argument("--docs", type=Path, help="page whose tables are written anew")
    arguments.set_defaults(repeats=3)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    model, tokenizer, label = loaded()
    cases = Cases(given.minutes)
    results: dict[str, Any] = {"model": label, "generate": [], "jump": [], "alone": [], "apply": []}
    tables = {"generate": "steps", "jump": "forced", "alone": "masks"}

    def write() -> None:
        if given.docs is not None:
            common.write_tables(given.docs, {name: results[part] for part, name in tables.items() if results[part]})
        name = "grammar-cuda.json" if torch.cuda.is_available() else "grammar-cpu.json"
        common.save(given.out / name, {**results, "left out": cases.left_out})

    def keep(part: str, rows: list[dict[str, Any]]) -> None:
        results[part] += rows
        write()  # so that what is there stays if the rest is broken off

    for engine in installed():
        for name in GRAMMARS:
            if name == "EBNF" and engine not in ("llguidance", "xgrammar"):
                continue
            slow = engine == "lm-format-enforcer"  # seconds for an output
            for rows in ROWS[: 1 if slow else None]:
                repeats = 1 if slow else given.repeats
                keep(
                    "alone", cases.run(f"{engine}, {name}, {rows} rows", masks, tokenizer, engine, name, rows, repeats)
                )
    for vocab in (49_152, 128_256):
        for rows in ROWS:
            best = common.best_of({"": apply_only(vocab, rows)}, 50)[""]
            keep("apply", [{"vocabulary": vocab, "rows": rows, "us": round(best * 1e6, 1)}])
    working = list(dict.fromkeys(row["engine"] for row in results["alone"]))
    for rows in ROWS if "generate" in given.parts else ():
        name = f"generate, {rows} rows"
        keep("generate", cases.run(name, stepwise, model, tokenizer, working, rows, given.tokens, given.repeats))
    for rows, way in itertools.product(ROWS if "jump" in given.parts else (), WAYS):
        for engine in [one for one in working if one in ("llguidance", "xgrammar")]:
            keep("jump", cases.run(f"jump, {way}, {engine}, {rows} rows", jump, model, tokenizer, way, engine, rows))
    for part in ("generate", "jump", "alone", "apply"):
        common.table(f"{part} with {label}", results[part])
    print("left out:", cases.left_out)
    write()


if __name__ == "__main__":
    main()
