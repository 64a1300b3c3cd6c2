"""Detection: what the host does with a scheme's evidence; configurations, keys, and the command."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import genmode
from genmode import keys
from genmode.cli.app import app
from genmode.detection import first_of_each, judge
from genmode.nulls import Bernoulli
from genmode.picture import page
from genmode.registry import Registry

KEY = 987654321


class Parity(genmode.Watermarker):
    """A toy of a third party: a token is green if it has the key's parity; every token is a draw of its own."""

    contract_version = 1

    class Params(genmode.Params):
        key: int
        separate: bool = True
        vocab_size: int | None = None

    def process(self, scores: Tensor, history: Any) -> Tensor:
        return scores

    def evidence(self, tokens: Tensor, gist: Tensor | None) -> genmode.Evidence:
        values = ((tokens + self.params.key) % 2).double().masked_fill(tokens == 99, torch.nan)
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        return genmode.Evidence(values, places if self.params.separate else tokens)

    def null(self) -> genmode.Null:
        return Bernoulli(0.5)


class Reader(Parity):
    """Counts what the model was unsure of."""

    reads_model = True

    def gist(self, logits: Tensor) -> Tensor:
        return logits.amax(-1)

    def evidence(self, tokens: Tensor, gist: Tensor | None) -> genmode.Evidence:
        values, draws, _ = super().evidence(tokens, None)
        return genmode.Evidence(values.masked_fill(gist.isnan() if gist is not None else False, torch.nan), draws)


@pytest.fixture(autouse=True)
def marks(host: Registry) -> None:
    host.register(Parity)
    host.register(Reader)


def config(**more: Any) -> genmode.WatermarkingConfig:
    return genmode.WatermarkingConfig("parity", **{"key": 0, **more})


# decisions -------------------------------------------------------------------------------------------


def test_eight_of_ten_by_hand() -> None:
    text = [1, 3, 5, 7, 9, 11, 13, 15, 2, 4]
    found = genmode.detect(text, config())
    assert (found.tokens, found.marked, found.fpr) == (10, False, 0.01)
    assert found.p_value == pytest.approx(56 / 1024)
    assert found.score == pytest.approx(3 / math.sqrt(2.5))
    assert found.evidence == (1.0,) * 8 + (-1.0,) * 2
    assert "another key" in found.note
    assert "10 tokens that count are few" in found.note
    assert "few" not in genmode.detect(text * 3, config()).note
    assert genmode.detect(text, config(), fpr=0.06).marked is True


def test_batches_lists_and_padding() -> None:
    texts = [[1] * 10, [2] * 4, [3] * 7]
    alone = [genmode.detect(text, config()) for text in texts]
    assert genmode.detect(texts, config()) == alone
    assert genmode.detect(texts, config(), batch_size=1) == alone
    padded = torch.tensor([[1] * 10, [2] * 4 + [-1] * 6, [3] * 7 + [-1] * 3])
    assert genmode.detect(padded, config()) == alone
    assert judge(config().build(), padded) == config().build().detect(padded) == alone
    assert len(alone[1].evidence) == 4


def test_the_same_draw_counts_once() -> None:
    found = genmode.detect([1] * 30 + [3], config(separate=False))
    assert (found.tokens, found.p_value) == (2, 0.25)
    assert found.evidence[:2] == (1.0, None)
    assert first_of_each(torch.tensor([4, 4, 5]), torch.tensor([False, True, True])).tolist() == [False, True, True]


def test_too_short_a_text_says_so() -> None:
    found = genmode.detect([1] * 6, config())
    assert found.marked is None
    assert "too short: 6 tokens count" in found.note
    assert genmode.detect([1] * 7, config()).marked is True
    empty = genmode.detect([99, 99], config())
    assert (empty.marked, empty.p_value, empty.score, empty.tokens) == (None, 1.0, 0.0, 0)
    assert "too short" in empty.note


def test_a_window_finds_the_passage() -> None:
    text = [1, 2] * 100 + [1] * 40 + [1, 2] * 100
    whole = genmode.detect(text, config())
    found = genmode.detect(text, config(), window=40)
    windows = len(range(0, 400, 10)) + 1
    assert whole.marked is False
    assert found.marked is True
    assert found.p_value == pytest.approx(0.5**40 * windows)
    assert found.passage is not None
    begin, end = found.passage
    assert begin <= 200
    assert end >= 240
    assert end - begin <= 100
    assert genmode.detect([1, 2] * 100, config(), window=40).passage is None
    assert genmode.detect([1] * 20, config(), window=40).passage == (0, 20)


def test_windows_keep_the_rate() -> None:
    # 1,000 texts: 1% is 10, and 26 or more has p < 3e-5
    texts = torch.randint(0, 98, (1000, 120), generator=torch.Generator().manual_seed(1))
    assert sum(bool(one.marked) for one in genmode.detect(texts, config(), window=30)) < 26


