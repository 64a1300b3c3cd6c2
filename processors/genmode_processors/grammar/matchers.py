"""The engines that compile grammars, behind one small protocol.

An engine compiles a `Wanted` for a vocabulary. What it returns makes matchers, each of which follows one row: it
says which tokens may come next, takes one, goes back, and copies itself. Ends of sequence are none of an engine's
business: a matcher says whether the text so far is complete, and `Grammar` allows the end exactly there.

| engine | regex | json_schema | ebnf | lark | choices | of |
|---|---|---|---|---|---|---|
| llguidance | yes | yes | as Lark | yes | yes | Microsoft, Earley parser over derivatives of regexes |
| xgrammar | yes | yes | yes | yes | yes | Dong et al. 2024, https://arxiv.org/abs/2411.15100 |
| outlines-core | yes | as a regex | no | no | yes | Willard and Louf 2023, https://arxiv.org/abs/2307.09702 |
| lm-format-enforcer | yes | yes | no | no | yes | Gat 2023, character-level parsers |
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

import genmode
from genmode.text import plain_bytes

from .requests import KINDS, Kind, Wanted, short

if TYPE_CHECKING:
    from collections.abc import Iterable

Words = NDArray[np.int32]
EngineName = Literal["auto", "llguidance", "xgrammar", "outlines-core", "lm-format-enforcer"]


class Matcher(Protocol):
    """Follows one row through a grammar."""

    def fill(self, words: Words) -> None:
        """Write which tokens may come next: bit `t % 32` of `words[t // 32]`; bits of ends may be anything."""
        ...

    def advance(self, token: int) -> bool:
        """Take a token; False if the grammar does not allow it, and then nothing has changed."""
        ...

    def back(self, count: int) -> None:
        """Forget the last `count` tokens."""
        ...

    def copy(self) -> Matcher:
        """Another matcher in the same state."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the text so far is a whole text of the grammar."""
        ...

    @property
    def surrender(self) -> str:
        """Why the engine has given up on the row, though the grammar has further texts; empty if it has not."""
        ...


class Compiled(Protocol):
    """A grammar ready for one vocabulary."""

    def matcher(self) -> Matcher:
        """A matcher at the beginning."""
        ...


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What engines know of a tokenizer.

    Attributes:
        texts: bytes of each id below `size`; empty for special and unused ids, which no grammar allows.
        size: length of a row of scores.
        ends: ids that end a row.
        encode: text to ids, without special tokens.
    """

    texts: tuple[bytes, ...]
    size: int
    ends: tuple[int, ...]
    encode: Any

    def text(self, token: int) -> bytes:
        """The bytes of any id; empty for one that no grammar allows."""
        return self.texts[token] if 0 <= token < self.size else b""

    def without_controls(self) -> Vocabulary:
        """The same without tokens that have control characters, which JSON forbids inside of strings."""
        texts = tuple(b"" if any(byte < 32 for byte in text) else text for text in self.texts)
        return dataclasses.replace(self, texts=texts)

    @property
    def words(self) -> int:
        """How many 32-bit words a mask has."""
        return (self.size + 31) // 32


class Engine(Protocol):
    """What an engine's module offers as `engine`."""

    def __call__(self, vocabulary: Vocabulary) -> Compiler: ...


class Compiler(Protocol):
    """An engine that has read a vocabulary."""

    def compile(self, wanted: Wanted, whitespace: bool) -> Compiled:
        """Compile; raises any exception for a grammar that the engine does not understand.

        Args:
            wanted: of a kind that the engine knows.
            whitespace: whether JSON may have white space between its parts.
        """
        ...


@dataclass(frozen=True)
class Offer:
    """An engine that could be installed."""

    name: str
    package: str
    module: str
    kinds: frozenset[Kind]


_ALL, _FLAT = frozenset[Kind](KINDS), frozenset[Kind](("regex", "json_schema", "choices"))
OFFERS = (
    Offer("llguidance", "llguidance", "guidance_engine", _ALL),
    Offer("xgrammar", "xgrammar", "xgrammar_engine", _ALL),
    Offer("outlines-core", "outlines_core", "outlines_engine", _FLAT),
    Offer("lm-format-enforcer", "lmformatenforcer", "enforcer_engine", _FLAT),
)
"""In the order in which "auto" takes them."""

KEPT = 32
"""Compiled grammars that are kept for each tokenizer and engine."""

