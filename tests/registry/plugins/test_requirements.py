"""What a saved generation config says of the components that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import genmode
from genmode.testing.harness.models import fresh


def test_a_model_folder_with_a_watermark_is_one_that_transformers_loads(tmp_path: Path) -> None:
    fresh("llama").save_pretrained(tmp_path)
    genmode.GenerationConfig(watermarking_config=genmode.WatermarkingConfig("kgw", key=5)).save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generation_config.watermarking_config is None
    prompt = torch.tensor([[5, 6, 7]])
    with pytest.raises(
        genmode.ParameterError, match="key has to be given"
    ):  # the mark is asked for; keys are not saved
        genmode.generate(model, prompt, max_new_tokens=3)
    marked = genmode.WatermarkingConfig("kgw", key=5)
    assert genmode.generate(model, prompt, max_new_tokens=3, watermarking_config=marked).shape == (1, 6)
