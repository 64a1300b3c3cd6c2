"""TRL: a GRPO trainer whose rollouts come from a genmode strategy through `model.generate`.

pip install trl && pytest tests/interoperation/test_trl.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import fresh, tokenizer

trl = pytest.importorskip("trl", reason="needs trl: pip install trl")
pytestmark = pytest.mark.filterwarnings("default")


def trained(folder: Path, model: Any, **generation: Any) -> tuple[Any, list[Any], list[str]]:
    """One step of GRPO on the CPU: the trainer, the traced calls, and the completions that were rewarded."""
    from datasets import Dataset

    seen: list[str] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        seen.extend(completions)
        return [float(len(set(text))) for text in completions]

    arguments = trl.GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=8, report_to=[], logging_steps=1, save_strategy="no", learning_rate=1e-2, seed=3,
        generation_kwargs=generation or None, gradient_checkpointing=False,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": "a5 b6 c7"}, {"prompt": "d1 e2"}])
    with genmode.trace() as traced:
        trainer = trl.GRPOTrainer(
            model=model, reward_funcs=reward, args=arguments, train_dataset=data, processing_class=tokenizer()
        )
        trainer.train()
    return trainer, traced.calls, seen


@pytest.mark.parametrize(
    ("generation", "strategy", "processor"),
    [
        ({}, "sample", None),
        ({"strategy": "suffix_lookup"}, "suffix_lookup", None),
        ({"top_n_sigma": 1.0}, "sample", "top_n_sigma"),
    ],
    ids=["flags", "by name", "a key of a plugin"],
)
def test_rollouts_come_from_the_strategy(
    tmp_path: Path, generation: dict[str, Any], strategy: str, processor: str | None
) -> None:
    model = genmode.attach(fresh("llama"))
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer, calls, completions = trained(tmp_path, model, **generation)
    assert {call.strategy for call in calls} == {strategy}
    assert len(completions) == 4
    if processor is not None:
        assert processor in {part.name for part in calls[0].parts}
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    assert trainer.state.global_step == 1
