"""Temperature, truncation, and other changes of a distribution's shape."""
