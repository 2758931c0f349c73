"""Receptive fields, by brute force: which outputs change if a row or column of pixels does."""

import dataclasses

import numpy as np
import pytest

from alexnet_jax.model.architecture import trace
from alexnet_jax.model.features import features
from alexnet_jax.model.receptive_field import trace_outputs
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def build(preset, crop, **changes):
    model = dataclasses.replace(PRESETS[preset].model, width=0.05, **changes)
    return build_architecture(model, 3, crop)


def random_params(architecture):
    rng = np.random.default_rng(0)
    return {
        row.name: {
            "kernel": rng.normal(0, np.prod(row.kernel_shape[:-1]) ** -0.5, row.kernel_shape),
            "bias": np.zeros(row.channels),
        }
        for row in trace(architecture)
        if row.kernel_shape
    }


def changed(architecture, axis, names):
    """Return which positions of each output change with each row (axis 1) or column of pixels."""
    crop = architecture.crop
    rng = np.random.default_rng(1)
    images = np.repeat(rng.normal(0, 60, (1, crop, crop, 3)), crop + 1, axis=0)
    for pixel in range(crop):
        place = (pixel, slice(None)) if axis == 1 else (slice(None), pixel)
        images[(pixel, *place)] = rng.normal(0, 200, (crop, 3))
    params = random_params(architecture)
    params = {n: {k: a.astype("f4") for k, a in w.items()} for n, w in params.items()}
    taps = features(params, images.astype(np.float32), names, architecture=architecture)
    found = {}
    for name, values in taps.items():
        maps = np.asarray(values)
        maps = maps.reshape(crop + 1, 1, 1, -1) if maps.ndim == 2 else maps
        apart = np.abs(maps[:-1] - maps[-1:]) > 1e-6 * np.abs(maps[-1]).max()
        found[name] = apart.any(axis=(3 - axis, 3))  # [pixel, position]
    return found


@pytest.mark.parametrize(
    ("preset", "crop", "changes", "axis"),
    [
        ("paper", 64, {}, 1),  # zeros after the image
        ("paper", 66, {}, 2),  # pooling reaches past the edge
        ("source2012", 65, {}, 1),  # pooling before the ReLU; normalization over pixels
        ("bvlc_alexnet", 67, {}, 2),  # no zeros
        ("torchvision", 63, {}, 1),  # zeros on both sides, pooling rounds down
        ("caffenet", 71, {"pool_window": 2}, 2),
        ("six_conv", 64, {"drop_layer": "conv3"}, 1),
    ],
)
def test_an_output_changes_with_the_pixels_that_it_sees_and_no_others(preset, crop, changes, axis):
    architecture = build(preset, crop, **changes)
    outputs = trace_outputs(architecture)
    # Deep in the network what a pixel at the corner of the field adds is below rounding errors.
    names = [name for name in outputs if not name.startswith("fc") or name == "fc6"]
    names = [name for name in names if not name.startswith(("drop", "relu6", "relu7"))]
    for name, pixels in changed(architecture, axis, names).items():
        assert pixels.shape[1] == outputs[name].side, name
        for position in range(outputs[name].side):
            seen = np.flatnonzero(pixels[:, position])
            first, end = outputs[name].extent(position)
            assert (seen[0], seen[-1] + 1) == (first, end), (name, position)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_sides_and_unclipped_fields_are_those_of_the_table(preset):
    config = PRESETS[preset]
    architecture = build_architecture(config.model, 10, config.data.crop)
    outputs = trace_outputs(architecture)
    for row in trace(architecture):
        output = outputs[row.name]
        assert (output.side, output.channels) == (row.side, row.channels), row.name
        first, end = output.extent(output.side // 2)
        if first > 0 and end < architecture.crop:
            assert end - first == row.receptive_field, row.name


def test_fields_of_the_paper_by_hand():
    outputs = trace_outputs(build_architecture(PRESETS["paper"].model, 10, 224))
    assert outputs["conv1"].extent(3) == (12, 23)
    assert outputs["norm1"].extent(3) == (12, 23)  # over maps: as wide as conv1
    assert outputs["pool1"].extent(3) == (24, 43)  # 11 + 2 * 4 pixels
    assert outputs["conv2"].extent(0) == (0, 35)  # positions 0 to 2 of pool1
    assert outputs["conv1"].extent(54) == (216, 224)  # 3 zeros after the image
    assert outputs["pool1"].box(3, 4) == (32, 24, 51, 43)
    assert outputs["fc6"].box(0, 0) == (0, 0, 224, 224)
    np.testing.assert_allclose(outputs["conv1"].centers[:2], [5, 9])
    np.testing.assert_allclose(outputs["conv2"].centers[:2], [9, 17])


def test_normalization_over_pixels_widens_the_field():
    outputs = trace_outputs(build_architecture(PRESETS["source2012"].model, 10, 224))
    middle = outputs["norm2"].side // 2
    fields = [outputs[name].extent(middle) for name in ("norm2", "cnorm2")]
    assert [end - first for first, end in fields] == [51, 51 + 4 * 8]
