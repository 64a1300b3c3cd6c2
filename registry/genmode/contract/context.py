"""What processors, criteria and watermarkers are given of a call when it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .component import Component
    from .history import History
    from .session import Look


class SideModel(Protocol):
    """A second model, or the same on another context, that follows what the rows decode; see `Context.side_model`.

    Attributes:
        model: the model that it runs, on that model's device.
    """

    model: Any

    def logits(self) -> Tensor:
        """What it expects behind the last token of each row, at each position of a draft its own.

        Returns:
            `[rows, vocab]`, float32, on the call's device; may be written.
        """
        ...


class Context(Protocol):
    """A call, as its components other than the strategy see it. Read-only.

    Attributes:
        rows: how many rows are decoded.
        num_inputs: how many inputs there are.
        inputs: `[rows]`, long: which input each row belongs to; neighbours to one input when the call begins.
        device: where tokens and scores are.
        vocab_size: length of a row of scores.
        tokenizer: the call's tokenizer; None if the caller gave none.
        generation_config: the transformers config in force.
        eos_token_ids: ids that end a row.
        pad_token_id: the id that pads a row that has ended; None if there is none.
        prompt_length: tokens of the prompt in every row, left padding included.
        max_length: a row of this length, prompt included, is done.
        encoder_input_ids: `[inputs or rows, length]`, long, of an encoder-decoder model, -1 in padding; else None.
        backtracks: whether processors of this call may take back what was decoded.
        processors: the call's processors, in the order in which they run.
        history: the rows; one object for the whole call, which changes as they do.
        unfinished: `[rows]`, bool: rows that are still decoded.
    """

    @property
    def rows(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def inputs(self) -> Tensor: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def generation_config(self) -> Any: ...
    @property
    def eos_token_ids(self) -> list[int]: ...
    @property
    def pad_token_id(self) -> int | None: ...
    @property
    def prompt_length(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def encoder_input_ids(self) -> Tensor | None: ...
    @property
    def backtracks(self) -> bool: ...
    @property
    def processors(self) -> tuple[Component, ...]: ...
    @property
    def history(self) -> History: ...
    @property
    def unfinished(self) -> Tensor: ...

    def uniform(self) -> Tensor:
        """One random number in [0, 1) for each row: `[rows]`, float32."""
        ...

    def probe(self, tokens: Tensor) -> Look:
        """What the model would say behind hypothetical tokens; for components that state `Trait.PROBES`.

        See `Session.probe`. Where a draft is being scored, the rows are those that the component is asked about.
        """
        ...

    def side_model(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *, model: Any = None
    ) -> SideModel:
        """A second model, or the same on another context, that follows what the rows decode.

        Args:
            input_ids: `[rows, length]`, `[inputs, length]` or `[1, length]`, long, padded on the left: the context;
                None for the prompt of this call.
            attention_mask: as for `generate`; None where nothing is padding.
            model: None for this call's own model. It may be on another device.

        Raises:
            ParameterError: the number of contexts, the vocabulary or the kind of model does not fit.
            UnsupportedError: rows may go back (drafting), and the model's cache cannot.
        """
        ...
