"""Checks of watermarkers: the mark is found again, and nothing else is taken for it.

Rates are those of the texts of one fixed seed, so an outcome never changes by chance. The bounds are set for
what they would be for any seed: a sound watermarker breaks one with a probability below one in a million.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from ...contract import Detection, Kind, is_secret
from ...watermark import judge
from ..harness.case import Case
from ..harness.check import check, fail, inapplicable, require
from ..harness.models import VOCAB, ids

TEXTS, LENGTH = 200, 60
MARKED = 48
"""Tokens of a marked text."""
FOUND = 0.01
"""A marked text is found if its p-value is below this."""


def random_texts(count: int = TEXTS, length: int = LENGTH, seed: int = 11) -> Tensor:
    """Texts that nobody marked: `[count, length]`, long."""
    return torch.randint(5, VOCAB, (count, length), generator=torch.Generator().manual_seed(seed))


def marked_texts(case: Case) -> Tensor:
    """Texts that the watermarker marked while they were sampled: `[8, MARKED]`, long."""
    prompt = ids(8, 6, 21)
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    result: Tensor = case.generate(
        inputs, do_sample=True, temperature=1.5, top_k=0, seed=list(range(8)), max_new_tokens=MARKED
    )
    return result[:, 6:]


def p_values(case: Case, texts: Tensor, **params: Any) -> list[float]:
    """What a fresh detector says of texts."""
    detector: Any = case.component(**{**case.values, **params})
    return [float(one.p_value) for one in judge(detector, texts)]


def secrets(case: Case) -> dict[str, Any]:
    """The secret parameters, each with another value than the one that the checks run with."""
    params: Any = case.component.Params(**case.values)
    found: dict[str, Any] = {}
    for key in case.component.Params.model_fields:
        if is_secret(key):
            found[key] = _another(getattr(params, key))
    return found


def _another(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value + 1_234_567
    if isinstance(value, str):
        return value[::-1] + "x"
    if isinstance(value, bytes):
        return value[::-1] + b"x"
    if isinstance(value, (list, tuple)):
        return type(value)(_another(one) for one in value)
    return value


@check(Kind.WATERMARKERS)
def detection_type(case: Case) -> None:
    """`detect` gives one Detection for each text, with a score, a p-value and a count of tokens, all plain numbers."""
    found: Any = judge(case.make(), random_texts(3))
    require(isinstance(found, list) and len(found) == 3, f"3 texts gave {found!r}; a list of 3 is wanted")
    for one in found:
        require(isinstance(one, Detection), f"{one!r} is no genmode.Detection")
        require(math.isfinite(one.score), f"score={one.score}")
        require(isinstance(one.tokens, int) and 0 <= one.tokens <= LENGTH, f"tokens={one.tokens} of {LENGTH}")


@check(Kind.WATERMARKERS)
def p_values_in_range(case: Case) -> None:
    """p-values lie between 0 and 1, also of marked and of monotonous texts."""
    texts = [random_texts(20), marked_texts(case), torch.full((1, 40), 7)]
    wrong = [p for some in texts for p in p_values(case, some) if not 0 <= p <= 1]
    require(not wrong, f"p-values {wrong[:3]} are outside [0, 1]")


@check(Kind.WATERMARKERS)
def round_trip(case: Case) -> str:
    """Text that it marked is found: of 8 samples of 48 tokens, at least 6 with a p-value below 0.01."""
    found = p_values(case, marked_texts(case))
    count = sum(p < FOUND for p in found)
    require(count >= 6, f"{count} of 8 marked texts are found, p-values {[round(p, 4) for p in found]}")
    return f"{count} of 8 marked texts found"


@check(Kind.WATERMARKERS)
def wrong_key(case: Case) -> str:
    """With another key, marked text is not found: at most 3 of 8 samples with a p-value below 0.05."""
    others = secrets(case)
    if not others:
        fail("no parameter is a secret by its name: call the key `key`, or let its name end in `_key`")
    count = sum(p < 0.05 for p in p_values(case, marked_texts(case), **others))
    require(count <= 3, f"{count} of 8 texts are found with another key; the mark does not depend on it")
    return f"{count} of 8 texts found with another key"


@check(Kind.WATERMARKERS)
def false_positives(case: Case) -> str:
    """Of 200 random texts as many have a p-value below 0.05, and below 0.01, as chance allows: at most 28, and 13."""
    found = p_values(case, random_texts())
    told: list[str] = []
    for level, most in ((0.05, 28), (0.01, 13)):  # of 200 at these rates, more come once in a million times
        count = sum(p < level for p in found)
        told.append(f"{count} below {level}")
        require(count <= most, f"{count} of {TEXTS} unmarked texts have a p-value below {level}; at most {most} may")
    return f"of {TEXTS}, {', '.join(told)}"


@check(Kind.WATERMARKERS)
def p_values_uniform(case: Case) -> str:
    """p-values of unmarked text are about uniform: nowhere further than 0.35 from it, of which chance has 0.19."""
    found = sorted(p_values(case, random_texts()))
    gap = max(max((i + 1) / TEXTS - p, p - i / TEXTS) for i, p in enumerate(found))
    require(
        gap <= 0.35, f"the distribution of {TEXTS} p-values is {gap:.2f} from uniform, median {found[TEXTS // 2]:.2f}"
    )
    return f"{gap:.2f} from uniform"


@check(Kind.WATERMARKERS)
def texts_independent(case: Case) -> None:
    """A text alone gets what it gets among others."""
    texts = torch.cat([random_texts(3, MARKED), marked_texts(case)[:2]])
    together = p_values(case, texts)
    alone = [p_values(case, text[None])[0] for text in texts]
    gap = max(abs(one - other) for one, other in zip(together, alone, strict=True))
    require(gap < 1e-6, f"p-values together {together}, alone {alone}")


@check(Kind.WATERMARKERS)
def padding_ignored(case: Case) -> None:
    """Negative ids behind a text are padding, and are not scored."""
    detector: Any = case.make()
    text = marked_texts(case)[:2]
    padded = torch.nn.functional.pad(text, (0, 9), value=-1)
    plain, more = judge(detector, text), judge(detector, padded)
    for one, other in zip(plain, more, strict=True):
        require(one.tokens == other.tokens, f"{one.tokens} tokens are scored, with padding {other.tokens}")
        require(abs(one.p_value - other.p_value) < 1e-6, f"p-value {one.p_value}, with padding {other.p_value}")


@check(Kind.WATERMARKERS)
def no_text(case: Case) -> None:
    """A text of no tokens, or of padding alone, is no error and no find."""
    for texts in (torch.full((1, 5), -1), torch.zeros(1, 0, dtype=torch.long), torch.tensor([[7]])):
        (one,) = judge(case.make(), texts)
        require(one.p_value >= 0.05, f"{texts.tolist()} has a p-value of {one.p_value}")


@check(Kind.WATERMARKERS)
def detects_alone(case: Case) -> None:
    """Detection needs no call before it and leaves no trace: an object that marked detects like a fresh one."""
    texts = random_texts(4)
    marker: Any = case.make()
    first = [one.p_value for one in judge(marker, texts)]
    case.generate(do_sample=True, seed=5, watermark=marker)
    require(first == [one.p_value for one in judge(marker, texts)], "other p-values after a call")
    require(first == p_values(case, texts), "other p-values from another object")


@check(Kind.WATERMARKERS)
def texts_untouched(case: Case) -> None:
    """Detection only reads the texts, and draws nothing from torch's generator."""
    texts, state = random_texts(4), torch.get_rng_state()
    judge(case.make(), texts)
    require(torch.equal(texts, random_texts(4)), "detect writes into the texts")
    require(torch.equal(state, torch.get_rng_state()), "detect changes the state of torch's generator")


