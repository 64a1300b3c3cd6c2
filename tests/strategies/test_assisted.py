"""Assisted generation: drafters by hand, the tokens of greedy search and sampling, and the distribution of sampling."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from torch import Tensor

import genmode
from genmode.session import stopping
from genmode.testing.models import ENCODER_DECODER, PAD, SPECIAL, TEXT, VOCAB, fresh, ids, near, prompt, tiny
from genmode_strategies.drafters.copying import best_length
from genmode_strategies.drafters.early_exit import first_layers
from genmode_strategies.drafters.lengths import Heuristic
from genmode_strategies.drafters.loop import agreeing, filled
from genmode_strategies.drafters.streams import shared
from genmode_strategies.drafters.suffix import look_everywhere
from genmode_strategies.drafters.text import joined

from .test_prompt_lookup import BANS, chi_square, cyclic, forwards, history

MTP = hasattr(transformers.generation.candidate_generator, "MTPCandidateGenerator")
LETTERS = "abcdefghijklmnopqrstuvwxyz "


# Draft models and tokenizers ---------------------------------------------------------------------------


@functools.cache
def tokenizer(merged: tuple[str, ...], backwards: bool, size: int) -> Any:
    """Letters, forwards or backwards, then `merged` letters, each made of an earlier token and a letter."""
    pieces = ["<p>", "<s>", *(reversed(LETTERS) if backwards else LETTERS), *merged]
    pieces += [f"<{number}>" for number in range(len(pieces), size)]
    merges = [(piece[:-1], piece[-1]) for piece in merged]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    made.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<p>", bos_token="<s>")


def ours() -> Any:
    return tokenizer(("th", "the", "in", "an", "ab", "cd", "cde"), False, VOCAB)


def theirs() -> Any:
    return tokenizer(("ab", "abc", "cd", "ef", "in", "ing"), True, 40)


@functools.cache
def other_words() -> Any:
    """A draft model with a vocabulary of 40."""
    return fresh("llama", vocab_size=40)


@functools.cache
def with_heads(vocab: int) -> Any:
    """A model for which `heads` were made."""
    config = transformers.Glm4MoeConfig(
        **{**TEXT, **SPECIAL, "vocab_size": vocab}, head_dim=8, moe_intermediate_size=32, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, num_mtp_layers=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.Glm4MoeForCausalLM(config).eval()


@functools.cache
def heads(vocab: int) -> Any:
    """Two heads that guess the token behind the next from the next one alone."""
    from transformers.modeling_layers import MtpModel

    made = MtpModel(with_heads(vocab), 2).eval()
    with torch.no_grad():
        for layer in made.layers:
            layer.eh_proj.weight.copy_(torch.eye(32, 64))
    return made


@functools.cache
def dflash(mask: int = 99) -> Any:
    """A model that draws three tokens at a time; `mask` is the one that it puts where it knows nothing."""
    config = transformers.MuseGlimmerAssistantConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=256, sliding_window=64, block_size=4, mask_token_id=mask,
        target_layer_ids=[0, 1], pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.MuseGlimmerAssistantModel(config).eval()


def flags_of(drafter: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """A model, and the flags that make it draft in this way."""
    model = tiny("llama")
    if drafter in ("mtp", "dflash") and not MTP:
        pytest.skip("this transformers has no such candidate generators")
    if drafter == "mtp":
        from transformers.modeling_layers import MtpModel

        monkeypatch.setattr(MtpModel, "from_pretrained", classmethod(lambda cls, main, **_: heads(VOCAB)))
        return with_heads(VOCAB), {"use_mtp": True}
    return model, {
        "assistant": lambda: {"assistant_model": near("llama"), "num_assistant_tokens": 4},
        "growing": lambda: {
            "assistant_model": near("llama"), "num_assistant_tokens": 2, "assistant_confidence_threshold": 0.0,
            "num_assistant_tokens_schedule": "heuristic_transient",
        },
        "other_words": lambda: {
            "assistant_model": other_words(), "tokenizer": ours(), "assistant_tokenizer": theirs(),
            "num_assistant_tokens": 3, "assistant_confidence_threshold": 0.1,
        },
        "early_exit": lambda: {"assistant_early_exit": 1, "num_assistant_tokens": 3},
        "prompt_lookup": lambda: {"prompt_lookup_num_tokens": 4},
        "suffix_lookup": lambda: {"strategy": "suffix_lookup", "suffix_lookup_num_tokens": 4},
        "dflash": lambda: {"assistant_model": dflash(), "speculation_type": "dflash"},
    }[drafter]()  # fmt: skip


DRAFTERS = ("assistant", "growing", "other_words", "early_exit", "prompt_lookup", "suffix_lookup", "mtp", "dflash")


# By hand -----------------------------------------------------------------------------------------------


def test_agreeing_with_a_draft_that_was_filled_up() -> None:
    draft = filled(torch.tensor([[1, 2, 3, 4, 5]]))
    assert draft.tolist() == [[1, 2, 3, 4, 5, 5]]
    assert agreeing(draft, torch.tensor([[1, 2, 3, 4, 9, 5, 7]])).tolist() == [4]


class TestSuffix:
    def test_another_row_that_says_more_of_the_ending(self) -> None:
        draft, found = look_everywhere(*history([1, 5, 6, 7, 8], [2, 9, 9, 5, 6]), 3, 2)
        assert found.tolist() == [False, True]
        assert draft[1].tolist() == [7, 8]

    def test_the_own_row_before_another(self) -> None:
        draft, _ = look_everywhere(*history([5, 6, 1, 1, 1], [5, 6, 2, 5, 6]), 2, 1)
        assert draft[1].tolist() == [2]

    def test_a_longer_ending_elsewhere_before_the_own_row(self) -> None:
        draft, _ = look_everywhere(*history([4, 5, 6, 1, 1], [6, 2, 4, 5, 6]), 3, 1)
        assert draft[1].tolist() == [1]

    def test_padding_and_what_lies_behind_the_end_are_no_text(self) -> None:
        draft, found = look_everywhere(*history([0, 7, 3], [4, 9, 0, 7], starts=[2, 0]), 2, 1)
        assert found.tolist() == [False, False]
        draft, found = look_everywhere(*history([0, 7, 3], [4, 9, 0, 7]), 2, 1)
        assert (draft[1].tolist(), found.tolist()) == ([3], [False, True])

    def test_one_row_is_prompt_lookup(self) -> None:
        draft, found = look_everywhere(*history([5, 6, 7, 8, 5, 6]), 2, 3)
        assert (draft.tolist(), found.tolist()) == ([[7, 8, 5]], [True])


class TestJoined:
    def test_the_same_ending(self) -> None:
        assert joined([1, 2, 3], [2, 3], [2, 3, 4]) == [1, 2, 3, 4]

    def test_the_last_token_becomes_another(self) -> None:
        assert joined([1, 2, 3], [2, 3], [2, 7]) == [1, 2, 7]

    def test_a_window_that_begins_within_a_token(self) -> None:
        assert joined([1, 2, 3], [8, 3], [8, 3, 4]) == [1, 2, 3, 4]

    def test_what_does_not_fit(self) -> None:
        assert joined([1, 2, 3], [4, 5], [4, 5, 6]) is None
        assert joined([1, 2, 3], [8, 3], [9, 3, 4]) is None

    def test_shared(self) -> None:
        assert [shared([1, 2, 3], [1, 2, 4]), shared([1, 2], [1, 2, 3]), shared([], [1])] == [2, 2, 0]


class TestLengths:
    def test_copies_that_are_always_right_are_run_whole(self) -> None:
        assert best_length([0, 1, 2, 5, 10], 0.99, 1.0, 1, 256) == 10

    def test_copies_that_are_never_right_are_not_run(self) -> None:
        assert best_length([0, 1, 2, 5, 10], 0.01, 1.0, 8, 256) == 0

    def test_what_costs_as_much_as_it_gives(self) -> None:
        # one token of 2 rows, rate 1/2, free 4: (1 + 1/2) / (1 + 4/4 + 0.15) = 0.698 against 1 / (1 + 2/4) = 0.667
        assert best_length([0, 1], 0.5, 1.0, 2, 4) == 1
        # half the rows have something: (1 + 1/4) / 2.15 = 0.581 < 0.667
        assert best_length([0, 1], 0.5, 0.5, 2, 4) == 0

    def test_the_heuristic(self) -> None:
        class Session:
            rows, device = 2, torch.device("cpu")

            def carrier(self, width: int) -> Any:
                return stopping.Flags(self.device, width)

        lengths, both = Heuristic(Session(), 4), torch.tensor([True, True])  # type: ignore[arg-type]
        lengths.learn(4, torch.tensor([4, 1]), both)
        assert lengths.now == 4  # the mean of 6 and 3, to even
        lengths.learn(4, torch.tensor([4, 4]), both)
        assert lengths.now == 6  # of 8 and 5
        lengths.learn(6, torch.tensor([0, 0]), torch.tensor([False, True]))
        assert lengths.now == 4


# Early exit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "llava"])
def test_first_layers_are_the_hidden_states_of_the_whole_model(name: str) -> None:
    model, tokens = tiny(name), ids(2, 7)
    before = dict(vars(model.config))
    short = first_layers(model, 1)
    with torch.no_grad():
        state = model(tokens, output_hidden_states=True).hidden_states[1]
        decoder = model.get_decoder()
        norm = decoder.ln_f if name == "gpt2" else decoder.norm
        torch.testing.assert_close(short(tokens).logits, model.get_output_embeddings()(norm(state)))
    assert vars(model.config) == before
    assert {id(p) for p in short.parameters()} < {id(p) for p in model.parameters()}
    assert first_layers(model, 1) is short


def test_first_layers_of_a_model_that_has_changed() -> None:
    model = fresh("llama")
    short = first_layers(model, 1)
    model.lm_head = torch.nn.Linear(32, VOCAB, bias=False)
    assert first_layers(model, 1) is not short
    genmode.attach(model)
    assert "generate" not in vars(first_layers(model, 1))


# The same tokens ---------------------------------------------------------------------------------------


@pytest.mark.oldest
@pytest.mark.parametrize("bans", [{}, BANS], ids=["free", "banned"])
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_tokens_of_greedy_search(
    drafter: str, rows: int, bans: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    inputs, flags = prompt("llama", rows), {**bans, "do_sample": False, "max_new_tokens": 20}
    stock = model.generate(**inputs, **flags)
    assert torch.equal(genmode.generate(model, **inputs, **flags, **drafts), stock)
    eos = sorted({int(stock[0, -12]), int(stock[-1, -5])})
    stock = model.generate(**inputs, **flags, eos_token_id=eos)
    assert torch.equal(genmode.generate(model, **inputs, **flags, **drafts, eos_token_id=eos), stock)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma3", "t5", "bart", "llava"])
def test_families(name: str) -> None:
    for rows, length in ((1, 24), (3, 24), (3, 64)):  # 64 is all the positions that GPT-2 and BART have
        model, inputs = tiny(name), prompt(name, rows)
        flags: dict[str, Any] = {"do_sample": False, "max_length": length, "eos_token_id": 3, **BANS}
        stock = model.generate(**inputs, **flags)
        for drafts in ({"assistant_model": near(name)}, {"assistant_early_exit": 1}, {"prompt_lookup_num_tokens": 5}):
            if name not in ENCODER_DECODER or "assistant_early_exit" not in drafts:
                result = genmode.generate(model, **inputs, **flags, **drafts, num_assistant_tokens=5)
                assert torch.equal(result, stock), (rows, length, list(drafts))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_tokens_of_sampling_under_a_seed(drafter: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    flags: dict[str, Any] = {
        **BANS, "do_sample": True, "temperature": 0.6, "top_k": 12, "top_p": 0.9, "max_new_tokens": 16, "seed": 5,
        "eos_token_id": list(range(5, 95, 9)),
    }  # fmt: skip
    plain = genmode.generate(model, **prompt("llama", rows), **flags)
    assert torch.equal(genmode.generate(model, **prompt("llama", rows), **flags, **drafts), plain)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_several_results_of_each_input(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    flags = {"do_sample": True, "max_new_tokens": 12, "num_return_sequences": 3, "seed": 5}
    plain = genmode.generate(model, **prompt("llama", 2), **flags)
    assert torch.equal(genmode.generate(model, **prompt("llama", 2), **flags, **drafts), plain)
    assert len({tuple(row) for row in plain.tolist()}) == 6
    torch.manual_seed(0)
    free = genmode.generate(model, **prompt("llama", 2), **{**flags, "seed": None}, **drafts)
    assert len({tuple(row) for row in free.tolist()}) == 6


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_stock_assisted_generation(name: str) -> None:
    """The tokens of transformers' own, and not one forward more than it takes, but for the prompt's."""
    model, inputs = tiny(name), prompt(name, 1)
    for bans in ({}, BANS):
        for sizes in ({"num_assistant_tokens": 3}, {"num_assistant_tokens_schedule": "heuristic_transient"}):
            flags: dict[str, Any] = {**bans, "do_sample": False, "max_new_tokens": 24}
            helper = fresh(name)
            helper.load_state_dict(near(name).state_dict())
            helper.generation_config.update(**sizes)
            stock, theirs = forwards(model, lambda: model.generate(**inputs, **flags, assistant_model=helper))  # noqa: B023
            ours, mine = forwards(model, lambda: genmode.generate(model, **inputs, **flags, assistant_model=helper))  # noqa: B023
            assert torch.equal(ours, stock)
            assert mine <= theirs + 1, (bans, sizes)


@pytest.mark.parametrize("drafter", ["early_exit", "other_words", "mtp", "dflash"])
def test_stock_drafters(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    inputs, flags = prompt("llama", 1), {"do_sample": False, "max_new_tokens": 20}
    stock, theirs = forwards(model, lambda: model.generate(**inputs, **flags, **drafts))
    ours, mine = forwards(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))
    assert torch.equal(ours, stock)
    assert drafter == "other_words" or mine <= theirs + 1


# What drafts save --------------------------------------------------------------------------------------


def widths(model: Any, call: Callable[[], Any]) -> tuple[Any, list[int]]:
    """The result of a call, and how many tokens of each row every forward behind the prompt's was given."""
    seen: list[int] = []

    def note(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(named["input_ids"].shape[1])

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        return call(), seen[1:]
    finally:
        hook.remove()


def saying(coder: Any, size: int, pieces: list[str]) -> Any:
    """A Llama of `size` tokens that says these pieces in a circle."""
    model, numbers = fresh("llama", vocab_size=size, hidden_size=128), coder.convert_tokens_to_ids(pieces)
    following = dict(itertools.pairwise([*numbers, numbers[0]]))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        table = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(1))).Q[:size]
        model.model.embed_tokens.weight.copy_(table)
        model.lm_head.weight.zero_()
        for token in range(size):
            model.lm_head.weight[following.get(token, token)] += 20 * table[token]
    return model


