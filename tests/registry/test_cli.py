"""The command line, in this process on a tiny model, and in one of its own for what it may import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
import torch
from typer.testing import CliRunner, Result

from genmode.cli.app import app
from genmode.cli.running import call_options, parse_value
from genmode.errors import ParameterError
from genmode.registry import Registry, use

STRATEGIES = ["beam_sample", "beam_search", "greedy_search", "prompt_lookup", "sample"]
WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz", *(f"w{i}" for i in range(72))]


def run(*argv: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(argv), input=stdin)


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random Llama and a tokenizer of one hundred words, saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def chatty(folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with a chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = tmp_path_factory.mktemp("chatty")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}z {{ m['content'] }} y{% endfor %}"
    tokenizer.save_pretrained(place)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(place)
    return str(place)


def expected(folder: str, prompt: str, **flags: Any) -> str:
    """What transformers itself answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **flags)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


class TestList:
    def test_names_the_built_in_strategies(self) -> None:
        lines = run("list", "--kind", "strategy").stdout.splitlines()
        assert lines[0].split() == ["kind", "name", "distribution", "version", "state"]
        assert set(STRATEGIES) <= {line.split()[1] for line in lines[1:] if line.split()[2] == "genmode"}

    def test_json(self) -> None:
        listed = read(run("list", "--kind", "strategies", "--json"))
        assert listed["faults"] == []
        (greedy,) = [one for one in listed["components"] if one["name"] == "greedy_search"]
        assert greedy["value"] == "genmode_strategies.greedy_search:GreedySearch"

    @pytest.mark.parametrize("argv", [["list"], ["list", "--json"], ["--help"], ["--version"]])
    def test_imports_neither_torch_nor_a_plugin(self, argv: list[str]) -> None:
        heavy = ("torch", "transformers", "genmode_strategies", "genmode_processors", "pluggy")
        script = (
            "import sys\nfrom genmode.cli.app import app\n"
            f"try: app({argv!r})\n"
            f"except SystemExit: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"
        assert done.stdout

    def test_unknown_kind_is_wrong_use(self) -> None:
        result = run("list", "--kind", "stratgies")
        assert result.exit_code == 2
        assert "did you mean 'strategies'?" in result.stderr


class TestShow:
    def test_parameters_with_types_bounds_defaults_and_help(self) -> None:
        shown = read(run("show", "prompt_lookup", "--json"))
        assert (shown["kind"], shown["distribution"], shown["contract_version"]) == (
            "strategies",
            "genmode",
            1,
        )
        assert "prompt-lookup-decoding" in shown["paper"]
        (drafted,) = [one for one in shown["parameters"] if one["name"] == "prompt_lookup_num_tokens"]
        assert (drafted["type"], drafted["bounds"]) == ("int", {"ge": 1})
        assert not drafted["required"]
        assert drafted["help"]

    def test_text_has_the_same(self) -> None:
        result = run("show", "prompt_lookup")
        assert result.exit_code == 0
        for part in ("prompt_lookup (strategies)", "prompt_lookup_num_tokens", ">= 1", "genmode_strategies"):
            assert part in result.stdout

    def test_unknown_name_is_answered_with_the_closest(self) -> None:
        result = run("show", "greedy_serch")
        assert result.exit_code == 2
        assert "did you mean 'greedy_search'?" in result.stderr
        assert len(result.stderr.splitlines()) == 1


class TestGenerate:
    def test_greedy_is_transformers_greedy(self, folder: str) -> None:
        result = run("generate", "a b c", "--model", folder, "--greedy", "--max-new-tokens", "9", "--device", "cpu")
        assert result.exit_code == 0, result.output
        assert result.stdout == expected(folder, "a b c", max_new_tokens=9) + "\n"

    def test_prompt_from_stdin_through_a_named_strategy(self, folder: str) -> None:
        argv = ("generate", "-", "--model", folder, "--strategy", "prompt_lookup", "--max-new-tokens", "9")
        assert run(*argv, stdin="a b c").stdout == expected(folder, "a b c", max_new_tokens=9) + "\n"

    def test_a_trace_on_stderr(self, folder: str) -> None:
        argv = ("generate", "a b c", "--model", folder, "--greedy", "--max-new-tokens", "9", "--trace")
        result = run(*argv)
        assert result.stdout == expected(folder, "a b c", max_new_tokens=9) + "\n"
        assert "strategy greedy_search (genmode " in result.stderr
        assert read(run(*argv, "--json"))["texts"]

    def test_chat_template_unless_raw(self, chatty: str) -> None:
        argv = ("generate", "a b", "--model", chatty, "--max-new-tokens", "5")
        assert run(*argv).stdout == expected(chatty, "z a b y", max_new_tokens=5) + "\n"
        assert run(*argv, "--raw").stdout == expected(chatty, "a b", max_new_tokens=5) + "\n"

    def test_json_and_seed(self, folder: str) -> None:
        argv = (
            "generate",
            "a b c",
            "--model",
            folder,
            "--sample",
            "--set",
            "temperature=2.5",
            "--json",
            "--seed",
        )
        first, second = read(run(*argv, "7")), read(run(*argv, "7"))
        assert first["tokens"] == second["tokens"]
        assert first["plan"]["strategy"] == "sample"
        assert len(first["texts"]) == 1
        assert first["tokens"] != read(run(*argv, "8"))["tokens"]

    def test_json_has_every_returned_sequence(self, folder: str) -> None:
        argv = (
            "generate",
            "a b",
            "--model",
            folder,
            "--set",
            "num_beams=3",
            "--set",
            "num_return_sequences=2",
        )
        found = read(run(*argv, "--max-new-tokens", "4", "--json"))
        assert len(found["texts"]) == len(found["tokens"]) == 2

    @pytest.mark.parametrize(
        ("extra", "says"),
        [
            (["--strategy", "gredy_search"], "did you mean 'greedy_search'?"),
            (["--processor", "nothing_like_it"], "no processor is named"),
            (["--set", "temprature=0.5"], "did you mean 'temperature'?"),
            (["--set", "temperature=-1", "--sample"], "has to be a strictly positive float"),
            (["--set", "temperature"], "it has to read key=value"),
            (["--seed", "1", "--set", "seed=2"], "seed is given twice"),
            (["--max-new-tokens", "0"], "max-new-tokens"),
        ],
    )
    def test_wrong_use(self, folder: str, extra: list[str], says: str) -> None:
        result = run("generate", "a b", "--model", folder, *extra)
        assert result.exit_code == 2
        assert says in result.stderr
        assert "Traceback" not in result.output

    def test_failures_are_one_line_with_exit_code_1(self, tmp_path: Path) -> None:
        result = run("generate", "a", "--model", str(tmp_path))
        assert result.exit_code == 1
        assert "no model could be loaded" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_traceback_on_request(self, tmp_path: Path) -> None:
        result = run("generate", "a", "--model", str(tmp_path), "--traceback")
        assert result.exit_code == 1
        assert result.exception is not None
        assert result.exception.__cause__ is not None

    def test_empty_prompt_and_absent_device(self, folder: str) -> None:
        empty = run("generate", "", "--model", folder)
        assert (empty.exit_code, "the prompt has no tokens" in empty.stderr) == (1, True)
        absent = run("generate", "a", "--model", folder, "--device", "nothing")
        assert (absent.exit_code, "cannot be moved to device 'nothing'" in absent.stderr) == (1, True)


class TestExplain:
    def test_says_strategy_and_processors(self, folder: str) -> None:
        argv = ("explain", "--model", folder, "--sample", "--set", "temperature=0.5", "--set", "top_p=0.9")
        plan = read(run(*argv, "--json"))
        assert plan["strategy"] == "sample"
        assert [one["stage"] for one in plan["processors"]][:1] == ["temperature"]
        assert "sample" in run(*argv).stdout


class TestDoctor:
    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """An environment of its own: one good plugin, and what a test adds."""
        plugin(tmp_path, "good", "fine", "import genmode\nclass C(genmode.Strategy):\n contract_version = 1\n"
                                         " def decode(self, session, params): pass\n")  # fmt: skip
        monkeypatch.syspath_prepend(str(tmp_path))
        yield tmp_path
        for name in [name for name in sys.modules if name.startswith("doctored_")]:
            del sys.modules[name]

    def test_all_is_well(self, installed: Path) -> None:
        report, code = examined(installed)
        assert (report["ok"], code) == (True, 0)
        (good,) = report["components"]
        assert (good["name"], good["state"], good["contract_version"]) == ("fine", "loaded", 1)
        assert good["file"] == str(installed / "doctored_good.py")
        assert report["versions"]["torch"].startswith("2.")

    def test_broken_outdated_and_conflicting_plugins_are_each_named(self, installed: Path) -> None:
        plugin(installed, "broken", "crash", "raise OSError('no such library')")
        plugin(installed, "old", "late", "import genmode\nclass C(genmode.Strategy):\n contract_version = 0\n"
                                         " def decode(self, session, params): pass\n")  # fmt: skip
        plugin(installed, "rival", "fine", "raise RuntimeError('must not be imported')")
        report, code = examined(installed)
        assert (report["ok"], code) == (False, 1)
        faults = "\n".join(report["faults"])
        for part in ("no such library", "contract 0", "GENMODE_PREFER"):
            assert part in faults
        assert "must not be imported" not in faults
        states = {(one["distribution"], one["state"]) for one in report["components"]}
        assert {
            ("good", "conflict"),
            ("rival", "conflict"),
            ("broken", "broken"),
            ("old", "broken"),
        } <= states

    def test_stale_metadata_and_shared_keys_are_named(self, installed: Path, tmp_path: Path) -> None:
        key = (
            "import genmode\nclass C(genmode.Strategy):\n contract_version = 1\n"
            " class Params(genmode.Params):\n  both_have: int = 0\n def decode(self, session, params): pass\n"
        )
        plugin(installed, "one", "first", key)
        plugin(installed, "two", "second", key)
        stale = installed / "good-0.9.dist-info"  # the remains of an upgrade
        stale.mkdir()
        (stale / "entry_points.txt").write_text("[genmode.strategies]\nformer = doctored_good:Former\n")
        (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: good\nVersion: 0.9\n")
        report, code = examined(installed)
        assert (report["ok"], code) == (True, 0)
        (told,) = report["warnings"]
        assert "'both_have' is a parameter of strategy 'first' of one 1.0" in told
        assert "prefer={'parameters:both_have': DISTRIBUTION}" in told
        (hidden,) = report["shadowed"]
        assert hidden == (
            f"strategies:former of good 0.9 ({stale}) is hidden by another good ({installed / 'good-1.0.dist-info'}); "
            "remove the one that is out of date"
        )
        assert [(one["name"], one["state"]) for one in report["components"]] == [
            ("fine", "loaded"), ("first", "loaded"), ("second", "loaded"), ("former", "shadowed"),
        ]  # fmt: skip
        assert all(one["seconds"] > 0 for one in report["components"][:3])

    def test_text_names_the_fault(self, installed: Path) -> None:
        plugin(installed, "broken", "crash", "raise OSError('no such library')")
        with use(Registry(importlib_metadata.distributions(path=[str(installed)]))):
            result = run("doctor")
        assert result.exit_code == 1
        assert "no such library" in result.stdout
        assert "something is broken" in result.stdout


def plugin(place: Path, distribution: str, component: str, code: str) -> None:
    """Write an installed distribution with one strategy, class C of its module."""
    info = place / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genmode.strategies]\n{component} = doctored_{distribution}:C\n")
    (place / f"doctored_{distribution}.py").write_text(code)


def examined(place: Path) -> tuple[Any, int]:
    with use(Registry(importlib_metadata.distributions(path=[str(place)]))):
        result = run("doctor", "--json")
    return json.loads(result.stdout), result.exit_code


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("true", True),
        ("True", True),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("abc", "abc"),
        ("", ""),
    ],
)
def test_values_are_json_or_text(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_options_become_keyword_arguments() -> None:
    found = call_options("sample", None, ["top-k=5", "stop_strings=x=y"], 3, 10, False)
    wanted = {
        "strategy": "sample",
        "seed": 3,
        "max_new_tokens": 10,
        "do_sample": False,
        "top_k": 5,
        "stop_strings": "x=y",
    }
    assert found == wanted


@pytest.mark.parametrize("setting", ["=1", "a b=1", "key", "top_k=1,seed=2=3=", "é è=1"])
def test_settings_that_are_no_pairs_are_refused(setting: str) -> None:
    if setting == "top_k=1,seed=2=3=":
        assert call_options(None, None, [setting], None, 1, None)["top_k"] == "1,seed=2=3="
    else:
        with pytest.raises(ParameterError, match="key=value"):
            call_options(None, None, [setting], None, 1, None)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ParameterError, match="top_k is given twice"):
        call_options(None, None, ["top_k=1", "top-k=2"], None, 1, None)
