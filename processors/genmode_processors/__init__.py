"""genmode's own processors, criteria and watermarkers, one family a package, and what families share."""
