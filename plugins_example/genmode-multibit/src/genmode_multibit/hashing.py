"""Numbers of a key: a hash of integers, the same on every device.

    mix(z)           the finaliser of MurmurHash3 (Appleby), a bijection of 64 bits
    chain(h, x)      = mix(h + G (x + 1)),   G the golden ratio times 2^64
    word(h, i)       = mix(h + mix(G (i + 1)))

All is int64 arithmetic modulo 2^64.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST, SECOND = 0xFF51AFD7ED558CCD - 2**64, 0xC4CEB9FE1A85EC53 - 2**64


def mix(z: Tensor) -> Tensor:
    """64 bits for 64 bits, int64."""
    z = (z ^ _shifted(z)) * FIRST
    z = (z ^ _shifted(z)) * SECOND
    return z ^ _shifted(z)


def _shifted(z: Tensor) -> Tensor:
    return (z >> 33) & (2**31 - 1)  # torch shifts the sign in


def chain(keys: Tensor, labels: Tensor) -> Tensor:
    """Another key for each key and label, both int64, of one shape."""
    return mix(keys + (labels + 1) * GOLDEN)


def words(keys: Tensor, places: Tensor) -> Tensor:
    """64 bits for each key `[n, 1]` and place `[m]` or `[n, m]`: `[n, m]`, int64."""
    return mix(keys + mix((places + 1) * GOLDEN))


def number(key: int | str) -> int:
    """A key as 64 bits, signed: integers modulo 2^64, text by BLAKE2b."""
    if isinstance(key, str):
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)
    return (key + 2**63) % 2**64 - 2**63


def contexts(key: int, tokens: Tensor) -> Tensor:
    """The key of each context `[n, width]`, long: `[n]`, int64."""
    keys = torch.full((len(tokens),), key, dtype=torch.int64, device=tokens.device)
    for column in tokens.unbind(1):
        keys = chain(keys, column)
    return keys
