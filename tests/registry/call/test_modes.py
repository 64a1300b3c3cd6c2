"""The strategy that serves a call that names none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import genmode
from genmode.call.flag_values import Flags
from genmode.call.modes import neutral_flags, resolve
from genmode.plugins.registry import Registry

Source = Callable[..., str]


class Assistant:
    """Stands for a model."""

    def __repr__(self) -> str:
        return "a model"


@pytest.fixture
def chosen() -> Callable[..., str]:
    """The name of the strategy that flags ask genmode's own for."""

    def choose(assistant: Any = None, host: Registry | None = None, **flags: Any) -> str:
        return str(resolve(None, Flags(flags), None, assistant, host or Registry())[0])

    return choose


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "greedy_search"),
        ({"do_sample": True}, "sample"),
        ({"num_beams": 2}, "beam_search"),
        ({"num_beams": 2, "do_sample": True}, "beam_sample"),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, "group_beam_search"),
        ({"force_words_ids": [[5]]}, "constrained_beam_search"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive_search"),
        ({"dola_layers": "low"}, "dola_generation"),
        ({"dola_layers": [0], "do_sample": True}, "dola_generation"),
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup"),
        ({"prompt_lookup_num_tokens": 2, "do_sample": True}, "prompt_lookup"),
        ({"assistant_early_exit": 1}, "assisted_generation"),
        # as transformers: these do not ask for a mode whatever else is set
        ({"penalty_alpha": 0.6, "do_sample": True}, "sample"),
        ({"penalty_alpha": 0.6, "num_beams": 2}, "beam_search"),
        ({"num_beam_groups": 2}, "greedy_search"),
        ({"diversity_penalty": 0.5, "num_beams": 2}, "beam_search"),
    ],
    ids=str,
)
def test_of_flags(chosen: Callable[..., str], flags: dict[str, Any], name: str) -> None:
    assert chosen(**flags) == name


def test_with_an_assistant(chosen: Callable[..., str]) -> None:
    assert chosen(Assistant()) == chosen(Assistant(), do_sample=True) == "assisted_generation"
    assert chosen(Assistant(), speculation_type="dflash") == "multi_token_prediction"
    # both say where drafts come from, which the strategy that takes both refuses
    assert chosen(Assistant(), prompt_lookup_num_tokens=2) == "assisted_generation"
    assert chosen(assistant_early_exit=1, prompt_lookup_num_tokens=2) == "assisted_generation"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dola_layers": "low", "num_beams": 2}, "dola_layers='low' and num_beams=2, which ask for beam_search"),
        ({"prompt_lookup_num_tokens": 1, "num_beams": 2}, "prompt_lookup_num_tokens=1 and num_beams=2, .*: assisted_"),
        ({"assistant_early_exit": 1, "force_words_ids": [[5]]}, "which ask for constrained_beam_search"),
        ({"assistant": Assistant(), "num_beams": 3}, "assistant_model=Assistant and num_beams=3, which"),
        ({"assistant": Assistant(), "dola_layers": "low"}, "dola_layers='low' and assistant_model=Assistant"),
    ],
    ids=str,
)
def test_flags_of_two_modes(chosen: Callable[..., str], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(genmode.ParameterError, match=message):
        chosen(**flags)


def test_the_reasons_are_told() -> None:
    flags = Flags({"num_beams": 4, "num_beam_groups": 2, "do_sample": False, "top_k": 7})
    assert resolve(None, flags, None, None, Registry())[1] == "transformers' mode for num_beams=4, num_beam_groups=2"
    why = resolve(None, Flags(), None, Assistant(), Registry())[1]
    assert why == "transformers' mode for assistant_model=Assistant"


@pytest.mark.filterwarnings("ignore:strategy 'own' is provided by:RuntimeWarning")
def test_a_third_party_serves_only_where_it_is_preferred(site: Any, source: Source, chosen: Callable[..., str]) -> None:
    def lines(flag: str) -> str:
        return f"contract_version = 1\n    mode = 'sample'\n    selected_by = ({flag!r},)"

    site.plugin("genmode", "strategies", "own", source("strategies", "It", contract=lines("low_memory")))
    site.plugin("plug-a", "strategies", "own", source("strategies", "It", contract=lines("dola_layers")))
    site.plugin("plug-b", "strategies", "other", source("strategies", "It", contract=lines("low_memory")))
    flags: dict[str, Any] = {"do_sample": True, "low_memory": True}
    assert chosen(host=site.registry(), **flags) == "own"  # and not one of two
    assert chosen(host=site.registry(), do_sample=True) == "sample"
    preferred = site.registry(prefer={"own": "plug-a"})
    assert chosen(host=preferred, **flags) == "sample"
    assert "dola_layers" in neutral_flags(preferred)
    assert "dola_layers" not in neutral_flags(site.registry())


def test_what_transformers_is_not_told_of() -> None:
    neutral = neutral_flags(Registry())
    assert {"stop_strings", "token_healing", "low_memory", "dola_layers", "constraints"} <= neutral.keys()
    assert (neutral["num_beam_groups"], neutral["diversity_penalty"], neutral["dola_layers"]) == (1, 0.0, None)
    assert not {"assistant_model", "num_beams", "do_sample", "top_k"} & neutral.keys()
