"""The session: what a strategy may do with a running call. Its work is done by the modules around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CancelledError, DecodingError, GenmodeError, UnsupportedError
from ..hf.embeddings import lookup_failure
from .draft_model import DraftModel
from .draft_scorer import DraftScorer
from .judging import check_draft, check_result
from .noise import SeededNoise, TorchNoise, drawn_freely, drawn_from
from .population import arrange, drop, follow, fork, restart
from .probe import probe
from .readback import AsyncReadback
from .recording import CallReplay
from .scorer import Scorer
from .scores import StepScores
from .step import DecodingStep
from .step_end import StepEnd
from .trees import filled, tree_form

if TYPE_CHECKING:
    from ..contract.history import History
    from ..contract.session import Look
    from .state import DecodeState

DRAFT_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""On a device, drafts are filled up to one of these: a forward is captured once for each width."""


def filling(tokens: Tensor) -> int:
    """How many tokens are missing from a draft `[rows, k]` to one of the widths that are captured."""
    width = tokens.shape[1]
    return next((one for one in DRAFT_WIDTHS if one >= width), width) - width


class DecodingSession:
    """See `genmode.contract.session.Session`.

    Args:
        state: the call.
        observe: is called with each step once it is committed; None for nobody.
    """

    def __init__(self, state: DecodeState, observe: Callable[[DecodingStep], None] | None = None) -> None:
        self._state, self._observe = state, observe
        self._end = StepEnd(state)
        self._scores: StepScores | None = None
        self._step: DecodingStep | None = None
        given, vocabulary = state.given, state.vocabulary
        self.model, self.tokenizer, self.generation_config = given.model, given.tokenizer, given.config
        self.assistant_model, self.assistant_tokenizer = given.assistant_model, given.assistant_tokenizer
        self.vocab_size, self.eos_token_ids, self.pad_token_id = vocabulary
        self.device, self.num_inputs = state.device, state.num_inputs
        self.prompt_length, self.max_length = state.history.prompt, state.max_length
        self.replay = CallReplay(state)

    @property
    def rows(self) -> int:
        return self._state.rows

    @property
    def inputs(self) -> Tensor:
        return self._state.inputs

    @property
    def history(self) -> History:
        return self._state.history

    @property
    def unfinished(self) -> Tensor:
        return self._state.unfinished

    def steps(self, *, ending: bool = True) -> Iterator[DecodingStep]:
        state = self._state
        if state.backtracking is not None and not ending:
            raise DecodingError(
                f"the strategy decides itself which rows are done, and {state.backtracking.named} may take tokens back; "
                'a strategy whose rows cannot go back states needs = {"reorder"}'
            )
        if not state.begins:
            raise DecodingError(
                "a second loop over session.steps(): the rows are what the first made of them. "
                "session.restart(lengths) lets them begin again behind a prefix"
            )
        state.begins, state.ending, state.pads = False, ending, False
        if state.some_done:
            state.finish_rows(~state.unfinished)
        if state.step_index >= 0 and (state.stopping.late or not bool(state.unfinished.any())):
            return
        if state.step_index < 0:
            state.ready_logits = self._guarded(self._prefill)
        raw = self._guarded(self._forward)
        while True:
            state.step_index += 1
            self.check_cancelled()
            self._end.check_logits(state, raw)
            state.noise.mark()
            draft = state.verifying = state.draft
            state.draft = None
            state.held, state.climbing = 0 if draft is None else draft.shape[1], state.form is not None
            scores = self._scores = StepScores(state, raw, draft)
            step = self._step = DecodingStep(state, scores)
            yield step
            if not step.committed:
                raise DecodingError(f"the strategy ended step {step.index} without commit(tokens)")
            if self._observe is not None:
                self._observe(step)
            if self._end.reached(state, scores):
                break
            if state.backtracking is not None:
                state.backtracking.check(state.step_index)
            raw = self._guarded(self._forward)
        self._end.wait_for_peers(self._forward)

    def _prefill(self) -> Tensor:
        """The prompt's forward; rows that have come before it are given its results."""
        state = self._state
        raw, moved = state.engine.prefill(), state.moved
        follow(state)
        return raw if moved is None else raw.index_select(0, moved)

    def _forward(self) -> Tensor:
        """The next forward: each row's last token, and the draft behind it."""
        state = self._state
        follow(state)
        ready, state.ready_logits = state.ready_logits, None
        if ready is None:
            fed = state.history.last()
            if state.draft is not None:
                fed = torch.cat([fed, state.draft], dim=1)
            return state.engine.forward(fed) if state.form is None else state.engine.tree(fed, state.form)
        if state.draft is None:
            return ready
        return torch.cat([ready[:, None], state.engine.forward(state.draft)], dim=1)

    def _guarded(self, forward: Callable[[], Tensor]) -> Tensor:
        state = self._state
        try:
            return forward()
        except GenmodeError:
            raise
        except torch.OutOfMemoryError as error:
            state.engine.free()
            advice = "fewer rows (batch, num_beams, num_return_sequences) or a smaller max_new_tokens need less"
            text = f"{error} genmode was decoding {self.rows} rows of up to {self.max_length} tokens: {advice}"
            error.args = (text,)
            raise
        except Exception as error:
            reason = ""
            if isinstance(error, IndexError) and state.history.level is not None:
                reason = lookup_failure(self.model, state.history.ids)
            raise DecodingError(
                f"the model's forward failed: {reason or f'{type(error).__name__}: {error}'}",
                step=max(state.step_index, 0),
            ) from error

    def flush(self) -> None:
        """The strategy has returned: hand the streamer what is left."""
        if self._state.abilities.population and self._state.result is None:
            arrange(self._state)
        self._end.flush(self._state)

    def fork(self, rows: Tensor) -> None:
        self._between("fork")
        fork(self._state, rows)

    def drop(self, rows: Tensor) -> None:
        self._between("drop")
        drop(self._state, rows)

    def restart(self, lengths: Tensor) -> None:
        self._between("restart")
        restart(self._state, lengths)

    def probe(self, tokens: Tensor) -> Look:
        return probe(self._state, tokens)

    def _between(self, verb: str) -> None:
        """Raises if rows cannot change now."""
        if not self._state.abilities.population:
            raise UnsupportedError(f'{verb} changes the rows; a strategy that does so states needs = {{"population"}}')
        if self._step is not None and not self._step.committed:
            raise ValueError(f"{verb} comes behind commit(tokens), when the step is over")

    def stop_when(self, flag: Tensor) -> None:
        self._state.stop_flag = flag

    def done_after(self, rows: Tensor, tokens: Tensor) -> Tensor:
        state, scores = self._state, self._scores
        history, stopping = state.history, state.stopping
        lengths = history.lengths.index_select(0, rows) + 1 if history.level is None else None
        if stopping.late or (history.level is not None and history.level + 1 >= self.max_length):
            return torch.ones_like(tokens, dtype=torch.bool)
        done = stopping.ends(tokens)
        if lengths is not None:
            longest = lengths >= self.max_length
            done = longest if done is None else done | longest
        if stopping.others:
            if scores is not None:
                scores.record()  # criteria of transformers read the scores of this step as well
            continued = history.continued(rows, tokens)
            more = stopping.check(
                continued,
                lambda: scores.scores.index_select(0, rows) if scores is not None else torch.empty(0),
                rows,
            )
            if more is not None:
                done = more if done is None else done | more
        return torch.zeros_like(tokens, dtype=torch.bool) if done is None else done

    def settle(self, final: Callable[[], tuple[Tensor, int]]) -> None:
        if self._state.emitter is not None:
            self._state.emitter.reach(*final())

    def finish(self, sequences: Tensor, *, scores: Tensor | None = None, beam_indices: Tensor | None = None) -> None:
        if scores is not None:
            check_result(self._state, scores)
        self._state.result = sequences
        self._state.beams = {"sequences_scores": scores, "beam_indices": beam_indices}

    def check_cancelled(self) -> None:
        around = self._state.surroundings
        cancelled = around.cancelled is not None and around.cancelled()
        if around.agree is not None and around.cancelled is not None:
            cancelled = around.agree(cancelled)
        if cancelled:
            raise CancelledError("the call was cancelled; the error's `sequences` holds what was decoded")

    def draft(self, tokens: Tensor, *, parents: Tensor | None = None, counts: Tensor | None = None) -> None:
        state, room = self._state, self.draft_room
        check_draft(state, tokens)
        state.form = None
        prompt_alone = state.step_index < 0 and state.recorder.keeps_states  # those of the prompt's forward are kept
        has_root = state.ready_logits is not None or state.step_index < 0  # what is run already is no root of a tree
        if room < 1 or prompt_alone or (parents is not None and has_root):
            state.draft = None
        elif parents is not None:
            form = tree_form(state, tokens, parents, counts, room)
            state.draft, state.form = (
                (tokens, form) if state.host_reads_freely else filled(tokens, form, filling(tokens))
            )
        elif state.host_reads_freely:
            state.draft = tokens[:, :room]
        else:
            fill = filling(tokens)
            state.draft = tokens if not fill else torch.cat([tokens, tokens[:, -1:].expand(-1, fill)], dim=1)

    @property
    def draft_room(self) -> int:
        state = self._state
        if state.host_reads_freely:
            lengths = state.history.lengths[state.unfinished]
            shortest = int(lengths.min()) if len(lengths) else self.max_length
        else:
            shortest = state.history.level or self.prompt_length + 1
        return max(0, self.max_length - 1 - shortest)

    def forced_tokens(self, sample: bool) -> Callable[[], tuple[Tensor, Tensor] | None] | None:
        state = self._state
        free = not sample or isinstance(state.noise, SeededNoise)
        if not (state.chain.may_force and state.abilities.rewinds and free and not state.recorder.active):
            return None
        return self._forced

    def _forced(self) -> tuple[Tensor, Tensor] | None:
        room = self.draft_room
        return self._state.chain.forced_tokens(room) if room > 0 else None

    def draft_model(
        self, model: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        longest: int | None = None,
    ) -> DraftModel:  # fmt: skip
        if input_ids is None:
            input_ids = self._state.history.ids
            columns = torch.arange(input_ids.shape[1], device=self.device)
            attention_mask = columns >= self._state.history.starts[:, None]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return DraftModel(self._state, model, input_ids, mask, self.max_length if longest is None else longest)

    def draft_scorer(self, *, share_randomness: bool = False) -> DraftScorer:
        if share_randomness and not isinstance(self._state.noise, SeededNoise):
            self._state.noise = SeededNoise(torch.randint(2**62, (self.rows,), device=self.device))
        return DraftScorer(self._state, share_randomness)

    def scorer(self, scorer: Any) -> Scorer:
        return Scorer(self._state, scorer)

    def async_readback(self, width: int) -> AsyncReadback:
        return AsyncReadback(self.device, width)

    def multinomial(self, probabilities: Tensor, count: int = 1) -> Tensor:
        noise = self._state.noise
        if isinstance(noise, TorchNoise):
            found: Tensor = self.replay(drawn_freely, probabilities, count)
            return found
        if probabilities.shape[0] != self.rows:
            noise = noise.of(self._state.first_rows)
        return drawn_from(noise, probabilities, count)

    def uniform(self, count: int | None = None) -> Tensor:
        return self._state.noise.uniform(count)

    def release(self) -> None:
        """The call has ended: let go of what refers back here.

        The session and its cache then go with their last user, and do not wait for Python's garbage collector.
        """
        self._scores = self._observe = self._step = None
