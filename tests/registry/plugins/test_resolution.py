"""Of several distributions with one name: an error with the way out, until one is preferred."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from genmode.errors import ConflictError

from .registry_support import states

pytestmark = pytest.mark.no_torch

Source = Callable[..., str]


def two_plugins(site: Any, source: Source, first: str = "plug-a", second: str = "plug-b") -> None:
    for name in (first, second):
        site.plugin(name, "strategies", "thrice", source("strategies", "It"))


def test_two_distributions_of_one_name_are_an_error_with_the_way_out(site: Any, source: Source) -> None:
    two_plugins(site, source)
    host = site.registry()
    assert set(states(host).values()) == {"conflict"}
    with pytest.raises(ConflictError) as caught:
        host.get("strategies", "thrice")
    for part in ("plug-a 1.0", "plug-b 1.0", "genmode.configure(prefer=", "GENMODE_PREFER=thrice="):
        assert part in str(caught.value)
    assert "plug_a" not in sys.modules
    assert len(host.faults()) == 1


@pytest.mark.parametrize("key", ["thrice", "strategies:thrice"])
def test_prefer_picks_one(site: Any, source: Source, key: str) -> None:
    two_plugins(site, source)
    host = site.registry(prefer={key: "Plug_B"})
    assert host.get("strategies", "thrice").__module__ == "plug_b"
    assert states(host) == {("thrice", "plug-a"): "disabled", ("thrice", "plug-b"): "loaded"}
    assert host.faults() == ()
    assert "plug_a" not in sys.modules


def test_blocking_one_ends_the_conflict(site: Any, source: Source) -> None:
    two_plugins(site, source)
    assert site.registry(block=("plug-b",)).get("strategies", "thrice").__module__ == "plug_a"


def test_a_built_in_stays_in_force_with_one_warning_until_prefer_says_otherwise(site: Any, source: Source) -> None:
    two_plugins(site, source, "genmode", "plug-b")
    host = site.registry()
    with pytest.warns(RuntimeWarning, match=r"plug-b 1\.0.*genmode's own stays in force"):
        assert host.get("strategies", "thrice").__module__ == "built_in"
    host.info("strategies", "thrice")  # no second warning
    assert states(host)["thrice", "plug-b"] == "conflict"
    assert site.registry(prefer={"thrice": "plug-b"}).get("strategies", "thrice").__module__ == "plug_b"
