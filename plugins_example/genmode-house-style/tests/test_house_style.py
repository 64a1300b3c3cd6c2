"""Texts that can be read by eye, then what regular expressions say of every text of a tiny model."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import pytest
import torch
from genmode_house_style import HouseStyle
from genmode_house_style.automaton import Automaton, is_word
from hypothesis import given, settings
from hypothesis import strategies as st

import genmode
from genmode.testing import isolated_host

SPECIAL = ["<pad>", "<s>", "</s>"]
WORDS = [
    "a",
    "b",
    "c",
    "A",
    "B",
    "Ġ",
    ".",
    "Ã",
    "©",
    "ab",
    "Ġa",
    "Ġb",
    "ca",
    "b.",
    "Ab",
    "Ġcab",
    "aĠb",
    "cab",
    "Ã©",
    ".Ġ",
]
END = 2


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Byte-level, with tokens of one to four characters; it encodes character by character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE({word: index for index, word in enumerate(SPECIAL + WORDS)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    special = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", **special)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, bos_token_id=1, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    with isolated_host(HouseStyle):
        yield


class Script(genmode.LogitsProcessor):
    """Wants the n-th token of a script as a row's n-th, and else the first."""

    contract_version = 1
    stage = genmode.Stage.BIAS
    tokens: tuple[int, ...] = ()

    def process(self, scores: torch.Tensor, history: genmode.History) -> torch.Tensor:
        wanted = torch.tensor(self.tokens)[(history.lengths - history.prompt).clamp(max=len(self.tokens) - 1)]
        ids = torch.arange(scores.shape[1])
        plain = -0.01 * ids - 1.0 * (ids < len(SPECIAL))  # of equals the first that writes something
        return plain + 6.0 * (ids == wanted[:, None])


def scripted(model: Any, tokenizer: Any, wanted: list[str], prompt: str = ".", **flags: Any) -> str:
    """What a greedy row that wants these tokens writes behind the prompt."""
    script = Script()
    script.tokens = tuple((SPECIAL + WORDS).index(word) for word in wanted)
    ids = torch.tensor([tokenizer.encode(prompt)])
    given = {"max_new_tokens": len(wanted), "do_sample": False, "eos_token_id": END, **flags}
    result = genmode.generate(
        model, ids, attention_mask=torch.ones_like(ids), tokenizer=tokenizer, processors=[script], **given
    )
    return str(tokenizer.decode(result[0, ids.shape[1] :], skip_special_tokens=True))


def test_a_row_goes_back_to_before_the_term(model: Any, tokenizer: Any) -> None:
    # Without " cab" the best of the others is the first token that writes something, "a", and then the script's.
    assert scripted(model, tokenizer, ["b", "Ġcab", "."]) == "b cab."
    assert scripted(model, tokenizer, ["b", "Ġcab", "."], house_style_never=["CAB"]) == "ba."


@pytest.mark.parametrize(
    ("wanted", "text"),
    [(["Ġcab", "ab"], " cabab"), (["Ġcab", "b."], " cabb."), (["Ġcab", "Ã©"], " cabé"), (["a", "cab", "."], "acab.")],
)
def test_parts_of_other_words_stay(model: Any, tokenizer: Any, wanted: list[str], text: str) -> None:
    assert scripted(model, tokenizer, wanted, house_style_never=["CAB"]) == text


@pytest.mark.parametrize("wanted", [["Ġ", "ca", "b"], ["Ġcab", "</s>"], ["Ġ", "c", "A", "B"]], ids=str)
def test_ends_of_text_are_boundaries(model: Any, tokenizer: Any, wanted: list[str]) -> None:
    assert scripted(model, tokenizer, wanted).lower() == " cab"
    found = scripted(model, tokenizer, wanted, house_style_never=["cab"])
    assert not re.search(r"\bcab\b", found, re.IGNORECASE)


def test_terms_of_the_prompt_do_not_count_and_those_that_begin_there_do(model: Any, tokenizer: Any) -> None:
    assert scripted(model, tokenizer, [".", "a"], prompt="a cab", house_style_never=["cab"]) == ".a"
    assert scripted(model, tokenizer, ["b", "."], prompt="a ca") == "b."
    assert not scripted(model, tokenizer, ["b", "."], prompt="a ca", house_style_never=["cab"]).startswith("b.")


def test_a_preferred_term_takes_the_place(model: Any, tokenizer: Any) -> None:
    wanted = ["a", "Ġcab", ".", "a", "b", "c"]
    assert scripted(model, tokenizer, wanted) == "a cab.abc"
    # At the place of " cab" the tokens of " b" gain 8, against 6 for the script, which goes on behind them.
    found = scripted(model, tokenizer, wanted, house_style_prefer={"cab": "b"})
    assert found == "a babc"
    assert scripted(model, tokenizer, wanted, house_style_prefer={"cab": "b"}, house_style_bias=0) == "aa.abc"


def test_lists_for_each_input(model: Any, tokenizer: Any) -> None:
    script = Script()
    script.tokens = tuple((SPECIAL + WORDS).index(word) for word in ("Ġcab", ".", "Ġb", "."))
    ids = torch.tensor([tokenizer.encode(".")] * 2)
    call = {"attention_mask": torch.ones_like(ids), "tokenizer": tokenizer, "do_sample": False, "max_new_tokens": 4}
    result = genmode.generate(model, ids, processors=[script], house_style_never=[["b"], ["cab"]], **call)
    first, second = tokenizer.batch_decode(result[:, 1:])
    assert first.startswith(" cab.")
    assert not re.search(r"\bb\b", first)
    assert "cab" not in second
    with pytest.raises(genmode.ParameterError, match="3 lists for 2 inputs"):
        genmode.generate(model, ids, house_style_never=[["b"], ["a"], ["c"]], **call)
    with pytest.raises(genmode.ParameterError, match="tokenizer"):
        genmode.generate(model, ids, house_style_never=["b"], **{**call, "tokenizer": None})


