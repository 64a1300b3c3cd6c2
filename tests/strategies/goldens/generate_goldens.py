"""Records what transformers 4.49.0 decodes in the four modes that transformers 5 removed.

Run from any directory in an environment of its own, see `README.md`. It writes one JSON file per mode
beside itself. Each case holds the model's name, its inputs, the flags of the call, the sequences, and
two numbers per step and row of the recorded scores: the largest, and a weighted sum over the vocabulary
(`digest`) that a change of any one score would move.

Only cases whose sequences survive a small random change of every weight are kept, so that no golden hangs on
a near tie that another processor would round the other way.
"""

from __future__ import annotations

import copy
import json
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers
from flag_sets import MODES, Flags, FlagSet
from models import ENCODER_DECODER, PAD, VOCAB, build
from transformers import DisjunctiveConstraint, PhrasalConstraint
from transformers.generation.beam_search import BeamSearchScorer, ConstrainedBeamSearchScorer

HERE = pathlib.Path(__file__).parent
NEW_TOKENS = 16
PROMPT = 8
NUDGE = 1e-5
"""Relative standard deviation of the random change of the weights that a case must survive."""

Case = dict[str, Any]


def prompts() -> dict[str, dict[str, list[list[int]]]]:
    """Inputs of every model: one row, three rows, and three rows with 0, 3 and 5 tokens of left padding."""
    ids = np.random.RandomState(449).randint(3, VOCAB, (3, PROMPT))
    ones = np.ones_like(ids)
    padded, mask = ids.copy(), ones.copy()
    for row, width in enumerate((0, 3, 5)):
        padded[row, :width] = PAD
        mask[row, :width] = 0
    pairs = {"one": (ids[:1], ones[:1]), "three": (ids, ones), "padded": (padded, mask)}
    return {k: {"input_ids": i.tolist(), "attention_mask": m.tolist()} for k, (i, m) in pairs.items()}


class Recorder:
    """Notes before each step which beam groups are done: what their rows do from then on means nothing."""

    def __init__(self) -> None:
        self.done: list[torch.Tensor] = []
        for scorer in (BeamSearchScorer, ConstrainedBeamSearchScorer):
            self._wrap(scorer)

    def _wrap(self, scorer: Any) -> None:
        original = scorer.process

        def process(this: Any, *args: Any, **kwargs: Any) -> Any:
            if not kwargs.get("group_index", 0):
                self.done.append(this._done.repeat_interleave(this.group_size).clone())
            return original(this, *args, **kwargs)

        scorer.process = process


class UnaliasedDisjunctive(DisjunctiveConstraint):
    """4.49's copies share one list of the tokens matched so far, so advancing one copy advances the others.

    Where two words share a beginning, its search therefore ranks the second one wrongly. Those cases are
    recorded with this one line mended.
    """

    def copy(self, stateful: bool = False) -> UnaliasedDisjunctive:
        new = UnaliasedDisjunctive(self.token_ids)
        if stateful:
            new.current_seq, new.completed = list(self.current_seq), self.completed
        return new


def constraint(kind: str, ids: Any, mended: bool) -> Any:
    if kind == "phrasal":
        return PhrasalConstraint(ids)
    return (UnaliasedDisjunctive if mended else DisjunctiveConstraint)(ids)


def call_flags(flags: Flags, mended: bool) -> Flags:
    """The flags as `generate` takes them: constraints as objects."""
    flags = copy.deepcopy(flags)
    if mended:
        words = flags.pop("force_words_ids")
        flags["constraints"] = [["disjunctive" if isinstance(word[0], list) else "phrasal", word] for word in words]
    if "constraints" in flags:
        flags["constraints"] = [constraint(kind, ids, mended) for kind, ids in flags["constraints"]]
    return flags


def decode(model: Any, inputs: Flags, flags: Flags, mended: bool, recorder: Recorder) -> Any:
    """One call, with scores where 4.49 can give them."""
    tensors = {k: torch.tensor(v) for k, v in inputs.items()}
    common = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "return_dict_in_generate": True}

    def call(scores: bool) -> Any:
        recorder.done.clear()
        return model.generate(**tensors, **common, **call_flags(flags, mended), output_scores=scores)

    try:
        return call(scores=True)
    except (TypeError, RuntimeError):
        # 4.49 has no beam indices for beams that miss a constraint, and stumbles if others meet them all.
        if "num_beams" not in flags:
            raise
        return call(scores=False)


def digest(scores: torch.Tensor) -> torch.Tensor:
    """`sum over v of scores[v] * (37 v mod 101) / 101 / vocab`, of the finite scores: `[rows]`."""
    weights = (torch.arange(scores.shape[-1]) * 37 % 101) / 101
    return (scores.double().masked_fill(scores.isinf(), 0) * weights).mean(-1)


