"""Drafts of a model with another tokenizer, handed over as text.

Universal assisted generation (https://huggingface.co/blog/universal_assisted_generation): the rows' text is
encoded for the draft model, which goes on greedily; its text is encoded for the first model, and what is new in
it is the draft.

Both ways only the ending is encoded again, and joined to what stands before it: with the text of the last tokens
encoded as `old`, and together with the new text as `new`, ids that end as `old` does continue as `new`
(`joined`). `target_lookbehind` is how many of the first model's tokens are looked at, `assistant_lookbehind` how
many of the draft model's. Where the encodings do not fit together, the whole text is encoded, or, for a draft, the
new text alone: a draft need not be right. Special tokens are no text.

Processors act on the first model's tokens and cannot act on such a draft.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .assistants import AssistantParams, asks_for_assistant, check_assistant, lengths_of, of_other_words, wanted
from .sources import refuse_others
from .streams import Streams, Texts


class TextDrafter(genmode.Drafter):
    """Has a model with another tokenizer go on with the rows' text. Shapes: drafts `[rows, k]`, k as the text has it."""

    contract_version = 1
    name = "assistant_text"
    paper = "Universal assisted generation 2024, https://huggingface.co/blog/universal_assisted_generation"

    class Params(AssistantParams):
        """Parameters of drafting through text."""

        assistant_lookbehind: int = Field(10, ge=1, description="tokens of another tokenizer that are encoded again")
        target_lookbehind: int = Field(10, ge=1, description="tokens of the model's that are encoded again")

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        return asks_for_assistant(call) and not call.get("do_sample") and of_other_words(call)

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, "assistant_model")
        check_assistant(cls.name, call)
        if not of_other_words(call):
            raise genmode.ParameterError(
                "drafter 'assistant_text' hands text over between two tokenizers; pass tokenizer and assistant_tokenizer that "
                "differ, or name draft='assistant'"
            )

    def begin(self, session: genmode.Session, verification: genmode.Verification | None) -> None:
        assistant = session.assistant_model
        self.lengths = lengths_of(session, self.params, assistant)
        self.threshold: float = wanted(self.params, "assistant_confidence_threshold", assistant)
        self.target, self.assistant = Coder(session.tokenizer), Coder(session.assistant_tokenizer)
        self.back: int = wanted(self.params, "target_lookbehind", assistant)
        self.assistant_back: int = wanted(self.params, "assistant_lookbehind", assistant)
        self.texts, self.streams = Texts(session), Streams(session, assistant)

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        count = min(self.lengths.now, session.draft_room)
        if count < 1:
            return None
        self._read()
        drafted = self._guess(count, session.unfinished)
        rows = [
            self._handed_over(text, read, guess) if running else []
            for text, read, guess, running in zip(
                self.texts.rows, self.streams.rows, drafted, session.unfinished.tolist(), strict=True
            )
        ]
        width = max(len(row) for row in rows)
        if width == 0:
            return None
        filled = [(row + [row[-1] if row else 0] * width)[:width] for row in rows]
        tokens = torch.tensor(filled, device=session.device).clamp(max=session.vocab_size - 1)
        return genmode.Draft(tokens, counts=torch.tensor([len(row) for row in rows], device=session.device))

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        if step.draft is not None:
            self.lengths.learn(step.draft.shape[1], agreed, running)

    def reset(self) -> None:
        self.__dict__.pop("texts", None)
        self.__dict__.pop("streams", None)

    def _read(self) -> None:
        """Bring the draft model's tokens up to date with the rows' text."""
        before = [len(row) for row in self.texts.rows]
        for row, new in enumerate(self.texts.update()):
            if not new:
                continue
            text, window = self.texts.rows[row], max(0, before[row] - self.back)
            result = None
            if before[row]:
                old = self.assistant.ids(self.target.text(text[window : before[row]]))
                result = joined(self.streams.rows[row], old, self.assistant.ids(self.target.text(text[window:])))
            self.streams.rows[row] = result or self.assistant.ids(self.target.text(text), special=True) or [0]

    def _guess(self, count: int, sure: Tensor) -> list[list[int]]:
        """How the draft model goes on, in its own tokens; `sure`, `[rows]`, bool, are the rows that are still decoded."""
        logits = self.streams.begin()
        guess: list[Tensor] = []
        while True:
            tokens = logits.argmax(-1)
            guess.append(tokens)
            if self.threshold > 0:
                sure = sure & (logits.softmax(-1).gather(1, tokens[:, None])[:, 0] >= self.threshold)
            if len(guess) == count or not bool(sure.any()):
                return [list(row) for row in torch.stack(guess, dim=1).tolist()]
            logits = self.streams.feed(tokens)

    def _handed_over(self, text: list[int], read: list[int], guess: list[int]) -> list[int]:
        """What the draft model's `guess` behind `read` says behind `text`, in the first model's tokens."""
        tail = read[-self.assistant_back :]
        before, after = self.assistant.text(tail), self.assistant.text(tail + guess)
        new = after[len(before) :] if after.startswith(before) else self.assistant.text(guess)
        window = text[-self.back :]
        old = self.target.text(window)
        result = joined(window, self.target.ids(old), self.target.ids(old + new))
        if result is None or result[: len(window)] != window:
            return self.target.ids(new)
        return result[len(window) :]


class Coder:
    """Text and ids of one tokenizer, without its special tokens and without tidying."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def text(self, ids: list[int]) -> str:
        """The text of `ids`."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def ids(self, text: str, special: bool = False) -> list[int]:
        """The ids of `text`; with the special tokens that begin a text, if `special`."""
        found = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        end = getattr(self.tokenizer, "eos_token_id", None)
        return found[:-1] if special and len(found) > 1 and found[-1] == end else found


def joined(ids: list[int], old: list[int], new: list[int]) -> list[int] | None:
    """`ids`, whose ending stands for what `old` encodes, continued to stand for what `new` encodes.

    With the longest common ending S of `ids` = Y + S and `old` = X + S, and `new` = X + Z, it is Y + Z. None if
    there is no common ending, or `new` does not begin with X.
    """
    common = 0
    while common < min(len(ids), len(old)) and ids[-1 - common] == old[-1 - common]:
        common += 1
    front = old[: len(old) - common]
    if common == 0 or new[: len(front)] != front:
        return None
    return ids[: len(ids) - common] + new[len(front) :]
