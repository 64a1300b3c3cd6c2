"""The registry: lazy, one scan, settings, keys, many plugins and many threads."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import genmode
from genmode.errors import ConflictError, DisabledError, ParameterError, PluginLoadError, UnknownComponentError
from genmode.plugins.discovery import Entry
from genmode.plugins.registry import Registry, registry, use
from genmode.plugins.settings import Settings

from .registry_support import Halve, states

pytestmark = pytest.mark.no_torch

Source = Callable[..., str]


# loading


def test_a_component_is_listed_without_and_loaded_on_request(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It", "dry_multiplier: float = 0.0"))
    host = site.registry()
    (info,) = host.components()
    assert (info.kind, info.name, info.distribution, info.version, info.state) == (
        "processors", "dry", "plug", "1.0", "discovered",
    )  # fmt: skip
    assert "plug" not in sys.modules
    component = host.get("processors", "dry")
    assert issubclass(component, genmode.LogitsProcessor)
    assert component.name == "dry"  # the entry's name, not the class's
    (info,) = host.components("processors")
    assert info.state == "loaded"
    assert info.seconds is not None
    assert info.origin == f"plug 1.0 ({site.folder / 'plug.py'})"
    assert host.provider(component) == host.provider(component()) == info
    assert host.provider(object()) is None


def test_one_class_under_two_names_has_both(site: Any, source: Source) -> None:
    entries = {"processors": {"one": "plug:It", "two": "plug:It"}}
    site.add("plug", entries=entries, modules={"plug": source("processors", "It")})
    host = site.registry()
    two, one = host.get("processors", "two"), host.get("processors", "one")
    assert (one.name, two.name) == ("one", "two")
    assert host.provider(one).name == "one"  # type: ignore[union-attr]
    assert host.get("processors", "two") is two


def test_unknown_names_are_answered_with_the_closest_and_the_way_out(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It"))
    host = site.registry()
    with pytest.raises(UnknownComponentError, match=r"no processor is named 'dri'; did you mean 'dry'\?.*genmode list"):
        host.get("processors", "dri")
    with pytest.raises(UnknownComponentError, match="there is a processor of that name"):
        host.get("strategies", "dry")
    with pytest.raises(UnknownComponentError, match=r"pip install"):
        host.get("criteria", "stop")
    with pytest.raises(UnknownComponentError, match=r"no kind 'processor'; did you mean 'processors'\?"):
        host.components("processor")
    with pytest.raises(LookupError):
        host.get("nothing", "dry")


def test_asking_for_what_is_hidden_names_what_hides_it(make_site: Any, tmp_path: Any) -> None:
    import importlib_metadata

    first, second = make_site(tmp_path / "a"), make_site(tmp_path / "b")
    first.add("plug", "1.0")
    second.add("plug", "2.0", {"criteria": {"two": "m:D"}})
    host = Registry(importlib_metadata.distributions(path=[str(first.folder), str(second.folder)]), Settings())
    assert [entry.name for entry in host.shadowed()] == ["two"]
    with pytest.raises(
        UnknownComponentError, match=r"criteria:two of plug 2\.0 .* is hidden by another plug .*plug-1\.0"
    ):
        host.get("criteria", "two")


def test_the_scan_is_made_once_until_refresh(site: Any, source: Source) -> None:
    from genmode.plugins import discovery

    calls: list[int] = []

    class Counted:
        name, version = "counted", "1.0"

        @property
        def entry_points(self) -> list[Any]:
            calls.append(1)
            return []

    assert discovery.scan([Counted()]).entries == ()
    host = Registry([Counted()], Settings())
    calls.clear()
    for _ in range(3):
        host.components()
        host.faults()
    assert len(calls) == 1
    host.refresh()
    host.components()
    assert len(calls) == 2


# settings


def test_what_is_disabled_is_never_imported(site: Any, source: Source, tmp_path: Any) -> None:
    trace = tmp_path / "trace"
    site.plugin(
        "plug",
        "processors",
        "dry",
        f"open({str(trace)!r}, 'w').close()\n" + source("processors", "It", "x: int = 0"),
    )
    for settings in ({"block": ("dry",)}, {"block": ("plug",)}, {"none": True}, {"allow": ("genmode",)}):
        host = site.registry(**settings)
        assert states(host) == {("dry", "plug"): "disabled"}
        with pytest.raises(DisabledError, match=r"processor 'dry' of plug 1\.0 .* is disabled: "):
            host.get("processors", "dry")
        assert host.owners("x") == []
        assert host.parameter_keys() == frozenset()
        assert not host.hooks().origins
    assert not trace.exists()
    assert site.registry(none=True, allow=("plug:dry",)).get("processors", "dry")
    assert trace.exists()


def test_unknown_names_in_settings_are_reported_at_the_scan(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It"))
    host = site.registry(block=("drx",))
    with pytest.warns(UserWarning, match=r"setting `block`: nothing is named 'drx'; did you mean 'dry'\?"):
        host.components()


def test_configure_changes_what_is_given_and_refreshes(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It"))
    host = site.registry(block=("plug",))
    assert states(host) == {("dry", "plug"): "disabled"}
    assert host.configure(block=()) == Settings()
    assert states(host) == {("dry", "plug"): "discovered"}
    assert host.configure(allow="plug:dry").block == ()
    assert host.settings == Settings(allow=("plug:dry",))
    with pytest.raises(ParameterError):
        host.configure(none="yes")  # type: ignore[arg-type]
    assert host.settings == Settings(allow=("plug:dry",))


def test_settings_come_from_the_environment_by_default(
    site: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It"))
    monkeypatch.setenv("GENMODE_PLUGINS", "none")
    host = Registry(site.distributions())
    assert states(host) == {("dry", "plug"): "disabled"}
    monkeypatch.setenv("GENMODE_PLUGINS", "all")
    host.refresh()
    assert states(host) == {("dry", "plug"): "discovered"}


# keys


def test_owners_of_a_key(site: Any, source: Source) -> None:
    site.plugin("genmode", "processors", "dry", source("processors", "It", "dry_multiplier: float = 0.0"))
    site.plugin("plug", "processors", "xtc", source("processors", "It", "xtc_probability: float = 0.0"))
    host = site.registry()
    assert [info.name for info in host.owners("dry_multiplier")] == ["dry"]
    assert "plug" not in sys.modules  # a built-in's key imports no plugin
    assert [info.name for info in host.owners("xtc_probability")] == ["xtc"]
    assert host.owners("nothing") == []
    assert host.parameter_keys() == {"dry_multiplier", "xtc_probability"}


def test_a_key_of_two_distributions_is_an_error_until_one_is_named_or_preferred(site: Any, source: Source) -> None:
    for home in ("plug-a", "plug-b"):
        site.plugin(home, "processors", home[-1] * 3, source("processors", "It", "shared_key: float = 0.0"))
    host = site.registry()
    with pytest.raises(ConflictError) as caught:
        host.owners("shared_key")
    for part in ("plug-a 1.0", "plug-b 1.0", "prefer={'parameters:shared_key'"):
        assert part in str(caught.value)
    assert [i.name for i in host.owners("shared_key", [("processors", "bbb")])] == ["bbb"]
    assert [i.name for i in host.owners("shared_key", shared=True)] == ["aaa", "bbb"]
    preferring = site.registry(prefer={"parameters:shared_key": "plug-a"})
    assert [i.name for i in preferring.owners("shared_key")] == ["aaa"]


def test_two_components_of_one_distribution_may_share_a_key(site: Any, source: Source) -> None:
    body = source("processors", "One", "shared: int = 0") + source("criteria", "Two", "shared: int = 0")
    site.add(
        "plug",
        entries={"processors": {"one": "plug:One"}, "criteria": {"two": "plug:Two"}},
        modules={"plug": body},
    )
    assert [i.name for i in site.registry().owners("shared")] == ["two", "one"]


def test_a_built_in_keeps_its_key_and_a_registered_twin_is_a_conflict(site: Any, source: Source) -> None:
    site.plugin("genmode", "processors", "half", source("processors", "It", "halve_times: int = 0"))
    site.plugin("plug", "processors", "late", source("processors", "It", "halve_times: int = 0"))
    host = site.registry()
    assert [i.name for i in host.owners("halve_times")] == ["half"]
    host.register(Halve)
    with pytest.raises(ConflictError, match="registered"):
        host.owners("halve_times")
    host.configure(prefer={"parameters:halve_times": "plug"})
    assert [i.name for i in host.owners("halve_times")] == ["late"]


def test_a_broken_plugin_is_warned_of_once_and_left_out(site: Any, source: Source) -> None:
    site.add(
        "bad",
        entries={"processors": {"one": "bad:A", "two": "bad:B"}},
        modules={"bad": "raise OSError('gone')"},
    )
    site.plugin("plug", "processors", "xtc", source("processors", "It", "xtc_probability: float = 0.0"))
    host = site.registry()
    with pytest.warns(RuntimeWarning, match=r"bad 1\.0 .* OSError: gone") as caught:
        owners = host.owners("xtc_probability")
    assert len(caught) == 1
    assert [i.name for i in owners] == ["xtc"]
    assert host.owners("nothing") == []  # no second warning
    with pytest.raises(PluginLoadError, match="gone"):
        host.get("processors", "one")


# many, and many threads


def test_two_hundred_plugins_one_malformed_one_conflicting(site: Any) -> None:
    for i in range(198):
        site.add(f"plug-{i:03}", entries={"processors": {f"p{i:03}": f"plug_{i:03}:It"}})
    site.add("malformed", entries="[genmode.processors]\nodd name = m:C\n")
    site.add("rival", entries={"processors": {"p007": "rival:It"}})
    host = site.registry()
    assert len(host.components()) == 199
    assert sorted(f.distribution for f in host.faults()) == ["malformed", "plug-007"]
    assert "rival 1.0" in host.faults()[1].reason
    assert [i.state for i in host.components()].count("conflict") == 2
    assert not [name for name in sys.modules if name.startswith("plug_")]


def test_entries_may_be_given_directly() -> None:
    host = Registry(
        [Entry("criteria", "b", "plug", "1", "m:B", ""), Entry("criteria", "a", "plug", "1", "m:A", "")],
        Settings(),
    )
    assert [info.name for info in host.components()] == ["a", "b"]


def test_threads_get_one_class_and_one_warning(site: Any, source: Source) -> None:
    slow = "import time; time.sleep(0.02)\n" + source("processors", "It", "xtc_probability: float = 0.0")
    site.plugin("plug", "processors", "xtc", slow)
    site.plugin("bad", "processors", "dry", "import time; time.sleep(0.02); raise OSError('gone')")
    host = site.registry()
    found: list[Any] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        found.append((host.get("processors", "xtc"), host.owners("xtc_probability")[0].name))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len([w for w in caught if "gone" in str(w.message)]) == 1


def test_use_puts_the_former_registry_back() -> None:
    former, other = registry(), Registry([], Settings())
    with use(other):
        assert registry() is other
        assert genmode.components() == ()
    assert registry() is former
    with pytest.raises(UnknownComponentError), use(other):
        genmode.components("nothing")
    assert registry() is former
