"""The layers against the counts and shapes of 2012 (P3.5, layers-145.cfg)."""

import dataclasses

import pytest

from alexnet_jax.config import ModelConfig
from alexnet_jax.model.architecture import Conv, Pooling, smallest_crop, trace, training_flop
from alexnet_jax.model.variants import build_architecture

# Both towers: parameters, multiply-adds of one image; then shape and receptive field.
COUNTS = {
    "conv1": (34_944, 105_415_200),
    "conv2": (307_456, 223_948_800),
    "conv3": (885_120, 149_520_384),
    "conv4": (663_936, 112_140_288),
    "conv5": (442_624, 74_760_192),
    "fc6": (37_752_832, 37_748_736),
    "fc7": (16_781_312, 16_777_216),
    "fc8": (4_097_000, 4_096_000),
}
SHAPES = {
    "conv1": ((55, 55, 96), 11),
    "pool1": ((27, 27, 96), 19),
    "conv2": ((27, 27, 256), 51),
    "pool2": ((13, 13, 256), 67),
    "conv3": ((13, 13, 384), 99),
    "conv4": ((13, 13, 384), 131),
    "conv5": ((13, 13, 256), 163),
    "pool5": ((6, 6, 256), 195),
}
ONE_TOWER = {
    "conv1": 17_472,
    "conv2": 153_728,
    "conv3": 442_560,
    "conv4": 331_968,
    "conv5": 221_312,
    "fc6": 18_876_416,
    "fc7": 8_390_656,
}


@pytest.fixture(scope="module")
def rows():
    return {
        row.name: row for row in trace(build_architecture(ModelConfig(scale_init=False), 1000, 224))
    }


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_multiply_adds_are_those_of_2012(rows, name):
    assert (rows[name].parameters, rows[name].multiply_adds) == COUNTS[name]


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_receptive_fields_are_those_of_2012(rows, name):
    assert (rows[name].shape, rows[name].receptive_field) == SHAPES[name]


@pytest.mark.parametrize("name", ONE_TOWER)
def test_a_tower_holds_half_of_every_split_layer(rows, name):
    assert rows[name].parameters == 2 * ONE_TOWER[name]


def test_training_takes_three_passes_but_for_the_gradient_of_the_image():
    architecture = build_architecture(ModelConfig(scale_init=False), 1000, 224)
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    # Side of the maps, squared, x kernel x maps seen x maps: P3.5, with groups in conv2, 4 and 5.
    multiply_adds = dict(
        zip(
            layers,
            (
                55**2 * 11**2 * 3 * 96,
                27**2 * 5**2 * 48 * 256,
                13**2 * 3**2 * 256 * 384,
                13**2 * 3**2 * 192 * 384,
                13**2 * 3**2 * 192 * 256,
                6**2 * 256 * 4096,
                4096 * 4096,
                4096 * 1000,
            ),
            strict=True,
        )
    )
    forward, conv1 = sum(multiply_adds.values()), multiply_adds["conv1"]
    assert training_flop(architecture) == 2 * (3 * forward - conv1) == 4_135_610_496
    # Nothing below fc8 is trained: forward, and the gradient of its kernel.
    assert training_flop(architecture, layers[:-1]) == 2 * (forward + 4096 * 1000)
    # conv1 frozen: conv2 needs no gradient of its input.
    assert training_flop(architecture, ["conv1"]) == 2 * (
        3 * forward - 2 * conv1 - multiply_adds["conv2"]
    )
    # The others pass gradients on to conv1.
    assert training_flop(architecture, layers[1:]) == 2 * (2 * forward)


def test_the_network_has_60_965_224_parameters_659_272_neurons_and_724_406_816_multiply_adds(rows):
    assert sum(row.parameters for row in rows.values()) == 60_965_224
    assert sum(row.neurons for row in rows.values()) == 659_272
    assert sum(row.multiply_adds for row in rows.values()) == 724_406_816


@pytest.mark.parametrize(
    ("crop", "padding"), [(224, (0, 3)), (227, (0, 0)), (225, (0, 2)), (226, (0, 1)), (64, (0, 3))]
)
def test_conv1_pads_as_far_as_its_last_window_reaches(crop, padding):
    conv1 = build_architecture(ModelConfig(scale_init=False), 10, crop).layers[0]
    assert isinstance(conv1, Conv)
    assert conv1.padding(crop) == padding


def test_a_crop_of_227_gives_the_same_shapes_as_224():
    sides = [
        [row.side for row in trace(build_architecture(ModelConfig(scale_init=False), 10, crop))]
        for crop in (224, 227)
    ]
    assert sides[0] == sides[1]


@pytest.mark.parametrize(
    ("side", "pooled"), [(55, 27), (27, 13), (13, 6), (14, 7), (4, 2), (2, 1), (1, 0)]
)
def test_pooling_rounds_up(side, pooled):
    assert Pooling().output_side(side) == pooled


def test_the_smallest_crop_is_36_and_keeps_one_pixel_everywhere():
    architecture = build_architecture(ModelConfig(scale_init=False), 10, 224)
    assert smallest_crop(architecture) == 36
    assert [row.side for row in trace(dataclasses.replace(architecture, crop=36))][-4:] == [
        1,
        1,
        1,
        1,
    ]


def test_a_smaller_crop_is_refused_with_the_smallest_as_the_remedy():
    with pytest.raises(ValueError, match=r"data\.crop 35: .*at least 36.*; try 36"):
        build_architecture(ModelConfig(scale_init=False), 10, 35)


def test_a_narrower_network_has_the_same_layers_and_even_widths():
    narrow, full = (
        build_architecture(ModelConfig(width=0.3, scale_init=False), 101, 224),
        build_architecture(ModelConfig(scale_init=False), 101, 224),
    )
    assert [layer.name for layer in narrow.layers] == [layer.name for layer in full.layers]
    assert [layer.ops for layer in narrow.layers] == [layer.ops for layer in full.layers]
    assert [layer.features for layer in narrow.layers] == [28, 76, 116, 116, 76, 1228, 1228, 101]


def test_scaled_initialization_keeps_the_variance_of_each_sum():
    # fc6 sees 9,216 inputs in 2012 and 128 here: std * sqrt(inputs) must not change.
    quick = build_architecture(ModelConfig(width=0.5), 20, 64)
    fc6 = next(layer for layer in quick.layers if layer.name == "fc6")
    assert fc6.std**2 * 128 == pytest.approx(0.01**2 * 9216)
    assert build_architecture(ModelConfig(), 1000, 224) == build_architecture(
        ModelConfig(scale_init=False), 1000, 224
    )
