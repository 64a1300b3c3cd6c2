"""Compiling within bounds: what a pattern counts is looked at beforehand, and what cannot be foretold runs apart.

A few characters can ask for gigabytes: `((a{1000}){1000}){1000}` by what it counts, `[ab]*a[ab]{30}` by the 2^30 states of its
automaton. llguidance bounds its own work (a row then ends with an error), and xgrammar follows a pattern without building
its automaton; both are fast on what `counted.check_size` lets through. outlines-core and lm-format-enforcer build the
automaton, so they try it in a process of its own (`worker`) that has `SECONDS` of the processor and `MEGABYTES` of memory.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 10
MEGABYTES = 2048
WALL = 60
"""Seconds on the clock, for a machine that is busy."""
_WORKER = Path(__file__).with_name("worker.py")


def apart(job: str, *given: Any) -> Any:
    """What `worker` makes of the arguments, in a process of its own.

    Args:
        job: one of `worker.JOBS`: the engine, and what of it behind a colon.
        given: what the job takes.

    Raises:
        ValueError: the engine refuses it, or it takes too long or too much memory.
    """
    engine = job.partition(":")[0]
    message = pickle.dumps((sys.path, SECONDS, MEGABYTES, job, given))
    command = [sys.executable, "-I", str(_WORKER)]
    try:
        done = subprocess.run(command, input=message, capture_output=True, timeout=WALL, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(_too_much(engine)) from error
    if done.returncode or not done.stdout:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ValueError(f"{_too_much(engine)} ({' '.join([f'exit status {done.returncode}', *last])})")
    right, found = pickle.loads(done.stdout)
    if not right:
        raise ValueError(found)
    return found


def _too_much(engine: str) -> str:
    return (
        f"it takes {engine} more than {SECONDS} seconds or {MEGABYTES} megabytes to compile; bound what it repeats, or take "
        "another grammar_engine"
    )