_compilers: WeakKeyDictionary[Any, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()


def compiled(wanted: Wanted, name: str, whitespace: bool, context: genmode.Context) -> tuple[Compiled, Vocabulary, str]:
    """A grammar compiled for a call's vocabulary; vocabularies and grammars are kept with the tokenizer.

    Where any engine will do, the first of `OFFERS` that takes the grammar.

    Returns:
        The grammar, the vocabulary, and the name of the engine.

    Raises:
        ParameterError: no engine for this kind is installed, or none understands the grammar; says what each said.
    """
    tokenizer: Any = context.tokenizer
    key = (context.vocab_size, tuple(context.eos_token_ids), len(tokenizer))
    kept = _compilers.setdefault(tokenizer, {})
    vocabulary = kept.get(key)
    if vocabulary is None:
        vocabulary = kept[key] = vocabulary_of(tokenizer, context.vocab_size, context.eos_token_ids)
    refusals: list[str] = []
    for offer, cls in _choose(wanted.kind, name):
        own = (offer.name, *key)
        compiler = kept.get(own)
        if compiler is None:
            compiler = kept[own] = cls(vocabulary)
        found = _kept_or_compiled(compiler, kept.setdefault(("grammars", *own), OrderedDict()), (wanted, whitespace))
        if not isinstance(found, str):
            return found, vocabulary, offer.name
        refusals.append(f"{offer.name} does not understand this {wanted.kind}: {found}")
    others = ", ".join(offer.name for offer in OFFERS if wanted.kind in offer.kinds)
    raise genmode.ParameterError(
        f"grammar {short(wanted.text)}: {'; '.join(refusals)}; correct it, or choose another engine with grammar_engine, "
        f"of {others}"
    )


def _kept_or_compiled(
    compiler: Compiler, grammars: OrderedDict[tuple[Wanted, bool], Compiled | str], place: tuple[Wanted, bool]
) -> Compiled | str:
    """The grammar, or why the engine refuses it; what was asked for lately is known."""
    if place not in grammars:
        try:
            grammars[place] = compiler.compile(*place)
        except Exception as error:  # engines raise what they like for grammars they do not understand
            grammars[place] = _told(error)
        while len(grammars) > KEPT:
            grammars.popitem(last=False)
    grammars.move_to_end(place)
    return grammars[place]


def installed() -> list[str]:
    """Names of the engines that are there, in the order of `OFFERS`."""
    return [offer.name for offer in OFFERS if isinstance(_load(offer), type)]


def _choose(kind: Kind, name: str) -> list[tuple[Offer, type[Any]]]:
    """The engines that may be taken, best first."""
    fitting = [offer for offer in OFFERS if kind in offer.kinds]
    if name != "auto":
        chosen = [offer for offer in OFFERS if offer.name == name]
        if chosen[0] not in fitting:
            raise genmode.ParameterError(
                f"grammar_engine={name!r} knows no {kind}; choose one of {', '.join(o.name for o in fitting)}"
            )
        fitting = chosen
    loaded = [(offer, _load(offer)) for offer in fitting]
    found = [(offer, one) for offer, one in loaded if isinstance(one, type)]
    if not found:
        failures = "; ".join(f"{offer.name} ({one})" for offer, one in loaded)
        raise genmode.ParameterError(
            f"grammar: no engine for {kind} can be imported: {failures}. "
            f"pip install {fitting[0].name}, or genmode[grammar]"
        )
    return found


def _load(offer: Offer) -> type[Any] | str:
    """The engine's compiler class, or why it cannot be imported."""
    try:
        importlib.import_module(offer.package)
    except ImportError as error:
        return str(error)  # not the error, whose traceback holds the frames that would hold it
    found: type[Any] = importlib.import_module(f".{offer.module}", __package__).engine
    return found


def vocabulary_of(tokenizer: Any, size: int, ends: Iterable[int]) -> Vocabulary:
    """The vocabulary of a transformers tokenizer for a model with `size` scores."""
    special = (index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    texts = plain_bytes(tokenizer, size, {*ends, *special})
    known = weakref.ref(tokenizer)  # vocabularies are kept as long as their tokenizers, and no longer

    def encode(text: str) -> list[int]:
        alive: Any = known()
        return [] if alive is None else list(alive.encode(text, add_special_tokens=False))

    return Vocabulary(tuple(texts), size, tuple(i for i in ends if 0 <= i < size), encode)


def mask_of(ids: Iterable[int], words: int) -> Words:
    """`[words]`: the mask that allows `ids` alone."""
    mask = np.zeros(words, dtype=np.uint32)
    for index in ids:
        mask[index // 32] |= np.uint32(1 << index % 32)
    return mask.view(np.int32)


def _told(error: Exception) -> str:
    text = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", " ".join(str(error).split()))  # xgrammar's time and line of source
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
