"""The static cache by hand: written behind one another or at each row's own slot, grown, chosen, copied."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor

from genmode.engines.static_cache import StaticRowCache


def states(*values: float, tokens: int = 1) -> Tensor:
    """Keys of one head of width 1: `[rows, 1, tokens, 1]`; row r's tokens are values[r], values[r] + 1, ..."""
    first = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
    return first + torch.arange(tokens).view(1, 1, -1, 1)


class TestStaticRowCache:
    def filled(self, rows: int = 2) -> StaticRowCache:
        """A cache of one layer with two tokens a row: 10 11 in the first row, 20 21 in the second, ..."""
        cache = StaticRowCache(1, rows, 4)
        cache.layers[0].update(
            states(*[10.0 * (row + 1) for row in range(rows)], tokens=2), states(*[0.0] * rows, tokens=2)
        )
        cache.start = 2
        return cache

    def kept(self, cache: StaticRowCache, length: int) -> list[list[float]]:
        return cache.layers[0].keys[:, 0, :length, 0].tolist()

    def test_one_behind_the_other(self) -> None:
        cache = self.filled()
        keys, values = cache.layers[0].update(states(30, 40), states(5, 6))
        assert keys[:, 0, :, 0].tolist() == [[10, 11, 30], [20, 21, 40]]
        assert values[:, 0, :, 0].tolist() == [[0, 1, 5], [0, 1, 6]]
        assert cache.layers[0].get_seq_length() == 2
        assert cache.layers[0].get_mask_sizes(1) == (3, 0)

    def test_at_each_rows_own_slot(self) -> None:
        cache = self.filled()
        cache.slots, cache.row_index, cache.limit = torch.tensor([[1, 2], [2, 3]]), torch.arange(2)[:, None], 4
        keys, _ = cache.layers[0].update(states(30, 40, tokens=2), states(0, 0, tokens=2))
        assert keys[:, 0, :, 0].tolist() == [[10, 30, 31, 0], [20, 21, 40, 41]]

    def test_layers_of_one_shape_share_a_block(self) -> None:
        cache = StaticRowCache(2, 1, 4)
        for layer in cache.layers:
            layer.update(states(1), states(2))
        assert len(cache.blocks) == 1
        other = StaticRowCache(2, 1, 4)
        other.layers[0].update(states(1), states(2))
        other.layers[1].update(states(1).double(), states(2).double())
        assert [block.dtype for block in other.blocks] == [torch.float32, torch.float64]

    def test_prompts_shared_by_copies(self) -> None:
        cache = StaticRowCache(1, 4, 3)
        cache.stride = 2
        cache.layers[0].update(states(10, 20, tokens=2), states(0, 0, tokens=2))
        assert self.kept(cache, 2) == [[10, 11], [0, 0], [20, 21], [0, 0]]
        cache.spread(2, 2)
        assert self.kept(cache, 2) == [[10, 11], [10, 11], [20, 21], [20, 21]]

    def test_grow(self) -> None:
        cache = self.filled()
        cache.grow(3)
        assert cache.capacity == 4
        cache.grow(5)
        assert cache.capacity == 6
        keys, _ = cache.layers[0].update(states(30, 40, tokens=3), states(0, 0, tokens=3))
        assert keys[:, 0, :, 0].tolist() == [[10, 11, 30, 31, 32], [20, 21, 40, 41, 42]]

    def test_select(self) -> None:
        cache = self.filled(3)
        cache.select(torch.tensor([2, 0, 0]), 1, 2)
        assert self.kept(cache, 2) == [[10, 31], [20, 11], [30, 11]]
        cache = self.filled(3)
        cache.select(torch.tensor([2, 0]), 0, 2)
        assert (cache.rows, self.kept(cache, 2)) == (2, [[30, 31], [10, 11]])

    def test_adopt(self) -> None:
        small, large = self.filled(), StaticRowCache(1, 2, 8)
        large.adopt(small)
        assert self.kept(large, 3) == [[10, 11, 0], [20, 21, 0]]

    def test_move(self) -> None:
        cache = self.filled()
        cache.move(torch.tensor([1, 0]), 2)
        assert self.kept(cache, 3) == [[10, 11, 11], [20, 21, 20]]

    def test_export_shares_nothing(self) -> None:
        cache = self.filled()
        plain = cache.export(2)
        cache.layers[0].keys.zero_()
        assert type(plain) is transformers.DynamicCache
        assert plain.layers[0].keys[:, 0, :, 0].tolist() == [[10, 11], [20, 21]]
