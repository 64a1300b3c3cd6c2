"""Which components stand in for objects of transformers: genmode's own, and what `prefer` puts in their place."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from transformers.generation import logits_process

import genmode
from genmode.contract import Kind
from genmode.plugins.adoption import adopted, adopters_of

OWN = """
import genmode
class It(genmode.LogitsProcessor, genmode.StandIn):
    contract_version = 1
    replaces = ("TopKLogitsWarper",)
    home = {home!r}
    def process(self, scores, history): return scores
    @classmethod
    def adopt(cls, theirs, tokenizer=None):
        return None if theirs.top_k == 1 else (cls.home, theirs.top_k, tokenizer)
"""
TOP_K = logits_process.TopKLogitsWarper


def taken(host: genmode.Registry, theirs: Any) -> Any:
    return adopted(theirs, adopters_of(host, Kind.PROCESSORS, Kind.WATERMARKERS), "tokenizer")


@pytest.fixture
def both(site: Any) -> Any:
    site.plugin("genmode", "processors", "cut", OWN.format(home="genmode"))
    site.plugin("plug", "processors", "cut", OWN.format(home="plug"))
    site.plugin("other", "processors", "cut_too", OWN.format(home="other"))
    return site


@pytest.mark.filterwarnings("ignore:processor 'cut' is provided by:RuntimeWarning")
def test_genmodes_own_or_the_one_that_is_preferred(both: Any) -> None:
    assert taken(both.registry(), TOP_K(3)) == ("genmode", 3, "tokenizer")
    assert taken(both.registry(prefer={"cut": "plug"}), TOP_K(3)) == ("plug", 3, "tokenizer")
    assert taken(both.registry(block=("genmode",), prefer={"cut": "plug"}), TOP_K(3)) == ("plug", 3, "tokenizer")
    assert taken(both.registry(block=("cut",)), TOP_K(3)) is None  # `cut_too` is of a name of its own


def test_only_transformers_own_class_is_taken_and_adopt_may_decline(both: Any) -> None:
    host = both.registry(block=("plug",))
    derived: Any = type("TopKLogitsWarper", (TOP_K,), {})(3)
    named_alike: Any = type("TopKLogitsWarper", (transformers.LogitsProcessor,), {})()
    for theirs in (derived, named_alike, TOP_K(1), logits_process.TopPLogitsWarper(0.5), len):
        assert taken(host, theirs) is None


def test_a_preferred_one_that_is_broken_is_warned_of_once(site: Any) -> None:
    site.plugin("genmode", "processors", "cut", OWN.format(home="genmode"))
    site.plugin("plug", "processors", "cut", "raise OSError('no such file')")
    host = site.registry(prefer={"cut": "plug"})
    with pytest.warns(RuntimeWarning, match=r"processor 'cut' of plug 1\.0 .* no such file"):
        assert taken(host, TOP_K(3)) is None
    assert taken(host, TOP_K(3)) is None  # in silence: warnings are errors here
