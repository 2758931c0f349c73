"""Files that are never half written, their digests, and folders with one writer at a time."""
