"""What each token adds to the text, as bytes: characters may be split over tokens."""

from __future__ import annotations

import re
from typing import Any

ANCHOR = "x"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer: Any, size: int) -> list[bytes]:
    """The bytes of ids 0 .. size - 1 behind other text; none for special tokens and ids that there are not."""
    decode = tokenizer.convert_tokens_to_string
    byte_level = byte_of_character() if decode(["Ġ"]) == " " else {}  # GPT-2's way to write bytes
    fallback = decode(["<0x41>"]) == "A"
    anchor: list[str] = tokenizer.convert_ids_to_tokens(tokenizer.encode(ANCHOR, add_special_tokens=False))
    before: str = decode(anchor)
    special = set(tokenizer.all_special_ids)
    texts = [b""] * size
    for token, index in tokenizer.get_vocab().items():
        if index in special or index >= size:
            continue
        if byte_level and all(character in byte_level for character in token):
            texts[index] = bytes(byte_level[character] for character in token)
        elif fallback and (found := BYTE.fullmatch(token)):
            texts[index] = bytes([int(found[1], 16)])
        elif byte_level:
            texts[index] = token.encode()  # an added token is decoded as it is written
        else:
            whole: str = decode([*anchor, token])
            texts[index] = (whole[len(before) :] if whole.startswith(before) else decode([token])).encode()
    return texts


def byte_of_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(printable))
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(hidden)}
