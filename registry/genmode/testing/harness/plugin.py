"""The pytest plugin: fixtures for the tests of components. pytest finds it where genmode is installed.

It imports nothing but pytest until a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from genmode.plugins.registry import Registry
    from genmode.testing import FakeClock, RecordingStreamer


@pytest.fixture
def isolated_host() -> Iterator[Registry]:
    """A host that sees genmode's own components and no plugin of the environment; `register` adds to it."""
    from genmode.plugins.registry import use
    from genmode.testing.harness.host import make_host

    with use(make_host()) as registry:
        yield registry


@pytest.fixture
def tiny_model() -> Any:
    """A random Llama of two layers and 100 tokens; the same object for all tests, not to be changed."""
    from genmode.testing.harness.models import tiny

    return tiny("llama")


@pytest.fixture
def tiny_models() -> Callable[[str], Any]:
    """Gives such a model of a family: llama, gpt2, qwen2, gemma3, mamba, lfm2, t5, bart, llava, qwen2_vl."""
    from genmode.testing.harness.models import tiny

    return tiny


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that moves by hand."""
    from genmode.testing import FakeClock

    return FakeClock()


@pytest.fixture
def recording_streamer() -> RecordingStreamer:
    """A streamer that keeps what it gets."""
    from genmode.testing import RecordingStreamer

    return RecordingStreamer()
