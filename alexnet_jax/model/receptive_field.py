"""Which pixels of the image each output of the network sees, exactly."""

import dataclasses

import numpy as np

from alexnet_jax.model.architecture import SPATIAL_NORM, Architecture, Conv, Operation, outputs


@dataclasses.dataclass(frozen=True)
class Window:
    """What one step of the network sees along an axis of its input."""

    size: int
    stride: int
    pad: int  # before the axis; what it sees there, or past the end, depends on no pixel
    side: int  # of the input


@dataclasses.dataclass(frozen=True)
class Output:
    """The outputs of a layer, or of an operation that follows it, and the way from the image."""

    name: str
    is_maps: bool  # [H, W, maps]; otherwise [units], each of which sees the whole image
    side: int  # of a map; 1 for units
    channels: int  # maps or units, over both towers
    windows: tuple[Window, ...]  # from the image on

    def extent(self, index: int) -> tuple[int, int]:
        """Return the first pixel, of rows or columns, that the output at `index` sees, and the end.

        The edge of the image clips it, and so do the edges of the maps on the way. Normalization
        over pixels widens it, normalization over maps does not.
        """
        first = last = index
        for window in reversed(self.windows):
            first = max(0, first * window.stride - window.pad)
            last = min(window.side - 1, last * window.stride - window.pad + window.size - 1)
        return first, last + 1

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the pixels that the output at a point sees."""
        (top, bottom), (left, right) = self.extent(row), self.extent(column)
        return left, top, right, bottom

    @property
    def centers(self) -> np.ndarray:
        """Where the centers of the fields are, before the edge clips them, in pixels: [side]."""
        points = np.arange(self.side, dtype=np.float64)
        for window in reversed(self.windows):
            points = points * window.stride - window.pad + (window.size - 1) / 2
        return points


def trace_outputs(architecture: Architecture) -> dict[str, Output]:
    """Return every output of a network by name, in order: "conv1", "relu1", "norm1", "pool1"."""
    side, windows = architecture.crop, []
    found: dict[str, Output] = {}
    for layer in architecture.layers:
        is_maps = isinstance(layer, Conv)
        if isinstance(layer, Conv):
            windows.append(Window(layer.kernel, layer.stride, layer.padding(side)[0], side))
            side = layer.output_side(side)
        else:
            windows.append(Window(side, 1, 0, side))
            side = 1
        steps: list[tuple[Operation | None, str]] = [(None, layer.name), *outputs(layer)]
        for operation, name in steps:
            if operation == "pool":
                pooling = architecture.pooling
                windows.append(Window(pooling.window, pooling.stride, 0, side))
                side = pooling.output_side(side)
            elif operation == "spatial_norm":
                windows.append(Window(SPATIAL_NORM.n, 1, SPATIAL_NORM.n // 2, side))
            found[name] = Output(name, is_maps, side, layer.features, tuple(windows))
    return found
