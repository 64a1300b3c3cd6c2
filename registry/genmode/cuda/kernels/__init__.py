"""Triton kernels, and building them."""
