"""Division by numbers in a tensor, bit for bit as torch divides by Python numbers."""

from __future__ import annotations

import pytest
import torch

from genmode.sampling import by_number, number_divisors


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_it_rounds_as_torch_does_for_a_number(device: str) -> None:
    numbers = [1.0, 3.0, 7.0, 5.0**0.7, 49.0]
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(device)
    divisors = number_divisors(torch.tensor(numbers, device=device))
    for number, divisor in zip(torch.tensor(numbers).tolist(), divisors, strict=True):
        assert torch.equal(by_number(values, divisor), values / number)
