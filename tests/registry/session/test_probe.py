"""Probes: what a separate forward says, at every place, and no trace of them."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing import check_component
from genmode.testing.harness.models import VOCAB, fresh, greedy, prompt, tiny

from .probing_components import Curious, Doubtful
from .session_support import run

NAMES = ("llama", "gpt2", "t5", "bart", "mamba")
END = torch.tensor([17, 23])
"""Two tokens, as `</think>` and a line break would be."""


def expected(name: str, texts: list[Tensor], asked: Tensor) -> Tensor:
    """Of whole forwards over each row's text and `asked` `[k]` behind it: logits `[rows, k, vocab]`."""
    model, rows = tiny(name), []
    for row, text in enumerate(texts):
        ids = torch.cat([text, asked])[None]
        given: dict[str, Any] = {"input_ids": ids}
        if model.config.is_encoder_decoder:
            read = {key: value[row : row + 1] for key, value in prompt(name, len(texts)).items()}
            given = {**read, "decoder_input_ids": ids}
        with torch.no_grad():
            rows.append(model(**given).logits[0, -len(asked) :].float())
    return torch.stack(rows)


def texts(history: genmode.History) -> list[Tensor]:
    lengths = history.lengths.tolist()
    return [history.tokens[row, int(history.starts[row]) : end] for row, end in enumerate(lengths)]


class TestProbe:
    @pytest.mark.parametrize("name", NAMES)
    def test_equals_a_separate_forward_and_leaves_no_trace(self, name: str) -> None:
        """The entropy of the next token behind a hypothetical end of thinking, at every step."""

        def play(session: genmode.Session) -> None:
            asked = END.expand(session.rows, -1)
            for step in session.steps():
                before = step.logits.clone()
                found = session.probe(asked)  # while the step is under way
                alone = expected(name, texts(session.history), END)
                torch.testing.assert_close(found.logits, alone, atol=2e-3, rtol=2e-3)
                entropies = [
                    torch.distributions.Categorical(logits=one[:, -1]).entropy() for one in (found.logits, alone)
                ]
                torch.testing.assert_close(*entropies, atol=2e-3, rtol=2e-3)
                assert found.hidden is None
                assert torch.equal(step.logits, before)
                step.commit(step.best())
                behind = session.probe(asked[:, :1])  # behind the commit
                alone = expected(name, texts(session.history), END[:1])
                torch.testing.assert_close(behind.logits, alone, atol=2e-3, rtol=2e-3)

        assert torch.equal(run(play, name)[:, -10:], greedy(name, 3, 10))

    @pytest.mark.parametrize("name", ["llama", "t5"])
    def test_in_the_middle_of_a_draft_and_on_uneven_rows(self, name: str) -> None:
        said = greedy(name, 3, 10)

        def play(session: genmode.Session) -> None:
            asked = END.expand(3, -1)
            for step in session.steps():
                found = session.probe(asked)
                alone = expected(name, texts(session.history), END)
                torch.testing.assert_close(found.logits, alone, atol=2e-3, rtol=2e-3)
                if step.draft is None:
                    step.commit(step.best())
                else:
                    best = step.best(each=True)
                    same = (best[:, :-1] == step.draft).long().cumprod(1).sum(1)
                    step.commit(best, counts=same.minimum(torch.tensor([0, 1, 2])) + 1)
                behind = session.probe(asked)
                torch.testing.assert_close(
                    behind.logits, expected(name, texts(session.history), END), atol=2e-3, rtol=2e-3
                )
                at = session.history.lengths[:, None] - session.prompt_length + torch.arange(2)
                session.draft(said.gather(1, at.clamp(max=9)))

        assert torch.equal(run(play, name, needs={"rollback"})[:, -10:], said)

    def test_hidden_states_by_need(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                size = session.model.config.hidden_size
                assert session.probe(END.expand(3, -1)).hidden.shape == (3, 2, size)
                step.commit(step.best())

        result = run(play, needs={"hidden_states"}, return_dict_in_generate=True, output_hidden_states=True)
        stock = tiny("llama").generate(
            **prompt("llama", 3), max_new_tokens=10, do_sample=False, return_dict_in_generate=True,
            output_hidden_states=True,
        )  # fmt: skip
        for ours, theirs in zip(result.hidden_states, stock.hidden_states, strict=True):
            torch.testing.assert_close(ours[-1], theirs[-1], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            (END.expand(2, -1), "tokens of 3 rows"),
            (END.float().expand(3, -1), r"\[3, k\], long"),
            (torch.zeros(3, 0, dtype=torch.long), "k at least 1"),
            (torch.full((3, 1), VOCAB), f"tokens 0 to {VOCAB - 1}"),
            (5, "given int"),
        ],
    )
    def test_refused(self, tokens: Any, message: str) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                session.probe(tokens)
                step.commit(step.best())

        with pytest.raises(genmode.DecodingError, match=message):
            run(play)

    def test_before_the_prompt(self) -> None:
        with pytest.raises(genmode.DecodingError, match="when it has read the prompt"):
            run(lambda session: session.probe(END.expand(3, -1)))


class Asks(genmode.LogitsProcessor):
    """Remembers what the model would say, and changes nothing."""

    contract_version = 1
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.PROBES})

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[list[Tensor], Tensor]] = []

    def begin(self, context: genmode.Context) -> None:
        self.context = context

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        found = self.context.probe(END.expand(len(scores), -1))
        self.told.append(([one.clone() for one in texts(history)], found.logits))
        return scores


class Ends(genmode.StoppingCriterion):
    """Ends a row where the model would be sure enough of what follows; and remembers."""

    contract_version = 1
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.PROBES})

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[list[Tensor], Tensor]] = []

    def begin(self, context: genmode.Context) -> None:
        self.context = context

    def check(self, history: genmode.History) -> Tensor:
        found = self.context.probe(END.expand(history.rows, -1))
        self.told.append(([one.clone() for one in texts(history)], found.logits))
        return torch.zeros(history.rows, dtype=torch.bool)


@pytest.mark.parametrize("flags", [{}, {"prompt_lookup_num_tokens": 3}], ids=["alone", "drafts"])
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_components_that_ask(name: str, flags: dict[str, Any]) -> None:
    """Processors and criteria are told of the text that they are asked about, in the middle of drafts as well."""
    asks, ends = Asks(), Ends()
    result = genmode.generate(
        tiny(name), **prompt(name, 3), processors=[asks], criteria=[ends], max_new_tokens=10, do_sample=False, **flags
    )  # fmt: skip
    assert torch.equal(result[:, -10:], greedy(name, 3, 10))
    for one in (asks, ends):
        assert len(one.told) >= 10 if not flags else one.told
        for said, logits in one.told:
            torch.testing.assert_close(logits, expected(name, said, END), atol=2e-3, rtol=2e-3)


def test_saying_so() -> None:
    class Silent(Asks):
        traits: ClassVar[frozenset[genmode.Trait]] = frozenset()

    with pytest.raises(genmode.UnsupportedError, match=r'traits = {"probes"}'):
        genmode.generate(fresh("llama"), **prompt("llama", 1), processors=[Silent()], max_new_tokens=2)
    plan = genmode.explain(fresh("llama"), **prompt("llama", 1), processors=[Asks()], max_new_tokens=2)
    assert any("asks the model what would follow" in note for note in plan.notes)


@pytest.mark.parametrize("component", [Curious, Doubtful])
def test_conformance(component: type[Any]) -> None:
    """Components that ask pass the kit, drafts, other lengths and populations included."""
    check_component(component)
