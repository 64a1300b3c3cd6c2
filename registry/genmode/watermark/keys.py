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


LONGEST = 4096
"""Bytes of a key. What a source holds is read up to there, so that none can fill the memory."""


class SaidByFile(str):
    """A source that a file names. It is kept and shown, but not read: what a file says never chooses what is read."""

    __slots__ = ()


def check_source(source: Any) -> None:
    """ParameterError unless the source reads `env:NAME` or `file:PATH`. Never shows it: it may be the key itself."""
    form, _, place = source.partition(":") if isinstance(source, str) else ("", "", "")
    if form not in ("env", "file") or not place:
        given = "what was given" if isinstance(source, str) else f"an object of type {type(source).__name__}"
        raise ParameterError(
            f"key_from: {given} is not allowed; it has to read env:NAME or file:PATH, and says where the key is"
        )


def read_key(source: str) -> int | str:
    """The key that an environment variable, `env:NAME`, or a file, `file:PATH`, holds.

    Decimal digits alone are a number; anything else is text. Space around it does not count.

    Raises:
        ParameterError: the source has another form, is not there, is empty, holds more than 4096 bytes, or was named by a
            file. Never shows what it holds.
    """
    check_source(source)
    if isinstance(source, SaidByFile):
        raise ParameterError(
            f"key_from={str(source)!r} is what a file says, and what a file says is not read; if it is right, give it "
            f"yourself: WatermarkingConfig.load(FILE, key_from={str(source)!r}), or in a program config.key_from = "
            f"{str(source)!r}"
        )
    form, _, place = source.partition(":")
    if form == "env":
        found = os.environ.get(place)
        if found is None:
            raise ParameterError(f"key_from={source!r}: the environment variable {place} is not set")
    else:
        found = _content(source, place)
    found = found.strip()
    if not found:
        raise ParameterError(f"key_from={source!r} holds nothing; it has to hold the key")
    if len(found) > LONGEST:
        raise ParameterError(f"key_from={source!r} holds more than {LONGEST} bytes, which is no key")
    return int(found) if found.isdecimal() else found


def _content(source: str, place: str) -> str:
    failure = ""
    try:
        with Path(place).expanduser().open("rb") as file:
            return file.read(LONGEST + 3).decode("utf-8")  # with room for the end of a line
    except (OSError, ValueError, RuntimeError) as error:  # of expanduser, where there is no home
        failure = type(error).__name__  # an error of decoding holds what was read
    raise ParameterError(f"key_from={source!r}: the file cannot be read ({failure})")


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
