"""Figures: each module has a function `draw`; `tiles.save` writes the file."""
