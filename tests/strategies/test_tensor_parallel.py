"""Two processes that share a model's weights decode the same tokens, draw the same numbers and stop together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("tensor_parallel_worker.py")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if request.param == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    folder = tmp_path_factory.mktemp("group")
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if request.param == "cpu" else {}
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "HF_HUB_OFFLINE": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), request.param, str(folder)],
            env={**os.environ, **group, **hidden, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    assert found.pop("processes") == 2
    assert found.pop("engine") == {"cpu": "static", "cuda": "graph"}[request.param]
    return found


def test_both_give_the_tokens_of_transformers(results: dict[str, Any]) -> None:
    for name in ("greedy", "sample", "beams", "beam_sample"):
        assert results[name] == {"agree": True, "equal": True}, name


def test_both_draw_and_stop_alike(results: dict[str, Any]) -> None:
    for name in ("generators that differ", "seed", "prompt_lookup", "max_time"):
        assert results[name]["agree"], name
    assert 9 < results["max_time"]["tokens"] < 100_009
