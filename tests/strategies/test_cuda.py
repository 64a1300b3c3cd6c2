"""The session on a CUDA device: the same tokens, no waiting in the loop, no stale graph. Skipped without one."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import genmode
from genmode.cuda import buffers, graph_engine, packed_attention
from genmode.cuda.kernels import build

from ..waits import no_waits

pytestmark = pytest.mark.gpu

TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, **TOKENS,
}  # fmt: skip
TRANSFORMERS_MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalty": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    "sample": {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9},
    "several": {"do_sample": True, "num_return_sequences": 3, "min_p": 0.05},
    "beams": {"num_beams": 4, "num_return_sequences": 2, "early_stopping": True},
    "beam_sample": {"num_beams": 3, "do_sample": True},
}
OWN_MODES: dict[str, dict[str, Any]] = {
    "prompt_lookup": {"prompt_lookup_num_tokens": 4},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "dola": {"dola_layers": "low", "repetition_penalty": 1.2},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
}


def make(name: str) -> Any:
    torch.manual_seed(0)
    if name == "gpt2":
        config = GPT2Config(vocab_size=100, n_embd=64, n_layer=3, n_head=4, initializer_range=0.3, **TOKENS)
        return GPT2LMHeadModel(config).cuda().eval()
    if name == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SMALL)).cuda().eval()
    return LlamaForCausalLM(LlamaConfig(**SMALL)).cuda().eval()


def padded(batch: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 100, (batch, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    if batch > 1:
        ids[1, :3], mask[1, :3] = 0, 0
    return {"input_ids": ids.cuda(), "attention_mask": mask.cuda()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("mode", TRANSFORMERS_MODES)
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_and_generator_state_equal_transformers(family: str, mode: str, batch: int) -> None:
    model, inputs, flags = make(family), padded(batch), TRANSFORMERS_MODES[mode]
    if mode == "penalty":  # which takes padding for text in transformers
        inputs = {key: value.clamp(min=1) for key, value in inputs.items()}
    for length in (12, 600):
        torch.manual_seed(7)
        expected = model.generate(**inputs, max_new_tokens=length, **flags)
        drawn = torch.rand(1, device="cuda")
        torch.manual_seed(7)
        got = genmode.generate(model, **inputs, max_new_tokens=length, **flags)
        assert torch.equal(got, expected)
        assert torch.equal(torch.rand(1, device="cuda"), drawn)
    assert genmode.explain(model, **inputs, max_new_tokens=12, **flags).engine == "graph"


@pytest.mark.filterwarnings("ignore:dola_layers")
@pytest.mark.parametrize("mode", OWN_MODES)
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_equal_those_of_the_cpu(mode: str, batch: int) -> None:
    model, inputs, flags = make("llama"), padded(batch), OWN_MODES[mode]
    got = genmode.generate(model, **inputs, max_new_tokens=40, **flags).cpu()
    model = model.cpu()
    expected = genmode.generate(model, **{k: v.cpu() for k, v in inputs.items()}, max_new_tokens=40, **flags)
    assert torch.equal(got, expected)


def test_seeded_tokens_equal_those_of_the_cpu() -> None:
    model, inputs = make("llama"), padded(3)
    flags: dict[str, Any] = {"do_sample": True, "top_p": 0.9, "seed": [5, 6, 7], "max_new_tokens": 40}
    got = genmode.generate(model, **inputs, **flags).cpu()
    expected = genmode.generate(model.cpu(), **{k: v.cpu() for k, v in inputs.items()}, **flags)
    assert torch.equal(got, expected)


@pytest.mark.filterwarnings("ignore:dola_layers")
@pytest.mark.parametrize("mode", [*TRANSFORMERS_MODES, *OWN_MODES])
def test_no_step_waits_for_the_device(mode: str) -> None:
    flags = {**TRANSFORMERS_MODES, **OWN_MODES}[mode] | {"eos_token_id": None}
    flags.pop("no_repeat_ngram_size", None)
    model, inputs = make("llama"), padded(3)
    with no_waits():
        assert genmode.generate(model, **inputs, max_new_tokens=40, **flags).shape[1] == 49


def test_streams_what_it_returns() -> None:
    model, inputs = make("llama"), padded(3)
    for flags in ({"do_sample": True}, {"prompt_lookup_num_tokens": 3}):
        torch.manual_seed(1)
        expected = genmode.generate(model, **inputs, max_new_tokens=30, **flags)[:, 9:].cpu()
        torch.manual_seed(1)
        pieces = list(genmode.stream(model, **inputs, max_new_tokens=30, **flags))
        assert torch.equal(torch.stack([piece.cpu() for piece in pieces], 1), expected)


def test_changed_models_never_replay_a_stale_graph() -> None:
    model, inputs = make("llama"), padded(1)

    def check() -> None:
        expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)

    check()
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.randn_like(model.lm_head.weight))  # in place
    check()
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))  # another tensor
    check()
    model.resize_token_embeddings(120)
    check()
    model.cpu()
    model.cuda()  # moved
    check()
    handle = model.model.layers[0].register_forward_hook(lambda module, args, out: out * 0.5)
    assert "hooks" in genmode.explain(model, **inputs, max_new_tokens=12).engine_why
    check()
    handle.remove()
    check()


def test_a_forward_that_cannot_be_captured_goes_on_without_graphs() -> None:
    model, inputs = make("llama"), padded(3)
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    norm = model.model.norm
    plain = norm.forward
    norm.forward = lambda x: plain(x) * (1.0 if x.sum().item() is not None else 0.0)  # .item() waits: no capture
    assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)
    del norm.forward
    assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)


def test_memory_is_bounded_and_freed_with_the_model() -> None:
    model = make("llama")
    for rows in range(1, 12):
        genmode.generate(model, **{k: v.expand(rows, -1) for k, v in padded(1).items()}, max_new_tokens=4)
    assert len(buffers.buffer_pool_of(model).idle) <= buffers.KEPT


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_model_on_another_device_than_the_current_one() -> None:
    inputs = padded(3)
    expected = genmode.generate(make("llama"), **inputs, max_new_tokens=12)
    model = make("llama").to("cuda:1")
    there = {key: value.to("cuda:1") for key, value in inputs.items()}
    assert genmode.explain(model, **there, max_new_tokens=12).engine == "graph"
    assert torch.equal(genmode.generate(model, **there, max_new_tokens=12).cpu(), expected.cpu())
    assert torch.cuda.current_device() == 0


def test_graphs_outlive_the_memory_that_cublas_keeps() -> None:
    model, inputs = make("llama").bfloat16(), padded(3)
    expected = genmode.generate(model, **inputs, max_new_tokens=12)
    torch._C._cuda_clearCublasWorkspaces()  # as torch.compile does for graphs of its own
    torch.cuda.empty_cache()
    assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)


def test_threads_on_one_model_give_what_one_gives() -> None:
    model, inputs = make("llama"), padded(3)
    flags = [{}, {"num_beams": 3}, {"do_sample": True, "seed": 3}, {"prompt_lookup_num_tokens": 3}]
    expected = [genmode.generate(model, **inputs, max_new_tokens=24, **one) for one in flags]
    failures: list[Any] = []

    def work(turn: int) -> None:
        for offset in range(6):
            which = (turn + offset) % len(flags)
            got = genmode.generate(model, **inputs, max_new_tokens=24, **flags[which])
            if not torch.equal(got, expected[which]):
                failures.append((turn, which))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_numbers_that_are_none_are_an_error_with_the_tokens_kept() -> None:
    model, inputs = make("llama"), padded(3)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(genmode.DecodingError, match="not numbers") as caught:
        genmode.generate(model, **inputs, max_new_tokens=12)
    assert caught.value.sequences is not None
    assert caught.value.row == 0


@pytest.mark.parametrize(("rows", "heads", "kv_heads", "count", "limit", "width"), [
    (1, 8, 2, 1, 70, 64), (3, 4, 4, 2, 513, 32), (2, 32, 8, 5, 1000, 128), (1, 6, 2, 1, 5000, 80),
])  # fmt: skip
def test_attention_in_parts_equals_attention(
    rows: int, heads: int, kv_heads: int, count: int, limit: int, width: int
) -> None:
    from genmode.cuda.kernels import split_attention  # needs Triton

    torch.manual_seed(0)
    cache = torch.randn(2, rows, kv_heads, limit + 9, width, device="cuda", dtype=torch.bfloat16)
    key, value = cache[0][:, :, :limit], cache[1][:, :, :limit]
    query = torch.randn(rows, count, heads, width, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    mask = torch.rand(rows, 1, count, limit, device="cuda") < 0.7
    mask[:, :, :, limit // 2 :] &= torch.arange(rows, device="cuda")[:, None, None, None] % 2 == 0
    assert split_attention.fits(query, key, value, mask)
    got = split_attention.attend(query, key, value, mask, width**-0.5)
    exact = torch.nn.functional.scaled_dot_product_attention(
        query.double(), key.double().repeat_interleave(heads // kv_heads, 1),
        value.double().repeat_interleave(heads // kv_heads, 1), attn_mask=mask,
    )  # fmt: skip
    error = (got.double() - exact.transpose(1, 2)).norm() / exact.norm()
    assert error < 6e-3, error  # bfloat16 keeps 8 bits


def test_attention_by_parent_rows_equals_attention_to_reordered_keys() -> None:
    from genmode.cuda.kernels import split_attention  # needs Triton

    torch.manual_seed(0)
    rows, heads, kv_heads, limit, width = 6, 8, 2, 300, 64
    key, value = torch.randn(2, rows, kv_heads, limit, width, device="cuda", dtype=torch.bfloat16)
    for count in (1, 3):
        query = torch.randn(rows, heads, count, width, device="cuda", dtype=torch.bfloat16)
        parents = torch.randint(1, rows + 1, (rows, 1, 1, limit), device="cuda", dtype=build.PARENT_ROWS)
        seen = torch.arange(limit, device="cuda") < limit - 9 - torch.arange(count, device="cuda").flip(0)[:, None]
        parents = torch.where(seen, parents, 0)
        own = [packed_attention.materialized(states, parents) for states in (key, value)]
        got = split_attention.attend(query, key, value, parents, width**-0.5)
        expected = split_attention.attend(query, *own, parents > 0, width**-0.5)
        torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("mode", ["beams", "beam_sample", "groups"])
def test_beams_that_part_give_the_tokens_of_reordered_ones(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = make("llama").bfloat16(), padded(3)
    flags: dict[str, Any] = {**TRANSFORMERS_MODES, **OWN_MODES}[mode] | {"max_new_tokens": 60, "eos_token_id": None}
    flags |= {"return_dict_in_generate": True}
    torch.manual_seed(3)
    got = genmode.generate(model, **inputs, **flags)
    monkeypatch.setattr(packed_attention, "reads_parent_rows", lambda model, keys: False)
    torch.manual_seed(3)
    expected = genmode.generate(model, **inputs, **flags)
    assert torch.equal(got.sequences, expected.sequences)
    for one, other in zip(got.past_key_values.layers, expected.past_key_values.layers, strict=True):
        assert torch.equal(one.keys, other.keys)


def test_out_of_memory_says_what_to_reduce_and_leaves_nothing_behind() -> None:
    model, inputs = make("llama"), padded(3)
    expected = genmode.generate(model, **inputs, max_new_tokens=12)
    many = {key: value[:1].expand(400, -1) for key, value in inputs.items()}
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError, match=r"400 rows .* smaller max_new_tokens"):
            genmode.generate(model, **many, max_new_tokens=4000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()  # the error's traceback holds what the call held
    assert torch.cuda.memory_allocated() <= before + 2**22
    assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)


def test_out_of_memory_while_capturing_goes_on_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = make("llama"), padded(3)
    expected = genmode.generate(model, **inputs, max_new_tokens=12)
    buffers.buffer_pool_of(model).clear()

    def full(*arguments: Any, **flags: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(graph_engine.torch.cuda, "graph", full)
    assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)
    monkeypatch.undo()
    assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=12), expected)


def test_attention_goes_on_without_kernels_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from genmode.cuda.kernels import split_attention  # needs Triton

    model, inputs = make("llama").bfloat16(), padded(3)
    expected = genmode.generate(model, **inputs, max_new_tokens=12)
    buffers.buffer_pool_of(model).clear()

    def broken(*arguments: Any) -> Any:
        raise build.KernelError("no compiler")

    monkeypatch.setattr(build, "_failed", False)
    monkeypatch.setattr(split_attention, "attend", broken)
    with pytest.warns(UserWarning, match="no compiler"):
        got = genmode.generate(model, **inputs, max_new_tokens=12)
    assert got.shape == expected.shape
    assert genmode.explain(model, **inputs, max_new_tokens=12).engine == "graph"
