"""A photograph from its file to the network's input, against slow numpy, by two published recipes.

`paper`: Pillow's antialiased bilinear (a triangle as wide as two pixels of the smaller image), the
shorter side to 256, center 256 x 256, crops of 224, RGB. `caffenet`: OpenCV's bilinear between the
four nearest pixels, both sides to 256, crops of 227, BGR. Both less the training images' mean.
"""

import dataclasses
import io
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.pipeline import evaluation_batches, training_batches
from alexnet_jax.model.preprocess import preprocess
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.run_data import open_splits, read_data
from alexnet_jax.training.setup import make_preprocess

GRAY_LEVEL = 1.0


def drawn() -> np.ndarray:
    """Return uint8 [243, 317, 3]: smooth gradients, a ripple, hard edges, fine stripes."""
    y, x = np.mgrid[:243, :317] / 243
    image = 255 * np.stack([x / 1.31, y, 0.5 + 0.4 * np.sin(9 * x + 5 * y)], -1)
    image[60:150, 90:200] = (250, 20, 60)
    image[(y - 0.7) ** 2 + (x - 0.3) ** 2 < 0.04] = (5, 240, 120)
    image[180:230, 220:300:3] = 0
    return image.astype(np.uint8)


def area(image: np.ndarray) -> np.ndarray:
    """Return the center 256 x 256 of the image with its shorter side at 256, unrounded."""

    def weights(length: int) -> np.ndarray:
        resized = round(256 * length / min(image.shape[:2]))
        radius = max(1, length / resized)
        architecture = np.zeros((resized, length))
        for place in range(resized):
            for pixel in range(length):
                distance = abs(pixel + 0.5 - (place + 0.5) * length / resized)
                architecture[place, pixel] = max(0, 1 - distance / radius)
        start = (resized - 256) // 2
        return (architecture / architecture.sum(1, keepdims=True))[start : start + 256]

    rows, columns = weights(image.shape[0]), weights(image.shape[1])
    return np.einsum("yi,xj,ijc->yxc", rows, columns, image.astype(float), optimize=True)


def point(image: np.ndarray) -> np.ndarray:
    """Return the whole image at 256 x 256, between the four nearest pixels, unrounded."""
    square = np.zeros((256, 256, 3))
    height, width = image.shape[:2]
    for row in range(256):
        y = min(max((row + 0.5) * height / 256 - 0.5, 0), height - 1)
        top = int(y)
        bottom = min(top + 1, height - 1)
        for column in range(256):
            x = min(max((column + 0.5) * width / 256 - 0.5, 0), width - 1)
            left = int(x)
            right = min(left + 1, width - 1)
            upper = (1 - x + left) * image[top, left] + (x - left) * image[top, right]
            lower = (1 - x + left) * image[bottom, left] + (x - left) * image[bottom, right]
            square[row, column] = (1 - y + top) * upper + (y - top) * lower
    return square


RECIPES = {"paper": (area, 224, False), "caffenet": (point, 227, True)}  # filter, crop, BGR


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def write(root: Path, files: list[bytes]) -> None:
    """Write a data set of which each file is one class, in training and in validation."""
    for split in ("train", "val"):
        for number, file in enumerate(files):
            folder = root / split / f"class{number}"
            folder.mkdir(parents=True)
            (folder / "image.img").write_bytes(file)


def network_inputs(preset: str, root: Path) -> dict[str, tuple[dict, np.ndarray]]:
    """Return by split a batch with every image twice, or once, and what the network gets of it."""
    config = PRESETS[preset]
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=str(root), threads=0),
        optimizer=dataclasses.replace(config.optimizer, batch_size=2),
    )
    data = read_data(config, open_splits(config))
    constants = make_preprocess(config.data, data.statistics)
    number = len(data.splits.train)
    training = training_batches(data.splits.train, config.data, config.seed, 2 * number)
    looks = {
        "training": next(training),
        "validation": next(evaluation_batches(data.splits.validation, config.data, number)),
    }
    training.close()
    return {
        name: (batch, np.asarray(jax.jit(preprocess)(batch, constants)))
        for name, batch in looks.items()
    }


