"""Keys of watermarks: made, read, written, and told apart, without being shown."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from ..errors import ParameterError


def new_key() -> int:
    """62 random bits from the operating system."""
    return secrets.randbits(62)


def read_key(source: str) -> int | str:
    """The key that an environment variable, `env:NAME`, or a file, `file:PATH`, holds.

    Decimal digits alone are a number; anything else is text. Space around it does not count.

    Raises:
        ParameterError: the source has another form, is not there, or is empty. Never shows what it holds.
    """
    form, _, place = source.partition(":")
    if form not in ("env", "file") or not place:
        raise ParameterError(f"key_from={source!r} is not allowed; it has to read env:NAME or file:PATH")
    if form == "env":
        found = os.environ.get(place)
        if found is None:
            raise ParameterError(f"key_from={source!r}: the environment variable {place} is not set")
    else:
        try:
            found = Path(place).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"key_from={source!r}: the file cannot be read ({type(error).__name__})") from None
    found = found.strip()
    if not found:
        raise ParameterError(f"key_from={source!r} holds nothing; it has to hold the key")
    return int(found) if found.isdecimal() else found


def write_key(path: str | Path, key: int | str) -> None:
    """Write a key to a new file that only its owner may read.

    Raises:
        ParameterError: the file is there already.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ParameterError(f"{path} is there already, and a key is not written over; name another file") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{key}\n")


def key_id(key: Any) -> str:
    """Four hexadecimal digits that tell a wrong key in all but one case of 65536, and give 16 bits of it away."""
    digest = hashlib.scrypt(repr(key).encode(), salt=b"genmode key id", n=2**12, r=8, p=1, dklen=2)
    return digest.hex()


def tokenizer_id(tokenizer: Any) -> str:
    """16 hexadecimal digits of a tokenizer's vocabulary."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return hashlib.blake2b(repr(vocabulary).encode(), digest_size=8).hexdigest()
