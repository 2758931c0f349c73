"""Pictures: functions that draw them, and `save`."""

from alexnet_jax.figures.run import (
    curves,
    draw_curves,
    draw_filters,
    draw_predictions,
    filter_mosaic,
    filters,
    predictions,
)
from alexnet_jax.figures.tiles import save

__all__ = [
    "curves",
    "draw_curves",
    "draw_filters",
    "draw_predictions",
    "filter_mosaic",
    "filters",
    "predictions",
    "save",
]