def test_a_draft_model_that_says_the_same() -> None:
    model, inputs = tiny("llama"), prompt("llama", 8)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 41, "assistant_confidence_threshold": 0.0}
    same = {"assistant_model": fresh("llama"), "num_assistant_tokens": 4}
    _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **same))
    assert taken == [5] * 8  # 1 token of the prompt's forward, 5 of each other


def test_sampling_with_a_draft_model_that_says_the_same() -> None:
    """Draft and verification draw with the same numbers, so all is taken, with and without a seed."""
    model, inputs = tiny("llama"), prompt("llama", 8)
    flags: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 41, "assistant_confidence_threshold": 0.0}
    same = {"assistant_model": fresh("llama"), "num_assistant_tokens": 4}
    for seed in (None, 1):
        _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **same, seed=seed))  # noqa: B023
        assert taken == [5] * 8


def test_a_draft_ends_where_no_row_is_sure() -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20, "assistant_model": near("llama")}
    _, never = widths(model, lambda: genmode.generate(model, **inputs, **flags, assistant_confidence_threshold=1.0))
    assert max(never) == 2  # the token that was not sure is drafted as well
    _, always = widths(model, lambda: genmode.generate(model, **inputs, **flags, assistant_confidence_threshold=0.0))
    assert max(always) > 10


