"""Guidance by a second model or context: every call equals separate forwards, without a cache, combined by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import fresh, tiny
from genmode_processors.guidance.base import log_softmax
from genmode_processors.guidance.classifier_free import ClassifierFreeGuidance
from genmode_processors.guidance.contrast import ContrastiveDecoding, DExperts

PROMPTS = [[5, 9, 17, 23, 9, 17], [31, 8, 14], [44, 2, 71, 3]]
NEGATIVE = [[60, 61], [62, 17, 23, 40], [33]]
LENGTH = 8


@functools.cache
def second(number: int) -> Any:
    """Another Llama of that vocabulary."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        model = fresh("llama")
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    return model


def left(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


Rule = Callable[[int, list[int]], Tensor]


def raw(model: Any, tokens: list[int]) -> Tensor:
    """The logits behind these tokens, of a forward of their own."""
    return _forward(model, tuple(tokens)).clone()


@functools.cache
def _forward(model: Any, tokens: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(torch.tensor([tokens])).logits[0, -1]
    return result


def free(row: int, decoded: list[int]) -> Tensor:
    p, q = raw(tiny("llama"), PROMPTS[row] + decoded), raw(tiny("llama"), NEGATIVE[row] + decoded)
    return 1.7 * p.log_softmax(0) - 0.7 * q.log_softmax(0)


def aware(row: int, decoded: list[int]) -> Tensor:
    z, without = raw(tiny("llama"), PROMPTS[row] + decoded), raw(tiny("llama"), NEGATIVE[row] + decoded)
    return (1.8 * z - 0.8 * without).log_softmax(0)


def li(row: int, decoded: list[int]) -> Tensor:
    expert, amateur = raw(tiny("llama"), PROMPTS[row] + decoded), raw(second(7), PROMPTS[row] + decoded)
    contrast = expert.log_softmax(0) - (amateur / 0.5).log_softmax(0)
    p = expert.softmax(0)
    return torch.where(p >= 0.3 * p.max(), contrast, -torch.inf)


def obrien(row: int, decoded: list[int]) -> Tensor:
    expert, amateur = raw(tiny("llama"), PROMPTS[row] + decoded), raw(second(7), PROMPTS[row] + decoded)
    p = expert.softmax(0)
    return torch.where(p >= 0.1 * p.max(), 1.5 * expert - 0.5 * amateur, -torch.inf).log_softmax(0)


def experts(row: int, decoded: list[int]) -> Tensor:
    z, good, bad = (raw(model, PROMPTS[row] + decoded) for model in (tiny("llama"), second(7), second(8)))
    return (z + 0.6 * (good - bad)).log_softmax(0)


def negative(count: int, ids: str, mask: str) -> dict[str, Any]:
    return dict(zip((ids, mask), left(NEGATIVE[:count]), strict=True))


KINDS: dict[str, tuple[Rule, Callable[[int], dict[str, Any]]]] = {
    "classifier-free": (
        free,
        lambda n: {"guidance_scale": 1.7, **negative(n, "negative_prompt_ids", "negative_prompt_attention_mask")},
    ),
    "context-aware": (
        aware,
        lambda n: {"context_alpha": 0.8, **negative(n, "context_free_ids", "context_free_attention_mask")},
    ),
    "contrastive, Li": (
        li,
        lambda n: {"amateur_model": second(7), "contrastive_alpha": 0.3, "amateur_temperature": 0.5},
    ),
    "contrastive, O'Brien": (obrien, lambda n: {"amateur_model": second(7), "contrastive_beta": 0.5}),
    "dexperts": (
        experts,
        lambda n: {"expert_model": second(7), "anti_expert_model": second(8), "expert_alpha": 0.6},
    ),
}


def run(name: str, count: int, **call: Any) -> Any:
    ids, mask = left(PROMPTS[:count])
    call = {"max_new_tokens": LENGTH, "pad_token_id": 0, **KINDS[name][1](count), **call}
    return genmode.generate(tiny("llama"), ids, attention_mask=mask, **call)


@pytest.fixture(params=["cpu", "as on a device"])
def place(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if request.param == "cpu" else host_sync.late_host():
        yield


@functools.cache
def greedily(name: str, row: int) -> list[int]:
    decoded: list[int] = []
    for _ in range(LENGTH):
        decoded.append(int(KINDS[name][0](row, decoded).argmax()))
    return decoded


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("draft", [None, 3], ids=["greedy", "drafts"])
def test_greedy_search_and_drafts(name: str, count: int, draft: int | None) -> None:
    result = run(name, count, prompt_lookup_num_tokens=draft)
    assert result[:, -LENGTH:].tolist() == [greedily(name, row) for row in range(count)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("mode", ["sample", "drafts", "beams"])
def test_scores_are_those_combined_by_hand(name: str, count: int, mode: str) -> None:
    """Whatever is decoded: the scores behind each prefix."""
    modes: dict[str, Any] = {
        "sample": {"do_sample": True, "top_k": 0, "seed": 4},
        "drafts": {"do_sample": True, "top_k": 0, "seed": 4, "prompt_lookup_num_tokens": 3},
        "beams": {"num_beams": 3},
    }
    out = run(name, count, return_dict_in_generate=True, output_scores=True, **modes[mode])
    decoded = out.sequences[:, -LENGTH:].tolist()
    for row in range(count):
        for step in range(LENGTH):
            place = int(out.beam_indices[row, step]) if mode == "beams" else row
            expected = KINDS[name][0](row, decoded[row][:step])
            torch.testing.assert_close(out.scores[step][place], expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_beams_are_those_of_an_exhaustive_search_of_that_width(name: str, count: int) -> None:
    """Three beams by hand, for six tokens."""
    rule, beams, length = KINDS[name][0], 3, 6
    result = run(name, count, num_beams=beams, max_new_tokens=length)
    for row in range(count):
        held: list[tuple[float, list[int]]] = [(0.0, [])]
        for _ in range(length):
            found = []
            for score, tokens in held:
                values = score + rule(row, tokens).double()
                found += [(float(v), [*tokens, int(t)]) for v, t in zip(*values.topk(beams), strict=True)]
            held = sorted(found, reverse=True)[:beams]
        assert result[row, -length:].tolist() == held[0][1]


def test_rows_that_go_back_take_their_side_models_along() -> None:
    from ...registry.session.backtrack_support import MAX_BACKTRACK, Fickle, wish

    for name, (rule, _) in KINDS.items():
        if name.startswith("contrastive"):  # leaves too few tokens plausible for one of them to be banned
            continue
        result = run(name, 3, processors=[Fickle()])
        for row in range(3):
            tokens: list[int] = []
            bans: dict[int, set[int]] = {}
            furthest = 0
            while len(tokens) < LENGTH:
                scores = rule(row, tokens)
                scores[list(bans.get(len(tokens), ()))] = -torch.inf
                tokens.append(int(scores.argmax()))
                furthest = max(furthest, len(tokens))
                count = min(wish(tokens), len(tokens) - max(0, furthest - MAX_BACKTRACK))
                if count:
                    first = tokens[-count]
                    del tokens[-count:]
                    bans = {at: some for at, some in bans.items() if at <= len(tokens)}
                    bans.setdefault(len(tokens), set()).add(first)
            assert result[row, -LENGTH:].tolist() == tokens


class TestClassifierFree:
    def test_beams_give_what_transformers_gives_and_follow_if_it_is_named(self) -> None:
        call: dict[str, Any] = {"num_beams": 2, "guidance_scale": 1.7, "max_new_tokens": 14}
        ids, model = torch.tensor([[5, 6, 7]]), tiny("llama")
        given = genmode.generate(model, ids, **call)
        assert torch.equal(given, model.generate(ids, **call))
        assert not torch.equal(given, genmode.generate(model, ids, **call, processors="classifier_free_guidance"))

    def test_as_transformers_at_batch_1(self) -> None:
        ids = torch.tensor(PROMPTS[:1])
        calls: list[dict[str, Any]] = [
            {"guidance_scale": 1.5},
            {"guidance_scale": 3.0, "negative_prompt_ids": torch.tensor(NEGATIVE[:1])},
            {"guidance_scale": 0.5, "do_sample": True, "temperature": 0.8, "repetition_penalty": 1.2},
        ]
        for call in calls:
            for model in (tiny("llama"), tiny("gpt2"), tiny("qwen2")):
                flags = {**call, "max_new_tokens": 12, "return_dict_in_generate": True, "output_scores": True}
                torch.manual_seed(3)
                theirs = model.generate(ids, **flags)
                torch.manual_seed(3)
                ours = genmode.generate(model, ids, **flags)
                assert torch.equal(ours.sequences, theirs.sequences)
                torch.testing.assert_close(torch.stack(ours.scores), torch.stack(theirs.scores), atol=2e-4, rtol=1e-4)

    def test_takes_the_place_of_transformers_class(self) -> None:
        plan = genmode.explain(
            tiny("llama"), torch.tensor(PROMPTS[:1]), guidance_scale=1.5, repetition_penalty=1.2, max_new_tokens=2
        )
        assert [one.name for one in plan.processors] == ["classifier_free_guidance", "repetition_penalty"]

    def test_one_negative_prompt_for_all_rows(self) -> None:
        one = torch.tensor(NEGATIVE[1:2])
        ids, mask = left(PROMPTS)
        call: dict[str, Any] = {"attention_mask": mask, "guidance_scale": 1.5, "max_new_tokens": 8}
        result = genmode.generate(tiny("llama"), ids, negative_prompt_ids=one, **call)
        expected = genmode.generate(tiny("llama"), ids, negative_prompt_ids=one.expand(3, -1), **call)
        assert torch.equal(result, expected)

    def test_by_name_reads_the_same_arguments(self) -> None:
        call = {"guidance_scale": 1.5, "negative_prompt_ids": torch.tensor(NEGATIVE[:1]), "max_new_tokens": 8}
        ids = torch.tensor(PROMPTS[:1])
        named = genmode.generate(tiny("llama"), ids, processors=["classifier_free_guidance"], **call)
        assert torch.equal(named, genmode.generate(tiny("llama"), ids, **call))

    def test_a_scale_of_0_is_the_negative_prompt_alone(self) -> None:
        ids, other = torch.tensor(PROMPTS[:1]), torch.tensor(NEGATIVE[:1])
        result = genmode.generate(tiny("llama"), ids, guidance_scale=0.0, negative_prompt_ids=other, max_new_tokens=6)
        alone = genmode.generate(tiny("llama"), other, max_new_tokens=6)
        assert result[0, -6:].tolist() == alone[0, -6:].tolist()


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize(
    "flags", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}], ids=["greedy", "beams", "drafts"]
)
def test_two_encoder_decoder_models(family: str, flags: dict[str, Any]) -> None:
    model, other = tiny(family), fresh(family)
    with torch.no_grad():
        other.lm_head.weight.mul_(torch.linspace(0.5, 2, other.lm_head.weight.shape[0])[:, None])
    ids = torch.tensor([PROMPTS[0], PROMPTS[0][::-1]])
    out = genmode.generate(
        model, ids, amateur_model=other, contrastive_beta=0.5, max_new_tokens=6, return_dict_in_generate=True,
        output_scores=True, **flags,
    )  # fmt: skip
    for row in range(2):
        for step in range(6):
            before = out.sequences[row : row + 1, : 1 + step]
            with torch.no_grad():
                z, bad = (
                    m(input_ids=ids[row : row + 1], decoder_input_ids=before).logits[0, -1] for m in (model, other)
                )
            cut = z.softmax(0) < 0.1 * z.softmax(0).max()
            expected = (1.5 * z - 0.5 * bad).masked_fill(cut, -torch.inf).log_softmax(0)
            place = int(out.beam_indices[row, step]) if "num_beams" in flags else row
            torch.testing.assert_close(out.scores[step][place], expected, atol=2e-4, rtol=1e-4)


class TestBadInput:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ({"contrastive_beta": 0.5}, "contrastive_decoding needs amateur_model="),
            ({"expert_alpha": 0.5}, "dexperts needs anti_expert_model="),
            ({"context_alpha": 0.5}, "context_aware needs context_free_ids="),
            ({"context_alpha": -1.0}, "context_alpha=-1.0 is not allowed"),
            ({"contrastive_alpha": 1.5}, "contrastive_alpha=1.5 is not allowed"),
            ({"amateur_temperature": 0.0}, "amateur_temperature=0.0 is not allowed"),
            ({"guidance_scale": float("nan")}, "guidance_scale=nan is not allowed; give a finite number"),
            ({"guidance_scale": "much"}, "guidance_scale='much' is not allowed"),
            ({"expert_alpha": float("inf")}, "expert_alpha=inf is not allowed"),
            ({"contrastive_beta": float("nan")}, "contrastive_beta=nan is not allowed"),
            ({"amateur_model": "gpt2"}, "load it and give a transformers model"),
            ({"context_free_ids": torch.tensor([[3, 4]] * 2)}, r"\[2, 2\] for 3 inputs"),
            ({"context_free_ids": torch.tensor([[3, 400]])}, "token 400, outside the vocabulary of 100"),
            ({"context_free_ids": torch.zeros(1, 0, dtype=torch.long)}, "no tokens"),
            (
                {"context_free_ids": torch.tensor([[3, 4]]), "context_free_attention_mask": torch.ones(1, 3)},
                "one number for each token",
            ),
        ],
        ids=range(15),
    )
    def test_is_refused_before_the_model_runs(self, call: dict[str, Any], message: str) -> None:
        model = fresh("llama")
        model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
        ids, mask = left(PROMPTS)
        with pytest.raises(genmode.ParameterError, match=message):
            genmode.generate(model, ids, attention_mask=mask, max_new_tokens=2, **call)

    def test_another_vocabulary(self) -> None:
        model = fresh("llama")
        model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
        other = fresh("llama", vocab_size=90)
        for key in ("amateur_model", "anti_expert_model"):
            with pytest.raises(
                genmode.ParameterError, match=r"vocabulary of 90 tokens.*of 100; take two models with one"
            ):
                genmode.generate(model, torch.tensor(PROMPTS[:1]), max_new_tokens=2, **{key: other})

    def test_a_model_of_another_kind(self) -> None:
        with pytest.raises(genmode.ParameterError, match="take two models of one kind"):
            genmode.generate(tiny("llama"), torch.tensor(PROMPTS[:1]), max_new_tokens=2, amateur_model=tiny("t5"))
        with pytest.raises(genmode.ParameterError, match="leave the context out"):
            genmode.generate(
                tiny("t5"), torch.tensor(PROMPTS[:1]), max_new_tokens=2, guidance_scale=2.0,
                negative_prompt_ids=torch.tensor([[3]]),
            )  # fmt: skip

    def test_a_cache_that_cannot_go_back(self) -> None:
        with pytest.raises(genmode.UnsupportedError, match="cannot go back"):
            genmode.generate(
                tiny("llama"), torch.tensor(PROMPTS[:1]), max_new_tokens=2, amateur_model=tiny("mamba"),
                prompt_lookup_num_tokens=2,
            )  # fmt: skip

    def test_a_model_is_nothing_that_a_config_keeps(self) -> None:
        with pytest.raises(
            genmode.ParameterError, match=r"amateur_model takes a LlamaForCausalLM.*give it to the call"
        ):
            genmode.GenerationConfig(amateur_model=second(7))
        config = genmode.GenerationConfig(contrastive_beta=0.5, max_new_tokens=4)
        ids = torch.tensor(PROMPTS[:1])
        result = genmode.generate(tiny("llama"), ids, generation_config=config, amateur_model=second(7))
        expected = run("contrastive, O'Brien", 1, max_new_tokens=4)
        assert torch.equal(result, expected)

    def test_a_model_is_shown_by_its_class(self) -> None:
        plan = genmode.explain(tiny("llama"), torch.tensor(PROMPTS[:1]), amateur_model=second(7), max_new_tokens=2)
        assert "amateur_model=LlamaForCausalLM)" in str(plan)

    def test_masked_rows_are_no_nan(self) -> None:
        assert log_softmax(torch.tensor([[-torch.inf, -torch.inf], [0.0, -torch.inf]])).tolist() == [
            [-torch.inf, -torch.inf],
            [0.0, -torch.inf],
        ]
        for name in KINDS:
            with pytest.raises(genmode.DecodingError, match="no token left"):
                run(name, 1, suppress_tokens=list(range(100)), max_new_tokens=3)


def test_mamba_beside_a_model() -> None:
    """Any model of the vocabulary, on the portable engine."""
    ids, mask = torch.tensor(PROMPTS[:1]), torch.ones(1, len(PROMPTS[0]), dtype=torch.long)
    result = genmode.generate(
        tiny("llama"), ids, attention_mask=mask, max_new_tokens=6, amateur_model=tiny("mamba"), contrastive_beta=1.0,
        contrastive_alpha=0.01,
    )  # fmt: skip
    decoded: list[int] = []
    for _ in range(6):
        z, bad = raw(tiny("llama"), PROMPTS[0] + decoded), raw(tiny("mamba"), PROMPTS[0] + decoded)
        cut = z.softmax(0) < 0.01 * z.softmax(0).max()
        decoded.append(int((2 * z - bad).masked_fill(cut, -torch.inf).argmax()))
    assert result[0, -6:].tolist() == decoded


def test_names() -> None:
    assert repr(ContrastiveDecoding(amateur_model=second(7), contrastive_beta=0.5)) == (
        "contrastive_decoding(contrastive_beta=0.5, amateur_model=LlamaForCausalLM)"
    )
    assert DExperts().params.expert_alpha == 1.0
    assert ClassifierFreeGuidance().params.guidance_scale == 1.0


@pytest.mark.parametrize("given", [5, "5", [[5]], torch.tensor([[0.5]])], ids=repr)
@pytest.mark.parametrize("key", ["context_free_ids", "negative_prompt_ids"])
def test_a_context_that_is_no_tensor_of_tokens(key: str, given: Any) -> None:
    more = {"guidance_scale": 2.0} if key == "negative_prompt_ids" else {}
    with pytest.raises(genmode.ParameterError, match="give a tensor of ids"):
        genmode.generate(tiny("llama"), torch.tensor(PROMPTS[1:2]), max_new_tokens=2, **{key: given}, **more)
    if not isinstance(given, torch.Tensor):
        more |= {key: torch.tensor([[5]]), key.replace("_ids", "_attention_mask"): given}
        with pytest.raises(genmode.ParameterError, match="give a tensor as its tokens are"):
            genmode.generate(tiny("llama"), torch.tensor(PROMPTS[1:2]), max_new_tokens=2, **more)
