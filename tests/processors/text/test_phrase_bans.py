"""Phrases that a row may begin, and is taken back for once it completes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.text.vocabulary_bytes import token_bytes
from genmode_processors.text.phrase_bans import BannedPhrases

from ..rows_support import byte_tokenizer

MERGES = ["ab", "bc", "abc", " a", "é", "ca"]
TOKENIZER = byte_tokenizer(MERGES, special=["</s>"])
LETTERS = [
    TOKENIZER.convert_tokens_to_ids(t) for t in ("a", "b", "c", "ab", "bc", "abc", "Ġ", "Ġa", "Ã", "©", "Ã©", "ca")
]
EOS = TOKENIZER.eos_token_id
PROMPTS = [[LETTERS[0], LETTERS[1]], [LETTERS[2], LETTERS[6], LETTERS[7], LETTERS[10]], [LETTERS[4]] * 3]
PHRASES = ["abc", "ca", "é a", "bb"]
LIST = (LETTERS[1], LETTERS[9], LETTERS[0])


@pytest.fixture(scope="module")
def model() -> Any:
    """A model that says little but these letters, so that phrases come up all the time."""
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3, bos_token_id=None, eos_token_id=None, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        others = torch.ones(len(TOKENIZER), dtype=torch.bool)
        others[LETTERS] = False
        made.lm_head.weight[others] = 0
        made.lm_head.weight[LETTERS] *= 3
    return made


def spelled(tokens: list[int]) -> list[int]:
    """The number of the token that each byte of the text comes from."""
    texts = token_bytes(TOKENIZER)
    return [place for place, token in enumerate(tokens) if token != EOS for _ in texts[token]]


def text(tokens: list[int]) -> bytes:
    texts = token_bytes(TOKENIZER)
    return b"".join(texts[token] for token in tokens if token != EOS)


def completed(tokens: list[int], phrases: Any) -> int | None:
    """Where the phrase begins that begins last among those which end in the last token; None if none ends there."""
    data, places, starts = text(tokens), spelled(tokens), []
    before = len(text(tokens[:-1]))
    for phrase in phrases:
        if isinstance(phrase, str):
            wanted = phrase.encode()
            for at in range(len(data)):
                if data.startswith(wanted, at) and at + len(wanted) > before:
                    starts.append(places[at])
        elif tuple(tokens[-len(phrase) :]) == tuple(phrase):
            starts.append(len(tokens) - len(phrase))
    return max(starts, default=None)


def by_hand(model: Any, prompt: list[int], phrases: Any, retries: int, most: int) -> tuple[list[int], int]:
    """Greedy search of one row without a cache, and how often it went back."""
    max_backtrack = BannedPhrases(banned_phrases=phrases, banned_phrases_retries=retries).max_backtrack
    row, bans, tries, furthest, back, peak = list(prompt), {}, 0, 0, 0, len(prompt)
    while len(row) < len(prompt) + most:
        scores = model(torch.tensor([row])).logits[0, -1]
        scores[sorted(bans.get(len(row), ()))] = -torch.inf
        if tries >= retries and len(row) < furthest:
            for token in range(len(TOKENIZER)):
                if token != EOS and completed([*row, token], phrases) is not None:
                    scores[token] = -torch.inf
        stuck = tries >= retries and len(row) < furthest
        row.append(int(scores.argmax()))
        peak = max(peak, len(row))
        start = completed(row, phrases)
        if start is None or stuck:
            continue
        start, end = max(start, len(prompt), peak - max_backtrack), len(row)
        tries, furthest, back = (tries if end <= furthest else 0) + 1, max(furthest, end), back + 1
        bans = {place: some for place, some in bans.items() if place <= start}
        bans.setdefault(start, set()).add(row[start])
        del row[start:]
    return row[len(prompt) :], back


def decode(model: Any, rows: list[list[int]], **call: Any) -> list[list[int]]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    result: Tensor = genmode.generate(model, ids, attention_mask=mask, tokenizer=TOKENIZER, **call)
    return result[:, width:].tolist()


@pytest.fixture(params=["cpu", "as on a device"])
def place(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if request.param == "cpu" else host_sync.late_host():
        yield


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("retries", [1, 8])
@pytest.mark.parametrize("draft", [None, 3], ids=["plain", "drafts"])
@pytest.mark.parametrize("phrases", [PHRASES, [LIST, (LETTERS[5],), "ca"]], ids=["texts", "lists"])
def test_rows_go_back_as_by_hand(model: Any, phrases: Any, draft: int | None, retries: int) -> None:
    call = {"banned_phrases": phrases, "banned_phrases_retries": retries, "max_new_tokens": 20}
    with torch.no_grad():
        wanted = [by_hand(model, prompt, phrases, retries, 20) for prompt in PROMPTS]
    assert sum(back for _, back in wanted) > 3
    for count in (1, 3):
        got = decode(model, PROMPTS[:count], prompt_lookup_num_tokens=draft, **call)
        assert got == [row for row, _ in wanted[:count]]


@pytest.mark.parametrize("call", [{"num_beams": 3}, {"do_sample": True, "seed": 3}, {"prompt_lookup_num_tokens": 2}])
def test_no_phrase_is_left(model: Any, call: dict[str, Any]) -> None:
    phrases = [*PHRASES, LIST]
    free = decode(model, PROMPTS, max_new_tokens=40, **call)
    rows = decode(model, PROMPTS, max_new_tokens=40, banned_phrases=phrases, banned_phrases_retries=4, **call)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert all(completed(prompt + row[: n + 1], phrases) is None for n in range(40))
    assert any(completed(free[0][: n + 1], phrases) is not None for n in range(40))


def test_beams_ban_one_ahead(model: Any) -> None:
    call = {"max_new_tokens": 12, "num_beams": 3}
    ahead = decode(model, PROMPTS, banned_phrases=PHRASES, **call)
    assert decode(model, PROMPTS, banned_phrases=PHRASES, banned_phrases_retries=4, **call) == ahead


def test_going_back_chooses_what_the_model_prefers(model: Any) -> None:
    """One ahead leaves 'ab' standing; going back tries another beginning."""
    ahead = decode(model, PROMPTS, banned_phrases=PHRASES, max_new_tokens=20)
    back = decode(model, PROMPTS, banned_phrases=PHRASES, banned_phrases_retries=8, max_new_tokens=20)
    assert ahead != back


def test_a_stop_string_that_is_taken_back_stops_nothing(model: Any) -> None:
    stops = {"stop_strings": ["abc", "ca"], "max_new_tokens": 20, "pad_token_id": 0}
    free = decode(model, PROMPTS, banned_phrases=PHRASES, banned_phrases_retries=8, max_new_tokens=20)
    assert decode(model, PROMPTS, banned_phrases=PHRASES, banned_phrases_retries=8, **stops) == free
    assert len(decode(model, PROMPTS[:1], **stops)[0]) < 20


def test_a_row_with_nothing_else_to_say(model: Any) -> None:
    """Everything but phrases is masked: nothing is left once each of them was tried."""
    others = [token for token in range(len(TOKENIZER)) if token not in LETTERS[:3]]
    call = {"banned_phrases": ["a", "b", "c"], "banned_phrases_retries": 2, "suppress_tokens": others}
    with pytest.raises(genmode.DecodingError, match=r"no token left.*'banned_phrases'"):
        decode(model, PROMPTS, max_new_tokens=5, **call)


def test_what_is_refused(model: Any) -> None:
    with pytest.raises(genmode.ParameterError, match="bad_words_ids; give them there"):
        decode(model, PROMPTS, banned_phrases=[[3, 4]], max_new_tokens=2)
    with pytest.raises(genmode.ParameterError, match="outside the vocabulary"):
        decode(model, PROMPTS, banned_phrases=[[3, 9999]], banned_phrases_retries=1, max_new_tokens=2)
    with pytest.raises(genmode.ParameterError, match="banned_phrases_retries=-1 is not allowed"):
        decode(model, PROMPTS, banned_phrases=["a"], banned_phrases_retries=-1, max_new_tokens=2)
    with pytest.raises(genmode.ParameterError, match="needs the tokenizer"):
        genmode.generate(
            model, torch.tensor([[3]]), banned_phrases=["a"], banned_phrases_retries=1, max_new_tokens=2
        )  # fmt: skip


class Forked(genmode.Strategy):
    """Greedy search whose rows fork and leave: the second input's row, the first's, and the second's again are left."""

    contract_version = 1
    needs = frozenset({genmode.Need.POPULATION})

    def decode(self, session: genmode.Session, params: Any) -> None:
        for step in session.steps():
            step.commit(step.best())
            if step.index == 4:
                session.fork(torch.tensor([1, 0, 1]))
                session.drop(torch.tensor([0, 1]))


def test_rows_that_fork_and_leave_go_back_as_they_would_alone(model: Any) -> None:
    call = {"banned_phrases": [*PHRASES, LIST], "banned_phrases_retries": 3, "max_new_tokens": 20}
    alone = decode(model, PROMPTS[:2], **call)
    assert decode(model, PROMPTS[:2], strategy=Forked, **call) == [alone[0], alone[1], alone[1]]
    assert alone != decode(model, PROMPTS[:2], max_new_tokens=20)
