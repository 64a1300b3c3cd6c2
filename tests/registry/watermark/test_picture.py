"""The page that colours a text by its evidence."""

from __future__ import annotations

import pytest

import genmode
from genmode.watermark.picture import page

from .detection_support import config

pytestmark = pytest.mark.usefixtures("schemes")


def test_the_page_colours_tokens_and_escapes_them() -> None:
    text = [1] * 20 + [2, 99, 3]
    found = genmode.detect(text, config(), window=20)
    shown = page([["<b>", *["x"] * 22]], [found], "a & b")
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "a &amp; b" in shown
    assert shown.count("rgba(60, 170, 90") == 21
    assert shown.count("rgba(210, 80, 70") == 1
    assert shown.count("class='none") + shown.count(" none") >= 1
    assert "passage" in shown
