"""Processors that forbid, force or bias tokens, bound lengths, and make scores valid."""
