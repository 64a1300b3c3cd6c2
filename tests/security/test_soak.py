"""Twenty seconds of the soak: what is decoded in threads, beside cancels and failures, is what it is alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..soak import Sample, grown

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="memory and handles are read from /proc")
def test_a_short_soak_finds_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.35", "--threads", "2", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["wrong"] == [], done.stderr
    assert done.returncode == 0
    assert {"whole", "cancelled", "failed", "streamed", "left stream", "refused", "explained"} <= found["calls"].keys()


def test_growth_is_that_of_medians_after_warming_up() -> None:
    flat = [Sample(float(n), 500.0 if n < 4 else 100.0, 5, 3) for n in range(16)]
    assert grown(flat) == {"megabytes": 0.0, "handles": 0.0, "threads": 0.0}
    leaking = [Sample(float(n), 10.0 * n, n, 3) for n in range(16)]
    assert grown(leaking) == {"megabytes": 80.0, "handles": 8.0, "threads": 0.0}
    with pytest.raises(SystemExit, match="too short"):
        grown(flat[:2])
