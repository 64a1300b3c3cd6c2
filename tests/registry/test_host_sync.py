"""When the host may look at a tensor for free."""

from __future__ import annotations

import torch

from genmode import host_sync


def test_on_the_cpu_the_host_looks_at_once() -> None:
    assert host_sync.is_free(torch.device("cpu"))
    assert host_sync.surely_none(torch.zeros(3, dtype=torch.bool))
    assert not host_sync.surely_none(torch.tensor([False, True]))
    assert host_sync.surely_all(torch.ones(3, dtype=torch.bool))
    assert not host_sync.surely_all(torch.tensor([False, True]))


def test_a_late_host_treats_the_cpu_as_a_device() -> None:
    with host_sync.late_host():
        assert not host_sync.is_free(torch.device("cpu"))
        assert not host_sync.surely_none(torch.zeros(3, dtype=torch.bool))
        assert not host_sync.surely_all(torch.ones(3, dtype=torch.bool))
    assert host_sync.is_free(torch.device("cpu"))


def test_values_arrive_as_they_were_sent() -> None:
    values = torch.tensor([3, 1, 4])
    assert host_sync.Arriving(values).wait().tolist() == [3, 1, 4]
    assert torch.equal(host_sync.to_device(values, torch.device("cpu")), values)
