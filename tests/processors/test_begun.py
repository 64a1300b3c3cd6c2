"""Attributes that exist within a call."""

from __future__ import annotations

from typing import Any

import pytest

import genmode
from genmode_processors.begun import Begun


class Adds(genmode.LogitsProcessor):
    contract_version = 1
    _table: Begun[int] = Begun()


class Stops(genmode.StoppingCriterion):
    contract_version = 1
    _table: Begun[int] = Begun()


@pytest.mark.parametrize(("cls", "method"), [(Adds, "process"), (Stops, "check")])
def test_to_read_them_outside_of_a_call_is_an_error(cls: Any, method: str) -> None:
    one, other = cls(), cls()
    one._table = 0
    assert one._table == 0
    with pytest.raises(RuntimeError, match=f"{cls.name}: {method} was called before begin"):
        _ = other._table
    one._table = None
    with pytest.raises(RuntimeError, match="before begin"):
        _ = one._table
    assert isinstance(cls._table, Begun)