@pytest.mark.parametrize("sample", [False, True])
def test_text_and_words_of_another_tokenizer(sample: bool) -> None:
    model = saying(ours(), VOCAB, ["a", "b", "cde", "f", "g"])
    pieces = ["a", "b", "cd", "e", "f", "g"] if sample else ["ab", "cd", "ef", "g"]
    helper = saying(theirs(), 40, pieces)
    if sample:
        model = saying(ours(), VOCAB, pieces)
    inputs = ours()(["fg", "the g", "xa"], padding=True, padding_side="left", return_tensors="pt")
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    flags: dict[str, Any] = {"do_sample": sample, "max_new_tokens": 40, "seed": 1}
    drafts = {
        "assistant_model": helper, "tokenizer": ours(), "assistant_tokenizer": theirs(), "num_assistant_tokens": 5,
    }  # fmt: skip
    plain = genmode.generate(model, **inputs, **flags)
    assert "".join(pieces) in ours().decode(plain[1])
    result, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))
    assert torch.equal(result, plain)
    assert len(taken) <= (10 if sample else 20)


def test_heads_that_guess_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of("mtp", monkeypatch)
    with torch.no_grad():
        circles = cyclic()
        copied = {"model.embed_tokens": circles.model.embed_tokens, "lm_head": circles.lm_head}
        for name, module in copied.items():
            model.get_submodule(name).weight.copy_(module.weight)
        for layer in (*model.model.layers, *(layer.mtp_block for layer in heads(VOCAB).layers)):
            layer.self_attn.o_proj.weight.zero_()
            for weight in layer.mlp.parameters():
                weight.zero_()
    inputs = {"input_ids": torch.tensor([[50, 10, 11], [51, 20, 21]])}
    flags = {"do_sample": False, "max_new_tokens": 31}
    result, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))
    assert result[0, 3:8].tolist() == [12, 13, 10, 11, 12]
    assert taken == [3] * 10
    with_heads.cache_clear()
    heads.cache_clear()


