"""How forwards are run: the protocol of engines, the portable one, and the one with a static cache."""
