"""Processors that set the scores of a second model or context against the model's."""
