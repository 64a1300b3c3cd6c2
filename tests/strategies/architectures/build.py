"""Every class of the installed transformers that generates text, as a tiny model of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.models.auto import configuration_auto, modeling_auto

from .settings import OWN_DEFAULT, SETTINGS, SMALL

MOST_PARAMETERS = 20_000_000
"""A part of a model that no setting has made small is an error, not a minute of work."""


def architectures() -> dict[str, str]:
    """The model type of each causal and sequence-to-sequence class, by the class's name."""
    found: dict[str, str] = {}
    for names in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    ):
        for kind, classes in names.items():
            for name in [classes] if isinstance(classes, str) else classes:
                found.setdefault(name, kind)
    return dict(sorted(found.items()))


def build(name: str) -> Any:
    """A model of the class `name`, in float32 and for evaluation."""
    cls: Any = getattr(transformers, name)
    kind = cls.config_class or configuration_auto.CONFIG_MAPPING[architectures()[name]]
    config = _small(kind, SETTINGS.get(name, {}))
    with torch.device("meta"):
        parameters = sum(one.numel() for one in cls(config).parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{name} has {parameters:,} parameters; give it smaller settings")
    torch.manual_seed(0)
    model = cls(config).eval()
    model.generation_config.update(decoder_start_token_id=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return model


def _small(kind: Any, own: Mapping[str, Any]) -> Any:
    """A config of this class and of its parts with the small settings that it takes, and with its own beside them."""
    normal = kind()
    settings: dict[str, Any] = {key: value for key, value in SMALL.items() if _takes(normal, key)}
    settings.update(own)
    for key in getattr(kind, "sub_configs", {}):
        part, inner = getattr(normal, key, None), own.get(key, {})
        if "model_type" in inner:
            settings[key] = _small(configuration_auto.CONFIG_MAPPING[inner["model_type"]], inner)
        elif part is not None:
            settings[key] = _small(type(part), inner)
    if "layer_types" not in own and _takes(normal, "layer_types") and normal.layer_types:
        layers = settings["num_hidden_layers"]
        settings["layer_types"] = (list(dict.fromkeys(normal.layer_types)) * layers)[:layers]
    return kind(**{key: value for key, value in settings.items() if value is not OWN_DEFAULT})


def _takes(config: Any, key: str) -> bool:
    """Whether a config has a setting of this name that can be given."""
    name = type(config).attribute_map.get(key, key)
    return name in config.to_dict() and not isinstance(getattr(type(config), name, None), property)
