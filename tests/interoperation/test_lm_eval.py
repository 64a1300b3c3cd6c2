"""The lm-eval harness, with a strategy chosen by keyword (gen_kwargs) and by the model's config.

pip install lm-eval && pytest tests/interoperation/test_lm_eval.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import genmode
from genmode.testing.harness.models import fresh, tokenizer

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install lm-eval")
pytestmark = pytest.mark.filterwarnings("default")

QUESTIONS = ["a5 b6 c7 a5 b6", "d1 e2 d1 e2 d1", "f3 f4 f3 f4 f3 f4", "h1 g2"]


@pytest.fixture
def task(tmp_path: Path) -> dict[str, Any]:
    """A local generate_until task of four questions, whose metric is the answers' length."""
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"question": q, "answer": "a"}) + "\n" for q in QUESTIONS))
    return {
        "task": "genmode_local", "dataset_path": "json", "output_type": "generate_until",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["zz"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip


def answers(model: Any, task: dict[str, Any], **gen_kwargs: Any) -> tuple[list[str], list[str]]:
    """The harness's answers, and the strategies that gave them."""
    from lm_eval.models.huggingface import HFLM

    with genmode.trace() as traced:
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer(), backend="causal", batch_size=2, max_length=200)
        found = lm_eval.simple_evaluate(
            model=wrapped,
            tasks=[task],
            gen_kwargs=gen_kwargs or None,
            log_samples=True,
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    samples = sorted(found["samples"]["genmode_local"], key=lambda one: one["doc_id"])
    return [one["resps"][0][0] for one in samples], sorted({call.strategy for call in traced.calls})


def test_a_strategy_by_keyword(task: dict[str, Any]) -> None:
    stock, none = answers(fresh("llama"), task)
    assert none == []  # genmode is not attached
    assert answers(genmode.attach(fresh("llama")), task) == (stock, ["greedy_search"])
    assert answers(genmode.attach(fresh("llama")), task, prompt_lookup_num_tokens=3) == (stock, ["prompt_lookup"])
    assert answers(genmode.attach(fresh("llama")), task, strategy="suffix_lookup") == (stock, ["suffix_lookup"])
    marked, strategies = answers(
        genmode.attach(fresh("llama")), task, strategy="contrastive_search", penalty_alpha=0.6, top_k=4
    )
    assert strategies == ["contrastive_search"]
    assert marked != stock


def test_a_strategy_by_the_models_config(task: dict[str, Any]) -> None:
    model = genmode.attach(fresh("llama"))
    stock, _ = answers(model, task)
    model.generation_config.prompt_lookup_num_tokens = 3
    assert answers(model, task) == (stock, ["prompt_lookup"])
    model.generation_config.prompt_lookup_num_tokens = None
    model.generation_config.dry_multiplier = 5.0
    model.generation_config.dry_allowed_length = 1
    changed, strategies = answers(model, task)
    assert strategies == ["greedy_search"]
    assert changed != stock


def test_a_key_that_nothing_knows_is_an_error_and_not_ignored(task: dict[str, Any]) -> None:
    with pytest.raises(genmode.ParameterError, match="did you mean 'temperature'"):
        answers(genmode.attach(fresh("llama")), task, temprature=0.5)
