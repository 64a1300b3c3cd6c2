"""The session: one running call, and everything a strategy may use.

A strategy sees rows, scores and tokens. Prefill, caches, masks, positions, padding of finished rows,
streaming, stopping and output recording are the session's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import CancelledError, DecodingError, GenmodeError
from . import stopping as stopping_module
from .chain import Chain
from .commit import record
from .companion import Companion
from .conclude import Conclusion
from .engine import Engine
from .forerunner import Forerunner
from .history import History
from .lookup import lookup_failure
from .outputs import Recorder
from .random import Noise, SeededNoise, TorchNoise, drawn_freely, drawn_from
from .rehearsal import Rehearsal
from .retreat import Retreat
from .step import Step
from .stopping import Flags, Stopping, TransformersCriterion
from .stream import Emitter


class Session:
    """One running call.

    Attributes:
        model: the model that is decoded.
        tokenizer: its tokenizer if the caller gave one, else None.
        assistant_model, assistant_tokenizer: a draft model and its tokenizer if the caller gave them.
        generation_config: the transformers config in force; read-only.
        device: where tokens and scores are.
        rows: how many rows are decoded; `copies` neighbouring rows belong to one input.
        inputs, copies: how many inputs there are, and how many rows each has.
        vocab_size: length of a row of scores.
        eos_token_ids, pad_token_id: ids that end a row, and the id that pads it.
        max_length: a row of this length, prompt included, is done.
        history: the tokens so far.
        unfinished: `[rows]`, bool: rows that are still decoded.
        encoder_input_ids: `[inputs or rows, length]`, long, of an encoder-decoder model; else None.
        retracts: whether a processor of this call may take back what was decoded.
        withdrawn: `[rows]`, long: how many tokens each row has taken back so far; 0 where none can.
    """

    def __init__(
        self, *, model: Any, tokenizer: Any, config: Any, engine: Engine, history: History, chain: Chain,
        stopping: Stopping, noise: Noise, recorder: Recorder, emitter: Emitter | None, inputs: int,
        pad_token_id: int | None, vocab_size: int, encoder_input_ids: Tensor | None,
        cancelled: Callable[[], bool] | None, agree: Callable[[bool], bool] | None,
        peers: Callable[[bool], bool] | None, observe: Callable[[Session, Step], None] | None,
        drafts: bool, rewinds: bool, retracts: bool,
        open_beside: Callable[[Any, Tensor, Tensor, int], Engine],
        assistant_model: Any = None, assistant_tokenizer: Any = None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.generation_config = model, tokenizer, config
        self.assistant_model, self.assistant_tokenizer = assistant_model, assistant_tokenizer
        self.engine, self.history, self.chain, self.noise = engine, history, chain, noise
        self.stopping, self.recorder, self.emitter = stopping, recorder, emitter
        self.device = history.tokens.device
        self.rows = history.rows
        self.inputs, self.copies = inputs, history.rows // inputs
        self.vocab_size, self.pad_token_id = vocab_size, pad_token_id
        self.eos_token_ids, self.max_length = stopping.eos, stopping.max_length
        self.encoder_input_ids = encoder_input_ids
        self.unfinished = torch.ones(self.rows, dtype=torch.bool, device=self.device)
        self.step_index = -1
        self.beams: dict[str, Any] | None = None
        self._cancelled, self._agree, self._observe = cancelled, agree, observe
        self._open_beside, self._rewinds = open_beside, rewinds
        self.beside: list[Engine] = []
        self.result: Tensor | None = None
        self._step: Step | None = None
        self._draft: Tensor | None = None
        self._foreseen: Tensor | None = None
        self.stop_flag: Tensor | None = None
        self.ending = True
        self.pads = False
        self.some_done = False
        self.fed = 1
        self.retracts = retracts
        self.retreat = Retreat(self) if retracts else None
        self.withdrawn: Tensor | int = 0
        self._conclusion = Conclusion(self, drafts or retracts, agree, peers)

    # What a strategy calls -------------------------------------------------------------------------

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt in every row, left padding included."""
        return self.history.prompt

    @property
    def decoded(self) -> Tensor:
        """How many tokens each row has decoded: `[rows]`, long."""
        history = self.history
        if history.uniform is not None:
            return torch.full((history.rows,), history.uniform - history.prompt, device=self.device)
        return history.lengths - history.prompt

    def steps(self, *, ending: bool = True) -> Iterator[Step]:
        """Run the prompt, then one forward for each commit, until all rows are done.

        Args:
            ending: False for strategies that decide themselves which rows are done, as beams do: rows are
                then neither padded nor dropped, and only `max_length`, the deadline, `stop_when` and
                cancellation end the loop.
        """
        if self.retreat is not None and not ending:
            raise DecodingError(
                f"the strategy decides itself which rows are done, and {self.retreat.named} may take tokens back; "
                'a strategy whose rows cannot go back states needs = {"reorder"}'
            )
        self.ending = ending
        self.pads = False
        raw = self._guard(self.engine.prefill)
        while True:
            self.step_index += 1
            self.check_cancelled()
            self._conclusion.note(self, raw)
            self.noise.mark()
            step = self._step = Step(self, self.step_index, raw, self._draft)
            self._draft = None
            yield step
            if not step.committed:
                raise DecodingError(f"the strategy ended step {step.index} without commit(tokens)")
            if self._observe is not None:
                self._observe(self, step)
            if self._conclusion.reached(self, step):
                break
            if self.retreat is not None:
                self.retreat.check(self.step_index)
            raw = self._guard(self._forward)
        self._conclusion.wait_for_peers(self._forward)

    def _forward(self) -> Tensor:
        ready, self._foreseen = self._foreseen, None
        if ready is None:
            return self.engine.forward(self._pending())
        if self._draft is None:
            return ready
        return torch.cat([ready[:, None], self.engine.forward(self._draft)], dim=1)

    def draft(self, tokens: Tensor) -> None:
        """Guess how rows continue: `[rows, k]`, long; the next forward runs the guesses as well.

        Call it after the commit. A wrong guess costs nothing but its share of the forward. On the CPU, what no
        row has room for is left out; a device has a forward of that width captured already.
        """
        room = self.draft_room
        if room < 1:
            self._draft = None
        else:
            self._draft = tokens[:, :room] if self.reads_freely else tokens

    @property
    def draft_room(self) -> int:
        """How many tokens a draft can be of use for, where the host knows it; else a bound on that."""
        if self.reads_freely:
            lengths = self.history.lengths[self.unfinished]
            shortest = int(lengths.min()) if len(lengths) else self.max_length
        else:
            shortest = self.history.uniform or self.prompt_length + 1
        return max(0, self.max_length - 1 - shortest)

    def foretells(self, sample: bool) -> bool:
        """Whether `foretold` may be used without changing a result: by a strategy that samples, or does not.

        False where no processor knows how rows go on, where the model cannot go back, and for sampling with
        torch's generator, whose numbers depend on how many were drawn for drafts; with `seed=` they do not. Nor
        where each step is recorded.
        """
        free = not sample or isinstance(self.noise, SeededNoise)
        return self.chain.proposes and self._rewinds and free and not self.recorder.active

    def foretold(self) -> tuple[Tensor, Tensor] | None:
        """What processors know of how rows go on, e.g. what a grammar forces; call it behind a commit.

        Returns:
            Tokens `[rows, k]`, long, for `draft`, and how many of them are meant in each row, `[rows]`, long;
            None where nothing is known.
        """
        room = self.draft_room
        return self.chain.propose(room) if room > 0 else None

    def check_cancelled(self) -> None:
        """Raise `CancelledError` if the call was cancelled.

        `steps` does so before each step. For strategies that run many forwards between two of them.
        """
        cancelled = self._cancelled is not None and self._cancelled()
        if self._agree is not None and self._cancelled is not None:
            cancelled = self._agree(cancelled)
        if cancelled:
            raise CancelledError("the call was cancelled; the error's `sequences` holds what was decoded")

    def stop_when(self, flag: Tensor) -> None:
        """End the loop after this step if `flag` (one bool, on the device) is true.

        On a device the host reads it one step late; what was decoded meanwhile is taken back.
        """
        self.stop_flag = flag

    def done_after(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which candidates would be done: row `rows[i]` continued by `tokens[i]`; `[n]`, bool.

        Raises:
            ValueError: if rows differ in length.
        """
        length = self.history.uniform
        if length is None:
            raise ValueError("done_after needs rows of one length")
        if length + 1 >= self.max_length or self.stopping.late:
            return torch.ones_like(tokens, dtype=torch.bool)
        done = self.stopping.ends(tokens)
        if self.stopping.others:
            if self._step is not None:
                record(self, self._step)  # criteria of transformers read the scores of this step as well
            ids = torch.cat([self.history.ids.index_select(0, rows), tokens[:, None]], dim=1)
            starts = self.history.starts.index_select(0, rows)
            lengths = torch.full_like(starts, length + 1)
            step = self._step
            more = self.stopping.check(
                History(ids, lengths, starts, self.history.prompt, length + 1),
                lambda: step.scores.index_select(0, rows) if step is not None else torch.empty(0),
                rows,
            )
            if more is not None:
                done = more if done is None else done | more
        return torch.zeros_like(tokens, dtype=torch.bool) if done is None else done

    @property
    def token_endings(self) -> stopping_module.ByTokens | None:
        """Which candidates end, `(rows, tokens) -> bool`, as a constant for `replay`, where their tokens alone decide.

        The maximum length is not looked at. None where more than tokens decides, see `done_after`.
        """
        return self.stopping.by_tokens

    @property
    def reads_scores(self) -> bool:
        """Whether scores are wanted beside the tokens drawn from them: to be returned, or by a criterion."""
        return self.recorder.scores is not None or self.stopping.needs_scores

    @property
    def streams(self) -> bool:
        """Whether somebody waits for tokens while they are decoded."""
        return self.emitter is not None

    def settle(self, tokens: Tensor, length: int) -> None:
        """Stream what can no longer change, for strategies with `steps(ending=False)`.

        Args:
            tokens: `[inputs, at least length]`, long, prompt included.
            length: how many leading tokens are final.
        """
        if self.emitter is not None:
            self.emitter.reach(tokens, length)

    def companion(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *, model: Any = None
    ) -> Companion:
        """A second model, or the same on another context, that follows what the rows decode.

        Args:
            input_ids: `[rows, length]`, `[inputs, length]` or `[1, length]`, long, padded on the left: the context;
                None for the prompt of this call.
            attention_mask: as for `generate`; None where nothing is padding.
            model: None for this call's own model. It may be on another device.

        Raises:
            ParameterError: if the number of contexts, the vocabulary or the kind of model does not fit.
            UnsupportedError: if rows may go back (drafting), and the model's cache cannot.
        """
        model = self.model if model is None else model
        own = input_ids is None
        if input_ids is None:
            input_ids = self.history.ids[:, : self.history.prompt]
            attention_mask = torch.arange(self.history.prompt, device=self.device) >= self.history.starts[:, None]
        return Companion(self, model, input_ids, attention_mask, own)

    def forerunner(
        self, model: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        longest: int | None = None,
    ) -> Forerunner:  # fmt: skip
        """A second model that runs ahead of the rows, for drafting.

        Args:
            model: any decoder-only model beside one; an encoder-decoder model beside one that has read the
                same input.
            input_ids: `[rows, length]`, long: the context; None for what has been decoded so far.
            attention_mask: as for `generate`; with `input_ids` alone.
            longest: how many tokens a row may get; None for as many as in this call.

        Raises:
            ParameterError: the models are of different kinds.
            UnsupportedError: the model cannot go back, or there is nothing that it could read.
        """
        if input_ids is None:
            input_ids = self.history.ids
            attention_mask = torch.arange(input_ids.shape[1], device=self.device) >= self.history.starts[:, None]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return Forerunner(self, model, input_ids, mask, self.max_length if longest is None else longest)

    def rehearse(self) -> Rehearsal:
        """Score and draw tokens that are only guessed, with the call's processors; see `Rehearsal`."""
        return Rehearsal(self)

    def pin_draws(self) -> None:
        """Make every draw a function of the row and its position, so that a guess can be drawn ahead of it.

        So it is under `seed=`; else the rows get seeds from torch's generator. Call it before `steps`.
        """
        if not isinstance(self.noise, SeededNoise):
            self.noise = SeededNoise(torch.randint(2**62, (self.rows,), device=self.device))

    def carrier(self, width: int) -> Flags:
        """Brings `width` numbers a step from the device to the host without waiting for it; see `Flags`."""
        return Flags(self.device, width)

    @property
    def reads_freely(self) -> bool:
        """Whether the host may read tensors without waiting for a device."""
        return stopping_module.reads_freely(self.device)

    def replay(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` gives; where CUDA graphs are in use, in one launch from the third time on.

        Args:
            function: defined in a module, with no state of its own; it reads nothing but its arguments, waits for
                no device, and returns a tensor or a tuple of them.
            arguments: tensors, and constants that can be hashed. Another constant or shape is another recording:
                what changes from step to step is to be a tensor.

        Returns:
            What the function returns. It is overwritten when the same function runs again.
        """
        return self.engine.replay(function, *arguments)

    def surely_none(self, mask: Tensor) -> bool:
        """Whether no element is true, where the host can tell for free; False means that it cannot tell."""
        return self.reads_freely and not bool(mask.any())

    def multinomial(self, probabilities: Tensor, count: int = 1) -> Tensor:
        """Draw without replacement from each row of `[n, m]` weights: `[n, count]`, long.

        Rows must be the session's rows or its inputs. The same draws as `torch.multinomial` makes from
        torch's generator, but without its checks, which wait for the device.
        """
        if isinstance(self.noise, TorchNoise):
            found: Tensor = self.replay(drawn_freely, probabilities, count)
            return found
        noise = self.noise if probabilities.shape[0] == self.rows else self.noise.strided(self.copies)
        return drawn_from(noise, probabilities, count)

    @property
    def pure_multinomial(self) -> Callable[[Tensor, int], Tensor] | None:
        """`multinomial` as a constant for `replay`; None under `seed=`, where draws depend on the rows."""
        return drawn_freely if isinstance(self.noise, TorchNoise) else None

    def uniform(self) -> Tensor:
        """One number in [0, 1) for each row: `[rows]`, float32."""
        return self.noise.uniform()

    def finish(self, sequences: Tensor, *, scores: Tensor | None = None, beam_indices: Tensor | None = None) -> None:
        """State the result, for strategies whose result is not simply the rows.

        Args:
            sequences: `[results, length]`, long, prompt included, padded on the right.
            scores: `[results]`, float32; a result's score.
            beam_indices: `[results, decoded]`: the row that each token was chosen in, -1 behind the end.
        """
        self.result = sequences
        self.beams = {"sequences_scores": scores, "beam_indices": beam_indices}

    # What the host calls ---------------------------------------------------------------------------

    def sequences(self) -> Tensor:
        """What has been decoded, `[rows, length]`, long, padded on the right."""
        if self.result is not None:
            return self.result
        if self.history.uniform is not None:
            return self.history.ids
        lengths = self.history.lengths
        ids = self.history.tokens[:, : int(lengths.max())]
        pad = self.pad_token_id if self.pad_token_id is not None else 0
        return ids.masked_fill(torch.arange(ids.shape[1], device=self.device) >= lengths[:, None], pad)

    def open_beside(self, model: Any, input_ids: Tensor, attention_mask: Tensor, longest: int) -> Engine:
        """An engine for a second model or context, whose rows get at most `longest` tokens long."""
        engine = self._open_beside(model, input_ids, attention_mask, max(longest, input_ids.shape[1] + 1))
        self.beside.append(engine)
        return engine

    def close_beside(self, engine: Engine) -> None:
        """Give back an engine of `open_beside` before the call ends."""
        self.beside.remove(engine)
        engine.close()

    def foresee(self, logits: Tensor, taken: Tensor) -> None:
        """The next forward has been run by `Step.look`: `logits` `[rows, k, vocab]`, candidate `taken` `[rows]`."""
        self.engine.take(taken)
        self._foreseen = logits.gather(1, taken[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]

    def _pending(self) -> Tensor:
        """What the next forward feeds: each row's last token and the draft, `[rows, 1 + k]`."""
        history = self.history
        if history.uniform is not None:
            last = history.tokens[:, history.uniform - 1 : history.uniform]
        else:
            last = history.tokens.gather(1, (history.lengths - 1)[:, None])
        return last if self._draft is None else torch.cat([last, self._draft], dim=1)

    def _guard(self, forward: Callable[[], Tensor]) -> Tensor:
        try:
            return forward()
        except GenmodeError:
            raise
        except torch.OutOfMemoryError as error:
            self.engine.free()
            advice = "fewer rows (batch, num_beams, num_return_sequences) or a smaller max_new_tokens need less"
            text = f"{error} genmode was decoding {self.rows} rows of up to {self.max_length} tokens: {advice}"
            error.args = (text,)
            raise
        except Exception as error:
            reason = ""
            if isinstance(error, IndexError) and self.history.uniform is not None:
                reason = lookup_failure(self.model, self.history.ids)
            raise DecodingError(
                f"the model's forward failed: {reason or f'{type(error).__name__}: {error}'}",
                step=max(self.step_index, 0),
            ) from error

    def finish_rows(self, done: Tensor) -> None:
        """These rows, `[rows]`, bool, are done: they take padding from now on, where there is any."""
        self.unfinished = self.unfinished & ~done
        self.some_done = True
        self.pads = self.ending and bool(self.eos_token_ids) and self.pad_token_id is not None

    def flush(self) -> None:
        """The strategy has returned: hand the streamer what is left."""
        self._conclusion.flush(self)

    def release(self) -> None:
        """The call has ended: let go of what refers back here.

        The session and its cache then go with their last user, and do not wait for Python's garbage collector.
        """
        self._step = self._observe = None
        self._open_beside = _ended
        self.chain, self.stopping.others = Chain([]), []

    def share_scores(self) -> None:
        """Let transformers' criteria see the recorded scores, as transformers passes them."""
        for one in self.stopping.others:
            if isinstance(one, TransformersCriterion):
                one.recorded = self.recorder.scores


def _ended(model: Any, input_ids: Tensor, attention_mask: Tensor, longest: int) -> Engine:
    raise DecodingError("the call has ended: a session opens no model beside the first any more")
