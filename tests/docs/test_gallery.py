"""The gallery covers every component, says what the component says, and shows what it really does."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import examples
import gallery
import links
import pytest
import table

import genmode
import genmode.testing
from genmode.plugins import registry

ROOT = Path(__file__).parents[2]
KNOWN = gallery.built_in()
USES = table.load_table()
RUN_ALWAYS = (
    "strategies/beam_search", "strategies/prompt_lookup", "processors/dry", "processors/min_p", "criteria/entropy",
    "watermarkers/gumbel",
)  # fmt: skip


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Markdown of the whole site by path, links as in the site; the reference is filled by mkdocs."""
    written = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs").glob("*.md")}
    written |= {target: (ROOT / source).read_text(encoding="utf-8") for source, target in links.MADE.items()}
    written |= {f"gallery/{path}": text for path, text in gallery.pages().items()}
    return {path: links.for_site(path, text) for path, text in written.items()}


class TestCoverage:
    def test_each_component_has_a_page(self) -> None:
        installed = {f"{one.kind}/{one.name}" for one in genmode.components() if one.distribution == "genmode"}
        assert {path.removesuffix(".md") for path in gallery.pages()} - {"index"} == installed
        assert len(USES) == len(installed)

    def test_a_component_without_a_row_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gallery, "load_table", lambda: [use for use in USES if "/dry" not in use.key])
        with pytest.raises(KeyError, match=r"lacks \['processors/dry'\].*examples\.py"):
            gallery.pages()

    def test_a_row_without_a_component_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        extra = dataclasses.replace(USES[0], key="processors/no_such_thing")
        monkeypatch.setattr(gallery, "load_table", lambda: [*USES, extra])
        with pytest.raises(KeyError, match=r"has \['processors/no_such_thing'\] that is no component"):
            gallery.pages()

    def test_the_front_page_has_all(self) -> None:
        front = gallery.pages()["index.md"]
        for use in USES:
            assert front.count(f"]({use.key}.md)") >= 2, use.key

    def test_the_reference_has_every_public_name(self) -> None:
        text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
        named = re.findall(r"^::: (.*)$", text, re.MULTILINE)
        offered = [f"genmode.{name}" for name in genmode.__all__]
        offered += [f"genmode.testing.{name}" for name in genmode.testing.__all__]
        assert sorted(named) == sorted(offered)


