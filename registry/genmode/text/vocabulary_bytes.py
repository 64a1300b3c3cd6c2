"""What each token adds to the text, as bytes.

Byte-level and byte-fallback vocabularies split characters over tokens, so the text of a token is known only
as bytes; those of a row, joined, are its decoded text. Where a tokenizer decodes by rules of its own
(WordPiece, Metaspace), a token's text is what it adds behind other text: a leading space stands for itself,
also at the start of the output. `token_bytes` takes special tokens as they are written, `plain_bytes` as no text. Not
supported: decoders that look at more than one token, e.g. those that clean up spaces before punctuation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

ANCHOR = "abcdef"

_known: WeakKeyDictionary[Any, list[bytes]] = WeakKeyDictionary()


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of each id of a transformers tokenizer, by id; empty for ids that it does not have.

    Computed once for each tokenizer and number of tokens.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    size = max(vocabulary.values(), default=-1) + 1
    known = _known.get(tokenizer)
    if known is not None and len(known) == size:
        return known
    kinds = decoder_kinds(tokenizer)
    byte_level = byte_of_character() if "ByteLevel" in kinds and "ByteFallback" not in kinds else {}
    anchor: list[str] = tokenizer.convert_ids_to_tokens(tokenizer.encode(ANCHOR, add_special_tokens=False))
    before: str = tokenizer.convert_tokens_to_string(anchor)
    texts = [b""] * size
    for token, index in vocabulary.items():
        if byte_level:
            known_bytes = [byte_level.get(character) for character in token]
            literal = None in known_bytes  # an added token, decoded as it is written
            texts[index] = token.encode() if literal else bytes(b for b in known_bytes if b is not None)
        elif "ByteFallback" in kinds and is_byte(token):
            texts[index] = bytes([int(token[3:5], 16)])
        else:
            whole: str = tokenizer.convert_tokens_to_string([*anchor, token])
            alone = not whole.startswith(before)
            added = tokenizer.convert_tokens_to_string([token]) if alone else whole[len(before) :]
            texts[index] = added.encode()
    _known[tokenizer] = texts
    return texts


def plain_bytes(tokenizer: Any, size: int, silent: Iterable[int] = ()) -> list[bytes]:
    """The bytes of the ids 0 .. size - 1; empty for special tokens, and for ids that the tokenizer does not have.

    Args:
        tokenizer: of transformers.
        size: of the vocabulary.
        silent: further ids that count as no text, such as those that end a row.
    """
    texts = list(token_bytes(tokenizer)[:size])
    texts += [b""] * (size - len(texts))
    for token in {*tokenizer.all_special_ids, *silent}:
        if 0 <= token < size:
            texts[token] = b""
    return texts


def is_byte(token: str) -> bool:
    """Whether the token is written as one byte, `<0x0A>`."""
    digits = "0123456789abcdefABCDEF"
    return len(token) == 6 and token[:3] == "<0x" and token[5] == ">" and token[3] in digits and token[4] in digits


def decoder_kinds(tokenizer: Any) -> set[str]:
    """The types of decoder that a fast tokenizer chains; empty for one written in Python."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return set()
    state: Any = decoder.__getstate__()  # what is pickled: JSON, except for some that have no settings
    kinds = {type(decoder).__name__}
    described: list[dict[str, Any]] = [json.loads(state)] if isinstance(state, (bytes, str)) else []
    for part in described:
        kinds.add(str(part.get("type")))
        described += part.get("decoders", [])
    return kinds


def byte_of_character() -> dict[str, int]:
    """The byte that each character stands for in a byte-level vocabulary (GPT-2's).

    Printable bytes stand for themselves; the others, in order, for the characters from U+0100 on.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(hidden)}
