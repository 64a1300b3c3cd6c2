"""Run as a script by `bounds`: compiles for an engine within limits of time and memory, and writes what came of it.

It imports nothing of the project, so that it is there at once. Where the operating system has no such limits, the caller's
time on the clock alone counts.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any


def limit(seconds: int, megabytes: int) -> None:
    """Let this process have so much of the processor and of memory."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows
        return
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def outlines_core(regex: str, end: int, tokens: dict[bytes, list[int]]) -> Any:
    """The index of a regex for a vocabulary."""
    engine: Any = importlib.import_module("outlines_core")
    return engine.Index(regex, engine.Vocabulary(end, tokens))


def outlines_regex(schema: str, space: str) -> str:
    """The regex of a schema, which doubles with every array within another."""
    engine: Any = importlib.import_module("outlines_core")
    regex: str = engine.json_schema.build_regex_from_schema(schema, space)
    return regex


def lm_format_enforcer(patterns: list[str]) -> None:
    """Build the automaton of each pattern as lm-format-enforcer does, which builds it again."""
    interegular: Any = importlib.import_module("interegular")
    for pattern in patterns:
        interegular.parse_pattern(pattern).to_fsm()


JOBS: dict[str, Callable[..., Any]] = {
    "outlines-core": outlines_core,
    "outlines-core: schema": outlines_regex,
    "lm-format-enforcer": lm_format_enforcer,
}


def main() -> None:
    path, seconds, megabytes, job, given = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    limit(seconds, megabytes)
    try:
        answer = True, JOBS[job](*given)
    except MemoryError:
        raise
    except Exception as error:  # what an engine says of a pattern that it does not know is handed on
        answer = False, f"{type(error).__name__}: {error}"
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
