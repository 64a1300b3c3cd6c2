"""Where keys are read: from what the caller names, and no more of it than a key has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import genmode
from genmode.errors import ParameterError
from genmode.watermark import keys

from .detection_support import KEY, config

pytestmark = pytest.mark.usefixtures("schemes")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_device_without_end_does_not_fill_the_memory(device: str) -> None:
    with pytest.raises(ParameterError, match=r"more than 4096 bytes|cannot be read"):
        keys.read_key(f"file:{device}")


def test_what_is_longer_than_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    for text, fits in (("k" * 4096 + "\r\n", True), ("k" * 4097, False), ("1" * 4200, False)):
        file.write_bytes(text.encode())
        if fits:
            assert keys.read_key(f"file:{file}") == text.strip()
            continue
        with pytest.raises(ParameterError, match="more than 4096 bytes"):
            keys.read_key(f"file:{file}")
    monkeypatch.setenv("LONG", "k" * 5000)
    with pytest.raises(ParameterError, match="more than 4096 bytes"):
        keys.read_key("env:LONG")


@pytest.mark.parametrize("content", [b"\xff\xfe secret", None])
def test_a_file_that_is_no_text_is_not_shown(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    for source in (f"file:{tmp_path / 'key'}", f"file:{tmp_path}", "file:a\0b", "file:~nobody-at-all/key"):
        with pytest.raises(ParameterError, match="cannot be read") as caught:
            keys.read_key(source)
        assert caught.value.__context__ is None


def test_a_source_that_a_file_names_is_kept_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", str(KEY))
    own = genmode.WatermarkingConfig("parity", key_from="env:A_KEY")
    own.build()
    own.save(tmp_path / "mark.json")
    genmode.GenerationConfig(watermarking_config=own).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())["genmode"]["watermark"]
    assert saved["key_from"] == "env:A_KEY"
    loaded = (
        genmode.WatermarkingConfig.load(tmp_path / "mark.json"),
        genmode.GenerationConfig.from_pretrained(tmp_path).watermarking_config,
        genmode.WatermarkingConfig.from_dict(saved),
    )
    for one in loaded:
        assert one.key_from == "env:A_KEY"
        with pytest.raises(ParameterError, match="what a file says is not read"):
            one.build()
        with pytest.raises(ParameterError, match="what a file says is not read"):
            genmode.detect([1] * 9, one)
        one.key_from = "env:A_KEY"
        assert one.build().params.key == KEY
    assert genmode.WatermarkingConfig.load(tmp_path / "mark.json", key_from="env:A_KEY").build().params.key == KEY


def test_a_files_other_key_goes_where_one_is_given(tmp_path: Path) -> None:
    file = tmp_path / "mark.json"
    config(key=KEY).save(file, secrets=True)
    assert genmode.WatermarkingConfig.load(file, key=KEY).key == KEY
    data = json.loads(file.read_text()) | {"key_from": "file:/etc/hostname"}
    file.write_text(json.dumps(data))
    with pytest.raises(ParameterError, match="both given"):
        genmode.WatermarkingConfig.load(file)


def test_a_file_without_end_is_no_configuration() -> None:
    with pytest.raises(ParameterError, match="no watermark configuration"):
        genmode.WatermarkingConfig.load("/dev/zero")


def test_a_files_keys_are_parameters_whatever_they_are_called() -> None:
    with pytest.raises(ParameterError, match="self is no parameter of it"):
        genmode.WatermarkingConfig.from_dict({"scheme": "parity", "self": 1, "cls": 2}).validate()
