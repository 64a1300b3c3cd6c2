"""What plugins get wrong: each is named with distribution and file, when it matters, with the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import genmode
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import prompt, tiny

Source = Callable[..., str]
CALL: dict[str, Any] = {**prompt("llama", 1), "max_new_tokens": 2}


def both(site: Any) -> Registry:
    """The built-ins and the plugins of the site."""
    import importlib_metadata

    return Registry([importlib_metadata.distribution("genmode"), *site.distributions()], genmode.Settings())


def says(error: BaseException, *parts: str) -> None:
    for part in parts:
        assert part in str(error), f"{part!r} is not in: {error}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("It = 3", "is an object of type int; it has to be a class derived from genmode.LogitsProcessor"),
        ("def It(ids, scores): ...", "is an object of type function"),
        ("class It: ...", "derives from object; it has to derive from genmode.LogitsProcessor"),
        ("import genmode\nclass It(genmode.StoppingCriterion): contract_version = 1", "derives from StoppingCriterion"),
        ("import genmode\nclass It(genmode.LogitsProcessor): contract_version = 1", "does not define process()"),
        ("import genmode\nclass It(genmode.LogitsProcessor):\n contract_version = 1\n Params = dict\n def process(self, s, h): ...", "its Params has to be a class derived from genmode.Params"),
    ],
    ids=["number", "function", "foreign class", "another kind", "no method", "Params"],
)  # fmt: skip
def test_the_wrong_type(site: Any, body: str, message: str) -> None:
    site.plugin("plug", "processors", "it", body)
    host = site.registry()
    assert host.faults() == ()  # nothing is imported before it is asked for
    with pytest.raises(genmode.PluginLoadError) as caught:
        host.get("processors", "it")
    way_out = "Upgrade or uninstall plug, or set block='plug'"
    where = "plug 1.0 (" if body == "It = 3" else f"plug 1.0 ({site.folder / 'plug.py'})"
    says(caught.value, "processor 'it' of", where, "'plug:It'", message, way_out)


def test_an_order_in_a_circle(site: Any, source: Source) -> None:
    for name, before in (("one", "two"), ("two", "three"), ("three", "one"), ("free", "")):
        rule = f"contract_version = 1\n    before = ({before!r},)"
        site.plugin(f"plug-{name}", "processors", name, source("processors", "It", contract=rule))
    with use(both(site)):
        genmode.generate(tiny("llama"), **CALL, processors=["one", "two", "free"])
        with pytest.raises(genmode.ParameterError) as caught:
            genmode.generate(tiny("llama"), **CALL, processors=["one", "two", "free", "three"])
    for name in ("one", "two", "three"):
        says(caught.value, f"processor '{name}' of", str(site.folder / f"plug_{name}.py"), "before=('")
    says(caught.value, "goes round in a circle", "Leave one of them out of the call")
    assert "'free'" not in str(caught.value)


def test_one_that_precedes_itself_runs_in_its_place(site: Any, source: Source) -> None:
    rule = "contract_version = 1\n    stage = genmode.Stage.PENALTY\n    before = ('me',)"
    halves = source("processors", "It", contract=rule).replace("return scores", "return scores / 2")
    site.plugin("plug", "processors", "me", halves)
    outputs: dict[str, Any] = {"return_dict_in_generate": True, "output_scores": True}
    with use(both(site)):
        call: dict[str, Any] = {**CALL, "repetition_penalty": 1.5, "renormalize_logits": True, "processors": ["me"]}
        plan = genmode.explain(tiny("llama"), **call)
        assert [part.name for part in plan.processors] == ["repetition_penalty", "me", "renormalise"]
        whole = genmode.generate(tiny("llama"), **CALL, **outputs)
        half = genmode.generate(tiny("llama"), **CALL, **outputs, processors=["me"])
    assert torch.equal(half.sequences, whole.sequences)
    assert all(torch.equal(ours, one / 2) for ours, one in zip(half.scores, whole.scores, strict=True))


@pytest.mark.parametrize("key", ["seed", "strategy", "input_ids", "assistant_model", "genmode"])
def test_a_parameter_that_no_call_could_set(site: Any, source: Source, key: str) -> None:
    site.plugin("plug", "processors", "it", source("processors", "It", f"{key}: int = 0"))
    with pytest.raises(genmode.PluginLoadError) as caught:
        site.registry().get("processors", "it")
    says(caught.value, str(site.folder / "plug.py"), f"its Params has '{key}'", "which genmode.generate takes itself")
    says(caught.value, "set block='plug'")


def test_a_key_of_transformers_may_be_read_but_keeps_its_meaning(site: Any, source: Source) -> None:
    """It never switches the plugin on, and a value that the plugin cannot take is refused under the plugin's name."""
    site.plugin("plug", "processors", "it", source("processors", "It", "top_k: str = 'none'"))
    with use(both(site)):
        plan = genmode.explain(tiny("llama"), **CALL, do_sample=True, top_k=5)
        assert [part.name for part in plan.processors] == ["top_k"]
        with pytest.raises(genmode.ParameterError) as caught:
            genmode.generate(tiny("llama"), **CALL, do_sample=True, top_k=5, processors=["it"])
    says(
        caught.value,
        "processor 'it' of plug 1.0",
        str(site.folder / "plug.py"),
        "top_k=5 is not allowed",
        "allowed: str",
    )


def test_a_key_of_another_plugin(site: Any, source: Source) -> None:
    for home in ("plug-a", "plug-b"):
        site.plugin(home, "processors", home[-1] * 3, source("processors", "It", "both_have: float = 0.0"))
    with use(both(site)):
        genmode.generate(tiny("llama"), **CALL)  # installed, and nobody asks
        genmode.generate(tiny("llama"), **CALL, processors=["aaa"], both_have=1.0)
        with pytest.raises(genmode.ConflictError) as caught:
            genmode.generate(tiny("llama"), **CALL, both_have=1.0)
    for home in ("plug_a", "plug_b"):
        says(caught.value, str(site.folder / f"{home}.py"))
    says(
        caught.value, "plug-a 1.0", "plug-b 1.0", "prefer={'parameters:both_have': DISTRIBUTION}", "Name the component"
    )


@pytest.mark.parametrize("name", ["odd name", "-x", "x/y", "naïve", "a:b", "..", "x\u200b"])
def test_a_name_with_odd_characters(site: Any, name: str) -> None:
    info = site.add("plug", entries=f"[genmode.processors]\n{name} = plug:It\nfine = plug:It\n")
    (fault,) = site.registry().faults()
    for part in ("plug 1.0", str(info), "odd characters; allowed are letters, digits"):
        assert part in str(fault)
    assert [one.name for one in site.registry().components()] == ["fine"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:It", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("plug:Nothing", "AttributeError"),
        ("plug:It.deeper", "AttributeError"),
        ("plug", "is a module"),
    ],
)
def test_an_entry_to_nothing(site: Any, source: Source, value: str, reason: str) -> None:
    info = site.add("plug", entries={"processors": {"it": value}}, modules={"plug": source("processors", "It")})
    with use(both(site)):
        genmode.generate(tiny("llama"), **CALL)
        with pytest.raises(genmode.PluginLoadError) as caught:
            genmode.generate(tiny("llama"), **CALL, processors=["it"])
    says(caught.value, "processor 'it' of plug 1.0", repr(value), reason, "block='plug'")
    assert re.search(rf"{re.escape(str(info))}|{re.escape(str(site.folder / 'plug.py'))}", str(caught.value))
