"""Tokens of rows of one length and of lengths of their own: read, written, chosen."""

from __future__ import annotations

import pytest
import torch

from genmode.session.token_buffer import TokenBuffer


class TestTokenBuffer:
    def rows(self, level: bool = True) -> TokenBuffer:
        tokens = torch.tensor([[0, 1, 2, 3, 77], [4, 5, 6, 7, 77]])
        lengths = torch.tensor([4, 4] if level else [2, 4])
        return TokenBuffer(tokens, lengths, torch.tensor([1, 0]), 2, 4 if level else None, 4)

    def test_rows_of_one_length(self) -> None:
        history = self.rows()
        assert (history.rows, history.bound) == (2, 4)
        assert history.ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert [(ids.tolist(), mask) for ids, mask in history.rectangles()] == [(history.ids.tolist(), None)]

    def test_rows_of_their_own_lengths(self) -> None:
        history = self.rows(level=False)
        with pytest.raises(ValueError, match=r"history\.tokens up to history\.lengths"):
            _ = history.ids
        short, long = history.rectangles()
        assert (short[0].tolist(), short[1].tolist()) == ([[0, 1], [4, 5]], [True, False])
        assert (long[0].tolist(), long[1].tolist()) == ([[4, 5, 6, 7], [4, 5, 6, 7]], [False, True])  # no row has 2, 3

    def test_write_and_ahead(self) -> None:
        level, uneven = self.rows(), self.rows(level=False)
        level.write(torch.tensor([[8, 9], [10, 11]]))
        assert level.buffer[:, :6].tolist() == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7, 10, 11]]
        assert level.level == 4
        assert level.ahead(2).ids.tolist() == level.buffer[:, :6].tolist()
        uneven.write(torch.tensor([[8, 9], [10, 11]]))
        assert uneven.buffer[0, :4].tolist() == [0, 1, 8, 9]
        assert uneven.buffer[1, :6].tolist() == [4, 5, 6, 7, 10, 11]
        assert uneven.lengths.tolist() == [2, 4]
        assert uneven.ahead(1).lengths.tolist() == [3, 5]
        assert uneven.ahead(0) is uneven

    def test_reserve_keeps_what_is_there(self) -> None:
        history = self.rows()
        history.reserve(5)
        assert history.buffer.shape == (2, 5)
        history.reserve(6)
        assert history.buffer.shape == (2, 10)
        assert history.ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]

    def test_select(self) -> None:
        history = self.rows(level=False)
        history.select(torch.tensor([1, 1, 0]))
        assert history.tokens[:, 0].tolist() == [4, 4, 0]
        assert history.lengths.tolist() == [4, 4, 2]
        assert history.starts.tolist() == [0, 0, 1]

    def test_tail_and_inside(self) -> None:
        level, uneven = self.rows(), self.rows(level=False)
        assert level.tail(2).tolist() == [[2, 3], [6, 7]]
        assert uneven.tail(2).tolist() == [[0, 1], [6, 7]]
        assert level.inside.tolist() == [[False, True, True, True], [True] * 4]
        assert uneven.inside.tolist() == [[False, True, False, False], [True] * 4]
        level.append(torch.tensor([8, 9]))
        assert level.inside.tolist() == [[False, True, True, True, True], [True] * 5]
        assert level.last().tolist() == [[8], [9]]
        assert uneven.last().tolist() == [[1], [7]]