def test_rows_learn_from_each_other() -> None:
    """The second row repeats what stands in the first one alone."""
    model = cyclic()
    inputs = {"input_ids": torch.tensor([[50, *range(20, 27)], [51, 52, 53, 54, 55, 56, 57, 20]])}
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "strategy": "suffix_lookup"}
    result, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, suffix_lookup_num_tokens=7))
    assert result[1, 8:].tolist() == [21, 22, 23, 24, 25, 26, 20, 21]
    assert len(taken) <= 3


def test_text_without_copies_is_not_drafted_for_long() -> None:
    """Tokens of eight random rows recur by chance; a step of four is run with a draft at most."""
    model, inputs = tiny("llama"), prompt("llama", 8, 40)
    flags: dict[str, Any] = {"do_sample": True, "top_k": 0, "temperature": 3.0, "max_new_tokens": 100, "seed": 0}
    for drafts in ({"prompt_lookup_num_tokens": 10}, {"strategy": "suffix_lookup"}):
        _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))  # noqa: B023
        assert sum(width > 1 for width in taken) <= 25, drafts


# The distribution --------------------------------------------------------------------------------------

SHORT, WORDS = 3, 5
"""Texts of three tokens over a vocabulary of five."""


@functools.cache
def small() -> Any:
    return fresh("llama", vocab_size=WORDS, initializer_range=0.15, pad_token_id=0)


