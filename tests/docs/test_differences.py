"""The page of differences: every flag of transformers is a component's, is the host's, or stands there as one without effect."""

from __future__ import annotations

import re
from pathlib import Path

from genmode.contract import COMPONENT_KINDS
from genmode.plugins.parameters import flag_defaults
from genmode.plugins.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"

PREPARED = {
    "max_new_tokens", "use_cache", "cache_implementation", "cache_config", "max_cache_len", "bos_token_id",
    "decoder_start_token_id", "pad_token_id",
}  # fmt: skip
"""What transformers' own preparation of a call acts on, before it calls genmode."""
HOST = {
    "token_healing": "call/request.py", "watermarking_config": "call/request.py", "output_scores": "session/outputs.py",
    "output_logits": "session/outputs.py", "output_attentions": "session/outputs.py",
    "output_hidden_states": "session/outputs.py", "return_dict_in_generate": "session/outputs.py",
    "prefill_chunk_size": "call/engines.py", "compile_config": "hf/generate.py",
    "assistant_ensemble_weight": "../../strategies/genmode_strategies/assisted_generation.py",
    "disable_compile": "hf/generate.py",
}  # fmt: skip
"""What the host, or a refusal of a strategy, reads by itself, and where."""
ACT_BENEATH = {"disable_compile"}
"""Read by a method of transformers that the module calls."""


def without_effect() -> set[str]:
    section = PAGE.read_text(encoding="utf-8").partition("## Flags without an effect")[2]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_every_flag_acts_or_is_said_not_to() -> None:
    host = Registry()
    served: set[str] = set()
    for kind in COMPONENT_KINDS:
        for component in host.own(kind):
            served.update(component.Params.model_fields, getattr(component, "selected_by", ()))
            served.update(getattr(component, "flags", ()))
    every, silent = set(flag_defaults()), without_effect()
    assert silent
    assert every - served - PREPARED - HOST.keys() == silent
    assert not silent & served


def test_what_the_host_reads_stands_where_it_is_said_to() -> None:
    home = PAGE.parents[1] / "registry" / "genmode"
    for flag, module in HOST.items():
        if flag not in ACT_BENEATH:
            assert flag in (home / module).read_text(encoding="utf-8"), f"{module} does not read {flag}"