class TestContent:
    @pytest.mark.parametrize("key", KNOWN)
    def test_a_page_says_what_the_component_says(self, key: str) -> None:
        shown, text = KNOWN[key], gallery.pages()[f"{key}.md"]
        component: Any = registry.registry().get(*key.split("/"))
        for name, field in component.Params.model_fields.items():
            (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
            assert gallery.prose(field.description or "").replace("|", "\\|") in row
        for line in (inspect.getdoc(sys.modules[component.__module__]) or "").splitlines():
            if line.startswith("    "):
                assert f"\n{line}\n" in text
        assert gallery.addresses(shown["paper"]) in text
        assert next(use.use for use in USES if use.key == key).split("`")[0] in text

    def test_a_docstring_is_not_taken_for_markup(self) -> None:
        given = "ends <think> at `a[b]`, [rows]\n\n    x <- [y]\nhttps://arxiv.org/abs/1, arXiv:2401.08565."
        assert gallery.prose(given) == (
            "ends &lt;think> at `a[b]`, \\[rows\\]\n\n    x <- [y]\n<https://arxiv.org/abs/1>, "
            "[arXiv:2401.08565](https://arxiv.org/abs/2401.08565)."
        )

    def test_output_with_fences_stays_inside_its_own(self) -> None:
        assert gallery.fenced("a\n```json\n{}\n```") == ["````text", "a", "```json", "{}", "```", "````", ""]

    def test_types_are_written_without_pydantics_machinery(self) -> None:
        types = {one["name"]: one["type"] for shown in KNOWN.values() for one in shown["parameters"]}
        assert types["bad_words_ids"] == "tuple[tuple[int, ...], ...]"
        assert types["dola_layers"] == "Literal['low', 'high'] | list[int]"
        assert types["stop_when"] == "Callable | None"
        assert types["num_beams"] == "int"


class TestLinks:
    def test_between_pages_all_resolve(self, pages: dict[str, str]) -> None:
        seen = 0
        for path, text in pages.items():
            plain = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", text)
            for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", plain):
                place, _, anchor = target.partition("#")
                place = posixpath.normpath(posixpath.join(posixpath.dirname(path), place)) if place else path
                assert place in pages or (ROOT / "docs" / place).is_file(), f"{path} links to {target}"
                if anchor:
                    headings = re.findall(r"^#+ (.*)$", pages[place], re.MULTILINE)
                    assert anchor in map(gallery.slug, headings), f"{path} links to {target}"
                seen += 1
        assert seen > 500

    def test_of_a_checkout_become_links_of_the_site(self) -> None:
        given = "[a](../CHANGELOG.md), [b](security.md#secrets), [c](../plugins_example/genmode-steady), `top_p`"
        assert links.for_site("authors-guide.md", given) == (
            "[a](changelog.md), [b](security.md#secrets), c, [`top_p`](gallery/processors/top_p.md)"
        )
        assert links.for_site("index.md", "[a](docs/security.md)\n\n```\n[b](docs/x.md) `top_p`\n```") == (
            "[a](security.md)\n\n```\n[b](docs/x.md) `top_p`\n```"
        )

    def test_a_link_to_nowhere_is_left_for_mkdocs_to_refuse(self) -> None:
        assert links.for_site("security.md", "[a](../no-such-file)") == "[a](../no-such-file)"

    def test_no_page_names_a_component_that_is_none(self, pages: dict[str, str]) -> None:
        names = {key.split("/")[1] for key in KNOWN}
        patterns = (
            r'strategy="(\w+)"', r'(?:processors|criteria)=\["(\w+)"', r'criteria="(\w+)"', r'WatermarkingConfig\("(\w+)"',
            r"genmode show (\w+)", r"--strategy (\w+)", r"--scheme (\w+)", r"with_new_key\(\"(\w+)\"",
        )  # fmt: skip
        placeholders = {"scheme", "NAME"}
        seen = 0
        for path, text in pages.items():
            of_the_page = {*re.findall(r'^    name = "(\w+)"', text, re.MULTILINE), "entropy_gate", *placeholders}
            for pattern in patterns:
                for name in re.findall(pattern, text):
                    assert name in names | of_the_page, f"{path} names {name!r}"
                    seen += name in names
        assert seen > 20


class TestExamples:
    def test_outputs_are_those_of_the_calls_that_the_table_states(self) -> None:
        kept = table.load_examples()
        stale = [use.key for use in USES if not use.no_example and not table.is_current(use, kept.get(use.key))]
        assert stale == [], "run `python docs/site/examples.py`"
        assert kept.keys() == {use.key for use in USES if not use.no_example}

    def test_a_changed_call_is_noticed(self) -> None:
        use = next(use for use in USES if use.key == "processors/top_p")
        example = table.load_examples()[use.key]
        assert table.is_current(use, example)
        assert not table.is_current(dataclasses.replace(use, call="top_p=0.8"), example)
        assert not table.is_current(use, None)
        assert "Not run yet" in gallery.page(use, KNOWN[use.key], None, USES)

    def test_drafts_change_no_text_and_save_forwards(self) -> None:
        kept = table.load_examples()
        for name in ("prompt_lookup", "suffix_lookup", "assisted_generation"):
            example = kept[f"strategies/{name}"]
            assert example.with_it.texts == example.without.texts
            assert example.with_it.forwards < example.without.forwards

    def test_marks_are_found_and_only_where_they_are(self) -> None:
        for key, example in table.load_examples().items():
            if key.startswith("watermarkers/"):
                assert example.detection["with_it"]["p_value"] < 0.01 < example.detection["without"]["p_value"], key

    @pytest.mark.demo
    @pytest.mark.xdist_group("demo")
    @pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")
    @pytest.mark.parametrize("key", RUN_ALWAYS)
    def test_is_what_the_model_says(self, key: str, loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.reproduce(key, loaded, monkeypatch)

    @pytest.mark.demo
    @pytest.mark.slow
    @pytest.mark.skipif(not os.environ.get("GENMODE_SLOW"), reason="takes minutes; set GENMODE_SLOW=1")
    @pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")
    @pytest.mark.parametrize("key", [use.key for use in USES if not use.no_example and use.key not in RUN_ALWAYS])
    def test_all_are_what_the_model_says(
        self, key: str, loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.reproduce(key, loaded, monkeypatch)

    def reproduce(self, key: str, loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(examples, "_load", lambda: loaded)
        assert examples.run(next(use for use in USES if use.key == key)) == table.load_examples()[key]


class Assets(HTMLParser):
    """Addresses that a browser fetches with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        fetched = given.get("src") if tag in ("script", "img", "iframe") else None
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect", "icon"):
            fetched = given.get("href")
        self.found += [fetched] if fetched else []


def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs_autorefs", reason="needs the extra docs")
    command = [shutil.which("mkdocs") or "mkdocs", "build", "--strict", "-q", "-f", "docs/site/mkdocs.yml"]
    built = tmp_path / "site"
    done = subprocess.run([*command, "-d", str(built)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file.relative_to(built).as_posix(): file for file in built.rglob("*.html")}
    assert {f"gallery/{key}.html" for key in KNOWN} <= files.keys()
    for path, file in files.items():
        parser = Assets()
        parser.feed(file.read_text(encoding="utf-8"))
        assert parser.found, path
        assert not [one for one in parser.found if re.match(r"(https?:)?//", one)], path
    index = json.loads((built / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"] for entry in index["docs"]}
    assert {f"gallery/{key}.html" for key in KNOWN} <= places
    assert "site/mkdocs.yml" not in {file.relative_to(built).as_posix() for file in built.rglob("*")}
