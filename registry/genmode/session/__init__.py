"""A running call: its state, the machinery that changes it, and what strategies and other components see of it."""
