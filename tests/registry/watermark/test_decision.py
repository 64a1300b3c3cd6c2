"""From evidence to decisions, by hand."""

from __future__ import annotations

import math

import pytest
import torch

import genmode
from genmode.watermark import first_of_each

from .detection_support import config

pytestmark = pytest.mark.usefixtures("schemes")


def test_eight_of_ten_by_hand() -> None:
    text = [1, 3, 5, 7, 9, 11, 13, 15, 2, 4]
    found = genmode.detect(text, config())
    assert (found.tokens, found.marked, found.fpr) == (10, False, 0.01)
    assert found.p_value == pytest.approx(56 / 1024)
    assert found.score == pytest.approx(3 / math.sqrt(2.5))
    assert found.evidence == (1.0,) * 8 + (-1.0,) * 2
    assert "another key" in found.note
    assert "10 tokens that count are few" in found.note
    assert "few" not in genmode.detect(text * 3, config()).note
    assert genmode.detect(text, config(), fpr=0.06).marked is True


def test_the_same_draw_counts_once() -> None:
    found = genmode.detect([1] * 30 + [3], config(separate=False))
    assert (found.tokens, found.p_value) == (2, 0.25)
    assert found.evidence[:2] == (1.0, None)
    assert first_of_each(torch.tensor([4, 4, 5]), torch.tensor([False, True, True])).tolist() == [False, True, True]


def test_too_short_a_text_says_so() -> None:
    found = genmode.detect([1] * 6, config())
    assert found.marked is None
    assert "too short: 6 tokens count" in found.note
    assert genmode.detect([1] * 7, config()).marked is True
    empty = genmode.detect([99, 99], config())
    assert (empty.marked, empty.p_value, empty.score, empty.tokens) == (None, 1.0, 0.0, 0)
    assert "too short" in empty.note


def test_a_window_finds_the_passage() -> None:
    text = [1, 2] * 100 + [1] * 40 + [1, 2] * 100
    whole = genmode.detect(text, config())
    found = genmode.detect(text, config(), window=40)
    windows = len(range(0, 400, 10)) + 1
    assert whole.marked is False
    assert found.marked is True
    assert found.p_value == pytest.approx(0.5**40 * windows)
    assert found.passage is not None
    begin, end = found.passage
    assert begin <= 200
    assert end >= 240
    assert end - begin <= 100
    assert genmode.detect([1, 2] * 100, config(), window=40).passage is None
    assert genmode.detect([1] * 20, config(), window=40).passage == (0, 20)


def test_windows_keep_the_rate() -> None:
    # 1,000 texts: 1% is 10, and 26 or more has p < 3e-5
    texts = torch.randint(0, 98, (1000, 120), generator=torch.Generator().manual_seed(1))
    assert sum(bool(one.marked) for one in genmode.detect(texts, config(), window=30)) < 26
