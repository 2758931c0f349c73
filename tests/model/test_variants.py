"""The networks called AlexNet and the paper's controls, one setting at a time."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import trace, weighted_rows
from alexnet_jax.model.features import features
from alexnet_jax.model.variants import build_architecture, check_layers
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.step import draw_dropout_masks

pytestmark = pytest.mark.usefixtures("quick_compilation")

PAPER, SOURCE = PRESETS["paper"].model, PRESETS["source2012"].model
TOTAL_2012 = 60_965_224, 724_406_816  # parameters, multiply-adds of an image
CONTROLS: dict[str, dict[str, Any]] = {
    "tanh": {"activation": "tanh"},
    "no LRN": {"lrn": False},
    "pooling apart": {"pool_window": 2},
    "no conv2": {"drop_layer": "conv2"},
    "no conv3": {"drop_layer": "conv3"},
    "no conv4": {"drop_layer": "conv4"},
    "no conv5": {"drop_layer": "conv5"},
    "dropout off": {"dropout": 0.0},
}


def counts(model, classes=1000, crop=224):
    rows = trace(build_architecture(model, classes, crop))
    return sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("paper", TOTAL_2012),
        ("source2012", TOTAL_2012),
        ("merged", (62_378_344, 1_135_256_096)),
        ("half", (59_798_312, 391_514_384)),
        ("torchvision", (61_100_840, 714_188_480)),
        # conv6 sees 6 x 6 pixels of 256 maps through 3 x 3: 590,080 parameters, 36 * 589,824.
        ("six_conv", (61_555_304, 724_406_816 + 21_233_664)),
    ],
)
def test_published_counts(preset, expected):
    assert counts(PRESETS[preset].model) == expected


@pytest.mark.parametrize("preset", ["bvlc_alexnet", "caffenet"])
def test_caffe_has_the_counts_of_2012_on_227_pixels(preset):
    config = PRESETS[preset]
    assert counts(config.model, crop=config.data.crop) == TOTAL_2012


def test_the_heads_of_pretraining():
    six = PRESETS["six_conv"].model
    body = 61_555_304 - 4_097_000  # all but fc8
    # Fall 2009: 10,184 classes see 4,096 units.
    assert counts(six, 10_184)[0] == body + 4096 * 10_184 + 10_184
    # Fall 2011: 4,096 units -> 2 x 1,024 linear ones, all of which each class sees
    # (layers-146-2011.cfg:358-371).
    linear, head = 4096 * 2048 + 2048, 2048 * 21_843 + 21_843
    bottleneck = dataclasses.replace(six, bottleneck=2048)
    assert head == 44_756_307
    assert counts(bottleneck, 21_843)[0] == body + linear + head == 110_605_267


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        # These have no weights. Rounded down, 2 x 2 windows give maps of 27, 13 and 6 pixels too.
        ("tanh", TOTAL_2012),
        ("no LRN", TOTAL_2012),
        ("pooling apart", TOTAL_2012),
        ("dropout off", TOTAL_2012),
        # conv3 then sees the 96 maps of conv1, 13 x 13 after both poolings.
        (
            "no conv2",
            (
                60_965_224 - 307_456 - 885_120 + (9 * 96 * 384 + 384),
                724_406_816 - 223_948_800 - 149_520_384 + 169 * 9 * 96 * 384,
            ),
        ),
        # conv4 sees both towers in its place, and so has its shape: 256 maps in, 384 out.
        ("no conv3", (60_965_224 - 663_936, 724_406_816 - 112_140_288)),
        # conv5 sees 192 maps of its tower, as before.
        ("no conv4", (60_965_224 - 663_936, 724_406_816 - 112_140_288)),
        # fc6 sees 6 x 6 pixels of 384 maps instead of 256.
        (
            "no conv5",
            (
                60_965_224 - 442_624 + 36 * 128 * 4096,
                724_406_816 - 74_760_192 + 36 * 128 * 4096,
            ),
        ),
    ],
)
def test_counts_of_the_controls(control, expected):
    assert counts(dataclasses.replace(PAPER, **CONTROLS[control])) == expected


# 101 classes and 67 pixels: odd numbers, which reach the edge cases of the CPU formulations.
CLASSES, CROP, BATCH = 101, 67, 3
SMALL = {
    **{name: PRESETS[name].model for name in ("paper", "source2012", "merged", "half", "six_conv")},
    **{name: PRESETS[name].model for name in ("torchvision", "bvlc_alexnet", "caffenet")},
    **{name: dataclasses.replace(PAPER, **change) for name, change in CONTROLS.items()},
    "bottleneck": dataclasses.replace(PRESETS["six_conv"].model, bottleneck=6),
    "merged, LRN by tower": dataclasses.replace(PRESETS["merged"].model, lrn_scope="tower"),
}


def small(model, **changes):
    changes = {"width": 0.07, "scale_init": True} | changes
    return build_architecture(dataclasses.replace(model, **changes), CLASSES, CROP)


def normal(seed, *shape, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


IMAGES = normal(0, BATCH, CROP, CROP, 3, scale=60)


def variables_of(architecture):
    """Return larger parameters than initial ones, so that every layer affects the logits."""
    layers = zip(architecture.layers, weighted_rows(architecture), strict=True)
    params = {
        layer.name: {
            "kernel": normal(seed, *row.kernel_shape, scale=2 * layer.std + 0.02),
            "bias": 2 * layer.bias + normal(seed + 10, row.channels, scale=0.02),
        }
        for seed, (layer, row) in enumerate(layers)
    }
    return {"params": jax.tree.map(np.float32, params)}


def logits_and_grads(architecture, mesh, variables):
    apply = towers.forward(architecture, mesh)
    weights = normal(2, BATCH, CLASSES)

    def value(variables):
        dropout_masks = draw_dropout_masks(architecture, jax.random.key(1), BATCH)
        logits = apply(variables, IMAGES, dropout_masks)
        return jnp.sum(weights * logits), logits

    grads, logits = jax.jit(jax.grad(value, has_aux=True))(variables)
    return jax.device_get((logits, grads))


def relative(actual, expected):
    errors = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30)),
        actual,
        expected,
    )
    return max(jax.tree.leaves(errors)), errors


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in CONTROLS else name for name in SMALL],
)
def test_every_variant_is_the_same_on_one_device_and_on_two(name):
    architecture = small(SMALL[name])
    variables = variables_of(architecture)
    one, two = (
        logits_and_grads(
            architecture, towers.make_mesh(towers=number, data=1, batch=BATCH), variables
        )
        for number in (1, 2)
    )
    error, errors = relative(two, one)
    assert error < 2e-5, errors
    assert all(np.any(grad) for grad in jax.tree.leaves(one[1]))


def test_lrn_over_all_maps_may_need_every_map_of_the_other_tower():
    # 4 maps, 2 a tower, and 3 neighbors on either side.
    architecture = small(PAPER, width=0.05, lrn_n=7, lrn_scope="all", lrn_alpha=0.1)
    params = variables_of(architecture)["params"]
    one, two = (
        features(
            params,
            IMAGES,
            ("norm1",),
            architecture=architecture,
            mesh=towers.make_mesh(towers=number, data=1, batch=BATCH),
        )["norm1"]
        for number in (1, 2)
    )
    assert one.shape[-1] == 4
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_lrn_over_all_maps_exchanges_only_the_maps_at_the_border():
    architecture = small(PRESETS["bvlc_alexnet"].model)
    mesh = towers.make_mesh(towers=2, data=1, batch=2)
    program = (
        jax.jit(towers.forward(architecture, mesh))
        .lower(variables_of(architecture), IMAGES[:2])
        .compile()
        .as_text()
    )
    assert program is not None
    moved = re.findall(r"= (\S+?)\{\S* collective-permute(?:-start)?\(", program)
    sides = [row.side for row in trace(architecture) if row.name in ("norm1", "norm2")]
    assert sorted(moved) == sorted(f"f32[2,{side},{side},2]" for side in sides)
    assert len(re.findall(r" all-gather(?:-start)?\(", program)) == 3


# Each switch flipped alone, from the paper's value.
SWITCHES: dict[str, Any] = {
    "activation": "tanh",
    "conv1_padding": "both",
    "op_order": "pool_first",
    "lrn": False,
    "lrn_n": 3,
    "lrn_k": 1.0,
    "lrn_alpha_over_n": True,
    "lrn_beta": 0.5,
    "lrn_scope": "all",
    "spatial_norm": True,
    "pool_window": 2,
    "dropout_scale": "training",
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_the_output(switch):
    architecture, flipped = small(PAPER), small(PAPER, **{switch: SWITCHES[switch]})
    variables = variables_of(architecture)
    mesh = towers.make_mesh(towers=1, data=1, batch=BATCH)
    if switch == "conv1_padding":  # 67 pixels need none; 65 hang over by 2
        architecture, flipped = (dataclasses.replace(a, crop=65) for a in (architecture, flipped))
    images = IMAGES[:, : architecture.crop, : architecture.crop]
    before, after = (
        jax.jit(towers.forward(network, mesh))(variables, images)
        for network in (architecture, flipped)
    )
    assert np.max(np.abs(before - after)) > 1e-3 * np.max(np.abs(before))


def test_the_order_of_layer_1_matters_through_its_lrn_alone():
    # fidelity: LRN keeps signs and ReLU commutes with pooling; only the squares of negatives count.
    models = [dataclasses.replace(PAPER, op_order=order) for order in ("relu_first", "norm_first")]
    with_lrn, without = (
        [features_of(small(model, lrn=lrn), "conv2") for model in models] for lrn in (True, False)
    )
    np.testing.assert_allclose(*without, rtol=1e-6)
    assert np.max(np.abs(with_lrn[0] - with_lrn[1])) > 1e-3 * np.max(np.abs(with_lrn[0]))


def features_of(architecture, name, towers_=1):
    mesh = towers.make_mesh(towers=towers_, data=1, batch=BATCH)
    params = variables_of(architecture)["params"]
    return np.asarray(features(params, IMAGES, (name,), architecture=architecture, mesh=mesh)[name])


@pytest.mark.parametrize("towers_", [1, 2])
def test_the_seam_between_towers(towers_):
    """Maps 46-49 of 96 and no others tell LRN within a tower from LRN over all maps."""
    within, across = (
        features_of(small(PAPER, width=1.0, lrn_scope=scope), "norm1", towers_)
        for scope in ("tower", "all")
    )
    differ = np.any(within != across, axis=(0, 1, 2))
    assert np.flatnonzero(differ).tolist() == [46, 47, 48, 49]


def test_initial_values_differ_as_2012s_text_and_code_do():
    text, code = (build_architecture(model, 1000, 224).layers for model in (PAPER, SOURCE))
    assert {layer.name: layer.std for layer in text} == dict.fromkeys(
        [layer.name for layer in text], 0.01
    )
    assert [layer.std for layer in code] == [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01]
    for layers in (text, code):
        assert [layer.bias for layer in layers] == [0, 1, 0, 1, 1, 1, 1, 0]
    caffe = build_architecture(PRESETS["bvlc_alexnet"].model, 1000, 227).layers
    assert [layer.std for layer in caffe] == [0.01] * 5 + [0.005, 0.005, 0.01]
    assert [layer.bias for layer in caffe] == [0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0]


def test_the_operations_after_the_first_convolutions():
    def then(preset):
        layers = build_architecture(PRESETS[preset].model, 10, 227).layers
        return {layer.name: layer.ops for layer in layers if layer.name in ("conv1", "conv2")}

    paper = ("relu", "lrn", "pool")
    assert then("paper") == {"conv1": paper, "conv2": paper}
    assert then("source2012") == {
        "conv1": ("lrn", "pool", "relu"),
        "conv2": ("relu", "lrn", "spatial_norm", "pool"),
    }
    assert then("caffenet") == {"conv1": ("relu", "pool", "lrn"), "conv2": ("relu", "pool", "lrn")}
    assert then("torchvision") == {"conv1": ("relu", "pool"), "conv2": ("relu", "pool")}


def test_dropout_of_torchvision_is_on_pool5_and_fc6_and_rescales_in_training():
    architecture = small(PRESETS["torchvision"].model)
    rows = {row.name: row for row in trace(architecture)}
    assert architecture.dropped == {
        "conv5": rows["pool5"].shape,
        "fc6": (rows["fc6"].channels,),
    }
    mesh = towers.make_mesh(towers=1, data=1, batch=BATCH)
    apply = towers.forward(architecture, mesh, ("pool5", "drop5"))
    dropout_masks = draw_dropout_masks(architecture, jax.random.key(1), BATCH)
    variables = variables_of(architecture)
    _, training = jax.jit(apply)(variables, IMAGES, dropout_masks)
    np.testing.assert_allclose(
        training["drop5"], np.where(dropout_masks["conv5"], 2 * training["pool5"], 0), rtol=1e-6
    )
    _, test = jax.jit(apply)(variables, IMAGES)
    np.testing.assert_array_equal(test["drop5"], test["pool5"])


def test_features_are_the_activations_of_the_forward_pass_on_any_mesh():
    architecture = small(PAPER)
    params = variables_of(architecture)["params"]
    names = ("conv5", "relu5", "pool5", "fc7", "relu7", "drop7", "fc8")
    meshes = [
        towers.make_mesh(towers=number, data=data, batch=4) for number, data in ((1, 1), (2, 2))
    ]
    images = np.concatenate([IMAGES, IMAGES[:1]])
    one, four = (
        jax.device_get(features(params, images, names, architecture=architecture, mesh=mesh))
        for mesh in meshes
    )
    assert relative(four, one)[0] < 1e-5
    assert [one[name].shape for name in names[:4]] == [
        (4, 3, 3, 18),
        (4, 3, 3, 18),
        (4, 1, 1, 18),
        (4, 286),
    ]
    np.testing.assert_array_equal(one["relu5"], np.maximum(one["conv5"], 0))
    np.testing.assert_array_equal(one["pool5"][:, 0, 0], one["relu5"].max(axis=(1, 2)))
    np.testing.assert_array_equal(one["drop7"], np.maximum(one["fc7"], 0) / 2)
    fc8 = jax.device_get(params["fc8"])
    np.testing.assert_allclose(
        one["fc8"], one["drop7"] @ fc8["kernel"] + fc8["bias"], rtol=1e-4, atol=1e-4
    )


def test_features_accept_parameters_on_any_devices():
    architecture = small(PAPER)
    params = variables_of(architecture)["params"]
    four = towers.make_mesh(towers=2, data=2, batch=4)
    spread = jax.device_put(params, towers.state_shardings(params, architecture, four))
    from_devices, from_host = (
        features(tree, IMAGES, ("fc7",), architecture=architecture)["fc7"]
        for tree in (spread, params)
    )
    np.testing.assert_array_equal(from_devices, from_host)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ("conv9",)}, r"layers conv9: .*; choose from conv1, .* relu7"),
        ({"layers": ()}, r"layers \(\): .*; choose from conv1, "),
        ({"images": IMAGES[:, :50]}, r"images \(3, 50, 67, 3\): .*\[B, 67, 67, 3\]"),
        ({"images": IMAGES.astype(np.uint8)}, r"images uint8: .*float32.*; .*preprocess"),
        (
            {"architecture": small(PRESETS["torchvision"].model)},
            r"params conv1 bias \(6,\): .* \(4,\)",
        ),
        ({"images": IMAGES[:0]}, "images 0: must be at least one; add"),
        ({"mesh": (2, 2)}, r"images 3: .*multiple.* 2 data shards; .*data=1"),
    ],
)
def test_features_check_their_arguments(arguments, message):
    architecture = small(PAPER)
    params = variables_of(architecture)["params"]
    call = {"images": IMAGES, "layers": ("fc7",), "architecture": architecture} | arguments
    if "mesh" in call:
        data, towers_ = call["mesh"]
        call["mesh"] = towers.make_mesh(towers=towers_, data=data, batch=BATCH + 1)
    with pytest.raises(ValueError, match=message):
        features(params, **call)


def config_with(*rates, crop=224):
    return Config(data=DataConfig(crop=crop), optimizer=OptimizerConfig(layer_learning_rates=rates))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_with(crop=20), r"data\.crop 20: .*at least 36.*; try 36"),
        (
            config_with("conv1=0", "fc9=2"),
            r"optimizer\.layer_learning_rates fc9=2: .*\(conv1, conv2, .*, fc8\)",
        ),
        (
            config_with(*(f"{layer.name}=0" for layer in build_architecture(PAPER, 2, 224).layers)),
            r"optimizer\.layer_learning_rates conv1=0 .* fc8=0: .*; leave one out",
        ),
    ],
)
def test_a_configuration_must_fit_its_layers(config, message):
    with pytest.raises(ValueError, match=message):
        check_layers(config)


def test_layers_may_have_learning_rates_of_their_own():
    check_layers(config_with("conv1=0", "fc8=10"))


@pytest.mark.parametrize("towers_", [1, 2])
@pytest.mark.parametrize("scale", ["test", "training"])
def test_dropout_keeps_the_same_mean_in_training_and_at_test(scale, towers_):
    """With 0.3 dropped, 0.7 is kept in training, and outputs are scaled by 0.7 at test (P4.2)."""
    architecture = small(PAPER, dropout=0.3, dropout_scale=scale, width=0.25)
    batch = 32
    masks = draw_dropout_masks(architecture, jax.random.key(0), batch)
    assert set(masks) == {"fc6", "fc7"}
    for mask in masks.values():
        error = np.sqrt(0.3 * 0.7 / mask.size)
        assert np.mean(mask) == pytest.approx(0.7, abs=4 * error)
    mesh = towers.make_mesh(towers=towers_, data=1, batch=BATCH)
    apply = jax.jit(towers.forward(architecture, mesh, ("relu6", "drop6")))
    variables = variables_of(architecture)
    _, test = apply(variables, IMAGES)
    _, training = apply(variables, IMAGES, {name: mask[:BATCH] for name, mask in masks.items()})
    at_test, in_training = (0.7, 1) if scale == "test" else (1, 1 / 0.7)
    np.testing.assert_allclose(test["drop6"], at_test * test["relu6"], rtol=1e-6)
    kept = np.where(masks["fc6"][:BATCH], training["relu6"], 0)
    np.testing.assert_allclose(training["drop6"], in_training * kept, rtol=1e-6)


def test_the_default_model_is_the_two_towers_of_the_paper():
    assert build_architecture(ModelConfig(), 1000, 224) == build_architecture(PAPER, 1000, 224)


def test_the_spatial_norm_widens_what_an_output_sees():
    fields = {row.name: row.receptive_field for row in trace(build_architecture(SOURCE, 1000, 224))}
    # 5 pixels of conv2, which are 8 pixels of the image apart: 51 + 4 * 8; pool5 was 195.
    assert (fields["conv2"], fields["cnorm2"], fields["pool5"]) == (51, 83, 195 + 32)
