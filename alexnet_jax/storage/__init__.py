"""Files that are never half written, digests, and folders with one writer that may move."""
