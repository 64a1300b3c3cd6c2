"""Both wheels, as pip installs them, in an environment that knows nothing of this checkout.

The environment shares every other installed package by links, so that only the two wheels are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "plugins_example" / "genmode-steady"
OURS = ("genmode", "_genmode", "__editable__", "_editable")

USE = """
import json, sys
import genmode, genmode_steady, genmode_strategies, torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=None,
)).eval()
prompt = torch.tensor([[1, 5, 9], [1, 7, 2]])
call = dict(max_new_tokens=8, factual_p=0.5, factual_sentence_ends=[3])
decoded = genmode.generate(model, prompt, strategy="entropy_gate", seed=[3, 4], **call)
alone = genmode.generate(model, prompt[1:], strategy="entropy_gate", seed=4, **call)
plan = genmode.explain(model, prompt, strategy="entropy_gate", **call).to_dict()
json.dump({
    "files": [module.__file__ for module in (genmode, genmode_strategies, genmode_steady)],
    "tokens": decoded.tolist(), "alone": alone.tolist(), "plan": plan,
}, sys.stdout)
"""


class Environment(NamedTuple):
    """A clean environment with both wheels."""

    folder: Path
    python: Path

    def run(self, *argv: str | Path) -> str:
        """What a command prints on stdout; fails the test with its stderr if it fails."""
        names = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE")
        clean = {key: value for key, value in os.environ.items() if key not in names}
        done = subprocess.run(
            [str(part) for part in argv],
            cwd=self.folder,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def script(self, name: str) -> Path:
        return self.python.parent / name


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("clean")
    wheels = [build(ROOT, folder / "wheels", "--sdist"), build(EXAMPLE, folder / "wheels")]
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


def test_list_finds_both_by_their_entry_points(environment: Environment) -> None:
    listed = json.loads(environment.run(environment.script("genmode"), "list", "--json"))
    assert listed["faults"] == []
    found = {(one["kind"], one["name"]): one["distribution"] for one in listed["components"]}
    assert found["strategies", "entropy_gate"] == found["processors", "factual_nucleus"] == "genmode-steady"
    assert found["strategies", "greedy_search"] == "genmode"


def test_doctor_is_content_and_show_knows_the_paper(environment: Environment) -> None:
    report = json.loads(environment.run(environment.script("genmode"), "doctor", "--json"))
    assert report["ok"]
    assert report["shadowed"] == []
    steady = [one for one in report["components"] if one["distribution"] == "genmode-steady"]
    assert [(one["state"], one["contract_version"]) for one in steady] == [("loaded", 1)] * 2
    shown = json.loads(environment.run(environment.script("genmode"), "show", "factual_nucleus", "--json"))
    assert "2206.04624" in shown["paper"]
    assert shown["stage"] == "truncation"


def test_generates_with_its_strategy_and_processor(environment: Environment) -> None:
    result: dict[str, Any] = json.loads(environment.run(environment.python, "-c", USE))
    assert all(str(environment.folder) in file for file in result["files"])
    assert [len(row) for row in result["tokens"]] == [11, 11]
    assert result["tokens"][1] == result["alone"][0]
    assert result["plan"]["strategy"] == "entropy_gate"
    assert "factual_nucleus" in [one["name"] for one in result["plan"]["processors"]]


def test_its_own_tests_pass(environment: Environment) -> None:
    said = environment.run(environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE)
    assert " passed" in said
