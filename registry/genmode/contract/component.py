"""The contract between the host and its plugins: the four kinds of component and their parameters.

A component is a class. It states the version of the contract that it was written for, names its
parameters in a pydantic model, and implements one method: `Strategy.decode`, `LogitsProcessor.process` or
`StoppingCriterion.check`; a `Watermarker` implements `process`, `evidence` and `null`. Importing this module
imports pydantic, but not torch.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import pydantic

if TYPE_CHECKING:
    from torch import Tensor

    from ..session import History, Session

CONTRACT_VERSION = 1
"""The contract that this host offers. It rises only when a plugin written for the last one would break."""

OLDEST_CONTRACT = 1
"""The oldest contract that this host still accepts: the one before, once there is one."""

Kind = Literal["strategies", "processors", "criteria", "watermarkers"]
KINDS: tuple[Kind, ...] = ("strategies", "processors", "criteria", "watermarkers")


_SECRET = re.compile(r"(^|_)(keys?|secret)$")


def is_secret(key: str) -> bool:
    """Whether values of this key are never shown or saved: `key`, `keys`, `secret`, or ending in `_key` …"""
    return _SECRET.search(key) is not None


class Params(pydantic.BaseModel):
    """Parameters of a component; every field is a key of the generation config.

    Declare each with a type, bounds, a default and one line of help::

        class Params(genmode.Params):
            alpha: float = pydantic.Field(0.6, ge=0, le=1, description="weight of the penalty")

    A key that neither the call nor a config sets keeps its default. The model is frozen, and refuses
    unknown keys. A field named `key`, `keys` or `secret`, or ending in `_key`, `_keys` or `_secret`, is a
    secret: it is neither printed nor saved. A field with `exclude=True` takes an object of one call, such as a
    second model: it is an argument of `generate`, and is refused in a config.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=()
    )

    def __repr_args__(self) -> Any:
        return [(k, "***" if k and is_secret(k) else v) for k, v in super().__repr_args__()]


AnyParams = Params


class Component:
    """What the four kinds have in common.

    Class attributes:
        contract_version: the version of the contract the component was written for; must be stated.
        name: public name; the entry point's name wins where the two differ.
        paper: the source of the method, as a reader would cite it.
        Params: the parameters, a subclass of `genmode.Params`.
        skip_checks: checks of `genmode.testing` that the component rightly cannot meet, each with the reason.
    """

    contract_version: ClassVar[int | None] = None
    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    Params: ClassVar[type[AnyParams]] = Params
    skip_checks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, params: AnyParams | None = None, **values: Any) -> None:
        """Takes either a ready `Params` or its fields by name; raises `pydantic.ValidationError`."""
        self.params: Any = params if params is not None else self.Params(**values)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__dict__.get("name"):
            cls.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")

    def __repr__(self) -> str:
        given = self.params.model_dump(exclude_unset=True)
        shown = {k: "***" if is_secret(k) else repr(v) for k, v in given.items()}
        for key in self.params.model_fields_set - given.keys():
            if getattr(self.params, key) is not None:
                shown[key] = type(getattr(self.params, key)).__name__
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in shown.items())})"


