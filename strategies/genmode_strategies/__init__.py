"""genmode's own strategies, one module each."""
