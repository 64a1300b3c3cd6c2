"""Ways to guess how text goes on, one module each, and the loop that verifies any guess."""