def test_a_scheme_that_reads_the_model() -> None:
    class Model:
        device = torch.device("cpu")
        seen: ClassVar[list[Tensor]] = []

        def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            self.seen.append(input_ids)
            scores = torch.nn.functional.one_hot(input_ids, 100).float() * input_ids[:, :, None]
            return type("Output", (), {"logits": scores})

    model: Any = Model()
    model.config = type("Config", (), {"get_text_config": lambda self, decoder: type("T", (), {"vocab_size": 100})})()
    reader = genmode.WatermarkingConfig("reader", key=0)
    with pytest.raises(genmode.ParameterError, match="pass model="):
        genmode.detect([1] * 9, reader)
    with pytest.raises(genmode.ParameterError, match="model=model"):
        judge(reader.build(), torch.tensor([[1] * 9]))
    assert genmode.detect([1] * 9, reader, model=model).tokens == 8  # nothing predicts the first
    several = genmode.detect([[1] * 9, [1] * 4], reader, model=model, prompt=[[5, 6], [7]])
    assert [one.tokens for one in several] == [9, 4]
    assert model.seen[-1].tolist() == [[5, 6] + [1] * 9, [7] + [1] * 4 + [0] * 6]
    for text, head in (([1, 100], None), ([1, 2], [[100]])):
        with pytest.raises(genmode.ParameterError, match="token 100 is outside the model's vocabulary of 100"):
            genmode.detect([text], reader, model=model, prompt=head)
    with pytest.raises(genmode.ParameterError, match="1 prompts for 2 texts"):
        genmode.detect([[1] * 9, [1] * 4], reader, model=model, prompt=[[5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"fpr": 0}, "fpr=0 is not allowed"),
        ({"window": 0}, "window=0 is not allowed"),
        ({"texts": "words"}, "there is no tokenizer"),
        ({"texts": "words", "tokenizer": "no/such-tokenizer"}, "no tokenizer could be loaded"),
        ({"texts": None}, "None is no text; give a string"),
        ({"texts": {"input_ids": [1]}}, "is no text; give a string"),
        ({"texts": torch.rand(1, 4)}, r"a tensor \[1, 4\] of torch.float32 is no text"),
        ({"watermark": 3}, "watermark=3 cannot be read"),
        ({"watermark": genmode.WatermarkingConfig("parity")}, "key has to be given"),
    ],
)
def test_bad_input(call: dict[str, Any], message: str) -> None:
    arguments = {"texts": [1, 2], "watermark": config(), **call}
    with pytest.raises(genmode.ParameterError, match=message):
        genmode.detect(arguments.pop("texts"), arguments.pop("watermark"), **arguments)


def test_a_detector_of_its_own_kind_knows_no_windows(host: Registry) -> None:
    @host.register
    class Own(genmode.Watermarker):
        contract_version = 1

        def process(self, scores: Any, history: Any) -> Any: ...

        def detect(self, tokens: Tensor) -> list[genmode.Detection]:
            return [genmode.Detection(score=0, p_value=0.5, tokens=1)]

    assert genmode.detect([1], Own()).p_value == 0.5
    with pytest.raises(genmode.UnsupportedError, match="knows no windows"):
        genmode.detect([1], Own(), window=3)


# keys and configurations -----------------------------------------------------------------------------


def test_keys_are_made_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= keys.new_key() < 2**62
    assert keys.new_key() != keys.new_key()
    file = tmp_path / "key"
    keys.write_key(file, KEY)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys.read_key(f"file:{file}") == KEY
    with pytest.raises(genmode.ParameterError, match="is there already"):
        keys.write_key(file, 5)
    monkeypatch.setenv("A_KEY", " words of a key\n")
    assert keys.read_key("env:A_KEY") == "words of a key"
    monkeypatch.setenv("EMPTY", "")
    for source, message in (
        ("A_KEY", "env:NAME or file:PATH"),
        ("env:NOT_SET", "is not set"),
        (f"file:{tmp_path}/none", "cannot be read"),
        ("env:EMPTY", "holds nothing"),
    ):
        with pytest.raises(genmode.ParameterError, match=message):
            keys.read_key(source)


def test_a_key_is_never_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = genmode.WatermarkingConfig.with_new_key("parity")
    secret = str(made.key)
    built = made.build()
    shown = [repr(made), repr(built), repr(built.params), str(built.params), json.dumps(made.to_dict())]
    made.save(tmp_path / "mark.json")
    shown.append((tmp_path / "mark.json").read_text())
    for wrong in ({"key": f"{secret}x"}, {"key": made.key, "separate": "perhaps"}):
        with pytest.raises(genmode.ParameterError) as caught:
            genmode.WatermarkingConfig("parity", **wrong).build()
        shown += [str(caught.value), repr(caught.value.__cause__)]
    assert not any(secret in text for text in shown)
    assert secret not in capsys.readouterr().out
    made.save(tmp_path / "all.json", secrets=True)
    assert secret in (tmp_path / "all.json").read_text()
    assert genmode.WatermarkingConfig.load(tmp_path / "all.json").key == made.key


