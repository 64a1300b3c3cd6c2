"""The model and tokenizer that a command runs, and its prompt as token ids."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

from ..errors import GenmodeError
from .demo import load_demo, without_bars
from .output import waiting


def load(model: str | None, device: str | None) -> tuple[Any, Any]:
    """The named model, or the default one, on its device and in evaluation mode, and its tokenizer.

    Args:
        model: a folder or a name on the Hub; None for the default model.
        device: as torch names it; None for the GPU if there is one, else the CPU.

    Raises:
        GenmodeError: it cannot be loaded.
    """
    with waiting("starting torch and transformers"):
        import torch

        importlib.import_module("transformers")  # here for its time, which that line accounts for
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded, tokenizer = load_demo() if model is None else _named(model, on_cpu=place == "cpu")
    return placed(loaded, place), tokenizer


def placed(model: Any, device: str | None) -> Any:
    """The model on a device, None for the GPU if there is one, and in evaluation mode; raises GenmodeError."""
    import torch

    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(place).eval()
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that a device is not there
        raise GenmodeError(f"the model cannot be moved to device {place!r}: {_first_line(error)}") from error


def encode(prompt: str, tokenizer: Any, *, raw: bool) -> dict[str, Any]:
    """Model inputs: the prompt as a user's message in the chat template, or as it is.

    Args:
        prompt: the text.
        tokenizer: the model's.
        raw: leave out the chat template; a tokenizer without one always does.
    """
    if not raw and getattr(tokenizer, "chat_template", None):
        message = [{"role": "user", "content": prompt}]
        return dict(
            tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        )
    encoded = dict(tokenizer(prompt, return_tensors="pt"))
    encoded.pop("token_type_ids", None)  # of encoders; generate() refuses them for most models
    if encoded["input_ids"].shape[-1] == 0:
        raise GenmodeError("the prompt has no tokens; give a text that is not empty")
    return encoded


def _named(model: str, *, on_cpu: bool) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    # A terminal gets transformers' own bars, for fetching and for loading; a log gets none.
    bars = contextlib.nullcontext() if sys.stderr.isatty() else without_bars()
    try:
        with bars:
            config: Any = AutoConfig.from_pretrained(model)
            family: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            loaded = family.from_pretrained(model, dtype=torch.float32 if on_cpu else "auto")
            tokenizer: Any = AutoTokenizer.from_pretrained(model)
    except Exception as error:  # transformers raises nearly anything for what is no model
        kind = "folder" if Path(model).exists() else "name on the Hub, and no folder either"
        raise GenmodeError(f"no model could be loaded from {model!r}, a {kind}: {_first_line(error)}") from error
    return loaded, tokenizer


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
