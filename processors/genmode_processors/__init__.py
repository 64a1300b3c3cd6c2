"""genmode's own processors, criteria and watermarkers, one family each."""