class Strategy(Component):
    """A whole decoding loop. See `genmode.session.Session` for all that it may use.

    Class attributes:
        flags: transformers flags that naming this strategy implies, e.g. `{"do_sample": True}`. The
            temperature and truncation processors of a config are active only under `do_sample`, and
            `num_beams` rows are decoded for each input only where this says that the strategy keeps
            beams (`{"num_beams": ...}` is then a default that the call may override).
        needs: what the session must be able to do, a subset of
            {"rollback", "reorder", "level", "hidden_states", "attentions"}. A model that cannot is refused
            before it runs. Under "reorder" (beams) and "level" (rows of one length throughout, as `step.look`
            asks for) processors take nothing back.
        weighs: True if it takes tokens for other reasons than their scores as well, as contrastive search
            does, so that a processor which leaves one token of a row may be overruled.
    """

    flags: ClassVar[Mapping[str, Any]] = {}
    needs: ClassVar[frozenset[str]] = frozenset()
    weighs: ClassVar[bool] = False

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Refuse contradictory flags before the model runs.

        Args:
            params: this strategy's parameters, already of the right types and within their bounds.
            call: the transformers flags in force for the call, and under `model`, `tokenizer`, `assistant_model`
                and `assistant_tokenizer` what the call brings of these.

        Raises:
            ParameterError: naming the flags.
        """

    def decode(self, session: Session, params: Any) -> None:
        """Decode until `session.steps()` ends, or return earlier."""
        raise TypeError(f"{type(self).__name__} must define decode(session, params)")


class Stage(enum.IntEnum):
    """Where in the chain a processor runs; stages run in this order.

    Within one stage: transformers' order, then declared `before` and `after`, then name.
    """

    BIAS = 0
    PENALTY = 1
    CONSTRAINT = 2
    GUIDANCE = 3
    TEMPERATURE = 4
    TRUNCATION = 5
    WATERMARK = 6
    NORMALISE = 7


class LogitsProcessor(Component):
    """Changes the scores of the next token.

    Life of an object: `begin`, then for each step `process` followed by `accept` of the chosen tokens;
    `reorder` and `rollback` when rows are reordered or go back; `reset` when the call has ended, after
    which the object may serve another call. A stateless processor implements `process` alone. An object
    that keeps state serves one call at a time.

    A processor may also take tokens back that were decoded already, a different number in each row: it states
    how many at most in `horizon`, answers `retract`, and learns in `retracted` what became of it. It is the
    processor that sees to it that a row does not come back to where it was, e.g. by masking in `process`, at
    that row and length, the token that led there. A session in which rows go back without end raises
    `DecodingError`.

    Class attributes:
        stage: where in the chain it runs.
        before, after: names of processors of the same stage that it must precede or follow.
        active: "set" if naming one of its parameters switches it on (the default), "named" if only
            naming the processor does.
        replaces: names of transformers classes that this one stands in for; see `adopt`.
        pure: whether `process` is a function of the scores and the parameters alone: no history, no state, no
            random numbers, no look at a tensor from the host. A device records a chain of such processors once
            and replays it.
        waits: whether the host waits for the chosen tokens of each step on a device; `explain` says so.
        forces: True if it may leave a row one token alone, so that nothing behind it has a choice.
    """

    stage: ClassVar[Stage] = Stage.GUIDANCE
    before: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    active: ClassVar[Literal["set", "named"]] = "set"
    replaces: ClassVar[tuple[str, ...]] = ()
    pure: ClassVar[bool] = False
    waits: ClassVar[bool] = False
    forces: ClassVar[bool] = False

    @classmethod
    def adopt(cls, processor: Any) -> LogitsProcessor | None:
        """The equal of a transformers processor that `replaces` names, or None to keep that one."""
        return None

    def begin(self, session: Session) -> None:
        """A call begins; `session` tells rows, device, vocabulary, tokenizer and the prompt."""

    def process(self, scores: Tensor, history: History) -> Tensor:
        """New scores.

        Args:
            scores: `[rows, vocab]`, float32; may be written in place.
            history: the tokens so far, see `genmode.session.History`.

        Returns:
            `[rows, vocab]`, float32; the same tensor or another.
        """
        raise TypeError(f"{type(self).__name__} must define process(scores, history)")

    def accept(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`, long. Finished rows get the padding token."""

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` accepted tokens; `counts` is `[rows]`, long."""

    def propose(self, limit: int) -> tuple[Tensor, Tensor] | None:
        """Tokens that rows have to go on with, or nearly so, to be run in one forward; None for none.

        They are a draft like any other: a row takes as much of them as it would have chosen itself, so a wrong
        proposal costs time and changes nothing. Asked for behind a commit, by strategies that can draft.

        Returns:
            Tokens `[rows, k]`, long, with k at most `limit`, and how many of them are meant in each row, `[rows]`.
        """
        return None

    def conclude(self, sequences: Tensor) -> None:
        """The strategy has returned: `sequences` `[results, length]`, long, prompt included, is the result.

        The place to warn of what the result lacks. Called before `reset`, and not if the call has failed.
        """

    @property
    def horizon(self) -> int | None:
        """How many tokens of a row this processor may take back; None for any number. 0 by default: none, for free.

        Counted from the furthest end that the row has had: what lies before that is final, is streamed, and is
        not taken back, whatever `retract` says. Read once, before `begin`.
        """
        return 0

    def retract(self, history: History) -> Tensor | None:
        """How many of its last tokens each row should take back.

        Asked behind each token that a row takes, once for each position of a draft, before criteria judge it: a
        token that is taken back ends no row. `accept` was told of the tokens before that one. A question, which
        changes no state: a draft's later positions may be dropped. Not asked under strategies that need "reorder" or "level" (`session.retracts` is then False;
        refuse in `begin`, or do without).

        Args:
            history: the rows with that token. Rows that are done are asked about as well, and stay as they are.

        Returns:
            `[rows]`, long, on the device of the tokens, 0 for a row that stays; None if all stay. Several
            processors' wishes: the largest counts. The prompt stays.
        """
        return None

    def retracted(self, history: History, counts: Tensor) -> None:
        """Rows may have gone back; `rollback` has been told before.

        Args:
            history: the rows as they are now; behind each row's end still stand the tokens that it took back.
            counts: `[rows]`, long: how many tokens each row took back as this processor wished; 0 for rows that
                stay, and for rows that went further back as another one wished.
        """

    def reset(self) -> None:
        """The call has ended; forget it."""


class StoppingCriterion(Component):
    """Decides which rows stop. Life cycle as of `LogitsProcessor`, without `accept`.

    Candidates that are only looked at are checked by a shallow copy that was reordered to their rows, so
    `reorder` and `check` replace state instead of writing into it.

    Class attributes:
        needs_scores: whether `check` takes the scores that the last token was chosen from as well,
            `check(history, scores)` with scores `[rows, vocab]`, float32.
        replaces: names of transformers classes that this one stands in for; see `adopt`.
    """

    needs_scores: ClassVar[bool] = False
    replaces: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def adopt(cls, criterion: Any, tokenizer: Any = None) -> StoppingCriterion | None:
        """The equal of a transformers criterion that `replaces` names, or None to keep that one.

        Args:
            criterion: an object of transformers' own class.
            tokenizer: the call's, if it has one.
        """
        return None

    def begin(self, session: Session) -> None:
        """A call begins."""

    def check(self, history: History) -> Tensor:
        """Which rows are done after their last token: `[rows]`, bool, on the device of the tokens."""
        raise TypeError(f"{type(self).__name__} must define check(history)")

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""

    def reset(self) -> None:
        """The call has ended; forget it."""


class Detection(pydantic.BaseModel):
    """What a detector says of one text."""

    model_config = pydantic.ConfigDict(frozen=True)

    score: float
    """By how many standard deviations the evidence exceeds that of text without the mark (a z-score)."""
    p_value: float
    """Probability of evidence at least this strong in text without the mark; between 0 and 1."""
    tokens: int
    """How many tokens were counted; those whose evidence is the same draw of the key count once."""
    marked: bool | None = None
    """Whether `p_value` is at most `fpr`; None where so few tokens cannot tell."""
    fpr: float = 0.01
    """The false-positive rate of the decision."""
    evidence: tuple[float | None, ...] = ()
    """Of each token of the text, by how many standard deviations it speaks for the mark; None if not counted."""
    passage: tuple[int, int] | None = None
    """Of windowed detection, the tokens `[from, to)` that are marked; None if none are."""
    note: str = ""
    """What limits the answer: a short text, a key or tokenizer that does not fit."""


class Evidence(NamedTuple):
    """What the tokens of some texts say for a mark; three tensors `[texts, length]`, on the CPU or a device."""

    values: Tensor
    """float64; each token's evidence, the higher the more; NaN where a token says nothing (no context, padding)."""
    draws: Tensor
    """int64; equal where two tokens of a text read the same draw of the key, which is then counted once."""
    weights: Tensor | None = None
    """float64, not negative: the statistic is the sum of weights times values. None for ones."""


class Null(Protocol):
    """The distribution of the evidence in text without the mark, in which counted tokens are independent.

    `genmode.nulls` has the usual ones.
    """

    mean: float
    """Of one token's value."""
    variance: float
    """Of one token's value."""

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        """P(sum of weights times values is at least what `values` `[n]`, float64, gives)."""
        ...

    def least(self, count: int) -> float:
        """The smallest `tail` that `count` tokens can have."""
        ...


class Watermarker(LogitsProcessor):
    """A processor that marks text, and the detector that reads the mark, as one component.

    A scheme states what each token says for the mark and how that is distributed without one; padding,
    repeated draws, windows and the decision are the host's (`genmode.detect`).

    Class attributes:
        chooses: True if it draws the token itself and masks all others. Strategies that need several
            candidates a row, as beams do, are refused.
        keeps_distribution: True if over random keys sampled text is distributed as without the mark. Where a
            strategy does not sample, the result says that this is lost.
        reads_model: True if `evidence` needs `gist` of the model's logits, so that detection needs the model.
    """

    stage: ClassVar[Stage] = Stage.WATERMARK
    active: ClassVar[Literal["set", "named"]] = "named"
    chooses: ClassVar[bool] = False
    keeps_distribution: ClassVar[bool] = False
    reads_model: ClassVar[bool] = False

    def evidence(self, tokens: Tensor, gist: Tensor | None) -> Evidence:
        """What each token says for the mark.

        Args:
            tokens: `[texts, length]`, long; negative ids are padding, behind the text.
            gist: `[texts, length]`, what `gist` made of the logits that each token was predicted by, NaN for
                the first; None unless `reads_model`.
        """
        raise TypeError(f"{type(self).__name__} must define evidence(tokens, gist)")

    def gist(self, logits: Tensor) -> Tensor:
        """One number of each prediction `[n, vocab]`, float32, that `evidence` needs: `[n]`."""
        raise TypeError(f"{type(self).__name__} must define gist(logits)")

    def null(self) -> Null:
        """The evidence's distribution in text without the mark."""
        raise TypeError(f"{type(self).__name__} must define null()")

    def detect(self, tokens: Tensor) -> list[Detection]:
        """Score texts at a false-positive rate of 1%; `genmode.detect` can do more.

        Args:
            tokens: `[texts, length]`, long; negative ids are padding and are not scored.
        """
        from ..detection import judge

        return judge(self, tokens)
