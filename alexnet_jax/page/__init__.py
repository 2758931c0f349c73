"""The page of a run: one HTML file with its scores, curves, pictures and settings."""
