"""How long a draft is worth it, by hand."""

from __future__ import annotations

from typing import Any

import torch

from genmode.session.readback import AsyncReadback
from genmode_strategies.drafters.copying import best_length
from genmode_strategies.drafters.draft_lengths import Heuristic


class TestLengths:
    def test_copies_that_are_always_right_are_run_whole(self) -> None:
        assert best_length([0, 1, 2, 5, 10], 0.99, 1.0, 1, 256) == 10

    def test_copies_that_are_never_right_are_not_run(self) -> None:
        assert best_length([0, 1, 2, 5, 10], 0.01, 1.0, 8, 256) == 0

    def test_what_costs_as_much_as_it_gives(self) -> None:
        # one token of 2 rows, rate 1/2, free 4: (1 + 1/2) / (1 + 4/4 + 0.15) = 0.698 against 1 / (1 + 2/4) = 0.667
        assert best_length([0, 1], 0.5, 1.0, 2, 4) == 1
        # half the rows have something: (1 + 1/4) / 2.15 = 0.581 < 0.667
        assert best_length([0, 1], 0.5, 0.5, 2, 4) == 0

    def test_the_heuristic(self) -> None:
        class Session:
            rows, device = 2, torch.device("cpu")

            def async_readback(self, width: int) -> Any:
                return AsyncReadback(self.device, width)

        lengths, both = Heuristic(Session(), 4), torch.tensor([True, True])  # type: ignore[arg-type]
        lengths.learn(4, torch.tensor([4, 1]), both)
        assert lengths.now == 4  # the mean of 6 and 3, to even
        lengths.learn(4, torch.tensor([4, 4]), both)
        assert lengths.now == 6  # of 8 and 5
        lengths.learn(6, torch.tensor([0, 0]), torch.tensor([False, True]))
        assert lengths.now == 4