def steps(result: Any, done: torch.Tensor) -> list[list[list[float] | None]] | None:
    """`[step][row]` of [largest score, digest], None where the row was done."""
    if result.scores is None:
        return None
    largest = torch.stack([s.double().max(-1).values for s in result.scores])  # [steps, rows]
    sums = torch.stack([digest(s) for s in result.scores])  # [steps, rows]
    return [
        [None if over else [round(a, 5), round(b, 5)] for a, b, over in zip(*step, strict=True)]
        for step in zip(largest.tolist(), sums.tolist(), done.tolist(), strict=True)
    ]


def done_rows(result: Any, flags: Flags, start: int, recorder: Recorder) -> torch.Tensor:
    """Which rows were done before each step: `[steps, rows]`."""
    if recorder.done:
        return torch.stack(recorder.done)
    generated = result.sequences[:, start:]
    ended = torch.isin(generated, torch.tensor(flags.get("eos_token_id") or [-1])).cumsum(-1) > 0
    return torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=-1).T


def record(model: Any, inputs: Flags, flags: Flags, mended: bool, recorder: Recorder) -> Case:
    result = decode(model, inputs, flags, mended, recorder)
    start = 1 if model.config.is_encoder_decoder else PROMPT
    case = {"sequences": result.sequences.tolist()}
    case["scores"] = steps(result, done_rows(result, flags, start, recorder))
    if result.scores is not None and "num_beams" in flags:
        case["sequences_scores"] = [round(s, 6) for s in result.sequences_scores.tolist()]
        # 4.49 mixes up the beam indices of groups, and gives none for beams that miss a constraint.
        if "num_beam_groups" not in flags and result.beam_indices is not None:
            case["beam_indices"] = result.beam_indices.tolist()
    return case


def pick_end(case: Case, count: int, start: int) -> list[int]:
    """`count` tokens that stand inside the first sequence, so that one of them ends some rows early."""
    inside = case["sequences"][0][start + 4 : start + 12]
    order = sorted(dict.fromkeys(inside), key=lambda t: (inside.count(t), abs(inside.index(t) - 3)))
    return [t for t in order if t != PAD][:count]


def words(plain: Case, chosen: FlagSet, start: int) -> Flags:
    """The flags, with the words that `chosen.likely` places in what plain beam search found."""
    if not chosen.likely:
        return chosen.flags
    text = plain["sequences"][0][start:]
    return {**chosen.flags, "force_words_ids": [[text[i] for i in places] for places in chosen.likely]}


def cases(mode: str, recorder: Recorder) -> Iterator[Case]:
    sets, names, layers = MODES[mode]
    for name in names:
        model, *nudged = build(name, layers), nudge(build(name, layers), 1), nudge(build(name, layers), 2)
        start = 1 if name in ENCODER_DECODER else PROMPT
        for key, inputs in prompts().items():
            plain = record(model, inputs, {"num_beams": 4}, False, recorder)
            for chosen in sets():
                if key == "padded" and (name in ENCODER_DECODER or not chosen.padded):
                    continue
                if key != "one" and not chosen.batched:
                    continue
                endlessly = words(plain, chosen, start)
                endless = record(model, inputs, endlessly, chosen.mended, recorder)
                ended = {**endlessly, "eos_token_id": pick_end(endless, chosen.ends, start)}
                for flags in [endlessly, ended] if chosen.endless else [ended]:
                    case, *others = (record(m, inputs, flags, chosen.mended, recorder) for m in (model, *nudged))
                    if any(other["sequences"] != case["sequences"] for other in others):
                        print(f"dropped, a near tie: {mode} {name} {key} {flags}")
                    else:
                        yield {"model": name, "layers": layers, "input": key, "flags": flags, **case}


def nudge(model: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + NUDGE * torch.randn(parameter.shape, generator=generator))
    return model


def main() -> None:
    if transformers.__version__ != "4.49.0":
        raise SystemExit(f"found transformers {transformers.__version__}, and need 4.49.0: see README.md")
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    recorder = Recorder()
    for mode in MODES:
        found = list(cases(mode, recorder))
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in found)
        head = json.dumps({"transformers": transformers.__version__, "max_new_tokens": NEW_TOKENS})[:-1]
        inputs = json.dumps(prompts(), separators=(",", ":"))
        path = HERE / f"{mode}.json"
        path.write_text(f'{head}, "inputs": {inputs}, "cases": [\n{lines}\n]}}\n')
        print(f"{mode}: {len(found)} cases, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