@functools.cache
def small_near() -> Any:
    model, generator = fresh("llama", vocab_size=WORDS, initializer_range=0.15, pad_token_id=0), torch.Generator()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator.manual_seed(weight.numel())))
    return model


def five(backwards: bool) -> Any:
    """A tokenizer of <p>, <s> and three letters."""
    pieces = ["<p>", "<s>", *("cba" if backwards else "abc")]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    made.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<p>", bos_token="<s>")


SMALL_BANS: dict[str, Any] = {
    "repetition_penalty": 1.4, "no_repeat_ngram_size": 3, "bad_words_ids": [[3, 3]], "temperature": 1.2, "top_k": 4,
}  # fmt: skip
SMALL_DRAFTERS: dict[str, Callable[[], dict[str, Any]]] = {
    "assistant": lambda: {"assistant_model": small_near(), "num_assistant_tokens": 2},
    "shared_words": lambda: {
        "assistant_model": small_near(), "tokenizer": five(False), "assistant_tokenizer": five(True),
        "num_assistant_tokens": 2,
    },
    "early_exit": lambda: {"assistant_early_exit": 1, "num_assistant_tokens": 2},
    "prompt_lookup": lambda: {"prompt_lookup_num_tokens": 2},
    "suffix_lookup": lambda: {"strategy": "suffix_lookup", "suffix_lookup_num_tokens": 2},
    "mtp": lambda: {"use_mtp": True},
    "dflash": lambda: {"assistant_model": dflash(WORDS - 1), "speculation_type": "dflash"},
}  # fmt: skip


