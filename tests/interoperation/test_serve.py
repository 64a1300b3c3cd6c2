"""The server of `transformers serve` on a model that is attached, asked as its client `transformers chat` asks.

pip install fastapi uvicorn openai && pytest tests/interoperation/test_serve.py
"""

from __future__ import annotations

import gc
import json
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import genmode
from genmode import api, tracing
from genmode.testing.harness.models import fresh, tokenizer

for package in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(package, reason=f"needs {package}: pip install {package}")
pytestmark = pytest.mark.filterwarnings("default")

CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A running server whose models are attached when it loads them; gives its address and the calls it traced."""
    from transformers.cli.serve import Serve
    from transformers.cli.serving.model_manager import ModelManager

    folder = tmp_path / "model"
    fresh("llama").save_pretrained(folder)
    words = tokenizer()
    words.chat_template = CHAT
    words.save_pretrained(folder)
    loading = ModelManager._load_model
    monkeypatch.setattr(ModelManager, "_load_model", lambda self, *a, **k: genmode.attach(loading(self, *a, **k)))
    calls: list[Any] = []
    attached = api.generate

    def traced(*args: Any, **kwargs: Any) -> Any:  # the server decodes in a thread of its own
        with tracing.trace() as found:
            try:
                return attached(*args, **kwargs)
            finally:
                calls.extend(found.calls)

    monkeypatch.setattr(api, "generate", traced)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = Serve(host="127.0.0.1", port=port, device="cpu", non_blocking=True, log_level="error")
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).read()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    yield address, str(folder), calls
    serve.kill_server()
    serve._thread.join(10)
    del serve
    with warnings.catch_warnings():  # transformers leaves the server's event loop open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def ask(address: str, folder: str, config: dict[str, Any], stream: bool) -> str:
    """The answer to one message; genmode's keys travel in `generation_config`."""
    body = {
        "model": folder, "messages": [{"role": "user", "content": "a5 b6 c7 a5 b6"}], "stream": stream,
        "generation_config": json.dumps({"max_new_tokens": 8, "do_sample": False, **config}),
    }  # fmt: skip
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    text = urllib.request.urlopen(request, timeout=60).read().decode()
    if not stream:
        answer: str = json.loads(text)["choices"][0]["message"]["content"]
        return answer
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_requests_choose_the_strategy(server: Any, stream: bool) -> None:
    address, folder, calls = server
    inputs = tokenizer()("a5 b6 c7 a5 b6", return_tensors="pt")["input_ids"]
    tokens = fresh("llama").generate(inputs, max_new_tokens=8, do_sample=False)[0, inputs.shape[1] :]
    stock = tokenizer().decode(tokens, skip_special_tokens=True)
    assert ask(address, folder, {}, stream).strip() == stock.strip()
    assert ask(address, folder, {"strategy": "suffix_lookup"}, stream).strip() == stock.strip()
    assert ask(address, folder, {"presence_penalty": 50.0}, stream).strip() != stock.strip()
    for _ in range(100):  # a stream is read before the call behind it has returned
        if len(calls) == 3:
            break
        time.sleep(0.05)
    assert [call.strategy for call in calls] == ["greedy_search", "suffix_lookup", "greedy_search"]
    assert [part.name for part in calls[2].parts if part.kind == "processor"] == ["presence_penalty"]
    assert all(any(part.kind == "streamer" for part in call.parts) == stream for call in calls)
