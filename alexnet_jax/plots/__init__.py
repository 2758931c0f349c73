"""Pictures: functions that draw them, and `save`."""

from alexnet_jax.plots.run import (
    curves,
    draw_curves,
    draw_filters,
    draw_predictions,
    filter_mosaic,
    filters,
    predictions,
)
from alexnet_jax.plots.tiles import save

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
