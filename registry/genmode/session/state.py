"""What a running call holds. The other modules of this room change it; nothing outside does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .. import host_sync
from ..errors import DecodingError

if TYPE_CHECKING:
    from ..engines.engine import Engine, TreeForm
    from .backtrack import Backtracking
    from .chain import Chain
    from .noise import Noise
    from .outputs import Recorder
    from .stopping import Stopping
    from .stream import Emitter
    from .token_buffer import TokenBuffer


NEVER = 2**62
"""The end of a row that has not ended."""


class Given(NamedTuple):
    """What the caller gave."""

    model: Any
    tokenizer: Any
    config: Any
    """The generation config that transformers prepared."""
    assistant_model: Any = None
    assistant_tokenizer: Any = None
    encoder_input_ids: Tensor | None = None


class Follower(Protocol):
    """What learns that row i becomes what row `rows[i]` was, `rows` being `[new rows]`, long."""

    def reorder(self, rows: Tensor) -> None: ...


class Vocabulary(NamedTuple):
    """Ids and their number."""

    size: int
    eos: list[int]
    pad: int | None


class Surroundings(NamedTuple):
    """What a call asks of the program and of other processes; None where there is nobody to ask."""

    open_engine: Callable[[Any, Tensor, Tensor, int], Engine]
    """Opens an engine for a model beside the first: model, ids, attention mask, longest row."""
    cancelled: Callable[[], bool] | None = None
    agree: Callable[[bool], bool] | None = None
    """Makes all processes of a tensor-parallel group take the first one's word."""
    peers: Callable[[bool], bool] | None = None
    """Tells the processes of a sharded model whether this one is done, and returns whether any is not."""


class Abilities(NamedTuple):
    """What rows may do in this call."""

    rewinds: bool
    """Whether the engine can take back tokens."""
    drafts: bool
    """Whether rows may take different numbers of tokens; streaming them then asks the device each step."""
    backtracks: bool
    """Whether processors may take back what was decoded."""
    population: bool = False
    """Whether rows may fork, leave and begin again; the host then reads each step's flags at once."""
    rests: bool = False
    """Whether rows that have ended may leave the forward, since nothing reads what it says of them."""
    probes: bool = False
    """Whether a component other than the strategy says that it probes the model."""


