"""Preparing a source once: resized images as ArrayRecord shards, with statistics and checksums."""
