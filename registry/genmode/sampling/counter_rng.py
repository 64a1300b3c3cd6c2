"""Random numbers that are a function of a key, a step and a place: nothing is drawn, nothing advances.

A call with `seed=` takes its noise from here, so that a row's tokens do not depend on what else is in the
batch, on how often a step was repeated, or on how many candidates a processor left.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014) used as a hash: with mix64 its output function,

    word(key, step, i) = mix64(key + C + step * S + i * G)

where G is its constant and C and S are others without structure, so that no two places in reach meet.
`exponential` uses the words i = 0, 1, 2, ... and `uniform` the words i = -1, -2, ..., which never meet. All of
it is int64 arithmetic modulo 2^64, the same on every device. The exponential is computed in float64 and
rounded to float32, which hides the last bit in which the logarithms of two platforms may differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..host_sync import is_free

Words = npt.NDArray[np.uint64]

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_STEP = 0xD1B54A32D192ED03 - 2**64
_START = 0x2545F4914F6CDD1D
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_STEPS, _STARTS = np.uint64(_STEP % 2**64), np.uint64(_START)
_PART = 1 << 14


def words(keys: Tensor, step: int | Tensor, places: Tensor) -> Tensor:
    """64 random bits for each key and place.

    Args:
        keys: `[rows]`, int64.
        step: an int, or int64 that broadcasts with `[rows]`.
        places: `[rows, k]`, or `[k]` for the same places in every row; int64.

    Returns:
        `[rows, k]`, int64.
    """
    if not isinstance(step, Tensor):
        step = torch.full((1,), step, dtype=torch.int64, device=keys.device)
    if is_free(keys.device):
        return torch.from_numpy(_words_in_numpy(keys, step, places).view(np.int64))
    return _words(keys, step, places)


def first_words(keys: Tensor, steps: Tensor) -> Tensor:
    """The word of place 0 of each key `[n]` and step `[n]`, int64: `[n]`, int64."""
    if not is_free(keys.device):
        return words(keys, steps, torch.zeros(1, dtype=torch.int64, device=keys.device))[:, 0]
    z: Words = keys.numpy().view(np.uint64) + steps.numpy().view(np.uint64) * _STEPS
    z += _STARTS
    _mix(z)
    return torch.from_numpy(z.view(np.int64))


def forked(keys: Tensor, counts: Tensor) -> Tensor:
    """The key of the next row that each row forks, which has forked `counts` `[n]` before: `[n]`, int64.

    word(key, -1 - count, 0): draws are at steps from 0 on, so none of them meets it.
    """
    return first_words(keys, -1 - counts)


def _words(keys: Tensor, step: Tensor, places: Tensor) -> Tensor:
    row = torch.add(keys, step, alpha=_STEP).add_(_START)
    return _mixed(torch.add(row[:, None], places, alpha=_GAMMA))


def _mixed(z: Tensor) -> Tensor:
    z = _shifted(z, 30).bitwise_xor_(z).mul_(_FIRST)
    z = _shifted(z, 27).bitwise_xor_(z).mul_(_SECOND)
    return _shifted(z, 31).bitwise_xor_(z)


def _shifted(z: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask clears the copies of the sign bit
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _words_in_numpy(keys: Tensor, step: Tensor, places: Tensor) -> Words:
    # the same; numpy has unsigned words, and costs a fraction of torch's calls on few of them
    row = keys.numpy().view(np.uint64) + step.numpy().view(np.uint64) * _STEPS
    row += _STARTS
    z: Words = np.add(places.numpy().view(np.uint64) * np.uint64(_GAMMA % 2**64), row[:, None], order="C")
    _mix(z.reshape(-1))
    return z


def _mix(z: Words) -> None:
    # part by part, so that what is between the operations stays in the cache
    spare = np.empty(min(_PART, len(z)), dtype=np.uint64)
    for begin in range(0, len(z), _PART):
        part = z[begin : begin + _PART]
        shifted = spare[: len(part)]
        part ^= np.right_shift(part, np.uint64(30), out=shifted)
        part *= np.uint64(_FIRST % 2**64)
        part ^= np.right_shift(part, np.uint64(27), out=shifted)
        part *= np.uint64(_SECOND % 2**64)
        part ^= np.right_shift(part, np.uint64(31), out=shifted)


def exponential(keys: Tensor, step: int | Tensor, ids: Tensor) -> Tensor:
    """Exponential noise of rate 1, positive, one number per token.

    Args:
        keys: `[rows]`, int64; one key for each row.
        step: number of the step, from 0; an int, or int64 that broadcasts with `[rows]`.
        ids: token ids, `[rows, k]`, or `[k]` for the same ids in every row; int64, at least 0.

    Returns:
        `[rows, k]`, float32.
    """
    # u = (n + 1/2) / 2^53 lies inside (0, 1), so that neither 0 nor infinity comes out
    if is_free(keys.device):
        step = step if isinstance(step, Tensor) else torch.full((1,), step)
        minus = (_words_in_numpy(keys, step, ids) >> np.uint64(11)).astype(np.float64)
        minus += 0.5
        minus *= -(2.0**-53)
        return torch.from_numpy(minus).log1p_().neg_().float()
    high = _shifted(words(keys, step, ids), 11)
    return high.double().add_(0.5).mul_(-(2.0**-53)).log1p_().neg_().float()


def uniform(keys: Tensor, step: int | Tensor, lane: int = 0) -> Tensor:
    """One number in [0, 1) per row.

    Args:
        keys: `[rows]`, int64.
        step: as in `exponential`.
        lane: which of a step's numbers, from 0; numbers of different lanes are independent.

    Returns:
        `[rows]`, float32, a multiple of 2^-24.
    """
    place = torch.full((1,), -1 - lane, dtype=torch.int64, device=keys.device)
    return _shifted(words(keys, step, place)[:, 0], 40).float().mul_(2.0**-24)


def uniforms(keys: Tensor, step: int | Tensor, lane: int, count: int) -> Tensor:
    """The numbers of `uniform` of the lanes `lane` to `lane + count - 1`: `[rows, count]`, float32."""
    places = -1 - lane - torch.arange(count, dtype=torch.int64, device=keys.device)
    return _shifted(words(keys, step, places), 40).float().mul_(2.0**-24)
