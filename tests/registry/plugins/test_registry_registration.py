"""Components that a program registers itself."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

import genmode
from genmode.errors import ConflictError, ContractVersionError, PluginLoadError, UnknownComponentError
from genmode.plugins.registry import Registry, use

from .registry_support import Halve, states

pytestmark = pytest.mark.no_torch

Source = Callable[..., str]


def test_register_as_a_call_and_as_a_decorator(host: Registry) -> None:
    assert genmode.register(Halve) is Halve
    assert host.get("processors", "halve") is Halve
    (info,) = genmode.components()
    assert (info.distribution, info.state) == ("registered", "registered")
    assert info.origin == f"this program ({inspect.getfile(Halve)})"

    @genmode.register(name="other-name")
    class Other(genmode.Strategy):
        contract_version = 1

        def decode(self, session: Any, params: Any) -> None: ...

    assert host.get("strategies", "other-name") is Other
    assert Other.name == "other-name"
    host.refresh()
    assert host.get("strategies", "other-name") is Other


def test_the_kind_is_read_off_the_base_class(host: Registry) -> None:
    @host.register
    class Mark(genmode.Watermarker):
        contract_version = 1

        def process(self, scores: Any, history: Any) -> Any: ...
        def evidence(self, tokens: Any, statistic: Any) -> Any: ...
        def null(self) -> Any: ...

    @host.register
    class Stop(genmode.StoppingCriterion):
        contract_version = 1

        def check(self, history: Any) -> Any: ...

    assert states(host, "watermarkers") == {("mark", "registered"): "registered"}
    assert states(host, "criteria") == {("stop", "registered"): "registered"}


@pytest.mark.parametrize(
    ("wrong", "kwargs", "error"),
    [
        (object(), {}, PluginLoadError),
        (dict, {}, PluginLoadError),
        (Halve, {"kind": "strategies"}, PluginLoadError),
        (Halve, {"kind": "processor"}, UnknownComponentError),
        (Halve, {"name": "two words"}, PluginLoadError),
        (type("Bare", (genmode.Strategy,), {}), {}, ContractVersionError),
    ],
)
def test_what_is_no_component_cannot_be_registered(host: Registry, wrong: Any, kwargs: Any, error: Any) -> None:
    with pytest.raises(error):
        host.register(wrong, **kwargs)
    assert host.components() == ()


def test_a_taken_name_is_refused_unless_prefer_says_registered(site: Any, source: Source) -> None:
    site.plugin("genmode", "processors", "halve", source("processors", "It"))
    host = site.registry()
    with pytest.raises(ConflictError, match=r"this program .* or GENMODE_PREFER=halve=DISTRIBUTION.*'registered'"):
        host.register(Halve)
    host = site.registry(prefer={"halve": "registered"})
    host.register(Halve)
    assert host.get("processors", "halve") is Halve


def test_the_same_definition_again_replaces_and_another_is_refused(host: Registry) -> None:
    def cell() -> Any:
        class Again(genmode.Strategy):
            contract_version = 1

            def decode(self, session: Any, params: Any) -> None: ...

        return Again

    host.register(cell())
    second = host.register(cell())
    assert host.get("strategies", "again") is second
    with pytest.raises(ConflictError, match=r"has registered .* already"):

        @host.register(name="again")
        class Different(genmode.Strategy):
            contract_version = 1

            def decode(self, session: Any, params: Any) -> None: ...


def test_a_plugin_may_register_while_it_is_imported(site: Any, source: Source) -> None:
    body = source("processors", "It") + source("criteria", "Extra") + "genmode.register(Extra)\n"
    site.plugin("plug", "processors", "xtc", body)
    with use(site.registry()) as host:
        done: list[str] = []
        threads = [threading.Thread(target=lambda: done.append(host.get("processors", "xtc").name)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert done == ["xtc"] * 4
        assert host.get("criteria", "extra")
