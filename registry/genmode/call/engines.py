"""Which engine runs a call: the fastest that the model and the inputs allow."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..cuda import GraphEngine, obstacle
from ..engines.engine import Engine
from ..engines.portable import PortableEngine
from ..engines.static_engine import PLAIN_INPUTS, StaticEngine
from ..errors import UnsupportedError
from ..hf import caches, generate
from .request import Request


def open_engine(
    request: Request, input_ids: Tensor, config: Any, kwargs: dict[str, Any], max_length: int, rewinds: bool
) -> tuple[Engine, str]:
    """The engine of a call, with what the strategy needs of it; `rewinds` if rows may go back."""
    needs = request.needs
    if "hidden_states" in needs:
        kwargs["output_hidden_states"] = True
    if "attentions" in needs:
        kwargs["output_attentions"] = True
    cache = kwargs.get("past_key_values")
    if cache is not None and cache is request.call.get("past_key_values"):  # the caller reads it afterwards
        kwargs["past_key_values"] = caches.repeated_cache(cache, input_ids.shape[0])
        engine = PortableEngine(request.model, input_ids, config, kwargs, rewinds)
        return engine, "the call brings a cache of its own"
    return choose_engine(request.model, input_ids, config, kwargs, max_length, rewinds, request.compile)


def choose_engine(
    model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any], max_length: int, rewinds: bool, compiled: bool
) -> tuple[Engine, str]:
    """The fastest engine that can run a model on prepared inputs, and why it is not a faster one."""
    reason = caches.static_cache_obstacle(model, kwargs.get("past_key_values"), max_length)
    if reason is None:
        other = {k for k, v in kwargs.items() if v is not None} - PLAIN_INPUTS
        if other:
            reason = f"the call passes {', '.join(sorted(other))}"
        elif not kwargs.get("use_cache", True):
            reason = "use_cache is off"
        elif config.prefill_chunk_size is not None:
            reason = "the prompt is run in chunks"
    if reason is not None:
        return PortableEngine(model, input_ids, config, kwargs, rewinds), reason
    copies = max(config.num_beams or 1, config.num_return_sequences or 1)
    why_not = obstacle(model, input_ids.device, bool(kwargs.get("output_attentions")))
    if why_not is None:
        capacity = min(max_length, input_ids.shape[1] + 1024)
        return GraphEngine(model, input_ids, config, kwargs, copies, capacity, compiled), ""
    capacity = min(max_length, input_ids.shape[1] + 256)
    return StaticEngine(model, input_ids, config, kwargs, copies, capacity), why_not


def open_side_engine(
    model: Any, input_ids: Tensor, mask: Tensor, max_length: int, rewinds: bool, compiled: bool,
    encoder: dict[str, Any] | None, cached: bool,
) -> Engine:  # fmt: skip
    """An engine for a second model or context, whose inputs transformers prepares as it does the first's.

    Args:
        encoder: what the encoder has read, `inputs` and `attention_mask`, one for each row; a second model with
            an encoder reads the same.
        cached: whether it may keep a cache, as the call says of the first: some models can go back without one alone.
    """

    caught: list[Engine] = []

    def catch(
        own: Any, ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **kwargs: Any
    ) -> Engine:
        del own, logits_processor, stopping_criteria
        kwargs.pop("synced_gpus", None)
        caught.append(choose_engine(model, ids, generation_config, kwargs, max_length, rewinds, compiled)[0])
        return caught[0]

    inputs: dict[str, Any] = {"inputs": input_ids, "attention_mask": mask}
    if model.config.is_encoder_decoder and encoder is not None:
        inputs = {k: v.to(input_ids.device) for k, v in encoder.items() if v is not None}
        inputs["decoder_input_ids"] = input_ids
        inputs["decoder_start_token_id"] = int(input_ids[0, 0])  # else transformers puts its own in front
    try:
        generate.plain_generate(model)(
            **inputs,
            max_length=max_length,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            use_cache=cached,
            custom_generate=catch,
        )
    except (TypeError, ValueError) as error:  # transformers' own check of what the model takes, or the model's
        raise UnsupportedError(f"{type(model).__name__} cannot be run beside the rows: {error}") from error
    if not caught:
        raise UnsupportedError(
            f"{type(model).__name__} cannot be run beside the rows: its own generate decodes by itself"
        )
    return caught[0]