@check(Kind.WATERMARKERS)
def key_hidden(case: Case) -> None:
    """The key is a secret: neither `repr`, nor an error, nor a saved config shows it."""
    from ... import GenerationConfig, WatermarkingConfig
    from ...errors import ParameterError
    from ...plugins.parameters import build_params
    from ..harness.host import isolated_host

    params: Any = case.component.Params(**case.values)
    keys = {key: getattr(params, key) for key in case.component.Params.model_fields if is_secret(key)}
    if not keys:
        fail("no parameter is a secret by its name: call the key `key`, or let its name end in `_key`")
    shown = [str(value) for value in keys.values() if isinstance(value, (int, str)) and len(str(value)) > 3]
    if not shown:
        inapplicable("give the checks a key that can be told apart: a number or text of at least 4 characters")
    made: Any = case.component(**{**case.values, **keys})
    try:
        build_params(case.component, {**case.values, **keys, "no_such_parameter": 1})
    except ParameterError as error:
        said = f"{error} {error.__cause__}"
    else:
        said = ""
    with isolated_host(case.component):
        plain = {key: value for key, value in case.values.items() if not is_secret(key)}
        config = WatermarkingConfig(case.component.name, **keys, **plain)
        saved = GenerationConfig(watermarking_config=config).to_json_string()
    places = {"repr(component)": repr(made), "an error": said, "a saved config": saved, "repr(config)": repr(config)}
    for place, text in places.items():
        require(not any(secret in text for secret in shown), f"{place} shows the key")
    json.loads(saved)