def test_a_criterion_that_ends_a_row_behind_a_term_is_told_of(model: Any, tokenizer: Any) -> None:
    class Stops(genmode.StoppingCriterion):
        contract_version = 1

        def check(self, history: genmode.History) -> torch.Tensor:
            return history.lengths - history.prompt >= 1

    with pytest.warns(UserWarning, match="a term that should never appear"):
        scripted(model, tokenizer, ["Ġcab", "."], criteria=[Stops()], house_style_never=["cab"])


def offends(text: str, prompt: str, terms: list[str]) -> str | None:
    """The first term that ends behind the prompt, by a regular expression with the automaton's notion of a word."""
    for term in terms:
        left, right = (r"(?<!\w)" if is_word(term[0]) else "", r"(?!\w)" if is_word(term[-1]) else "")
        for found in re.finditer(f"(?={left}({re.escape(term)}){right})", prompt + text, re.IGNORECASE):
            if found.end(1) > len(prompt):
                return term
    return None


TERMS = ["ab", "ca b", "é", "a.", "cab", "B"]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "prompt lookup": {"strategy": "prompt_lookup", "do_sample": True},
    "beams": {"num_beams": 3, "do_sample": False},
}


def prompts(rows: int) -> list[str]:
    return ["ab c", "cab", "a", "é b", ". ca", "A", "bc c", "ca "][:rows]


def decoded(model: Any, tokenizer: Any, rows: int, **flags: Any) -> list[str]:
    inputs = tokenizer(prompts(rows), return_tensors="pt", padding=True, return_token_type_ids=False)
    given = {"max_new_tokens": 24, "eos_token_id": END, "seed": list(range(rows)), **flags}
    result = genmode.generate(model, **inputs, tokenizer=tokenizer, **given)
    return list(tokenizer.batch_decode(result[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("way", WAYS)
def test_no_text_has_a_term(model: Any, tokenizer: Any, way: str, rows: int) -> None:
    found = decoded(model, tokenizer, rows, house_style_never=TERMS, **WAYS[way])
    plain = decoded(model, tokenizer, rows, **WAYS[way])
    pairs = list(zip(found, prompts(rows), strict=True))
    assert [offends(text, prompt, TERMS) for text, prompt in pairs] == [None] * rows
    assert any(offends(text, prompt, TERMS) for text, prompt in zip(plain, prompts(rows), strict=True))


def test_drafts_change_nothing(model: Any, tokenizer: Any) -> None:
    plain = decoded(model, tokenizer, 8, house_style_never=TERMS, **WAYS["sampling"])
    assert plain == decoded(model, tokenizer, 8, house_style_never=TERMS, **WAYS["prompt lookup"])
    assert (
        plain[2:3]
        == decoded(model, tokenizer, 3, house_style_never=TERMS, house_style_retries=8, **WAYS["sampling"])[2:3]
    )  # and neither does the rest of the batch


def test_streams_never_show_a_term(model: Any, tokenizer: Any) -> None:
    from transformers import TextStreamer

    for seed in range(20):
        shown = io.StringIO()
        with redirect_stdout(shown):
            streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
            decoded(model, tokenizer, 1, house_style_never=TERMS, do_sample=True, seed=seed, streamer=streamer)
        assert offends(shown.getvalue().rstrip("\n"), prompts(1)[0], TERMS) is None


@settings(max_examples=25, deadline=None)
@given(
    terms=st.lists(st.text("abcA.é ", min_size=1, max_size=4).filter(str.strip).map(str.strip), min_size=1, max_size=4),
    retries=st.integers(0, 8),
    sample=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_the_terms(
    model: Any, tokenizer: Any, terms: list[str], retries: int, sample: bool, seed: int
) -> None:
    with isolated_host(HouseStyle):
        found = decoded(
            model, tokenizer, 3, house_style_never=terms, house_style_retries=retries, do_sample=sample,
            seed=[seed, seed + 1, seed + 2], max_new_tokens=12,
        )  # fmt: skip
    for text, prompt in zip(found, prompts(3), strict=True):
        assert offends(text, prompt, terms) is None, (text, prompt)


@settings(max_examples=100, deadline=None)
@given(
    terms=st.lists(st.text("abA.é™ ", min_size=1, max_size=4).filter(str.strip).map(str.strip), min_size=1, max_size=3),
    text=st.text("abAB.é™ ", max_size=20).map(str.encode)
    | st.lists(st.sampled_from(b"abA. \xc3\xa9\xe2\x84\xa2\xf0\x9f"), max_size=20).map(bytes),
)
def test_the_automaton_agrees_with_regular_expressions(terms: list[str], text: bytes) -> None:
    automaton = Automaton(terms, range(len(terms)))
    state, found = 0, 0
    for byte in text:
        found, state = max(found, int(automaton.found[state, byte])), int(automaton.next[state, byte])
    assert bool(found or automaton.open[state]) == (offends(text.decode(errors="replace"), "", terms) is not None)


def test_where_a_term_began_is_known_in_bytes() -> None:
    automaton = Automaton(["cab", "é b"], [0, 1])
    state, codes = 0, []
    for byte in "a É\tb.".encode():
        codes.append(int(automaton.found[state, byte]))
        state = int(automaton.next[state, byte])
    # Found with ".", the fifth byte of term 1: two of É, the blank, b, and the one behind it.
    assert codes == [0, 0, 0, 0, 0, 0, 2 * 5 + 1]
