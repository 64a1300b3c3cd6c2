"""The pseudo-random numbers of genmode's own schemes: a keyed hash of a context and a token.

A context is a few tokens; with the key it makes a 64-bit context key, and that one octet for each token of
the vocabulary (eight tokens share a word of `genmode.sampling.counter_rng`), or a bit, or 52 bits for a few tokens:

    context key h_w,   h_0 = key,  h_i = word(h_{i-1}, x_i, 0)
    octet(h, v)      = byte v mod 8 of word(h, 0, v div 8), the least significant first
    bit(h, v)        = bit v mod 64 of word(h, 2, v div 64)
    uniform(h, v)    = (octet(h, v) + fraction(h, v)) / 256,   fraction(h, v) = (word(h, 1, v) >> 20 + 1/2) / 2^44

All of it is integer arithmetic, equal on every device. A token's number needs no other token's, so that
detection costs nothing per word of the vocabulary, and needs no vocabulary.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from genmode import host_sync
from genmode.sampling import counter_rng as counter


def number(key: int | str) -> int:
    """A key as 64 bits, signed: integers as they are, modulo 2^64; text by BLAKE2b."""
    if isinstance(key, str):
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)
    return (key + 2**63) % 2**64 - 2**63


def context_keys(key: int, contexts: Tensor) -> Tensor:
    """The key of each context: `[n, width]`, long, to `[n]`, int64. `key` is what `number` gives."""
    keys = torch.full((len(contexts),), key, dtype=torch.int64, device=contexts.device)
    for column in range(contexts.shape[1]):
        keys = derive(keys, contexts[:, column])
    return keys


def derive(keys: Tensor, labels: Tensor) -> Tensor:
    """Another key for each key and label, both `[n]`, int64."""
    return counter.first_words(keys, labels.contiguous())


def packed_bits(keys: Tensor, vocab: int) -> Tensor:
    """`[rows, n]`, uint8, n at least vocab / 8: the bits of eight tokens each, lowest id first, for keys `[rows]`."""
    return counter.words(keys, 2, torch.arange((vocab + 63) // 64, device=keys.device)).view(torch.uint8)


def unpacked(octets: Tensor) -> Tensor:
    """`[rows, 8 n]`, uint8: the bits of `octets` `[rows, n]`, uint8."""
    if host_sync.is_free(octets.device):
        return torch.from_numpy(np.unpackbits(octets.numpy(), axis=1, bitorder="little"))
    return shifted(octets)


def shifted(octets: Tensor) -> Tensor:
    """The same on any device."""
    shifts = torch.arange(8, dtype=torch.uint8, device=octets.device)
    return ((octets[:, :, None] >> shifts) & 1).flatten(1)


def bits(keys: Tensor, vocab: int) -> Tensor:
    """`[rows, vocab]`, uint8: 0 or 1 for each token, for keys `[rows]`."""
    return unpacked(packed_bits(keys, vocab))[:, :vocab]


def bit_at(keys: Tensor, tokens: Tensor) -> Tensor:
    """`[n]`, int64: the bit of token `tokens[i]` under `keys[i]`."""
    words = counter.words(keys, 2, (tokens >> 6)[:, None])[:, 0]
    return (words >> (tokens & 63)) & 1


def octets(keys: Tensor, vocab: int) -> Tensor:
    """`[rows, vocab]`, uint8: a number of 0 .. 255 of each token, for keys `[rows]`."""
    places = torch.arange((vocab + 7) // 8, device=keys.device)
    return counter.words(keys, 0, places).view(torch.uint8)[:, :vocab]


def octet_at(keys: Tensor, tokens: Tensor) -> Tensor:
    """`[n]`, int64: the octet of token `tokens[i]` under `keys[i]`."""
    words = counter.words(keys, 0, (tokens >> 3)[:, None])[:, 0]
    return (words >> ((tokens & 7) * 8)) & 255


def uniform_at(keys: Tensor, tokens: Tensor) -> Tensor:
    """`[n]`, float64 in (0, 1): the number whose first eight bits are the octet.

    8 bits and 44 and the half are the 53 that float64 has, so that nothing is rounded, least of all to 1.
    """
    words = (counter.words(keys, 1, tokens[:, None])[:, 0] >> 20) & (2**44 - 1)
    return (octet_at(keys, tokens).double() + (words.double() + 0.5) * 2.0**-44) / 256
