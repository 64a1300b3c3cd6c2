"""Watermarkers: a scheme's processor and its detector, one scheme a module."""
