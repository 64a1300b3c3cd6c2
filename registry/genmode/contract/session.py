"""What a strategy is given: a session, its steps, and what drafts are made with. Protocols; the host implements them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor

    from .history import History
    from .scorer import Scorer


class Look(NamedTuple):
    """What the model says behind each candidate of `Step.look`.

    Attributes:
        logits: `[rows, k, vocab]`, float32.
        hidden: `[rows, k, size]`, the last layer's hidden states in the model's dtype; None unless the
            strategy needs "hidden_states".
    """

    logits: Tensor
    hidden: Tensor | None


class Accepted(NamedTuple):
    """What of a draft rows would have chosen themselves, as `Step.commit` takes it; see `Step.accepted`.

    Attributes:
        tokens: `[rows, m + 1]`, long: of each row the accepted tokens, and the one that it chose behind them.
        counts: `[rows]`, long: how many of them it takes.
        path: `[rows, m]`, long: which nodes of a tree they are; None for chains.
    """

    tokens: Tensor
    counts: Tensor
    path: Tensor | None


class Step(Protocol):
    """What the model says of each row's next token, until the strategy commits its choice.

    Tensors read from a step are valid until the next one.

    Attributes:
        index: counted from 0; step 0 is the prompt's.
        draft: `[rows, k]`, long: the tokens that `Session.draft` proposed and this forward has run; None if there
            are none. "Each position" below is behind the last token and behind each of them: of a chain one behind
            the other, of a tree each with its own ancestors as its past.
    """

    @property
    def index(self) -> int: ...
    @property
    def draft(self) -> Tensor | None: ...

    @property
    def logits(self) -> Tensor:
        """The model's logits of the next token, before any processor: `[rows, vocab]`, float32."""
        ...

    @property
    def scores(self) -> Tensor:
        """The logits after all processors: `[rows, vocab]`, float32.

        A strategy may set scores of its own: `sample` draws from them, and they are recorded.
        """
        ...

    @scores.setter
    def scores(self, value: Tensor) -> None: ...

    @property
    def each_scores(self) -> Tensor:
        """`scores` at each position of the draft and behind it: `[rows, k + 1, vocab]`, float32.

        Instead of `best(each=True)` and `sample(each=True)`. `Session.uniform` and `multinomial` then draw numbers that
        are the step's own, whatever processors draw at its positions.
        """
        ...

    @property
    def log_probabilities(self) -> Tensor:
        """log_softmax of `logits`: `[rows, vocab]`, float32."""
        ...

    @property
    def log_scores(self) -> Tensor:
        """Log-probabilities after all processors, which here act on them: `[rows, vocab]`, float32.

        What beam strategies add up. They become the step's scores.
        """
        ...

    @property
    def outputs(self) -> Any:
        """What the model returned, for strategies that need hidden states or attentions."""
        ...

    def process(self, values: Tensor) -> Tensor:
        """Run the processors on values of the strategy's own, e.g. log-probabilities: `[rows, vocab]`, float32.

        `values` is left as it is, and is returned if the call has no processors.
        """
        ...

    def best(self, *, each: bool = False) -> Tensor:
        """The token with the highest score in each row, the first of equals: `[rows]`, long.

        The same as `scores.argmax(-1)`, and cheaper on a device.

        Args:
            each: at each position of the draft and behind it: `[rows, k + 1]`.
        """
        ...

    def sample(self, *, each: bool = False) -> Tensor:
        """Draw each row's next token from softmax(scores): `[rows]`, long.

        The token that transformers' sampling would draw from torch's generator, or under `seed=` one that depends on
        the row alone.

        Args:
            each: at each position of the draft and behind it: `[rows, k + 1]`. As long as the drawn tokens equal the
                draft, later draws have the right history, so accepting the longest such prefix and the draw behind it
                has exactly the distribution of plain sampling.
        """
        ...

    def accepted(self, chosen: Tensor) -> Accepted:
        """The longest way into the draft along which every token is what was chosen there.

            found = step.accepted(step.best(each=True))
            step.commit(found.tokens, counts=found.counts, path=found.path)

        Args:
            chosen: `[rows, k + 1]`, long: what each row chose at each position, by `best` or `sample`.
        """
        ...

    def look(self, tokens: Tensor, *, one_by_one: bool = False) -> Look:
        """Run several candidates for each row's next token, each as if it were the only one.

        Commit one of them with `taken=`, and its forward is not run again.

        Args:
            tokens: `[rows, k]`, long.
            one_by_one: run them in k forwards instead of one, which takes less memory.

        Raises:
            ValueError: a draft is being verified, or processors may take tokens back.
        """
        ...

    def commit(
        self, tokens: Tensor, *, rows: Tensor | None = None, counts: Tensor | None = None,
        taken: Tensor | None = None, path: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Each row continues with its token; ends the step. A row that has ended takes padding instead.

        Args:
            tokens: `[rows]`, long; or `[rows, k + 1]` together with `counts`.
            rows: `[rows]`, long: row i continues what row `rows[i]` was, a row of the same input, its draft included.
            counts: `[rows]`, long: how many of its tokens each row takes, at least 1, or in a population 0 for a row that
                waits. The first `counts - 1` must equal the draft.
            taken: `[rows]`, long: which of the candidates of `look` each row's token is. Not with `rows`.
            path: `[rows, m]`, long: where the draft was a tree, the nodes that the tokens are, one below the other; `tokens`
                is `[rows, m + 1]` then. Not with `rows`.

        Raises:
            ValueError: tokens of another form or vocabulary, or a row would continue another input's.
        """
        ...


class DraftModel(Protocol):
    """A model that runs ahead of the rows: it reads what they have decoded, then tokens that are only guessed.

    Attributes:
        model: the model that it runs, on that model's device.
        prompt: tokens of every row's context, left padding included.
    """

    model: Any
    prompt: int

    def catch_up(self, history: History, behind: int) -> Tensor:
        """Continue behind what the rows have become, and forget what was guessed.

        Args:
            history: the session's, or one in the draft model's own tokens if its vocabulary is another one. Every row
                begins with its context.
            behind: at most so many of each row's last tokens are new or not those that were fed. After a draft
                that was fed as it was guessed, 2: the last token of a draft is never fed.

        Returns:
            Logits behind each row's last token, `[rows, vocabulary of the model]`, float32, on the session's device.
        """
        ...

    def feed(self, tokens: Tensor) -> Tensor:
        """Each row goes on with the guess `tokens` `[rows]`, long; returns the logits behind it."""
        ...

    def close(self) -> None:
        """Give back what it took; done at the end of the call in any case."""
        ...


class DraftScorer(Protocol):
    """Scores and draws tokens that are only guessed, as they will be when they are verified.

        with scorer as guess:
            for _ in range(count):
                scores = guess.scores(logits)
                tokens = guess.draw(scores) if sample else scores.argmax(-1)
                guess.take(tokens)
                logits = draft_model.feed(tokens)
            draft = guess.tokens

    Processors see the guessed history, so penalties and bans act on a draft as they will on the text. On leaving the
    block all of it is taken back, and the session's random numbers go on where they were. A scorer serves one draft
    after the other.
    """

    def __enter__(self) -> DraftScorer: ...
    def __exit__(self, *exception: object) -> None: ...
    def __len__(self) -> int: ...

    @property
    def tokens(self) -> Tensor | None:
        """The guess so far: `[rows, k]`, long; None if it is empty."""
        ...

    def scores(self, logits: Tensor) -> Tensor:
        """`logits` `[rows, vocab]`, float32, behind the guess so far, after all processors; may be written."""
        ...

    def draw(self, scores: Tensor) -> Tensor:
        """A token of each row from softmax(scores): `[rows]`, long."""
        ...

    def take(self, tokens: Tensor) -> None:
        """The guess goes on with `tokens` `[rows]`, long."""
        ...


class AsyncReadback(Protocol):
    """Brings a few numbers a step to the host: at once on the CPU, one step late from a device, without waiting.

    Attributes:
        deferred: whether they come late.
    """

    deferred: bool

    def exchange(self, values: Tensor) -> Tensor | None:
        """Send `values` `[width]`, long; returns those of the step before on the host, None at the first.

        On the CPU the values themselves come back.
        """
        ...


class Replay(Protocol):
    """Functions that a device repeats, recorded once and replayed in one launch. Provisional, with all its members.

        found = session.replay(function, *arguments)

    `function` is defined in a module, has no state of its own, reads nothing but its arguments, waits for no device, and
    returns a tensor or a tuple of them. Arguments are tensors, and constants that can be hashed; another constant or
    shape is another recording, so what changes from step to step is to be a tensor. What is returned is overwritten when
    the same function runs again. Where nothing is recorded, the function simply runs.

    Attributes:
        processors: the call's processors as a constant to be called on values `[rows, vocab]` inside of a function;
            None where they cannot be recorded: call `Step.process` outside then.
        multinomial: `Session.multinomial` as a constant; None under `seed=`, where draws depend on the rows.
        endings: which candidates end, `(rows, tokens) -> bool`, as a constant; None where more than the tokens decides:
            see `Session.done_after`. The maximum length is not looked at.
    """

    @property
    def processors(self) -> Callable[[Tensor], Tensor] | None: ...
    @property
    def multinomial(self) -> Callable[[Tensor, int], Tensor] | None: ...
    @property
    def endings(self) -> Callable[[Tensor, Tensor], Tensor] | None: ...

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any: ...

    def buffer(self, width: int) -> Tensor:
        """The rows' tokens in a buffer of one shape for the whole call: `[rows, at least width]`, long.

        Columns behind a row's length are undefined.
        """
        ...


class Session(Protocol):
    """One running call, as its strategy sees it.

    A strategy sees rows, scores and tokens. Prefill, caches, masks, positions, padding of finished rows, streaming,
    stopping and the recording of outputs are the host's business.

    Attributes:
        model: the model that is decoded.
        tokenizer: its tokenizer; None if the caller gave none.
        assistant_model: a draft model, if the caller gave one.
        assistant_tokenizer: its tokenizer, if the caller gave one.
        generation_config: the transformers config in force; read-only.
        device: where tokens and scores are.
        rows: how many rows are decoded now.
        num_inputs: how many inputs there are; when the call begins, `rows / num_inputs` neighbouring rows belong to one.
        inputs: `[rows]`, long: which input each row belongs to.
        vocab_size: length of a row of scores.
        eos_token_ids: ids that end a row.
        pad_token_id: the id that pads a row that has ended; None if there is none.
        prompt_length: tokens of the prompt in every row, left padding included.
        max_length: a row of this length, prompt included, is done.
        history: the tokens so far.
        unfinished: `[rows]`, bool: rows that are still decoded.
        replay: functions recorded on a device; provisional.
    """

    @property
    def model(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def assistant_model(self) -> Any: ...
    @property
    def assistant_tokenizer(self) -> Any: ...
    @property
    def generation_config(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def rows(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def inputs(self) -> Tensor: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_token_ids(self) -> list[int]: ...
    @property
    def pad_token_id(self) -> int | None: ...
    @property
    def prompt_length(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def history(self) -> History: ...
    @property
    def unfinished(self) -> Tensor: ...
    @property
    def replay(self) -> Replay: ...

    def steps(self, *, ending: bool = True) -> Iterator[Step]:
        """Run the prompt, then one forward for each commit, until all rows are done.

        Args:
            ending: False for strategies that decide themselves which rows are done, as beams do: rows are
                then neither padded nor dropped, and only `max_length`, the deadline, `stop_when` and
                cancellation end the loop.

        Raises:
            DecodingError: a loop has run before, and no `restart` behind it.
        """
        ...

    def fork(self, rows: Tensor) -> None:
        """A new row for each of `rows` `[n]`, long, goes on from where that one is: the last rows from now on.

        Needs "population". Comes before the first step, whose prompt is run once for each row that there was, or
        behind a commit. Processors, criteria, side and draft models follow. Under `seed=` a forked row draws numbers of its
        own, a function of its parent and of how many rows that had forked before. Unless `finish` states another
        result, all rows are returned, those of one input together.

        Raises:
            ValueError: there is no such row, or the step is not committed.
            DecodingError: the rows do not fit into memory.
        """
        ...

    def drop(self, rows: Tensor) -> None:
        """Rows `rows` `[n]`, long, leave; the others keep their order, and the next forward is narrower.

        Needs "population"; comes as `fork` does.

        Raises:
            ValueError: an input would keep no row, there is no such row, or the step is not committed.
        """
        ...

    def restart(self, lengths: Tensor) -> None:
        """Row i keeps its first `lengths[i]` tokens, prompt and padding included, and is decoded anew from there.

        Needs "population" and "rollback". Comes behind a commit, in the loop over `steps` or after it; another loop
        may follow it, unless the deadline has passed. A row that keeps all of a text that has ended stays as it is. Random
        numbers are fresh ones, the limits those of the call.

        Args:
            lengths: `[rows]`, long, from `prompt_length` to what the row has.

        Raises:
            ValueError: a length is none of the row's, or what lies behind it has been streamed.
        """
        ...

    def stop_when(self, flag: Tensor) -> None:
        """End the loop after this step if `flag` (one bool, on the device) is true.

        On a device the host reads it one step late; what was decoded meanwhile is taken back.
        """
        ...

    def done_after(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which candidates would be done: row `rows[i]` continued by `tokens[i]`; `[n]`, bool."""
        ...

    def settle(self, final: Callable[[], tuple[Tensor, int]]) -> None:
        """Stream what can no longer change, for strategies with `steps(ending=False)`.

        Args:
            final: gives tokens `[inputs, at least length]`, long, prompt included, and `length`: how many leading
                tokens are final. Called only where somebody listens.
        """
        ...

    def finish(self, sequences: Tensor, *, scores: Tensor | None = None, beam_indices: Tensor | None = None) -> None:
        """State the result, for strategies whose result is not simply the rows.

        Args:
            sequences: `[results, length]`, long, prompt included, padded on the right.
            scores: `[results]`, float32; a result's score.
            beam_indices: `[results, decoded]`: the row that each token was chosen in, -1 behind the end.
        """
        ...

    def check_cancelled(self) -> None:
        """Raise `CancelledError` if the call was cancelled; `steps` does so before each step.

        For strategies that run many forwards between two steps.
        """
        ...

    def probe(self, tokens: Tensor) -> Look:
        """What the model would say behind hypothetical tokens: one forward, of which nothing is kept.

        From the first step on, at any time; while a step is under way its `logits` stay as they are. Costs a forward of k
        tokens a row, or of k + 1 behind a commit; on models whose state cannot go back, k of one and a copy of the state.

        Args:
            tokens: `[rows, k]`, long: how each row might go on.

        Returns:
            Logits behind each of the tokens, `[rows, k, vocab]`, float32, before processors; and the last layer's hidden
            states `[rows, k, size]` where the strategy needs "hidden_states".

        Raises:
            ValueError: tokens of another form or vocabulary, or the prompt has not been read.
        """
        ...

    def draft(self, tokens: Tensor, *, parents: Tensor | None = None, counts: Tensor | None = None) -> None:
        """Guess how rows continue; the next forward runs the guesses as well.

        Call it after the commit, or before the first step for a guess behind the prompt, which is left out where the
        call returns hidden states or attentions. A wrong guess costs nothing but its share of the forward. What no row has room for
        is left out; on a device, drafts are filled up to one of few widths.

        Args:
            tokens: `[rows, k]`, long: a chain, or the nodes of a tree.
            parents: `[rows, k]`, or `[k]` for all rows, long: the node that each node goes on from, which comes before it,
                or -1 for the row's last token. On the CPU also where the rows are on a device, so that they can be checked.
            counts: `[rows]`, long: how many nodes of a tree are meant in each row; the others fill up and are not accepted.

        Raises:
            ValueError: a parent is no node before its child.
        """
        ...

    @property
    def draft_room(self) -> int:
        """How many tokens a draft can be of use for, where the host knows it; else a bound on that."""
        ...

    def forced_tokens(self, sample: bool) -> Callable[[], tuple[Tensor, Tensor] | None] | None:
        """A function that tells what processors know of how rows go on, e.g. what a grammar forces.

        Call it behind a commit. It returns tokens `[rows, k]`, long, for `draft`, and how many of them are meant in
        each row, `[rows]`, long; or None where nothing is known.

        Args:
            sample: whether the strategy samples. With torch's generator nothing is forced then, since its numbers
                depend on how many were drawn for drafts.

        Returns:
            The function; None where no processor knows anything, or where using it could change the result.
        """
        ...

    def draft_model(
        self, model: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        longest: int | None = None,
    ) -> DraftModel:  # fmt: skip
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
        ...

    def draft_scorer(self, *, share_randomness: bool = False) -> DraftScorer:
        """Scores and draws tokens that are only guessed, with the call's processors.

        Args:
            share_randomness: every draw of the call becomes a function of the row and its position, so that a guess is
                drawn with the numbers of its verification, and models that agree draw the same token. So it is under
                `seed=`; else rows get seeds from torch's generator. Ask for it before `steps`. False draws guesses with
                numbers that nothing else is drawn with.
        """
        ...

    def scorer(self, scorer: Any) -> Scorer:
        """Judges the text of rows: a reward model, a classifier, a verifier, or a function.

        Args:
            scorer: what the caller gave, mostly in a field of `Params` with `exclude=True`: a function that takes a list of
                texts and returns a number for each, a sequence-classification model of transformers, or a `Scoring` of
                either.

        Raises:
            ParameterError: it is none of these, or what it needs is missing.
        """
        ...

    def async_readback(self, width: int) -> AsyncReadback:
        """Brings `width` numbers a step from the device to the host without waiting for it."""
        ...

    def multinomial(self, probabilities: Tensor, count: int = 1) -> Tensor:
        """Draw without replacement from each row of `[n, m]` weights: `[n, count]`, long.

        Rows must be the session's rows or its inputs. The same draws as `torch.multinomial` makes from torch's
        generator, but without its checks, which wait for the device.
        """
        ...

    def uniform(self, count: int | None = None) -> Tensor:
        """One random number in [0, 1) for each row, `[rows]`, float32; or `count` of them, `[rows, count]`."""
        ...
