"""Processors that penalise repetition."""
