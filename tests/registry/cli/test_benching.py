"""`genmode bench`: what it measures, and how it says so. Times themselves are not tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import genmode
from genmode.cli import measuring
from genmode.cli.app import app
from genmode.testing import FakeClock, isolated_host
from genmode.testing.checks.strategy_conduct import forwards
from genmode.testing.harness.models import fresh, tiny

QUICK = ("--tokens", "4", "--prompt", "6", "--repeats", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    with isolated_host():
        yield


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, ["bench", *argv])


def test_json_has_every_case_with_its_figures() -> None:
    done = run(
        "prompt_lookup", *QUICK, "--rows", "2", "--set", "prompt_lookup_num_tokens=3", "--against", "sample", "--json"
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert list(report) == ["machine", "model", "call", "repeats", "results"]
    assert report["call"] == {"rows": 2, "prompt": 6, "tokens": 4, "settings": ["prompt_lookup_num_tokens=3"]}
    assert report["machine"]["torch"] == torch.__version__
    assert {"processor", "gpu", "threads", "python", "transformers", "genmode"} <= set(report["machine"])
    names = [one["name"] for one in report["results"]]
    assert names == ["bare loop", "transformers, greedy", "prompt_lookup", "sample"]
    for one in report["results"]:
        assert one["tokens"] == 4
        assert 1 <= one["steps"] <= 4
        assert all(one[key] > 0 for key in ("ms_a_step", "ms_a_token", "to_bare_loop", "to_transformers"))
    assert report["results"][0]["to_bare_loop"] == report["results"][1]["to_transformers"] == 1
    assert [one["engine"] for one in report["results"]] == ["", "", "static", "static"]


def test_text_has_a_line_for_each_case_and_the_machine() -> None:
    done = run("greedy_search", *QUICK)
    assert done.exit_code == 0, done.output
    title, heads, *lines, machine = done.stdout.splitlines()
    assert title == "a tiny random Llama; rows: 1, tokens of a prompt: 6, best of 1"
    assert heads.split() == [
        "ms",
        "a",
        "step",
        "ms",
        "a",
        "token",
        "x",
        "bare",
        "loop",
        "x",
        "transformers",
        "steps",
        "tokens",
        "engine",
    ]
    assert [line.split("  ")[0] for line in lines] == ["bare loop", "transformers, greedy", "greedy_search"]
    assert machine.startswith("processor ")
    assert "torch " in machine


def test_a_model_of_a_folder(tmp_path: Any) -> None:
    from genmode.testing.harness.models import tokenizer

    model = fresh("llama", eos_token_id=4)
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    done = run("greedy_search", *QUICK, "--tokens", "20", "--model", str(tmp_path), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["model"] == str(tmp_path)
    assert {one["tokens"] for one in report["results"]} == {20}  # nothing ends a row early


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["greedy_serch"], 2, "did you mean 'greedy_search'"),
        (["greedy_search", "--against", "nothing_such"], 2, "no strategy is named 'nothing_such'"),
        (["greedy_search", "--against", "greedy_search"], 2, "greedy_search is given twice"),
        (["greedy_search", "--set", "temperature"], 2, "has to read key=value"),
        (["greedy_search", "--set", "temprature=1"], 2, "did you mean 'temperature'"),
        (["assisted_generation"], 2, "assistant_model"),
        (["greedy_search", "--tokens", "1"], 2, ""),
        (["greedy_search", "--repeats", "0"], 2, ""),
        (["greedy_search", "--device", "no_such"], 1, "cannot be moved to device 'no_such'"),
        (["greedy_search", "--model", "/no/such/folder"], 1, "no model could be loaded"),
        ([], 2, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use(argv: list[str], code: int, said: str) -> None:
    done = run(*argv)
    assert done.exit_code == code, done.output
    assert said in done.stderr


def test_encoders_are_refused() -> None:
    with pytest.raises(genmode.ParameterError, match="bench measures decoder-only"):
        measuring.cases(fresh("t5"), 1, 4, 4, {})


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba"])
def test_the_bare_loop_runs_one_forward_for_each_token(family: str) -> None:
    with forwards(tiny(family)) as fed:
        measuring.bare(tiny(family), torch.randint(5, 95, (2, 6)), 5)
    assert fed == [6, 1, 1, 1, 1]


def test_the_best_round_counts_and_the_first_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ran = FakeClock(), list[str]()
    costs = {"a": iter([9.0, 3.0, 2.0, 5.0]), "b": iter([1.0, 8.0, 7.0, 6.0])}
    monkeypatch.setattr(measuring.time, "perf_counter", clock)

    def case(name: str) -> measuring.Case:
        def decode() -> None:
            ran.append(name)
            clock.advance(next(costs[name]))

        return measuring.Case(name, decode, 4, 4)

    assert measuring.best_of([case("a"), case("b")], 3, torch.device("cpu")) == [2.0, 6.0]
    assert ran == ["a", "b"] * 4


def test_figures_by_hand() -> None:
    found = [
        measuring.Case(measuring.BARE, dict, 10, 10), measuring.Case(measuring.TRANSFORMERS, dict, 10, 10),
        measuring.Case("drafts", dict, 5, 10, "static"),
    ]  # fmt: skip
    drafts = measuring.figures(found, [0.010, 0.020, 0.005])[2]
    assert drafts == {
        "name": "drafts", "ms_a_step": 1.0, "ms_a_token": 0.5, "to_bare_loop": 0.5, "to_transformers": 0.25, "steps": 5,
        "tokens": 10, "engine": "static",
    }  # fmt: skip
