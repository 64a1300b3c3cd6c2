"""What each token adds to the text."""

from __future__ import annotations

from typing import Any

import pytest

from genmode.text.vocabulary_bytes import plain_bytes, token_bytes

from ...processors.criteria.text_support import BYTES, PIECES, TOKENS, WORDS, decoded


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES, WORDS])
def test_texts_of_tokens_add_up(tokenizer: Any) -> None:
    texts = token_bytes(tokenizer)
    ids = TOKENS[id(tokenizer)]
    whole = b"".join(texts[token] for token in ids).decode(errors="replace")
    assert whole.lstrip() == decoded(tokenizer, ids).lstrip()
    assert len(texts) == len(tokenizer)
    assert token_bytes(tokenizer) is texts


def test_special_and_silent_tokens_are_no_text() -> None:
    special = BYTES.all_special_ids
    texts, plain = token_bytes(BYTES), plain_bytes(BYTES, len(BYTES) + 2, silent=[3, 10**6])
    assert special
    assert all(plain[token] == b"" for token in [3, *special, len(BYTES), len(BYTES) + 1])
    assert [plain[token] for token in range(len(BYTES)) if token not in {3, *special}] == [
        texts[token] for token in range(len(BYTES)) if token not in {3, *special}
    ]
    assert texts[3]  # what is computed once for each tokenizer is left as it is
    assert plain_bytes(BYTES, 5) == texts[:5]
