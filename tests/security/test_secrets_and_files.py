"""What output holds of secrets, and what writing and reading files can be made to do."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
import warnings
from pathlib import Path

import pytest
import torch

import genmode
from genmode.atomic import write_text
from genmode.testing.harness.models import tiny
from genmode.watermark.keys import read_key

PROMPT = torch.tensor([[5, 6, 7]])
KEY = 987654321


def test_a_secret_is_not_shown(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    mark = genmode.WatermarkingConfig("gumbel", key=KEY)
    config = genmode.GenerationConfig(watermarking_config=mark, do_sample=True, max_new_tokens=2)
    plan = genmode.explain(tiny("llama"), PROMPT, generation_config=config)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as told, genmode.trace() as trace:
        warnings.simplefilter("always")
        genmode.generate(tiny("llama"), PROMPT, generation_config=config)
    shown = [
        str(one) for one in (mark, mark.to_dict(), vars(mark), config, config.to_dict(), vars(config), plan, repr(plan))
    ]
    shown += [
        config.to_json_string(),
        json.dumps(plan.to_dict()),
        repr(mark.build()),
        str(trace),
        repr(trace),
        str(vars(trace)),
    ]
    shown += [caplog.text, *capsys.readouterr(), *(str(one.message) for one in told)]
    assert not [text for text in shown if str(KEY) in text]


@pytest.mark.parametrize(
    "wrong",
    [
        {"watermark": {"scheme": "kgw", "key": KEY}},
        {"watermark": KEY},
        {"watermark": str(KEY)},
        {"watermark": [KEY]},
        {"processors": [{"scheme": "kgw", "key": KEY}]},
        {"watermark": "kgw", "key": [KEY]},
    ],
    ids=str,
)
def test_an_error_does_not_repeat_a_secret(wrong: dict[str, object]) -> None:
    with pytest.raises(genmode.GenmodeError) as caught:
        genmode.generate(tiny("llama"), PROMPT, max_new_tokens=2, **wrong)  # type: ignore[call-overload]
    assert str(KEY) not in "".join(traceback.format_exception_only(caught.value))
    assert str(KEY) not in repr(caught.value.__cause__) + repr(caught.value.__context__)


def test_a_pickle_has_no_secret() -> None:
    mark = genmode.WatermarkingConfig("gumbel", key=f"words {KEY}")
    for one in (mark, genmode.GenerationConfig(watermarking_config=mark)):
        assert str(KEY).encode() not in pickle.dumps(one)
    with pytest.raises(genmode.ParameterError, match="left behind"):
        pickle.loads(pickle.dumps(mark)).build()
    with pytest.raises(genmode.ParameterError, match="secrets are not pickled"):
        pickle.dumps(mark.build())


def test_a_file_with_a_key_is_private(tmp_path: Path) -> None:
    path = tmp_path / "mark.json"
    path.touch(0o644)
    genmode.WatermarkingConfig("gumbel", key=KEY).save(path)
    assert str(KEY) not in path.read_text()
    genmode.WatermarkingConfig("gumbel", key=KEY).save(path, secrets=True)
    assert str(KEY) in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_link_at_a_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".a.guessed.new").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a", "text")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("source", ["file:/dev/zero", "env:LONG"])
def test_a_key_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("LONG", "k" * 100_000)
    for read in (read_key, lambda one: genmode.WatermarkingConfig("gumbel", key_from=one).build()):
        with pytest.raises(genmode.ParameterError, match="4096 bytes"):
            read(source)
