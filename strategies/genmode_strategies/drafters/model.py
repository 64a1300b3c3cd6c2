"""Drafts of a second model, token by token.

The draft model sees the same text, and its scores pass through the same processors, so that penalties and
bans do not make it guess what the call forbids. Greedy search drafts the argmax. Sampling draws, and passes on what from;
for `genmode_strategies.verifications.coupling` with the numbers that the verification will draw with.

A row is sure as long as its drafted tokens have at least probability `assistant_confidence_threshold` and none ends the
text; the draft ends when no row is sure any more (transformers' confidence criterion, which it applies to one row). On
a device that is known one token late. The token that was not sure is drafted as well; what follows it in a row is filling.
See `genmode_strategies.drafters.assistants` for how much is drafted.

How the draft model reads the text is the reader's business: `SameTokens` for a model with the same tokens,
`genmode_strategies.drafters.shared_words` for another tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

import genmode
from genmode.contract import DraftScorer

from .assistants import AssistantParams, asks_for_assistant, check_assistant, lengths_of, of_other_words, wanted
from .shared_words import SharedWords
from .sources import refuse_others
from .streams import check_tokenizers


class Reader(Protocol):
    """Lets a draft model follow the rows."""

    def begin(self) -> Tensor:
        """Logits behind what the rows have become: `[rows, vocab]`, float32, over the rows' vocabulary."""
        ...

    def feed(self, tokens: Tensor) -> Tensor:
        """The same behind one more guessed token of each row, `[rows]`, long."""
        ...

    def learn(self, drafted: bool) -> None:
        """The rows have continued, behind a draft that was fed to this reader or without one."""
        ...


class SameTokens:
    """For a draft model with the tokens of the first one.

    Vocabularies may be of different size where one is padded: ids beyond either cannot be drafted.
    """

    def __init__(self, session: genmode.Session, model: Any) -> None:
        self.session = session
        self.draft_model = session.draft_model(model)
        self.behind = 0

    def begin(self) -> Tensor:
        return self._fitted(self.draft_model.catch_up(self.session.history, self.behind))

    def feed(self, tokens: Tensor) -> Tensor:
        return self._fitted(self.draft_model.feed(tokens))

    def learn(self, drafted: bool) -> None:
        self.behind = 2 if drafted else self.behind + 1

    def _fitted(self, logits: Tensor) -> Tensor:
        missing = self.session.vocab_size - logits.shape[1]
        if missing == 0:
            return logits
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)  # a negative number cuts off


class ModelDrafter(genmode.Drafter):
    """Drafts with a second model. Shapes: drafts `[rows, k]`, q `[rows, k, vocab]`, k up to `num_assistant_tokens`."""

    contract_version = 1
    name = "assistant"
    paper = "Leviathan et al. 2023, Speculative Decoding, https://arxiv.org/abs/2211.17192"
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.PROBABILITIES})

    class Params(AssistantParams):
        """Parameters of drafting with a model."""

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        return asks_for_assistant(call) and (bool(call.get("do_sample")) or not of_other_words(call))

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, "assistant_model")
        check_assistant(cls.name, call)
        if of_other_words(call) and not call.get("do_sample"):
            raise genmode.ParameterError(
                "drafter 'assistant' reads another tokenizer's words under sampling alone; name draft='assistant_text', or set "
                "do_sample=True"
            )

    def begin(self, session: genmode.Session, verification: genmode.Verification | None) -> None:
        self.sample = verification is not None
        shares = verification is not None and genmode.Trait.COUPLES in verification.traits
        self.tells = self.sample and not shares
        self.reader: Reader = self.open_reader(session)
        assistant = self.assistant(session)
        self.lengths = lengths_of(session, self.params, assistant)
        self.threshold: float = wanted(self.params, "assistant_confidence_threshold", assistant)
        self.ends = torch.tensor(session.eos_token_ids, dtype=torch.long, device=session.device)
        self.readback = session.async_readback(1)
        self.scorer: DraftScorer = session.draft_scorer(share_randomness=shares)

    def assistant(self, session: genmode.Session) -> Any:
        """The model whose generation config counts; None where the call's own does."""
        return session.assistant_model

    def open_reader(self, session: genmode.Session) -> Reader:
        """Lets the draft model follow the rows."""
        assistant = session.assistant_model
        sizes = (session.vocab_size, int(assistant.config.get_text_config(decoder=True).vocab_size))
        if check_tokenizers(assistant, session.tokenizer, session.assistant_tokenizer, sizes):
            return SharedWords(session)
        return SameTokens(session, assistant)

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        count = min(self.lengths.now, session.draft_room)
        if count < 1:
            return None
        logits, sure = self.reader.begin(), session.unfinished
        drawn_from: list[Tensor] = []
        counts = torch.zeros_like(sure, dtype=torch.long)
        with self.scorer as guess:
            while True:
                scores = guess.scores(logits)
                tokens = guess.draw(scores) if self.sample else scores.argmax(-1)
                guess.take(tokens)
                if self.tells:
                    drawn_from.append(scores.softmax(-1))
                    counts = counts + sure
                sure = self._still_sure(sure, scores, tokens)
                if len(guess) == count or self._nobody(sure, len(guess)):
                    break
                logits = self.reader.feed(tokens)
            drafted = guess.tokens
        if drafted is None:
            return None
        return genmode.Draft(drafted, torch.stack(drawn_from, dim=1), counts) if self.tells else genmode.Draft(drafted)

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        self.reader.learn(step.draft is not None)
        if step.draft is not None:
            self.lengths.learn(step.draft.shape[1], agreed, running)

    def reset(self) -> None:
        self.__dict__.pop("reader", None)
        self.__dict__.pop("scorer", None)

    def _still_sure(self, sure: Tensor, scores: Tensor, tokens: Tensor) -> Tensor:
        if self.threshold > 0:
            probable = scores.softmax(-1).gather(1, tokens[:, None])[:, 0] >= self.threshold
            sure = sure & probable
        return sure & ~torch.isin(tokens, self.ends) if len(self.ends) else sure

    def _nobody(self, sure: Tensor, drafted: int) -> bool:
        """Whether no row is sure, as far as the host knows."""
        if not (self.threshold > 0 or len(self.ends)):
            return False
        seen = self.readback.exchange(sure.any().long()[None])
        if self.readback.deferred and drafted == 1:  # what comes back is of the last draft
            return False
        return seen is not None and not int(seen[0])
