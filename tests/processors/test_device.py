"""Every component on an accelerator, and where the host learns late: the CPU's results, and no wait for the device."""

from __future__ import annotations

import pytest
import torch

from genmode import host_sync

from .device_cases import CRITERIA, PROCESSORS, run
from .rows_support import byte_tokenizer

TOKENIZER = byte_tokenizer(["ab"], special=["</s>"])
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [*PROCESSORS, *CRITERIA])
@pytest.mark.gpu
def test_a_device_gives_the_results_of_the_cpu_without_a_wait(name: str) -> None:
    for there, here in zip(run(name, torch.device("cuda"), TOKENIZER), run(name, CPU, TOKENIZER), strict=True):
        torch.testing.assert_close(there, here)


@pytest.mark.parametrize("name", [*PROCESSORS, *CRITERIA])
def test_results_are_the_same_where_the_host_may_not_look(name: str) -> None:
    expected = run(name, CPU, TOKENIZER)
    with host_sync.late_host():
        for there, here in zip(run(name, CPU, TOKENIZER), expected, strict=True):
            torch.testing.assert_close(there, here)


@pytest.mark.parametrize("name", [*PROCESSORS, *CRITERIA])
def test_results_are_no_nan_even_in_a_masked_row(name: str) -> None:
    results = run(name, CPU, TOKENIZER)
    assert len(results) == 5
    assert not any(result.isnan().any() for result in results)
