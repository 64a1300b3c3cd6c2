"""Division as torch divides a tensor by a Python number, for divisors that stand in a tensor.

On the CPU that is a division, on CUDA a product with the reciprocal, which may differ in the last bit. What has to equal
`scores / number` of transformers bit for bit, for numbers that the host does not know, uses these two.
"""

from __future__ import annotations

from torch import Tensor


def number_divisors(numbers: Tensor) -> Tensor:
    """What `by_number` takes for these numbers: float32, of any shape, as they are on the device."""
    return numbers.reciprocal() if numbers.is_cuda else numbers


def by_number(values: Tensor, divisors: Tensor) -> Tensor:
    """values / numbers, float32, of the shape that both broadcast to; `divisors` is `number_divisors(numbers)`."""
    return values * divisors if values.is_cuda else values / divisors
