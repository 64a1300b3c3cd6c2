"""Whatever hostile distributions call themselves and offer, nothing of them runs where settings name others alone.

Each example lays out one trusted distribution and some hostile ones on the disk, with names that are those of the trusted
one, of the host, of words of the settings or nearly so, and asks a registry for all that can be asked for. What would be
imported is noted in place of importing it.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import importlib_metadata
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import genmode
from genmode.errors import GenmodeError, PluginLoadError
from genmode.plugins import loading
from genmode.plugins.entries import Entry, canonical
from genmode.plugins.registry import Registry, use
from genmode.plugins.settings import Settings

KINDS = ("strategies", "processors", "criteria", "watermarkers", "hooks")
TRUSTED = "good-dist"
OFFERED = {"processors": {"good": "good_module:P", "good_two": "good_module:Q"}, "hooks": {"watcher": "good_hook"}}
WORDS = (
    "good-dist",
    "good",
    "good_two",
    "watcher",
    "genmode",
    "registered",
    "hooks",
    "parameters",
    "greedy_search",
    "evil",
)

spelt = st.sampled_from(WORDS).flatmap(
    lambda word: st.sampled_from(
        [word, word.upper(), word.title(), word.replace("-", "_"), word.replace("-", "."), f"{word}x"]
    )
)
hostile = st.fixed_dictionaries(
    {
        "folder": st.sampled_from(["good-dist", "Good_Dist", "good.dist"]) | spelt,
        "stated": st.none() | st.none() | spelt,
        "version": st.sampled_from(["0.1", "1.0", "99.0"]),
        "entries": st.lists(st.tuples(st.sampled_from(KINDS), spelt), min_size=1, max_size=4),
        "recorded": st.booleans(),
    }
)
patterns = st.lists(
    st.sampled_from(
        [
            "good-dist",
            "Good_Dist",
            "good-dist:*",
            "good.dist:good",
            "good-dist:watcher",
            "good",
            "watcher",
            "processors:good_two",
        ]
    ),
    min_size=1,
    max_size=3,
)


def lay(folder: Path, name: str, version: str, stated: str, lines: dict[str, dict[str, str]]) -> Path | None:
    """A distribution's metadata; None if there is such a folder, as on a disk that does not tell case apart."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    if info.exists():
        return None
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {stated}\nVersion: {version}\n")
    text = "".join(f"[genmode.{k}]\n" + "".join(f"{n} = {v}\n" for n, v in some.items()) for k, some in lines.items())
    (info / "entry_points.txt").write_text(text)
    return info


def trusted(folder: Path) -> None:
    """The trusted one, with the files that its RECORD lists."""
    info = lay(folder, TRUSTED, "1.0", TRUSTED, OFFERED)
    assert info is not None
    (folder / "good_module.py").write_text("")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"").digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"good_module.py,sha256={digest},0\n")


def attack(folder: Path, distributions: list[dict[str, Any]]) -> None:
    """The hostile ones; what is theirs has values that begin with `evil`."""
    for number, one in enumerate(distributions):
        lines: dict[str, dict[str, str]] = {}
        for kind, name in one["entries"]:
            lines.setdefault(kind, {})[name] = f"evil_{number}:It"
        info = lay(folder, one["folder"], one["version"], one["stated"] or one["folder"], lines)
        if info is not None and one["recorded"]:
            (info / "RECORD").write_text("genmode/__init__.py,sha256=x,1\n")


@contextmanager
def noted() -> Iterator[list[str]]:
    """The objects that would have been imported."""
    found: list[str] = []

    def load(entry: Entry) -> Any:
        found.append(entry.value)
        raise PluginLoadError(f"{entry.value} is only noted")

    with mock.patch.object(loading, "load", load), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is wrong with these distributions
        yield found


def ask_for_everything(registry: Registry) -> None:
    """Every door by which a component is loaded."""
    names = [*(info.name for kind in KINDS for info in registry.components(kind)), *WORDS]
    doors: list[Any] = [
        registry.hooks,
        registry.parameter_keys,
        lambda: registry.owners("no_such_key"),
        registry.shared_keys,
    ]
    doors += [lambda kind=kind, name=name: registry.get(kind, name) for kind in KINDS for name in names]
    doors += [lambda kind=kind: registry.own(kind) for kind in KINDS]
    doors += [lambda name=name: genmode.GenerationConfig(strategy=name, no_such_key=1) for name in names]
    doors += [lambda name=name: genmode.GenerationConfig(processors=[name], criteria=[name]) for name in names]
    with use(registry):
        for door in doors:
            try:
                door()
            except GenmodeError:
                continue  # refused, which is what is hoped for


