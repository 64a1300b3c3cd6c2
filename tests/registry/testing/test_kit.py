"""The kit as a function, as a command, as a pytest plugin, and what `genmode new` writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import genmode
from genmode.cli.app import app
from genmode.cli.scaffolding import scaffold
from genmode.contract import COMPONENT_KINDS, Kind
from genmode.plugins.loading import kind_of
from genmode.testing import (
    ConformanceError,
    FakeClock,
    RecordingStreamer,
    check_component,
    checks_of,
    parametrize_with_checks,
)

from .row_components import KitTired, KitTwice
from .test_strategy_checks import KitGate
from .test_watermarker_checks import KitGreen
from .wrong import variant

LEAST: dict[Kind, int] = {
    "strategies": 25,
    "processors": 15,
    "criteria": 10,
    "watermarkers": 10,
    "drafters": 6,
    "verifications": 6,
}


@pytest.mark.parametrize("kind", LEAST)
def test_there_are_enough_checks_and_each_is_explained(kind: Any) -> None:
    found = checks_of(kind)
    assert len(found) >= LEAST[kind]
    assert all(len(one.explanation.split()) >= 5 for one in found)


@pytest.mark.parametrize("right", [KitGate, KitTired, KitTwice, KitGreen])
def test_each_check_can_be_skipped_with_a_reason(right: Any) -> None:
    names = [one.name for one in checks_of(kind_of(right))]
    report = check_component(right, skip=dict.fromkeys(names, "why not"))
    assert [(one.check.name, one.status, one.message) for one in report.outcomes] == [
        (name, "skipped", "why not") for name in names
    ]


def test_a_failure_lists_everything() -> None:
    wrong = variant(KitGate, contract_version=0)
    with pytest.raises(ConformanceError, match="fails 1 of 2 checks") as caught:
        check_component(wrong, only=["contract_version", "documentation"])
    assert "write `contract_version = 1`" in str(caught.value)
    assert [one.check.name for one in caught.value.report.failures] == ["contract_version"]
    assert "passed  documentation" in str(caught.value)


def test_a_check_is_skipped_with_a_reason_that_is_told() -> None:
    report = check_component(KitGate, only=["silence"], skip={"silence": "it sings"})
    assert [(one.status, one.message) for one in report.outcomes] == [("skipped", "it sings")]
    stated = variant(KitGate, skip_checks={"silence": "it hums"})
    assert check_component(stated, only=["silence"]).outcomes[0].message == "it hums"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"skip": {"silense": "why"}}, "did you mean 'silence'"),
        ({"skip": {"silence": " "}}, "without a reason"),
        ({"only": ["no_such"]}, "no check of strategies is named 'no_such'"),
        ({"params": {"kit_margn": 1.0}}, "did you mean 'kit_margin'"),
    ],
    ids=["name", "reason", "only", "parameter"],
)
def test_wrong_use_says_what_is_allowed(call: dict[str, Any], said: str) -> None:
    with pytest.raises(genmode.ParameterError, match=said):
        check_component(KitGate, **call)


def test_what_is_no_component_is_refused() -> None:
    with pytest.raises(genmode.ParameterError, match="cannot be checked"):
        check_component(42)  # type: ignore[arg-type]


@parametrize_with_checks([KitTwice(kit_after=1)], skip={"cost_of_length": "tried elsewhere"})
def test_parametrised(check: Any) -> None:
    check()


def test_doubles() -> None:
    clock = FakeClock(5.0, tick=0.5)
    clock.advance(2)
    assert (clock(), clock()) == (7.5, 8.0)
    streamer = RecordingStreamer()
    with pytest.raises(ValueError, match="nothing was streamed"):
        _ = streamer.tokens
    for piece in (torch.zeros(2, 3), torch.tensor([1, 2]), torch.tensor([3, 4])):
        streamer.put(piece)
    assert streamer.tokens.tolist() == [[1, 3], [2, 4]]


def test_fixtures(
    isolated_host: Any, tiny_model: Any, tiny_models: Any, fake_clock: Any, recording_streamer: Any
) -> None:
    assert {info.distribution for info in isolated_host.components()} == {"genmode"}
    isolated_host.register(KitTired)
    assert tiny_models("llama") is tiny_model
    inputs = torch.tensor([[5, 6, 7]])
    result = genmode.generate(tiny_model, inputs, max_new_tokens=4, kit_alpha=1.0, streamer=recording_streamer)
    assert torch.equal(recording_streamer.tokens, result[:, 3:])
    assert fake_clock() == 0


def test_the_pytest_plugin_imports_nothing_heavy() -> None:
    code = "import sys, genmode.testing.harness.plugin; print([m for m in ('torch', 'transformers', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command() -> None:
    done = CliRunner().invoke(
        app, ["check", "processors:min_p", "--set", "min_p=0.2", "--skip", "silence=why not", "--json"]
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    told = {one["name"]: one for one in report["checks"]}
    assert report["ok"]
    assert told["silence"]["status"] == "skipped"
    assert told["silence"]["message"] == "why not"
    assert told["row_order"]["explanation"]


def test_the_command_fails_where_a_check_does() -> None:
    done = CliRunner().invoke(app, ["check", "temperature"])  # its default does nothing
    assert done.exit_code == 1
    assert "it never does anything here" in done.stdout
    assert CliRunner().invoke(app, ["check", "temprature"]).exit_code == 2
    assert CliRunner().invoke(app, ["check", "min_p", "--skip", "silence"]).exit_code == 2


def test_the_command_lists_what_is_checked() -> None:
    done = CliRunner().invoke(app, ["check", "--list", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["checks"]
    assert {kind: [one["name"] for one in told if one["kind"] == kind] for kind in LEAST} == {
        kind: [one.name for one in checks_of(kind)] for kind in LEAST
    }
    of_processors = [one for one in told if one["kind"] == "processors"]
    for name in ("processors", "min_p", "processors:min_p"):
        done = CliRunner().invoke(app, ["check", "--list", name, "--json"])
        assert json.loads(done.stdout)["checks"] == of_processors
    lines = CliRunner().invoke(app, ["check", "--list", "criteria"]).stdout.splitlines()
    assert len(lines) == 1 + len(checks_of("criteria"))
    assert CliRunner().invoke(app, ["check", "--list", "temprature"]).exit_code == 2
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 2
    assert "--list" in done.stderr


def test_new_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    for kind, name, error in (
        ("sampler", "mine", genmode.ParameterError),
        ("strategy", "My-Own", genmode.ParameterError),
        ("strategy", "class", genmode.ParameterError),
        ("strategy", "mine", genmode.GenmodeError),
    ):
        with pytest.raises(error):
            scaffold(kind, name, tmp_path)


@pytest.mark.packaging
def test_generated_packages_pass_as_they_are(tmp_path: Path) -> None:
    """All kinds, installed as wheels are, found by their entry points, their own tests run in one process."""
    kinds = [kind.noun for kind in COMPONENT_KINDS]
    target, packages = tmp_path / "site", [tmp_path / kind for kind in kinds]
    for kind, package in zip(kinds, packages, strict=True):
        done = CliRunner().invoke(app, ["new", kind, f"made_{kind}", "--folder", str(package)])
        assert done.exit_code == 0, done.output
        assert len((package / "src" / f"genmode_made_{kind}" / "__init__.py").read_text().splitlines()) < 60
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", *install, "--target", str(target), *map(str, packages)]
    subprocess.run(pip, check=True)
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    tests = [str(package / "tests") for package in packages]
    own = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "--import-mode=importlib",
        *tests,
    ]
    done = subprocess.run(own, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = [sys.executable, "-c", "from genmode.cli import main; main()", "check", "made_criterion", "--json"]
    found = subprocess.run(listed, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert json.loads(found.stdout)["ok"]
