"""Rows that take back what they have decoded: every way to run them gives what one row decoded by hand gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import fresh, tiny

from .backtrack_support import MAX_BACKTRACK, Fickle, wish

PROMPTS = [[5, 9, 17, 23, 9], [31, 8, 14], [44, 2, 71, 3]]


def by_hand(model: Any, prompt: list[int], most: int, eos: int | None = None) -> list[int]:
    """Greedy search of one row, without a cache."""
    decoded: list[int] = []
    bans: dict[int, set[int]] = {}
    furthest = 0
    while len(decoded) < most:
        scores = model(torch.tensor([prompt + decoded])).logits[0, -1]
        scores[list(bans.get(len(decoded), ()))] = -torch.inf
        decoded.append(int(scores.argmax()))
        furthest = max(furthest, len(decoded))
        count = min(wish(decoded), len(decoded) - max(0, furthest - MAX_BACKTRACK))
        if count:
            first = decoded[-count]
            del decoded[-count:]
            bans = {at: some for at, some in bans.items() if at <= len(decoded)}
            bans.setdefault(len(decoded), set()).add(first)
        elif decoded[-1] == eos:
            break
    return decoded


def padded(rows: list[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"inputs": ids, "attention_mask": mask}


def run(model: Any, rows: list[list[int]], processor: Any = None, **call: Any) -> Any:
    call = {"max_new_tokens": 24, "processors": [processor or Fickle()], **call}
    return genmode.generate(model, **padded(rows), **call)


def texts(result: Tensor, rows: list[list[int]], pad: int | None = None) -> list[list[int]]:
    """What each row decoded, without the padding behind its end."""
    decoded = result[:, max(map(len, rows)) :].tolist()
    return [[token for token in row if token != pad] for row in decoded]


@pytest.fixture(params=["cpu", "as on a device"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host learns at once, or one step late."""
    if request.param != "cpu":
        monkeypatch.setattr(host_sync, "is_free", lambda device: False)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("draft", [None, 3], ids=["plain", "drafts"])
def test_greedy_search_as_by_hand(family: str, count: int, draft: int | None) -> None:
    model, rows, processor = tiny(family), PROMPTS[:count], Fickle()
    result = run(model, rows, processor, prompt_lookup_num_tokens=draft)
    with torch.no_grad():
        assert texts(result, rows) == [by_hand(model, row, 24) for row in rows]
    assert processor.times > 2


@pytest.mark.usefixtures("place")
def test_a_row_ends_only_with_tokens_that_stay() -> None:
    model = tiny("llama")
    with torch.no_grad():
        free = [by_hand(model, row, 24) for row in PROMPTS]
        ends = {token for row in free for token in row}
        for eos in sorted(ends)[:6]:
            expected = [by_hand(model, row, 24, eos) for row in PROMPTS]
            result = run(model, PROMPTS, eos_token_id=eos, pad_token_id=0)
            assert texts(result, PROMPTS, 0) == [[t for t in row if t] for row in expected]


class Seventh(genmode.StoppingCriterion):
    """Ends a row at the seventh token that it has been asked about and kept."""

    contract_version = 1

    def check(self, history: genmode.History) -> Tensor:
        return history.lengths - history.prompt >= 7


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("draft", [None, 3], ids=["plain", "drafts"])
def test_criteria_judge_what_stays(draft: int | None) -> None:
    model = tiny("llama")
    result = run(model, PROMPTS, criteria=[Seventh()], prompt_lookup_num_tokens=draft)
    with torch.no_grad():
        assert texts(result, PROMPTS) == [by_hand(model, row, 7) for row in PROMPTS]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("draft", [None, 3], ids=["plain", "drafts"])
def test_a_seeded_row_is_the_same_alone_and_with_drafts(draft: int | None) -> None:
    model = tiny("llama")
    call = {"do_sample": True, "seed": 5, "top_k": 20, "prompt_lookup_num_tokens": draft}
    together = texts(run(model, PROMPTS, **call), PROMPTS)
    alone = [texts(run(model, [row], do_sample=True, seed=5, top_k=20), [row])[0] for row in PROMPTS]
    assert together == alone


