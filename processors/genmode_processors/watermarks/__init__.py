"""Watermarkers: schemes, each a processor with its detector, and what schemes share."""