@dataclass
class DecodeState:
    """A running call.

    Attributes:
        num_inputs: inputs; at first `history.rows / num_inputs` neighbouring rows belong to one.
        inputs: `[rows]`, long: which input each row belongs to.
        unfinished: `[rows]`, bool: rows that are still decoded.
        some_done: whether any row may have ended.
        pads: whether rows that have ended take the padding token.
        ending: whether the session decides which rows are done; else the strategy does.
        step_index: number of the running step; -1 before the first.
        step_width: tokens that a row may have taken in the last step, at most.
        taken_back: `[rows]`, long: how many tokens each row has taken back so far; 0 where none can.
        draft: `[rows, k]`, long: what the next forward runs behind each row's last token.
        form: how the draft's tokens hang together, where they are trees; then that of the draft being verified.
        held: how many tokens the engine holds beyond each row's last one: those of the draft that is being verified; -1
            behind a commit, when the last token has not been fed.
        ahead: how many tokens of a draft, behind each row's last one, are taken as decoded while components are asked.
        verifying: `[rows, k]`, long: the draft that is being verified.
        climbing: whether that draft is a tree, of which no row has its path yet.
        judging: whether criteria are asked about tokens of a commit, behind each row's last one.
        draws_guesses: whether guesses are drawn with torch's generator, as transformers' assistant draws them.
        ready_logits: `[rows, vocab]`: of the next forward, where `Step.look` has run it already.
        stop_flag: one bool on the device: the strategy wants to stop after this step.
        reordered: `[rows]`, long: which rows this step's commit made the rows continue; None for themselves.
        moved: `[rows]`, long: which row of the engine each row is, where rows have come and gone since its last forward.
        ends: `[rows]`, long: the length at which a padded row had ended, in a population; a great number for others.
        begins: whether a loop over steps may begin.
        side_engines, draft_models: engines of models beside the first, and the draft models that have some of them.
        result: the result, where it is not simply the rows; `beams` has its scores and beam indices.
    """

    given: Given
    vocabulary: Vocabulary
    abilities: Abilities
    surroundings: Surroundings
    engine: Engine
    history: TokenBuffer
    chain: Chain
    stopping: Stopping
    noise: Noise
    recorder: Recorder
    emitter: Emitter | None
    num_inputs: int
    backtracking: Backtracking | None = None
    inputs: Tensor = field(init=False)
    unfinished: Tensor = field(init=False)
    ends: Tensor = field(init=False)
    some_done: bool = False
    pads: bool = False
    ending: bool = True
    step_index: int = -1
    step_width: int = 1
    taken_back: Tensor | int = 0
    draft: Tensor | None = None
    form: TreeForm | None = None
    held: int = 0
    ahead: int = 0
    verifying: Tensor | None = None
    climbing: bool = False
    judging: bool = False
    draws_guesses: bool = False
    ready_logits: Tensor | None = None
    stop_flag: Tensor | None = None
    reordered: Tensor | None = None
    moved: Tensor | None = None
    begins: bool = True
    draft_models: list[Follower] = field(default_factory=list["Follower"])
    side_engines: list[Engine] = field(default_factory=list["Engine"])
    result: Tensor | None = None
    beams: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.device = self.history.buffer.device
        rows, device = self.history.rows, self.device
        self.unfinished = torch.ones(rows, dtype=torch.bool, device=device)
        self.inputs = torch.arange(self.num_inputs, device=device).repeat_interleave(rows // self.num_inputs)
        self.ends = torch.full((rows,), NEVER, device=device)

    @property
    def rows(self) -> int:
        """How many rows are decoded."""
        return self.history.rows

    @property
    def max_length(self) -> int:
        """A row of this length is done."""
        return self.stopping.max_length

    @property
    def decoded(self) -> Tensor:
        """How many tokens each row has decoded: `[rows]`, long."""
        history = self.history
        if history.level is not None:
            return torch.full((history.rows,), history.level - history.prompt, device=self.device)
        return history.lengths - history.prompt

    @property
    def host_reads_freely(self) -> bool:
        """Whether the host may read tensors: without waiting for a device, or in a population, which waits."""
        return self.abilities.population or host_sync.is_free(self.device)

    @property
    def first_rows(self) -> slice | Tensor:
        """One row of each input, the first."""
        if not self.abilities.population:
            return slice(None, None, self.rows // self.num_inputs)
        return (self.inputs == torch.arange(self.num_inputs, device=self.device)[:, None]).int().argmax(1)

    @property
    def reads_scores(self) -> bool:
        """Whether scores are wanted beside the tokens drawn from them: to be returned, or by a criterion."""
        return self.recorder.scores is not None or self.stopping.needs_scores

    def finish_rows(self, done: Tensor) -> None:
        """These rows, `[rows]`, bool, are done: they take padding from now on, where there is any."""
        self.unfinished = self.unfinished & ~done
        self.some_done = True
        self.pads = self.ending and self.stopping.by_row and self.vocabulary.pad is not None

    def limit(self, longest: int) -> None:
        """The host learns that no row is longer than `longest`."""
        self.history.limit(longest)
        self.engine.limit(longest - 1)

    def sequences(self) -> Tensor:
        """What has been decoded, `[rows, length]`, long, padded on the right."""
        if self.result is not None:
            return self.result
        if self.history.level is not None:
            return self.history.ids
        lengths = self.history.lengths
        ids = self.history.buffer[:, : int(lengths.max())]
        pad = self.vocabulary.pad if self.vocabulary.pad is not None else 0
        return ids.masked_fill(torch.arange(ids.shape[1], device=self.device) >= lengths[:, None], pad)

    def open_engine(self, model: Any, input_ids: Tensor, attention_mask: Tensor, longest: int) -> Engine:
        """An engine for a second model or context, whose rows get at most `longest` tokens long."""
        engine = self.surroundings.open_engine(
            model, input_ids, attention_mask, max(longest, input_ids.shape[1] + 1)
        )  # fmt: skip
        self.side_engines.append(engine)
        return engine

    def close_engine(self, engine: Engine) -> None:
        """Give back an engine of `open_engine` before the call ends."""
        self.side_engines.remove(engine)
        engine.close()

    def release(self) -> None:
        """The call has ended: let go of what refers back here, so that memory goes with the last reference to it."""
        self.surroundings = Surroundings(_ended)
        self.chain.release()
        self.stopping.others = []
        self.draft_models.clear()


def _ended(model: Any, input_ids: Tensor, attention_mask: Tensor, longest: int) -> Engine:
    raise DecodingError("the call has ended: a session opens no model beside the first any more")
