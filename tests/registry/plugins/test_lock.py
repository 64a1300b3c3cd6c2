"""The lock: what it holds by hand, what fails closed, and that nothing unlocked is ever executed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import genmode
from genmode.cli.app import app
from genmode.plugins.registry import use
from genmode.plugins.settings import Settings

from .lock_support import TRACE, locked, ran, record, sha

Source = Callable[..., str]


class TestFile:
    def test_by_hand(self, site: Any, package: Path, tmp_path: Path) -> None:
        path = tmp_path / "a.lock"
        locked(site, path)
        info = site.folder / "plug-1.0.dist-info"
        assert json.loads(path.read_text()) == {
            "genmode_lock": 1,
            "components": {"processors:it": "plug"},
            "distributions": {
                "plug": {
                    "version": "1.0",
                    "files": {
                        "plug-1.0.dist-info/METADATA": sha(info / "METADATA"),
                        "plug-1.0.dist-info/entry_points.txt": sha(info / "entry_points.txt"),
                        "plug/__init__.py": sha(package / "__init__.py"),
                        "plug/inner.py": sha(package / "inner.py"),
                        "plug/words.txt": sha(package / "words.txt"),
                    },
                }
            },
        }
        assert ran(site) == []  # nothing was imported

    def test_an_editable_installation_is_found_without_importing_it(
        self, site: Any, make_site: Any, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = site.add("plug", entries={"processors": {"it": "space.plug.inner:It"}})
        record(site, info, "_plug.pth")
        (site.folder / "_plug.pth").write_text(str(tmp_path / "src"))
        folder = tmp_path / "src" / "space" / "plug"  # in a namespace package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(TRACE)
        (folder / "inner.py").write_text(source("processors", "It"))
        monkeypatch.syspath_prepend(str(tmp_path / "src"))
        made = site.registry().lock(tmp_path / "a.lock")
        assert sorted(made.distributions["plug"].files) == [
            "_plug.pth", "plug-1.0.dist-info/METADATA", "plug-1.0.dist-info/entry_points.txt",
            "space/plug/__init__.py", "space/plug/inner.py",
        ]  # fmt: skip
        assert made.distributions["plug"].files["space/plug/inner.py"] == sha(folder / "inner.py")
        assert not [name for name in sys.modules if name.startswith("space")]

    def test_settings_say_what_is_locked(self, site: Any, source: Source, tmp_path: Path) -> None:
        for home in ("plug-a", "plug-b"):
            site.plugin(home, "processors", "both", source("processors", "It"))
        site.plugin("genmode", "strategies", "sample", source("strategies", "It"))
        site.plugin("rival", "strategies", "sample", source("strategies", "It"))
        site.add("hooky", entries={"hooks": {"watch": "hooky"}}, modules={"hooky": ""})
        with pytest.raises(genmode.ConflictError, match=r"plug-a 1\.0 .* and by plug-b 1\.0"):
            site.registry().lock(tmp_path / "a.lock")
        made = site.registry(prefer={"both": "plug-b"}).lock(tmp_path / "a.lock")
        assert made.components == {("processors", "both"): "plug-b"}  # the built-in is in force, the hook is off
        made = site.registry(prefer={"sample": "rival"}, block="both", hooks="hooky").lock(tmp_path / "a.lock")
        assert made.components == {("strategies", "sample"): "rival", ("hooks", "watch"): "hooky"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "FileNotFoundError"),
            ("", "JSONDecodeError"),
            ("[]", "malformed"),
            ('{"genmode_lock": 2}', "format is 2, and this genmode reads 1"),
            ('{"genmode_lock": 1, "components": {"a": "b"}, "distributions": {}}', "'a' is not kind:name"),
            ('{"genmode_lock": 1, "components": {"hooks:a": "b"}, "distributions": {}}', "names b, but none of their"),
            ('{"genmode_lock": 1, "components": {}, "distributions": {"a": {"version": "1"}}}', "'files'"),
        ],
    )
    def test_one_that_cannot_be_read_stops_everything(
        self, site: Any, package: Path, tmp_path: Path, text: str | None, message: str
    ) -> None:
        path = tmp_path / "a.lock"
        if text is not None:
            path.write_text(text)
        host = site.registry(lock=path)
        for attempt in (lambda: host.get("processors", "it"), host.components, host.hooks):
            with pytest.raises(genmode.LockError, match=message) as caught:
                attempt()
            assert f"`genmode lock {path}`" in str(caught.value)
        assert ran(site) == []

    @pytest.mark.parametrize("wrong", [1, ["a"], True])
    def test_wrong_types(self, wrong: Any) -> None:
        with pytest.raises(genmode.ParameterError, match="lock="):
            Settings(lock=wrong)

    def test_from_the_environment_and_relative(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        settings = Settings.from_environment({"GENMODE_LOCK": "a.lock"})
        assert settings.lock == str(tmp_path / "a.lock")
        assert Settings.from_environment({}).lock == ""


class TestFailsClosed:
    @pytest.fixture
    def path(self, site: Any, package: Path, tmp_path: Path) -> Path:
        locked(site, tmp_path / "a.lock")
        return tmp_path / "a.lock"

    def refused(self, site: Any, path: Path, *parts: str) -> None:
        importlib.invalidate_caches()
        host = site.registry(lock=path)
        with pytest.raises(genmode.LockError) as caught:
            host.get("processors", "it")
        for part in ("plug 1.0", f"`genmode lock {path}`", *parts):
            assert part in str(caught.value)
        with pytest.raises(genmode.LockError):
            host.get("processors", "it")
        with pytest.warns(RuntimeWarning, match="the lock"):
            assert host.owners("it_strength") == []
        (info,) = host.components()
        assert info.state == "broken"
        assert ran(site) == []

    def test_what_is_as_locked_is_loaded(self, site: Any, path: Path) -> None:
        host = site.registry(lock=path)
        assert host.get("processors", "it").name == "it"
        assert host.unlocked() == []
        assert ran(site) == ["__init__.ran", "inner.ran"]

    @pytest.mark.parametrize(
        "file", ["plug/__init__.py", "plug/inner.py", "plug/words.txt", "plug-1.0.dist-info/METADATA"]
    )
    def test_a_changed_file(self, site: Any, path: Path, file: str) -> None:
        former = sha(site.folder / file)
        with open(site.folder / file, "a") as opened:
            opened.write("\n# changed\n")
        self.refused(site, path, file, f"expected {former}", f"found {sha(site.folder / file)}")

    def test_a_removed_file(self, site: Any, path: Path) -> None:
        (site.folder / "plug" / "words.txt").unlink()
        self.refused(site, path, "plug/words.txt", "found no such file")

    @pytest.mark.parametrize("file", ["extra.py", "inner/__init__.py", "deep/er/extra.py", "sourceless.pyc"])
    def test_a_file_that_was_added(self, site: Any, path: Path, file: str) -> None:
        added = site.folder / "plug" / file
        added.parent.mkdir(parents=True, exist_ok=True)
        added.write_text(TRACE)  # inner/ would be imported in place of inner.py
        self.refused(site, path, f"plug/{file}", "expected no such file")

    def test_a_file_in_a_linked_folder(self, site: Any, path: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "extra.py").write_text(TRACE)
        (site.folder / "plug" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")  # goes round in a circle
        self.refused(site, path, "plug/link/extra.py", "expected no such file")

    def test_bytecode_and_notes_of_the_installer_may_come_and_go(self, site: Any, path: Path) -> None:
        (site.folder / "plug" / "__pycache__").mkdir()
        (site.folder / "plug" / "__pycache__" / "inner.cpython-311.pyc").write_bytes(b"")
        (site.folder / "plug-1.0.dist-info" / "INSTALLER").write_text("pip")
        (site.folder / "plug-1.0.dist-info" / "direct_url.json").write_text("{}")
        assert site.registry(lock=path).get("processors", "it")

    def test_a_module_of_the_same_name_earlier_on_the_path(
        self, site: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "earlier" / "plug"
        other.mkdir(parents=True)
        (other / "__init__.py").write_text(TRACE)
        (other / "inner.py").write_text(TRACE)
        monkeypatch.syspath_prepend(str(tmp_path / "earlier"))
        self.refused(site, path, "plug/inner.py", f"found {sha(other / 'inner.py')}")
        assert not list(other.glob("*.ran"))

    def test_another_version(self, site: Any, path: Path) -> None:
        (site.folder / "plug-1.0.dist-info").rename(site.folder / "plug-1.1.dist-info")
        with pytest.raises(genmode.LockError, match=r"plug 1\.1 .*: the lock .* was made for version 1\.0"):
            site.registry(lock=path).get("processors", "it")
        assert ran(site) == []

    def test_another_object(self, site: Any, path: Path) -> None:
        entries = site.folder / "plug-1.0.dist-info" / "entry_points.txt"
        entries.write_text("[genmode.processors]\nit = plug:Other\n")
        self.refused(site, path, "plug-1.0.dist-info/entry_points.txt")

    def test_more_than_one_difference_is_counted(self, site: Any, path: Path) -> None:
        for name in ("__init__.py", "inner.py"):
            (site.folder / "plug" / name).write_text("")
        self.refused(site, path, "(1 more differ;")
        assert len(site.registry(lock=path).unlocked()) == 2

    def test_what_the_lock_does_not_name(self, site: Any, path: Path, source: Source) -> None:
        site.plugin("late", "processors", "late", TRACE + source("processors", "It", "late_strength: float = 0.0"))
        host = site.registry(lock=path)
        with pytest.raises(genmode.DisabledError, match=r"late 1\.0 .* is disabled: the lock .* does not name it"):
            host.get("processors", "late")
        assert host.owners("late_strength") == []
        assert host.hooks() is not None
        assert "late.ran" not in ran(site)

    def test_another_distribution_with_the_name(self, site: Any, path: Path, source: Source) -> None:
        site.plugin("usurper", "processors", "it", TRACE + source("processors", "It"))
        host = site.registry(lock=path, prefer={"it": "usurper"})
        assert host.info("processors", "it").distribution == "plug"
        reasons = {info.distribution: info.reason for info in host.components()}
        assert f"the lock {path} says that plug provides it" in reasons["usurper"]
        (site.folder / "plug-1.0.dist-info" / "entry_points.txt").unlink()
        with pytest.warns(UserWarning, match="names processors:it of plug, which is not installed"):
            host.refresh() or host.components()
        with pytest.raises(genmode.DisabledError, match="says that plug provides it"):
            host.get("processors", "it")
        assert "usurper.ran" not in ran(site)

    def test_a_locked_replacement_of_a_built_in_never_falls_back(
        self, site: Any, source: Source, tmp_path: Path
    ) -> None:
        site.plugin("genmode", "strategies", "sample", source("strategies", "It"))
        rival = site.plugin("rival", "strategies", "sample", source("strategies", "It"))
        locked(site, tmp_path / "a.lock", prefer={"sample": "rival"})
        host = site.registry(lock=tmp_path / "a.lock")
        assert host.info("strategies", "sample").distribution == "rival"
        (rival / "entry_points.txt").unlink()
        host = site.registry(lock=tmp_path / "a.lock")
        with pytest.warns(UserWarning, match="not installed"), pytest.raises(genmode.DisabledError, match="rival"):
            host.get("strategies", "sample")

    def test_built_ins_and_the_program_are_exempt(self, site: Any, path: Path, source: Source) -> None:
        site.plugin("genmode", "criteria", "own", source("criteria", "It"))
        host = site.registry(lock=path)
        assert host.get("criteria", "own")

        class Mine(genmode.LogitsProcessor):
            contract_version = 1

            def process(self, scores: Any, history: Any) -> Any:
                return scores

        assert host.register(Mine) is Mine
        assert host.get("processors", "mine") is Mine
        with pytest.raises(genmode.LockError, match=r"cannot be registered: the lock .* says that plug provides it"):
            site.registry(lock=path, prefer={"it": "registered"}).register(Mine, name="it")

    def test_a_hook_plugin_that_is_switched_on_is_not_left_out(self, site: Any, tmp_path: Path) -> None:
        body = "import genmode\n\n@genmode.hookimpl\ndef genmode_session_end(session): ...\n"
        site.add("hooky", entries={"hooks": {"watch": "hooky"}}, modules={"hooky": TRACE + body})
        (tmp_path / "none.lock").write_text('{"genmode_lock": 1, "components": {}, "distributions": {}}')
        with pytest.raises(
            genmode.LockError, match=r"hook plugin 'watch' of hooky 1\.0 .* is switched on, but the lock"
        ):
            site.registry(lock=tmp_path / "none.lock", hooks="hooky").hooks()
        locked(site, tmp_path / "a.lock", hooks="hooky")
        (site.folder / "hooky.py").write_text(TRACE + body + "#\n")
        with pytest.raises(genmode.LockError, match=r"file hooky\.py is not what the lock"):
            site.registry(lock=tmp_path / "a.lock", hooks="hooky").hooks()
        assert ran(site) == []
        assert site.registry(lock=tmp_path / "a.lock").hooks().origins == ()  # it is off
        locked(site, tmp_path / "a.lock", hooks="hooky")
        assert len(site.registry(lock=tmp_path / "a.lock", hooks="hooky").hooks().origins) == 1

    def test_files_are_read_once_and_not_by_calls(self, site: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import genmode.plugins.fingerprint as module

        read: list[str] = []
        original = module.digest
        monkeypatch.setattr(module, "digest", lambda file: read.append(file) or original(file))
        host = site.registry(lock=path)
        host.components()
        assert read == []
        host.get("processors", "it")
        assert len(read) == 5
        for _ in range(3):
            host.get("processors", "it")
            host.owners("it_strength")
        assert len(read) == 5
        host.refresh()
        host.get("processors", "it")
        assert len(read) == 10


def test_a_module_that_is_no_file_cannot_be_locked(site: Any, tmp_path: Path) -> None:
    site.add("plug", entries={"processors": {"it": "sys:It"}})
    with pytest.raises(genmode.LockError, match=r"processor 'it' of plug 1\.0 .* module sys is no file"):
        site.registry().lock(tmp_path / "a.lock")


DISABLING: dict[str, dict[str, Any]] = {
    "block": {"block": "plug"},
    "block by kind": {"block": "processors:it"},
    "none": {"none": True},
    "allow": {"allow": "other"},
    "lock": {"lock": "none.lock"},
}


@pytest.mark.parametrize("way", DISABLING)
def test_a_disabled_or_unlocked_plugin_is_never_executed(
    way: str, site: Any, package: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the host is asked to do, the plugin leaves no trace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.lock").write_text('{"genmode_lock": 1, "components": {}, "distributions": {}}')
    site.plugin("other", "processors", "other", source("processors", "It"))
    host = site.registry(**DISABLING[way])
    with use(host):
        for attempt in (
            lambda: host.get("processors", "it"),
            lambda: genmode.GenerationConfig(it_strength=1.0).validate(),
            lambda: genmode.GenerationConfig(processors=["it"]).validate(),
        ):
            with pytest.raises(genmode.GenmodeError):
                attempt()
        assert host.owners("it_strength") == []
        host.parameter_keys(), host.faults(), host.hooks(), host.refresh()
    with use(site.registry(**DISABLING[way])):
        for command in (["list"], ["doctor"], ["show", "it"], ["lock", "b.lock"], ["lock", "--check", "b.lock"]):
            CliRunner().invoke(app, command)
    assert ran(site) == []
    assert "plug" not in sys.modules
    assert site.registry().get("processors", "it")
    assert ran(site) == ["__init__.ran", "inner.ran"]  # the trace that it would have left
