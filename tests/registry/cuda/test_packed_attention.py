"""Keys that lie in other rows' slots: what captured forwards of parted beams read, here without a device."""

from __future__ import annotations

import torch

from genmode.cuda.buffers import StaticBuffers
from genmode.cuda.kernels.build import PARENT_ROWS
from genmode.cuda.packed_attention import materialized, packed_sdpa


def trace_of(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=PARENT_ROWS)[:, None, None, :]


def test_keys_are_brought_home() -> None:
    states = torch.tensor([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])[:, None, :, None]  # [rows, 1, length, 1]
    home = materialized(states, trace_of([1, 2, 1], [1, 1, 2]))
    assert home[:, 0, :, 0].tolist() == [[10, 21, 12], [10, 11, 22]]


def test_attention_by_a_trace() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 1, 8, generator=generator)
    key, value = torch.randn(2, 2, 2, 3, 8, generator=generator)
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    got, _ = packed_sdpa(module, query, key, value, trace_of([2, 1, 0], [2, 2, 0]))
    own = [torch.stack([torch.stack([one[1, :, 0], one[0, :, 1]], 1), one[1, :, :2]]) for one in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, *(one.repeat_interleave(2, 1) for one in own)
    ).transpose(1, 2)
    torch.testing.assert_close(got, expected)


def test_a_buffer_is_straightened() -> None:
    buffers = StaticBuffers(1, 2, 4, torch.device("cpu"))
    layer = buffers.cache.own[0]
    layer.lazy_initialization(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
    for states in (layer.keys, layer.values):
        states[:, 0, :, 0] = torch.tensor([[10.0, 11, 12, 13], [20, 21, 22, 23]])
    buffers.materialize(0, 0)
    assert buffers.parent_rows.tolist() == [[1] * 4, [2] * 4]
    buffers.parent_rows[:, 1:3] = torch.tensor([[2, 1], [2, 1]])
    buffers.has_parents = True
    buffers.materialize(1, 3)
    assert not buffers.has_parents
    assert buffers.parent_rows.tolist() == [[1] * 4, [2] * 4]
    assert layer.keys[:, 0, :, 0].tolist() == layer.values[:, 0, :, 0].tolist() == [[10, 21, 12, 13], [20, 21, 12, 23]]
