"""One process of a tensor-parallel group: `python tensor_parallel_worker.py DEVICE FOLDER`, see test_tensor_parallel.

Both processes run the same calls. The first one writes what each gave to `FOLDER/results.json`: whether the processes
agree, whether the tokens are transformers' own, how many tokens there are, and which engine ran.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import genmode
from genmode.hf import generate

FLAGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sample": {"do_sample": True, "top_p": 0.9},
    "beams": {"num_beams": 3},
    "beam_sample": {"num_beams": 3, "do_sample": True},
}
OWN: dict[str, dict[str, Any]] = {
    "generators that differ": {"do_sample": True},
    "seed": {"do_sample": True, "seed": 3},
    "prompt_lookup": {"prompt_lookup_num_tokens": 4},
    "max_time": {"max_new_tokens": 100_000, "max_time": 0.5},
}


def main(device: str, folder: Path) -> None:
    """Run all calls."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if rank == 0:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=200, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, initializer_range=0.2, max_position_embeddings=200_000, bos_token_id=1,
            eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    dist.barrier()
    model = AutoModelForCausalLM.from_pretrained(folder / "model", tp_plan="auto").eval()
    ids = torch.randint(3, 200, (3, 9), generator=torch.Generator().manual_seed(1)).to(model.device)
    call: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 24, "do_sample": False}
    results: dict[str, Any] = {"engine": genmode.explain(model, ids, **call).engine}
    results["processes"] = generate.tensor_parallel_size(model)
    for name, flags in FLAGS.items():
        torch.manual_seed(5)
        expected = model.generate(ids, **call | flags)
        torch.manual_seed(5)
        got = genmode.generate(model, ids, **call | flags)
        results[name] = {"agree": agree(got), "equal": torch.equal(got, expected)}
    for name, flags in OWN.items():
        torch.manual_seed(100 + rank)
        got = genmode.generate(model, ids, **call | flags)
        results[name] = {"agree": agree(got), "tokens": got.shape[1]}
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


def agree(tokens: torch.Tensor) -> bool:
    """Whether this process has the tokens of the first one, on every process."""
    size = torch.tensor(tokens.shape, device=tokens.device)
    dist.broadcast(size, 0)
    first = tokens.clone() if size.tolist() == list(tokens.shape) else tokens.new_zeros(size.tolist())
    dist.broadcast(first, 0)
    same = torch.tensor([int(torch.equal(first, tokens))], device=tokens.device)
    dist.all_reduce(same, dist.ReduceOp.MIN)
    return bool(same.item())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
