"""Each check of strategies catches a strategy that is wrong in that way alone, and passes one that is right."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing import Case, check_component, checks_of

from .private import Private, by_engine
from .wrong import Swallowing, of_every_kind, variant


class KitGate(genmode.Strategy):
    """Greedy where the best token leads by some margin, sampling where it does not."""

    contract_version = 1
    name = "kit_gate"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True}

    class Params(genmode.Params):
        kit_margin: float = Field(2.0, ge=0, description="lead of the best token, in logits")

    def decode(self, session: genmode.Session, params: Any) -> None:
        for step in session.steps():
            step.commit(self.choose(session, step))

    def choose(self, session: genmode.Session, step: genmode.Step) -> Tensor:
        best = step.scores.topk(2).values  # [rows, 2]
        sure = best[:, 0] - best[:, 1] >= 2.0
        return torch.where(sure, step.scores.argmax(-1), step.sample())


def choosing(function: Any) -> type[Any]:
    """A strategy that chooses by `function(session, step)`."""
    return variant(KitGate, choose=lambda self, session, step: function(session, step))


def decoding(function: Any) -> type[Any]:
    """A strategy that decodes by `function(session)`."""
    return variant(KitGate, decode=lambda self, session, params: function(session))


def second_best(step: Any) -> Tensor:
    return step.scores.topk(2).indices[:, 1]


def by_rand(session: Any, step: Any) -> Tensor:
    return torch.where(torch.rand(session.rows) < 0.5, step.scores.argmax(-1), second_best(step))


def reseeds(session: Any, step: Any) -> Tensor:
    torch.manual_seed(0)
    return step.scores.argmax(-1)


def python_random(session: Any, step: Any) -> Tensor:
    return step.scores.argmax(-1) if random.random() < 0.5 else second_best(step)


def per_batch(session: Any, step: Any) -> Tensor:
    return (step.logits - step.logits.mean(0)).argmax(-1)


def by_row_number(session: Any, step: Any) -> Tensor:
    return torch.where(torch.arange(session.rows) == 0, second_best(step), step.scores.argmax(-1))


def by_column(session: Any, step: Any) -> Tensor:
    return second_best(step) if session.prompt_length > 8 else step.scores.argmax(-1)


def never_ends(session: Any) -> None:
    for step in session.steps(ending=False):
        step.commit(step.scores.argmax(-1))


def gives_up(session: Any) -> None:
    for step in session.steps():
        step.commit(step.scores.argmax(-1))
        if step.index == 2:
            return


def floats(session: Any) -> None:
    never_ends(session)
    session.finish(session.history.tokens.float())


def backwards(session: Any) -> None:
    for step in session.steps():
        step.commit(step.scores.argmax(-1))
    tokens = session.history.tokens
    session.finish(torch.cat([tokens[:, :9], tokens[:, 9:].flip(1)], dim=1))


def rewrites_history(session: Any) -> None:
    for step in session.steps():
        step.commit(step.scores.argmax(-1))
        session.history.tokens[:, session.history.level - 1] += 1


def swallows(session: Any) -> None:
    try:
        never_ends(session)
    except genmode.GenmodeError:
        return


def one_for_each_input(session: Any) -> None:
    never_ends(session)
    session.finish(session.history.tokens[:: (session.rows // session.num_inputs)])


def looks_two_back(session: Any, step: Any) -> Tensor:
    scores = step.scores.clone()
    return scores.scatter(1, session.history.tokens[:, [-2]], -9.0).argmax(-1)


def knows_decoders_alone(session: Any, step: Any) -> Tensor:
    return step.scores.argmax(-1) + 0 * len(session.model.model.layers)


def knows_attention_alone(session: Any, step: Any) -> Tensor:
    return step.scores.argmax(-1) + 0 * session.model.config.num_attention_heads


def in_float32_alone(session: Any, step: Any) -> Tensor:
    return (step.scores @ session.model.lm_head.weight).argmax(-1)


def reads_items(session: Any, step: Any) -> Tensor:
    best = step.scores.argmax(-1)
    return best if best[0].item() >= 0 else second_best(step)


def by_host(session: Any, step: Any) -> Tensor:
    return step.scores.argmax(-1) if host_sync.is_free(session.device) else second_best(step)


def many_forwards(session: Any, step: Any) -> Tensor:
    for _ in range(5):
        session.model(session.history.tokens)
    return step.scores.argmax(-1)


def row_by_row(session: Any, step: Any) -> Tensor:
    return torch.stack([row.argmax() for row in step.scores])


def token_by_token(session: Any, step: Any) -> Tensor:
    scores = step.scores.clone()
    for column in range(session.history.level):
        scores.scatter_(1, session.history.tokens[:, column : column + 1], 0.0)
    return scores.argmax(-1)


class Counting(KitGate):
    """Counts its steps on the class."""

    calls: ClassVar[list[int]] = []

    def choose(self, session: genmode.Session, step: genmode.Step) -> Tensor:
        self.calls.append(step.index)
        return step.scores.argmax(-1)


HOARD: list[Tensor] = []


def hoards(session: Any, step: Any) -> Tensor:
    HOARD.append(step.logits.clone())
    return step.scores.argmax(-1)


def refers_to_itself(self: Any, session: Any, params: Any) -> None:
    self.session, self.me = session, self
    never_ends(session)


def marks_the_model(session: Any, step: Any) -> Tensor:
    session.model.config.kit_mark = step.index
    return step.scores.argmax(-1)


def sets_determinism(session: Any, step: Any) -> Tensor:
    torch.use_deterministic_algorithms(True)
    return step.scores.argmax(-1)


def with_gradients(session: Any) -> None:
    with torch.enable_grad():
        never_ends(session)


def prints(session: Any, step: Any) -> Tensor:
    print("step", step.index)
    return step.scores.argmax(-1)


WRONG: dict[str, type[Any]] = {
    **of_every_kind(KitGate, "greedy_search"),
    "return_type": decoding(floats),
    "output_classes": choosing(
        lambda s, step: second_best(step) if s.generation_config.output_scores else step.scores.argmax(-1)
    ),
    "determinism": choosing(by_rand),
    "torch_seed": choosing(python_random),
    "generator_untouched": choosing(reseeds),
    "batch_invariance": choosing(per_batch),
    "order_invariance": choosing(by_row_number),
    "left_padding_invariance": choosing(by_column),
    "early_end": decoding(never_ends),
    "ends_when_all_end": decoding(never_ends),
    "max_new_tokens": decoding(gives_up),
    "max_length": decoding(gives_up),
    "stopping_criteria": decoding(never_ends),
    "row_criteria": decoding(never_ends),
    "processors_obeyed": choosing(lambda session, step: step.logits.argmax(-1)),
    "processors_informed": decoding(rewrites_history),
    "streaming": decoding(backwards),
    "cancellation": decoding(swallows),
    "single_token_prompt": choosing(looks_two_back),
    "return_sequences": decoding(one_for_each_input),
    "encoder_decoder": choosing(knows_decoders_alone),
    "recurrent": choosing(knows_attention_alone),
    "families": choosing(knows_decoders_alone),
    "engines_agree": choosing(by_engine),
    "half_precision": choosing(in_float32_alone),
    "no_synchronisation": choosing(reads_items),
    "late_result": choosing(by_host),
    "cost_against_greedy": choosing(many_forwards),
    "cost_of_rows": choosing(row_by_row),
    "cost_of_length": choosing(token_by_token),
    "no_state_between_calls": Counting,
    "no_memory_between_runs": choosing(hoards),
    "no_memory_without_collection": variant(KitGate, decode=refers_to_itself),
    "model_untouched": choosing(marks_the_model),
    "torch_untouched": choosing(sets_determinism),
    "no_gradients": decoding(with_gradients),
    "silence": choosing(prints),
    "declared_flags": variant(KitGate, flags={"temprature": 1.0}),
    "bad_parameters": variant(KitGate, Params=Swallowing),
    "failures_pass": decoding(swallows),
    "public_contract": Private,
}


@pytest.fixture(autouse=True)
def _empty_hoard() -> Any:
    yield
    HOARD.clear()


def test_every_check_has_a_wrong_strategy() -> None:
    assert set(WRONG) == {one.name for one in checks_of("strategies")}
    assert len(WRONG) >= 25


@pytest.mark.parametrize("name", WRONG)
def test_the_check_catches_it(name: str) -> None:
    report = check_component(WRONG[name], only=[name], raises=False)
    assert [one.status for one in report.outcomes] == ["failed"], str(report)
    assert report.outcomes[0].check.explanation
    knows_some_models_alone = name in ("encoder_decoder", "recurrent", "families")
    assert ("AttributeError" in report.outcomes[0].message) == knows_some_models_alone


def test_a_right_strategy_passes_them_all() -> None:
    report = check_component(Case(KitGate, {"kit_margin": 1.5}))
    assert {one.check.name for one in report.outcomes if one.status == "skipped"} == set()
