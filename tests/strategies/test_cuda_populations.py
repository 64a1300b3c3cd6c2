"""Populations, trees and probes on captured forwards: the same tokens as on the CPU. Skipped without a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import genmode

from .test_cuda import make, padded

pytestmark = pytest.mark.gpu

SAMPLED: dict[str, Any] = {"do_sample": True, "top_k": 0, "seed": [3, 4, 5], "max_new_tokens": 24, "eos_token_id": None}


class Script(genmode.Strategy):
    """Runs the function that a test gives it."""

    contract_version = 1
    needs: ClassVar[frozenset[str]] = frozenset({"population", "rollback"})
    play: ClassVar[Callable[[genmode.Session], None]]

    def decode(self, session: genmode.Session, params: genmode.Params) -> None:
        type(self).play(session)


def both(family: str, play: Callable[[genmode.Session], None] | str, **flags: Any) -> list[Tensor]:
    """The results on the CPU and on the device, where the forwards have to be captured ones."""
    strategy: Any = play if isinstance(play, str) else type("Scripted", (Script,), {"play": staticmethod(play)})
    results: list[Tensor] = []
    for device in ("cpu", "cuda"):
        model, inputs = make(family).to(device), {key: value.to(device) for key, value in padded(3).items()}
        with genmode.trace() as traced:
            results.append(genmode.generate(model, **inputs, strategy=strategy, **flags).cpu())
        assert traced.calls[0].engine == ("graph" if device == "cuda" else "static")
        if device == "cuda":
            again = genmode.generate(model, **inputs, strategy=strategy, **flags).cpu()
            assert torch.equal(again, results[-1])  # in static buffers that were used before
    return results


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_forks_drops_and_restarts(family: str) -> None:
    def play(session: genmode.Session) -> None:
        device = session.device
        session.fork(torch.arange(session.rows, device=device).repeat_interleave(2))
        for step in session.steps():
            step.commit(step.sample())
            if step.index == 4:
                session.drop(torch.tensor([0, 5], device=device))
            if step.index == 7:
                session.fork(torch.tensor([1, 1, 3], device=device))
        session.restart(session.history.lengths - torch.arange(1, session.rows + 1, device=device))
        for step in session.steps():
            step.commit(step.sample())

    assert torch.equal(*both(family, play, **SAMPLED))


@pytest.mark.parametrize("strategy", ["best_of_n", "sequential_monte_carlo"])
def test_strategies(strategy: str) -> None:
    flags = {"best_of": 8, "best_of_every": 6} if strategy == "best_of_n" else {"smc_particles": 6}
    assert torch.equal(*both("llama", strategy, **SAMPLED, **flags))


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("more", [{}, {"repetition_penalty": 1.2}], ids=["plain", "processed"])
def test_trees(family: str, sample: bool, more: dict[str, Any]) -> None:
    """Random trees, one way of which is right for a while."""
    flags = {**SAMPLED, **more} if sample else {"max_new_tokens": 24, "eos_token_id": None, **more}
    flags["do_sample"] = sample
    model = make(family)
    expected = genmode.generate(model, **padded(3), **flags).cpu()
    said, taken = expected[:, 9:], list[int]()

    def play(session: genmode.Session) -> None:
        generator = torch.Generator().manual_seed(1)
        for step in session.steps():
            if step.draft is None and session.history.level is not None:
                step.commit(step.sample() if sample else step.best())
            else:
                found = step.accepted(step.sample(each=True) if sample else step.best(each=True))
                step.commit(found.tokens, counts=found.counts, path=found.path)
                taken.extend((found.counts - 1).tolist())
            parents = torch.tensor([-1, -1, 0, 1, 1, 4])
            depth = torch.tensor([0, 0, 1, 1, 1, 2])
            at = (session.history.lengths.cpu()[:, None] - 9 + depth).clamp(max=23)
            noise = torch.randint(5, 90, (3, 6), generator=generator)
            right = torch.rand(3, 6, generator=generator) < 0.7
            session.draft(said.gather(1, at).where(right, noise).to(session.device), parents=parents)

    for result in both(family, play, **flags):
        assert torch.equal(result, expected)
    assert sum(taken) > 20


def test_probes() -> None:
    def play(session: genmode.Session) -> None:
        asked = torch.tensor([17, 23], device=session.device).expand(session.rows, -1)
        for step in session.steps():
            before, found = step.logits.clone(), session.probe(asked)
            assert torch.equal(step.logits, before)
            history, lengths = session.history, session.history.lengths.tolist()
            for row, end in enumerate(lengths):
                ids = torch.cat([history.tokens[row, int(history.starts[row]) : end], asked[row]])[None]
                alone = session.model(ids).logits[0, -2:].float()
                torch.testing.assert_close(found.logits[row], alone, atol=2e-3, rtol=2e-3)
            step.commit(step.best())
            session.probe(asked[:, :1])

    results = both("llama", play, max_new_tokens=8, eos_token_id=None)
    assert torch.equal(*results)
    assert torch.equal(results[0], make("llama").cpu().generate(
        **{key: value.cpu() for key, value in padded(3).items()}, max_new_tokens=8, do_sample=False, eos_token_id=None,
    ))  # fmt: skip