@functools.cache
def expected(model: Any) -> tuple[Tensor, Tensor]:
    """A prompt, and the probability of each text behind it, by transformers' processors."""
    start = torch.tensor([[1, 2, 3, 1, 2, 4, 1, 2]])
    texts = torch.cartesian_prod(*[torch.arange(WORDS)] * SHORT)  # [125, 3]
    whole = torch.cat([start.expand(len(texts), -1), texts], 1)
    chain = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(SMALL_BANS["repetition_penalty"]),
            transformers.NoRepeatNGramLogitsProcessor(3),
            transformers.NoBadWordsLogitsProcessor(SMALL_BANS["bad_words_ids"]),
            transformers.TemperatureLogitsWarper(SMALL_BANS["temperature"]),
            transformers.TopKLogitsWarper(SMALL_BANS["top_k"]),
        ]
    )
    with torch.no_grad():
        logits = model(whole).logits[:, start.shape[1] - 1 : -1].float()
    probabilities = torch.ones(len(texts))
    for position in range(SHORT):
        scores = chain(whole[:, : start.shape[1] + position], logits[:, position])
        probabilities *= scores.softmax(-1).gather(1, texts[:, position, None])[:, 0]
    assert math.isclose(float(probabilities.sum()), 1, abs_tol=1e-4)
    return start, probabilities


