"""The noise of a draw: the numbers and the generator's state that torch.multinomial would leave."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmode.sampling import exponentials
from genmode.sampling.exponentials import Exponentials, Field, GeneratorNoise

SHAPES = [(1, 7), (1, 16), (3, 1001), (2, 5000)]


@pytest.fixture(params=["uniforms", "exponential_"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the noise, whichever this build of torch takes."""
    if request.param == "exponential_":
        monkeypatch.setattr(exponentials, "_uniforms_suffice", lambda: False)
    elif not exponentials._uniforms_suffice():
        pytest.skip("this build of torch draws exponential noise in another way")
    return str(request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_and_state_are_torchs(shape: tuple[int, int]) -> None:
    like = torch.empty(shape)
    torch.manual_seed(5)
    wanted = torch.empty_like(like).exponential_()
    state = torch.get_rng_state()
    torch.manual_seed(5)
    drawn = Exponentials(like)
    assert torch.equal(torch.get_rng_state(), state)
    ids = torch.randint(0, shape[1], (shape[0], 5), generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn.at(ids), wanted.gather(-1, ids))
    assert torch.equal(drawn.full(), wanted)
    rows = torch.tensor([shape[0] - 1])
    assert torch.equal(drawn.full(rows), wanted[rows])


def test_takes_a_generator_of_its_own() -> None:
    before = torch.get_rng_state()
    noise = GeneratorNoise(torch.Generator().manual_seed(3)).exponential_full(torch.empty(2, 9))
    wanted = torch.empty(2, 9).exponential_(generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise, wanted)
    assert torch.equal(torch.get_rng_state(), before)


class Plain:
    """Noise that offers the whole vocabulary alone."""

    def __init__(self) -> None:
        self.calls = 0

    def exponential_full(self, like: Tensor) -> Tensor:
        self.calls += 1
        return torch.arange(like.numel(), dtype=torch.float32).view(like.shape)


def test_a_field_draws_plain_noise_once() -> None:
    noise = Plain()
    field = Field(noise, torch.empty(2, 4))
    assert field.at(torch.tensor([[1], [3]])).tolist() == [[1.0], [7.0]]
    assert field.full(torch.tensor([1])).tolist() == [[4.0, 5.0, 6.0, 7.0]]
    assert field.full().shape == (2, 4)
    assert noise.calls == 1