def principal_lighting(squares: np.ndarray) -> np.ndarray:
    """Return the principal axes of the colors times their standard deviations, in columns."""
    variances, axes = np.linalg.eigh(np.cov(squares.reshape(-1, 3).T, bias=True))
    largest = axes[np.abs(axes).argmax(0), range(3)]
    return axes * np.sign(largest) * np.sqrt(variances)


def check(preset: str, root: Path, images: list[np.ndarray]) -> None:
    """Compare what the network gets of each image with the recipe, worked through by hand."""
    resize, crop, bgr = RECIPES[preset]
    squares = np.stack([resize(image) for image in images])
    mean, lighting = squares.mean(0), principal_lighting(squares)
    for split, (batch, inputs) in network_inputs(preset, root).items():
        assert inputs.shape[1:] == (crop, crop, 3)
        assert set(batch["index"].tolist()) == set(range(len(images)))
        for row, index in enumerate(batch["index"]):
            top, left = batch["offset"][row]
            if split == "validation":
                assert top == left == (256 - crop) // 2
            window = np.s_[top : top + crop, left : left + crop]
            expected = squares[index][window] - mean[window]
            if batch["mirror"][row]:
                expected = expected[:, ::-1]
            expected = expected + lighting @ batch["lighting"][row]
            expected = expected[..., ::-1] if bgr else expected
            assert np.abs(inputs[row] - expected).max() <= GRAY_LEVEL
        assert batch["lighting"].any() == (split == "training" and preset == "paper")


@pytest.mark.parametrize("preset", RECIPES)
def test_a_drawing_through_the_recipe_equals_plain_numpy(preset: str, tmp_path: Path):
    first = drawn()
    images = [first, 255 - first.transpose(1, 0, 2)[::-1]]  # one wide, one tall
    write(tmp_path, [png(image) for image in images])
    check(preset, tmp_path, images)


def test_the_two_recipes_differ(tmp_path: Path):
    write(tmp_path, [png(drawn()), png(255 - drawn())])
    (_, paper), (_, caffe) = (network_inputs(name, tmp_path)["validation"] for name in RECIPES)
    # The same 224 pixels in the middle, colors in the same order: what is left is the resizing.
    assert np.abs(paper - caffe[:, 2:226, 2:226, ::-1]).max() > 50


@pytest.mark.parametrize("preset", RECIPES)
def test_photographs_through_the_recipe_equal_plain_numpy(
    preset: str, tmp_path: Path, real_data: Path
):
    files = [
        (real_data / "golden-caffenet" / "cat.jpg").read_bytes(),
        (real_data / "edge-cases" / "imagenet_gray_n02692877_airship.JPEG").read_bytes(),
    ]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    write(tmp_path, files)
    check(preset, tmp_path, images)


def test_point_is_the_filter_of_caffes_own_input(real_data: Path):
    # The dump's pixels are times 225 / 255, an error of its author.
    with np.load(real_data / "golden-caffenet" / "caffenet_cat_golden.npz") as golden:
        dumped = golden["input"].transpose(1, 2, 0) + np.array([104.00699, 116.6689, 122.67891])
    with Image.open(real_data / "golden-caffenet" / "cat.jpg") as file:
        cat = np.asarray(file.convert("RGB"))
    theirs = (dumped * 255 / 225)[..., ::-1]
    difference = np.abs(resize_center(cat, 227, "stretch", "bilinear") - theirs)
    # The dump is not rounded, and its JPEG decoder put a pixel or two one level beside ours.
    assert np.quantile(difference, 0.9995) <= 0.501
    assert difference.max() <= 1.5
    assert np.abs(resize_center(cat, 227, "stretch", "antialias") - theirs).max() > 10