@pytest.mark.parametrize("drafter", SMALL_DRAFTERS)
@pytest.mark.parametrize(("rows", "calls"), [(1, 150), (3, 100), (8, 60), (2000, 1)])
def test_the_distribution_of_sampling(rows: int, calls: int, drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts against their probabilities under plain sampling, penalties and bans being active.

    Wrong with probability 0.001 for a random seed; the seed is fixed.
    """
    model = small()
    if drafter in ("mtp", "dflash") and not MTP:
        pytest.skip("this transformers has no such candidate generators")
    if drafter == "mtp":
        from transformers.modeling_layers import MtpModel

        monkeypatch.setattr(MtpModel, "from_pretrained", classmethod(lambda cls, main, **_: heads(WORDS)))
        model = with_heads(WORDS)
    if drafter in ("mtp", "dflash"):  # every row has a generator, and they run one after another
        rows, calls = min(rows, 200), -(-calls // 3)
    start, probabilities = expected(model)
    if rows * calls < 1000:  # too few for 125 texts: the first two tokens
        probabilities = probabilities.view(-1, WORDS).sum(1)
    length = round(math.log(len(probabilities), WORDS))
    powers = WORDS ** torch.arange(length - 1, -1, -1)
    flags: dict[str, Any] = {**SMALL_BANS, "do_sample": True, "max_new_tokens": SHORT}
    inputs = {"input_ids": start.expand(rows, -1), "attention_mask": torch.ones(rows, 8).long()}
    torch.manual_seed(2)
    counts = torch.zeros(len(probabilities), dtype=torch.long)
    for _ in range(calls):
        drawn = genmode.generate(model, **inputs, **flags, **SMALL_DRAFTERS[drafter]())
        counts += (drawn[:, 8 : 8 + length] * powers).sum(1).bincount(minlength=len(probabilities))
    assert chi_square(counts, rows * calls * probabilities) > 0.001


# Life with other parts ---------------------------------------------------------------------------------


def test_a_processor_with_a_model_of_its_own() -> None:
    """A companion that a processor asks for is right at every drafted position."""

    class Expert(genmode.LogitsProcessor):
        contract_version = 1

        def begin(self, session: genmode.Session) -> None:
            self.companion = session.companion(ids(session.rows, 5, seed=8))

        def process(self, scores: Tensor, history: genmode.History) -> Tensor:
            return scores + 0.5 * self.companion.logits()

    for rows in (1, 3):
        flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 14, "processors": [Expert]}
        plain = genmode.generate(tiny("llama"), **prompt("llama", rows), **flags)
        for drafts in ({"assistant_model": near("llama"), "num_assistant_tokens": 3}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(genmode.generate(tiny("llama"), **prompt("llama", rows), **flags, **drafts), plain)


def test_recorded_scores_are_those_of_greedy_search() -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)
    flags: dict[str, Any] = {
        **BANS, "do_sample": False, "max_new_tokens": 12, "return_dict_in_generate": True, "output_scores": True,
        "output_logits": True,
    }  # fmt: skip
    stock = model.generate(**inputs, **flags)
    ours = genmode.generate(model, **inputs, **flags, assistant_model=near("llama"), num_assistant_tokens=4)
    assert torch.equal(ours.sequences, stock.sequences)
    for kind in ("scores", "logits"):
        torch.testing.assert_close(torch.stack(ours[kind]), torch.stack(stock[kind]), atol=1e-4, rtol=1e-4)


def test_an_assistant_is_left_as_it_was() -> None:
    helper = fresh("llama")
    before, config = dict(vars(helper.generation_config)), helper.config.to_dict()
    for flags in ({"do_sample": False}, {"do_sample": True, "num_assistant_tokens_schedule": "heuristic"}):
        genmode.generate(tiny("llama"), **prompt("llama", 2), **flags, max_new_tokens=8, assistant_model=helper)
    assert (vars(helper.generation_config), helper.config.to_dict()) == (before, config)


def test_the_heuristic_goes_on_where_the_last_call_ended() -> None:
    model, helper = tiny("llama"), fresh("llama")
    flags: dict[str, Any] = {
        "do_sample": False, "max_new_tokens": 60, "assistant_model": helper, "assistant_confidence_threshold": 0.0,
    }  # fmt: skip
    inputs = prompt("llama", 1)
    for schedule, second in (("heuristic_transient", 4), ("heuristic", 4), ("heuristic", 10)):
        helper.generation_config.update(num_assistant_tokens=3, num_assistant_tokens_schedule=schedule)
        _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags))
        assert taken[0] == second if second == 4 else taken[0] > 4


@pytest.mark.parametrize("sampling", [{"do_sample": False}, {"do_sample": True, "top_k": 12, "seed": 3}], ids=str)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_host_that_learns_late(drafter: str, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    monkeypatch.setattr(stopping, "reads_freely", lambda device: False)
    for rows in (1, 3):
        flags: dict[str, Any] = {**BANS, **sampling, "max_new_tokens": 40}
        plain = genmode.generate(model, **prompt("llama", rows), **flags)
        eos = int(plain[0, -20])
        plain = genmode.generate(model, **prompt("llama", rows), **flags, eos_token_id=eos)
        assert torch.equal(genmode.generate(model, **prompt("llama", rows), **flags, **drafts, eos_token_id=eos), plain)


@pytest.mark.gpu
@pytest.mark.parametrize("drafter", [one for one in DRAFTERS if one != "mtp"])
def test_on_a_device(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured forwards, and a host that learns everything one step late."""
    model, drafts = flags_of(drafter, monkeypatch)
    model = copy.deepcopy(model).cuda()
    drafts = {k: copy.deepcopy(v).cuda() if isinstance(v, torch.nn.Module) else v for k, v in drafts.items()}
    for rows in (1, 3, 8):
        inputs = {key: value.cuda() for key, value in prompt("llama", rows).items()}
        for sampling in ({"do_sample": False}, {"do_sample": True, "top_k": 12, "seed": 3}):
            flags: dict[str, Any] = {**BANS, **sampling, "max_new_tokens": 40}
            plain = genmode.generate(model, **inputs, **flags)
            eos = int(plain[0, -20])
            plain = genmode.generate(model, **inputs, **flags, eos_token_id=eos)
            assert torch.equal(genmode.generate(model, **inputs, **flags, **drafts, eos_token_id=eos), plain)


# Bad input ---------------------------------------------------------------------------------------------


def refused(kind: type[Exception], *words: str, model: Any = None, **flags: Any) -> None:
    model = tiny("llama") if model is None else model

    def call() -> None:
        with pytest.raises(kind) as caught:
            genmode.generate(model, **flags, max_new_tokens=4)
        assert all(word in str(caught.value) for word in words), str(caught.value)

    _, ran = forwards(model, call)
    assert ran == 0


def test_bad_input() -> None:
    inputs, other, error = prompt("llama", 2), other_words(), genmode.ParameterError
    refused(error, "assistant_model", "tokenizer and assistant_tokenizer", **inputs, assistant_model=other)
    refused(error, "assistant_tokenizer", **inputs, assistant_model=other, tokenizer=ours())
    refused(error, "assistant_model", **inputs, assistant_tokenizer=ours(), prompt_lookup_num_tokens=3,
            strategy="assisted_generation")  # fmt: skip
    refused(error, "assistant_model", "prompt_lookup_num_tokens", **inputs, assistant_model=near("llama"),
            prompt_lookup_num_tokens=3)  # fmt: skip
    refused(error, "assistant_early_exit", "prompt_lookup_num_tokens", **inputs, assistant_early_exit=1,
            prompt_lookup_num_tokens=3)  # fmt: skip
    refused(error, "assistant_model", "assistant_early_exit", **inputs, strategy="assisted_generation")
    refused(error, "assistant_model", "num_beams", **inputs, assistant_model=near("llama"), num_beams=2)
    refused(error, "prompt_lookup_num_tokens", "num_beams", **inputs, prompt_lookup_num_tokens=2, num_beams=2)
    refused(error, "suffix_lookup_num_tokens", "suffix_lookup", **inputs, suffix_lookup_num_tokens=5)
    refused(error, "assistant_early_exit=2", "1", **inputs, assistant_early_exit=2)
    refused(error, "assistant_early_exit", **inputs, assistant_early_exit=0)
    refused(error, "num_assistant_tokens", **inputs, assistant_model=near("llama"), num_assistant_tokens=0)
    refused(error, "num_assistant_tokens_schedule", **inputs, assistant_model=near("llama"),
            num_assistant_tokens_schedule="sometimes")  # fmt: skip
    refused(error, "assistant_model", "encoder-decoder", **inputs, assistant_model=tiny("t5"))
    t5, llama = {"model": tiny("t5"), **prompt("t5", 1)}, tiny("llama")
    refused(error, "assistant_model", "decoder-only", **t5, assistant_model=llama)
    if MTP:
        refused(error, "assistant_ensemble_weight", **inputs, assistant_model=llama, assistant_ensemble_weight=0.5)
        refused(genmode.UnsupportedError, "use_mtp", **inputs, use_mtp=True)
        refused(error, "speculation_type", **inputs, assistant_model=dflash())
        refused(error, "speculation_type", **inputs, assistant_model=near("llama"), speculation_type="dflash")


def test_models_that_cannot_go_back() -> None:
    error, mamba, t5 = genmode.UnsupportedError, tiny("mamba"), {"model": tiny("t5"), **prompt("t5", 1)}
    refused(error, "cannot go back", model=mamba, **prompt("mamba", 1), assistant_model=near("llama"))
    refused(error, "cannot go back", **prompt("llama", 1), assistant_model=mamba)
    refused(error, "assistant_early_exit", **t5, assistant_early_exit=1)


def test_padding_is_no_part_of_what_a_draft_model_reads() -> None:
    """A row's forwards do not depend on the padding that another row's length brings."""
    model = tiny("llama")
    tokens = ids(1, 6)
    padded = torch.cat([torch.full((1, 4), PAD), tokens], 1)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "assistant_model": near("llama")}
    taken = [
        widths(model, lambda: genmode.generate(model, row, attention_mask=(row != PAD).long(), **flags))[1]  # noqa: B023
        for row in (tokens, padded)
    ]
    assert taken[0] == taken[1]