def test_an_encoder_decoder_model() -> None:
    model = tiny("t5")
    ids = torch.tensor([PROMPTS[0][:3], PROMPTS[1]])
    processor = Fickle()
    result = genmode.generate(model, ids, max_new_tokens=16, processors=[processor])
    for row, text in zip(ids, result[:, 1:].tolist(), strict=True):
        assert not any(wish(text[: n + 1]) for n in range(16))
        alone = genmode.generate(model, row[None], max_new_tokens=16, processors=[Fickle()])
        assert alone[0, 1:].tolist() == text
    assert processor.times


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("draft", [None, 3], ids=["plain", "drafts"])
def test_a_stream_sends_nothing_that_is_taken_back(draft: int | None) -> None:
    model, processor = tiny("llama"), Fickle()
    sent: list[Tensor] = []
    late: list[int] = []
    for token in genmode.stream(
        model, **padded(PROMPTS), max_new_tokens=24, processors=[processor], prompt_lookup_num_tokens=draft
    ):
        sent.append(token)
        late.append(processor.times)
    assert torch.equal(torch.stack(sent, 1), run(model, PROMPTS)[:, 5:])
    assert late[0] < late[-1]  # not all at the end


def test_recorded_scores_are_those_of_the_tokens_that_stay() -> None:
    model = tiny("llama")
    out = run(model, PROMPTS, return_dict_in_generate=True, output_scores=True, output_hidden_states=True)
    decoded = out.sequences[:, 5:]
    assert len(out.scores) == len(out.hidden_states) == decoded.shape[1]
    assert torch.equal(torch.stack(out.scores, 1).argmax(-1), decoded)


class Lost(genmode.BacktrackingProcessor):
    """Takes everything back for ever."""

    contract_version = 1
    max_backtrack = None  # type: ignore[assignment]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return scores

    def backtrack(self, history: genmode.History) -> Tensor:
        return history.lengths


def test_going_in_circles_is_an_error() -> None:
    with pytest.raises(genmode.DecodingError, match=r"again and again.*'lost' takes back"):
        genmode.generate(tiny("llama"), torch.tensor([[5, 6]]), max_new_tokens=1, processors=[Lost()])


def test_the_wish_that_goes_furthest_counts_and_each_learns_of_its_own() -> None:
    told: list[tuple[str, int, int]] = []

    class Short(genmode.BacktrackingProcessor):
        contract_version = 1
        max_backtrack = 1  # type: ignore[assignment]
        back = 1

        def process(self, scores: Tensor, history: genmode.History) -> Tensor:
            return scores

        def backtrack(self, history: genmode.History) -> Tensor | None:
            once = history.level == 6 and not any(name == type(self).name for name, *_ in told)
            return torch.full_like(history.lengths, self.back) if once else None

        def backtracked(self, history: genmode.History, counts: Tensor) -> None:
            told.append((type(self).name, int(history.lengths[0]), int(counts[0])))

    class Long(Short):
        max_backtrack = 3  # type: ignore[assignment]
        back = 3

    genmode.generate(tiny("llama"), torch.tensor([[5, 6]]), max_new_tokens=8, processors=[Short(), Long()])
    assert told == [("long", 3, 3), ("short", 3, 0)]


@pytest.mark.parametrize(
    "call", [{"num_beams": 2}, {"penalty_alpha": 0.6, "top_k": 4}], ids=["beams", "contrastive search"]
)
def test_strategies_whose_rows_cannot_go_back(call: dict[str, Any]) -> None:
    with pytest.raises(genmode.ParameterError, match="takes tokens back"):
        run(tiny("llama"), PROMPTS[:1], **call)


def test_models_that_cannot_forget() -> None:
    with pytest.raises(genmode.UnsupportedError, match="takes back what was decoded"):
        run(fresh("mamba"), PROMPTS[:1])


def test_a_strategy_that_does_not_say_that_it_reorders() -> None:
    class Silent(genmode.Strategy):
        contract_version = 1

        def decode(self, session: genmode.Session, params: Any) -> None:
            for step in session.steps():
                step.commit(step.scores.argmax(-1), rows=torch.arange(session.rows))

    with pytest.raises(genmode.DecodingError, match=r'needs = ."reorder"'):
        run(tiny("llama"), PROMPTS[:1], strategy=Silent)
