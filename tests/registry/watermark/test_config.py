"""Watermarking configurations: keys that stay hidden, and files that tell a wrong one."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

import genmode
from genmode.watermark import keys

from .detection_support import KEY, Words, config

pytestmark = pytest.mark.usefixtures("schemes")


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


def test_another_tokenizer_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mark.json"
    config().save(file, tokenizer=Words())
    mark = genmode.WatermarkingConfig.load(file, key=0)
    assert genmode.detect("1 3 5 7 9 1 1 1", mark, tokenizer=Words()).marked is True
    with pytest.raises(genmode.ParameterError, match="their tokens differ"):
        genmode.detect("1 3 5", mark, tokenizer=Words(101))
