"""A folder of fake distributions, and registries that see nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from genmode.plugins.entries import Entry
from genmode.plugins.registry import Registry, use
from genmode.plugins.settings import Settings

READS = "def evidence(self, tokens, statistic): ...\n    def null(self): ..."
BASES = {
    "strategies": ("Strategy", "def decode(self, session, params): ..."),
    "processors": ("LogitsProcessor", "def process(self, scores, history): return scores"),
    "criteria": ("StoppingCriterion", "def check(self, history): ..."),
    "watermarkers": ("Watermarker", f"def process(self, scores, history): return scores\n    {READS}"),
}


def component(kind: str, name: str, params: str = "", contract: str = "contract_version = 1") -> str:
    """Source of a component; `params` is the body of its Params."""
    base, method = BASES[kind]
    body = f"class Params(genmode.Params):\n        {params}" if params else ""
    return (
        f"import genmode\nfrom pydantic import Field\n\n\nclass {name}(genmode.{base}):\n"
        f"    {contract}\n    {body}\n    {method}\n"
    )


class Site:
    """A folder on sys.path, as pip would leave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own: list[Entry] = []
        folder.mkdir(exist_ok=True)

    def add(
        self,
        name: str,
        version: str = "1.0",
        entries: Mapping[str, Mapping[str, str]] | str = "",
        modules: Mapping[str, str] | None = None,
        metadata: str | None = "",
        folder: str | None = None,
    ) -> Path:
        """Write a distribution; `entries` is kind -> name -> object, or the text of entry_points.txt.

        What `genmode` is to offer is told to the registries of this site, since no folder can pass for the host's.
        """
        info = self.folder / (folder or f"{name.replace('-', '_')}-{version}.dist-info")
        for file, source in (modules or {}).items():
            (self.folder / f"{file}.py").write_text(source)
        importlib.invalidate_caches()
        if name == "genmode" and not isinstance(entries, str):
            found = [(kind, one, value) for kind, some in entries.items() for one, value in some.items()]
            self.own += [Entry(str(kind), one, name, version, value, str(info)) for kind, one, value in found]
            return info
        info.mkdir()
        if metadata is not None:
            (info / "METADATA").write_text(metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if not isinstance(entries, str):
            lines = [
                f"[genmode.{k}]\n" + "".join(f"{n} = {v}\n" for n, v in some.items()) for k, some in entries.items()
            ]
            entries = "".join(lines)
        if entries:
            (info / "entry_points.txt").write_text(entries, encoding="utf-8")
        return info

    def plugin(self, name: str, kind: str, component_name: str, source: str, version: str = "1.0") -> Path:
        """A distribution with one module that defines the class `It`, and is named like the distribution."""
        module = "built_in" if name == "genmode" else name.replace("-", "_")
        return self.add(name, version, {kind: {component_name: f"{module}:It"}}, {module: source})

    def distributions(self) -> list[Any]:
        return list(importlib_metadata.distributions(path=[str(self.folder)]))

    def registry(self, **settings: Any) -> Registry:
        return Registry([*self.own, *self.distributions()], Settings(**settings))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield Site(folder)
    for name in set(sys.modules) - before:
        found = sys.modules[name]
        places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]  # a namespace package has no file
        if any(str(folder) in (place or "") for place in places):
            del sys.modules[name]


@pytest.fixture
def make_site() -> type[Site]:
    """Another such folder, which is not on sys.path."""
    return Site


@pytest.fixture
def host() -> Iterator[Registry]:
    """An empty registry, in use: nothing of the environment is seen."""
    with use(Registry([], Settings())) as registry:
        yield registry


@pytest.fixture
def source() -> Callable[..., str]:
    """Writes the source of a component: kind, name of the class, body of its Params, contract."""
    return component


@pytest.fixture
def package(site: Site, source: Callable[..., str]) -> Path:
    """Distribution `plug`: package `plug` with a module and a data file, all of them in RECORD; each leaves a trace."""
    from .plugins.lock_support import installed

    return installed(site, source)


@pytest.fixture
def parts(host: Registry) -> Registry:
    """One component of each kind, registered: those of `config_support`."""
    from .config_support import register_all

    register_all(host)
    return host


@pytest.fixture
def schemes(host: Registry) -> None:
    """Two watermarkers, registered: those of `detection_support`."""
    from .watermark.detection_support import register_schemes

    register_schemes(host)


@pytest.fixture
def _all_is_as_before() -> Iterator[None]:
    """The shared model, its configs and torch's switches are what they were, and decode what they did."""
    from .bad_input_support import all_is_as_before

    yield from all_is_as_before()