def world(folder: Path) -> list[Any]:
    return list(importlib_metadata.distributions(path=[str(folder)]))


common = hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@common
@given(st.lists(hostile, min_size=1, max_size=4), patterns, st.booleans(), st.booleans())
def test_settings_that_name_the_trusted_alone_run_nothing_else(
    others: list[dict[str, Any]], named: list[str], none: bool, preferred: bool
) -> None:
    # `processors:good_two` trusts whichever single distribution has it, as is documented; the trusted one has it here.
    prefer = dict.fromkeys(("good", "good_two", "watcher"), TRUSTED) if preferred else {}
    settings = Settings(allow=tuple(named), hooks=tuple(named), none=none, prefer=prefer)
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        folder = Path(place)
        trusted(folder)
        attack(folder, others)
        ask_for_everything(Registry(world(folder), settings))
    assert not [value for value in ran if value.startswith("evil")]


@common
@given(st.lists(hostile, min_size=1, max_size=4), patterns, st.booleans())
def test_where_the_trusted_one_is_not_installed_its_names_trust_nobody(
    others: list[dict[str, Any]], named: list[str], none: bool
) -> None:
    named = [pattern for pattern in named if pattern != "processors:good_two"]  # whoever has it, as is documented
    hooks = tuple(named) or ("good-dist",)
    strangers = [one for one in others if canonical(one["stated"] or one["folder"]) not in map(canonical, hooks)]
    settings = Settings(allow=(*hooks, "good-dist:good"), hooks=hooks, none=none)
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        attack(Path(place), [one for one in strangers if canonical(one["stated"] or one["folder"]) != TRUSTED])
        ask_for_everything(Registry(world(Path(place)), settings))
    assert ran == []


@common
@given(
    st.lists(hostile, min_size=1, max_size=4), st.sampled_from([Settings(none=True), Settings(none=True, hooks=("x",))])
)
def test_without_a_name_in_the_settings_nothing_runs(others: list[dict[str, Any]], settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        attack(Path(place), others)
        ask_for_everything(Registry(world(Path(place)), settings))
    assert ran == []


@common
@given(st.lists(hostile, min_size=1, max_size=4))
def test_no_hook_plugin_runs_that_no_setting_names(others: list[dict[str, Any]]) -> None:
    hooks_alone = [{**one, "entries": [("hooks", name) for _, name in one["entries"]]} for one in others]
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        attack(Path(place), hooks_alone)
        ask_for_everything(Registry(world(Path(place)), Settings()))
    assert ran == []


@common
@given(st.lists(hostile, min_size=1, max_size=4), st.booleans())
def test_a_lock_runs_what_it_was_made_of_and_nothing_that_came_later(others: list[dict[str, Any]], hooks: bool) -> None:
    settings: dict[str, Any] = {"hooks": (f"{TRUSTED}:*",) if hooks else ()}
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        folder = Path(place) / "site"
        folder.mkdir()
        trusted(folder)
        Registry(world(folder), Settings(**settings)).lock(Path(place) / "a.lock").write()
        attack(folder, others)
        ask_for_everything(Registry(world(folder), Settings(**settings, lock=str(Path(place) / "a.lock"))))
    assert not [value for value in ran if value.startswith("evil")]


@common
@given(st.lists(hostile, min_size=1, max_size=4), st.sampled_from(["good-dist", "GOOD_dist", "good.dist:*"]))
def test_what_is_blocked_never_runs_whoever_else_is_there(others: list[dict[str, Any]], blocked: str) -> None:
    settings = Settings(block=(blocked,), allow=("good-dist:*", "evil"), hooks=("good-dist:*",))
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        trusted(Path(place))
        attack(Path(place), others)
        ask_for_everything(Registry(world(Path(place)), settings))
    assert not [value for value in ran if value.startswith("good")]


def test_the_trusted_one_runs_where_nobody_else_is() -> None:
    """What keeps the others from being true of registries that load nothing."""
    with tempfile.TemporaryDirectory() as place, noted() as ran:
        trusted(Path(place))
        ask_for_everything(
            Registry(world(Path(place)), Settings(allow=("Good.Dist",), hooks=("good-dist:*",), none=True))
        )
    assert set(ran) == {"good_module:P", "good_module:Q", "good_hook"}
