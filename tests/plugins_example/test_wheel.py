"""All example packages and genmode itself as wheels, as pip installs them, in one environment that knows nothing of this
checkout.

The environment shares every other installed package by links, so that only these wheels are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(folder.parent for folder in (ROOT / "plugins_example").glob("*/pyproject.toml"))
OURS = ("genmode", "_genmode", "__editable__", "_editable")
OFFERED = {
    ("strategies", "entropy_gate"): "genmode-steady",
    ("processors", "factual_nucleus"): "genmode-steady",
    ("strategies", "fresh_words"): "genmode-fresh-words",
    ("strategies", "power_sampling"): "genmode-power-sampling",
    ("processors", "house_style"): "genmode-house-style",
    ("watermarkers", "mpac"): "genmode-multibit",
    ("drafters", "follower"): "genmode-follower",
}

USE = """
import json, sys
import genmode, genmode_house_style, genmode_multibit, genmode_power_sampling, genmode_steady, genmode_strategies
from genmode.testing.harness import models

model, tokenizer, inputs = models.tiny("llama"), models.tokenizer(), models.prompt("llama", 2)
mark = genmode.WatermarkingConfig("mpac", key=20261, message="1011", bias=6.0)
call = dict(
    strategy="power_sampling", power_alpha=1.5, power_block=20, power_moves=3, house_style_never=["c7", "d"],
    factual_p=0.95, factual_sentence_ends=[3], watermark=mark, tokenizer=tokenizer, temperature=1.5, max_new_tokens=40,
)
decoded = genmode.generate(model, **inputs, seed=[3, 4], **call)[:, 9:]
alone = genmode.generate(model, **{key: value[1:] for key, value in inputs.items()}, seed=4, **call)[:, 9:]
json.dump({
    "files": [module.__file__ for module in (
        genmode, genmode_strategies, genmode_steady, genmode_power_sampling, genmode_house_style, genmode_multibit
    )],
    "tokens": decoded.tolist(), "alone": alone.tolist(), "texts": tokenizer.batch_decode(decoded),
    "plan": genmode.explain(model, **inputs, **call).to_dict(),
    "p": [one.p_value for one in genmode.detect(decoded, mark)],
    "messages": [one.message for one in genmode_multibit.Mpac(key=20261, bits=4).read(decoded)],
}, sys.stdout)
"""

PLAIN = """
import json, sys
import genmode
from genmode.testing.harness import models

inputs, flags = models.prompt("llama", 3), dict(max_new_tokens=12, eos_token_id=4)
calls = [dict(do_sample=False), dict(do_sample=True, seed=5), dict(num_beams=2), dict(prompt_lookup_num_tokens=3)]
made = [genmode.generate(models.tiny("llama"), **inputs, **flags, **call).tolist() for call in calls]
plans = [genmode.explain(models.tiny("llama"), **inputs, **flags, **call).to_dict() for call in calls]
json.dump([made, plans], sys.stdout)
"""


class Environment(NamedTuple):
    """A clean environment with all wheels."""

    folder: Path
    python: Path

    def run(self, *argv: str | Path) -> str:
        """What a command prints on stdout; fails the test with its stderr if it fails."""
        return run(self.folder, *argv)

    def script(self, name: str) -> Path:
        return self.python.parent / name


def run(folder: Path, *argv: str | Path) -> str:
    """What a command prints on stdout, run in a folder without the settings of Python's environment."""
    names = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [str(part) for part in argv], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("clean")
    wheels = [build(ROOT, folder / "wheels", "--sdist"), *(build(one, folder / "wheels") for one in EXAMPLES)]
    bare = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = bare / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    (site,) = bare.glob("[Ll]ib/**/site-packages")
    link_others(site, folder / "shared")
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", str(python), *install)
    subprocess.run([*pip, *map(str, wheels)], check=True)
    return Environment(folder, python)


def build(project: Path, out: Path, *options: str) -> Path:
    """The project's wheel; with `--sdist` built from its source distribution, as a package index has it."""
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(project)]
    argv += [] if options else ["--wheel"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob(f"{project.name.replace('-', '_') if project != ROOT else 'genmode-'}*.whl")
    return wheel


def link_others(site: Path, shared: Path) -> None:
    """Put every installed package but ours within the reach of `site`."""
    shared.mkdir()
    places: list[Path] = []
    for package in ("torch", "transformers", "pydantic", "typer", "pytest", "rich"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        places.append(Path(spec.origin).parents[1])
    for place in dict.fromkeys(places):
        for entry in place.iterdir():
            ours = entry.name.startswith(OURS) or entry.suffix == ".pth"
            if not ours and not (shared / entry.name).exists():
                (shared / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    (site / "shared.pth").write_text(f"{shared}\n")


def test_list_finds_all_by_their_entry_points(environment: Environment) -> None:
    listed = json.loads(environment.run(environment.script("genmode"), "list", "--json"))
    assert listed["faults"] == []
    found = {(one["kind"], one["name"]): one["distribution"] for one in listed["components"]}
    assert {place: found.get(place) for place in OFFERED} == OFFERED
    assert set(OFFERED.values()) == {folder.name for folder in EXAMPLES}
    assert found["strategies", "greedy_search"] == "genmode"


def test_doctor_is_content_and_show_knows_the_paper(environment: Environment) -> None:
    report = json.loads(environment.run(environment.script("genmode"), "doctor", "--json"))
    assert report["ok"]
    assert report["shadowed"] == []
    theirs = [one for one in report["components"] if one["distribution"] in OFFERED.values()]
    assert [(one["state"], one["contract_version"]) for one in theirs] == [("loaded", 1)] * len(OFFERED)
    shown = json.loads(environment.run(environment.script("genmode"), "show", "factual_nucleus", "--json"))
    assert "2206.04624" in shown["paper"]
    assert shown["stage"] == "truncation"


def test_one_call_uses_several_of_them(environment: Environment) -> None:
    result: dict[str, Any] = json.loads(environment.run(environment.python, "-c", USE))
    assert all(str(environment.folder) in file for file in result["files"])
    assert [len(row) for row in result["tokens"]] == [40, 40]
    assert result["tokens"][1] == result["alone"][0]
    assert result["plan"]["strategy"] == "power_sampling"
    chain = [one["name"] for one in result["plan"]["processors"]]
    assert [name for name in chain if name in ("house_style", "factual_nucleus", "mpac")] == [
        "house_style", "factual_nucleus", "mpac",
    ]  # fmt: skip
    assert not any(re.search(r"\b(c7|d)\b", text) for text in result["texts"])
    assert max(result["p"]) < 1e-3
    assert result["messages"] == ["1011", "1011"]


def test_installing_them_changes_no_plain_call(environment: Environment) -> None:
    ours = run(environment.folder, sys.executable, "-c", PLAIN)  # of this checkout, which has none of them
    assert json.loads(environment.run(environment.python, "-c", PLAIN)) == json.loads(ours)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_their_own_tests_pass(environment: Environment, folder: Path) -> None:
    said = environment.run(environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder)
    assert " passed" in said
