"""The strongest patches of units: found again by looking at every output of every image."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.crops import center_views
from alexnet_jax.explanations import patches as module
from alexnet_jax.explanations.patches import Unit, parse_units, strongest_patches
from alexnet_jax.model.receptive_field import trace_outputs

pytestmark = pytest.mark.usefixtures("quick_compilation")
COUNT = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
        small.resize((90, 80)).save(path)
    return paths


def test_patches_are_the_fields_of_the_largest_outputs(network, files, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    units = parse_units(network, ["conv1:3", "conv1:0", "norm2:9", "relu5:7", "fc8:1"])
    found = strongest_patches(network, files, units, top=3)
    assert list(found.patches) == list(units)
    assert found.unreadable == {}
    images = np.asarray(network.preprocess(files))
    outputs = trace_outputs(network.architecture)
    taps = network.features(images, list({unit.layer for unit in units}))
    for unit, patches in found.patches.items():
        values = np.asarray(taps[unit.layer])[..., unit.number]
        flat = values.reshape(COUNT, -1)
        order = np.argsort(-flat.max(axis=1), kind="stable")[:3]
        assert [patch.file for patch in patches] == [files[number] for number in order]
        for patch, number in zip(patches, order, strict=True):
            point = divmod(int(flat[number].argmax()), outputs[unit.layer].side)
            assert patch.point == point
            assert patch.value == pytest.approx(flat[number].max(), rel=1e-4)
            assert patch.box == outputs[unit.layer].box(*point)
            left, top, right, bottom = patch.box
            seen = center_views([np.asarray(Image.open(patch.file))], network.config.data)
            np.testing.assert_array_equal(patch.image, seen["image"][0, top:bottom, left:right])


def test_the_unit_answers_to_its_patch_alone(network, files):
    """With everything else of the image replaced, its output at the point stays."""
    (unit,) = parse_units(network, ["norm1:2"])
    patch = strongest_patches(network, files, [unit], top=1).patches[unit][0]
    image = np.asarray(network.preprocess([patch.file])).copy()
    left, top, right, bottom = patch.box
    outside = np.ones(image.shape, bool)
    outside[:, top:bottom, left:right] = False
    image[outside] = 100
    values = np.asarray(network.features(image, "norm1")["norm1"])
    assert values[(0, *patch.point, 2)] == pytest.approx(patch.value, rel=1e-4)


def test_units_know_their_tower(network_of):
    units = parse_units(network_of(), ["conv5:5", "conv5:6", "relu6:101", "relu6:102", "fc8:2"])
    assert [unit.tower for unit in units] == [0, 1, 0, 1, None]
    assert str(units[0]) == "conv5:5"
    assert parse_units(network_of("torchvision"), ["features.0:1", "conv1:1"]) == (
        Unit("conv1", 1, None),
    )


def test_unreadable_files_are_named_and_left_out(network, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    (unit,) = parse_units(network, ["conv3:1"])
    found = strongest_patches(network, [files[0], broken], [unit])
    assert [patch.file for patch in found.patches[unit]] == [files[0]]
    assert [*found.unreadable] == [broken]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv5", "units conv5: must be a layer and the number.*; try conv5:3"),
        ("conv5:", "units conv5:: must be a layer and the number"),
        ("conv5:-1", "units conv5:-1: must be a layer and the number"),
        (":3", "units :3: must be a layer and the number"),
        ("conv9:3", r"units conv9:3: must begin with an output .*relu5.*; use one"),
        ("conv5:12", "units conv5:12: must be a unit of conv5, which has 12.*; try conv5:11"),
    ],
)
def test_a_unit_that_does_not_exist_is_refused(network, text, message):
    with pytest.raises(ValueError, match=message):
        parse_units(network, [text])


def test_refusals(network, files):
    units = parse_units(network, ["conv5:3"])
    for paths, wanted, top, message in (
        ([], units, 9, "files .*: must have at least one; name images"),
        (files, (), 9, "units .*: must have at least one; name units"),
        (files, units, 0, "top 0: must be at least 1; try 9"),
    ):
        with pytest.raises(ValueError, match=message):
            strongest_patches(network, paths, wanted, top)
