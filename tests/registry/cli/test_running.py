"""`genmode generate` and `genmode explain`, in this process on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from genmode.cli.running import call_options, parse_value
from genmode.errors import ParameterError

from .cli_support import read, run

WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz", *(f"w{i}" for i in range(72))]


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
            (["--set", "temperature=-1", "--sample"], "temperature=-1"),
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