def test_a_saved_configuration_tells_a_wrong_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mark.json"
    config(key=KEY, separate=False).save(file)
    assert set(json.loads(file.read_text())) == {"scheme", "separate", "key_id"}
    right = genmode.WatermarkingConfig.load(file, key=KEY)
    assert right.build().params.separate is False
    with pytest.raises(genmode.ParameterError, match=r"not the one that this configuration .* was saved with"):
        genmode.WatermarkingConfig.load(file, key=KEY + 1).build()
    monkeypatch.setenv("A_KEY", str(KEY))
    from_there = genmode.WatermarkingConfig.load(file, key_from="env:A_KEY")
    assert genmode.detect([1] * 9, from_there).tokens == 1
    assert "key_from='env:A_KEY'" in repr(from_there)
    with pytest.raises(genmode.ParameterError, match="both given"):
        genmode.WatermarkingConfig("parity", key=1, key_from="env:A_KEY")


@pytest.mark.parametrize("text", ["", "[1]", '{"key": 1}', '{"scheme": "parity", "seperate": 1}'])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mark.json"
    file.write_text(text)
    with pytest.raises(genmode.ParameterError):
        genmode.WatermarkingConfig.load(file)
    with pytest.raises(genmode.ParameterError, match="no watermark configuration"):
        genmode.WatermarkingConfig.load(tmp_path / "none.json")


class Words:
    """A tokenizer of numbers."""

    def __init__(self, size: int = 100) -> None:
        self.size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(n): n for n in range(self.size)}

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int], **options: Any) -> str:
        return " ".join(map(str, ids))


def test_another_tokenizer_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mark.json"
    config().save(file, tokenizer=Words())
    mark = genmode.WatermarkingConfig.load(file, key=0)
    assert genmode.detect("1 3 5 7 9 1 1 1", mark, tokenizer=Words()).marked is True
    with pytest.raises(genmode.ParameterError, match="their tokens differ"):
        genmode.detect("1 3 5", mark, tokenizer=Words(101))


# the picture and the command -------------------------------------------------------------------------


def test_the_page_colours_tokens_and_escapes_them() -> None:
    text = [1] * 20 + [2, 99, 3]
    found = genmode.detect(text, config(), window=20)
    shown = page([["<b>", *["x"] * 22]], [found], "a & b")
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "a &amp; b" in shown
    assert shown.count("rgba(60, 170, 90") == 21
    assert shown.count("rgba(210, 80, 70") == 1
    assert shown.count("class='none") + shown.count(" none") >= 1
    assert "passage" in shown


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("genmode.detection.load_tokenizer", lambda name: Words())
    monkeypatch.setenv("A_KEY", "0")
    file = tmp_path / "text.txt"
    file.write_text("1 3 5 7 9 11 13 15")

    def run(*argv: str, stdin: str | None = None) -> Any:
        return CliRunner().invoke(app, ["detect", *argv, "--tokenizer", "words"], input=stdin)

    run.file = file  # type: ignore[attr-defined]
    return run


def test_the_command_reads_a_file_and_writes_a_page(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = command(str(command.file), "--scheme", "parity", "--key-from", "env:A_KEY", "--html", str(out))
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("marked: p = 0.00391")
    assert "8 of 8 counted" in found.stdout
    assert out.read_text().startswith("<!doctype html>")
    config(separate=False).save(tmp_path / "mark.json")
    again = command(
        "-", "--config", str(tmp_path / "mark.json"), "--key-from", "env:A_KEY", "--json", "--fpr", "0.3", stdin="1 1 3"
    )
    told = json.loads(again.stdout)
    assert (told["tokens"], told["p_value"], told["marked"]) == (2, 0.25, True)
    windowed = command(
        str(command.file), "--scheme", "parity", "--key-from", "env:A_KEY", "--window", "9", "--set", "separate=true"
    )
    assert "passage: tokens 0 to 8: 1 3 5" in windowed.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give one of --config FILE and --scheme NAME"),
        (["--scheme", "parita"], "did you mean 'parity'"),
        (["--scheme", "parity"], "key has to be given"),
        (["--scheme", "parity", "--set", "separate"], "key=value"),
        (["--config", "none.json"], "no watermark configuration"),
    ],
)
def test_the_command_says_what_is_wrong(command: Any, argv: list[str], message: str) -> None:
    found = command(str(command.file), *argv)
    assert found.exit_code == 2
    assert message in found.output


def test_files_that_cannot_be_read(command: Any) -> None:
    assert "cannot be read" in command("none.txt", "--scheme", "parity").output
    assert "no tokens" in command("-", "--scheme", "parity", "--set", "key=0", stdin=" ").output
