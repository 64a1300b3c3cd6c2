"""Processors that read rows as text."""
