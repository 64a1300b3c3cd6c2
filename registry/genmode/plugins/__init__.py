"""What is installed, which of it may be loaded, and the parameters that it takes."""
