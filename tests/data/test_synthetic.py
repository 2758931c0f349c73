"""The synthetic data set: the same images everywhere, and classes that need both form and color."""

import collections
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import synthetic
from alexnet_jax.data.synthetic import (
    CLASS_NAMES,
    COLORS,
    PATTERNS,
    RANGES,
    SIZES,
    Synthetic,
    paint,
    scene,
)

GOLDEN = {  # split, index: first 16 hexadecimal digits of the SHA-256 of the image
    ("train", 0): "d1a3155686be545e",
    ("train", 3999): "f5acad70c3934770",
    ("validation", 7): "1d4f25bdd071211e",
    ("test", 12): "b60fbf135d49f95b",
}
LUMA = np.array([0.299, 0.587, 0.114])


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def images(split: str, count: int) -> np.ndarray:
    source = Synthetic(split)
    return np.stack([source[index]["image"] for index in range(count)])


def gray(image: np.ndarray) -> np.ndarray:
    return image @ LUMA


def blocks(pictures: np.ndarray) -> np.ndarray:
    """Return the means of 4 x 4 pixels, [N, 18 * 18 * C]."""
    pooled = pictures.reshape(len(pictures), 18, 4, 18, 4, -1).mean((2, 4), dtype=np.float32)
    return pooled.reshape(len(pictures), -1)


def color_shares(pictures: np.ndarray) -> np.ndarray:
    """Return the square root of the share of each of 512 colors, [N, 512]."""
    codes = ((pictures >> 5) @ np.array([64, 8, 1], np.uint16)).reshape(len(pictures), -1)
    counts = np.array([np.bincount(code, minlength=512) for code in codes])
    return np.sqrt(counts / codes.shape[1])


@pytest.mark.parametrize(("split", "index"), GOLDEN)
def test_images_are_the_golden_ones(split, index):
    assert digest(Synthetic(split)[index]["image"]) == GOLDEN[split, index], (
        "The synthetic data set has changed. If that was not intended, it is a bug. If it was, all "
        "results measured on it are void: renew GOLDEN and what README.md and RESULTS.md say of it."
    )


def test_an_image_depends_on_neither_order_nor_process():
    source = Synthetic("train")
    backwards = {index: digest(source[index]["image"]) for index in (2718, 31, 5, 0)}
    program = (
        "import hashlib; from alexnet_jax.data.synthetic import Synthetic\n"
        "source = Synthetic('train')\n"
        "for i in (0, 5, 31, 2718):\n"
        "    print(hashlib.sha256(source[i]['image'].tobytes()).hexdigest()[:16])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == [backwards[index] for index in (0, 5, 31, 2718)]


def test_a_record_is_drawn_once_and_cannot_be_written_to():
    source = Synthetic("test")
    record = source[3]
    assert record["image"] is source[np.int64(3)]["image"]
    assert record["image"].shape == (72, 72, 3)
    assert record["image"].dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        record["image"][0, 0] = 0


@pytest.mark.parametrize(("split", "size"), [("train", 4000), ("validation", 1000), ("test", 1000)])
def test_every_class_is_equally_frequent(split, size):
    source = Synthetic(split)
    assert len(source) == SIZES[split] == size
    counts = collections.Counter(synthetic._label(split, index) for index in range(size))
    assert counts == dict.fromkeys(range(20), size // 20)
    assert source[23]["label"] == 3
    assert source.describe(23) == f"synthetic {split}:23 (blue stripes)"


def test_class_is_a_pattern_and_a_color():
    pairs = {(name.split()[0], name.split()[1]) for name in CLASS_NAMES}
    assert pairs == {(color, pattern) for color in COLORS for pattern in PATTERNS}
    assert len(CLASS_NAMES) == 20
    # The best guess from the pattern alone errs on 3 of 4, from the color alone on 4 of 5.
    by_pattern = collections.Counter(pattern for _, pattern in pairs)
    by_color = collections.Counter(color for color, _ in pairs)
    assert set(by_pattern.values()) == {4}
    assert set(by_color.values()) == {5}


def test_splits_share_no_image_and_no_scene():
    scenes = [tuple(scene(split, index).values.values()) for split in SIZES for index in range(300)]
    assert len(set(scenes)) == 900
    drawn = [digest(image) for split in SIZES for image in images(split, 100)]
    assert len(set(drawn)) == 300


def test_color_cannot_be_seen_in_the_gray_image():
    clipped = []
    for index in range(40):
        pattern = index % len(PATTERNS)
        twins = [
            paint(scene("train", index), pattern * len(COLORS) + c) for c in range(len(COLORS))
        ]
        inside = np.all([(twin > 0) & (twin < 255) for twin in twins], axis=(0, -1))
        for twin in twins[1:]:
            # Three channels, each rounded to a whole gray level: at most half a level each way.
            assert np.abs(gray(twin) - gray(twins[0]))[inside].max() <= 1.001
            assert np.abs(twin.astype(int) - twins[0]).max() > 40
        clipped.append(1 - inside.mean())
    assert np.mean(clipped) < 0.01


def test_pattern_cannot_be_seen_in_the_mean_color():
    """The same scenes in five patterns: which pattern moves the mean far less than which scene."""
    means = np.array(
        [
            [
                paint(scene("train", index), p * len(COLORS)).mean((0, 1))
                for p in range(len(PATTERNS))
            ]
            for index in range(60)
        ]
    )
    between_patterns = np.abs(means.mean(0) - means.mean((0, 1))).max()
    assert between_patterns < 0.1 * means.mean(1).std(0).min()


def test_linear_classifiers_and_single_clues_fail():
    """Least squares: far above 50 % error on pixels, and no single clue beats its bound."""
    pixels, labels = images("train", 4000), np.arange(4000) % 20
    unseen, unseen_labels = images("validation", 1000), np.arange(1000) % 20
    for extract, least in [
        (blocks, 0.65),
        (lambda images: blocks(gray(images)[..., None]), 0.75),  # four colors are left
        (color_shares, 0.75),  # five patterns are left: .8, and an allowance for luck
    ]:
        train, validation = extract(pixels), extract(unseen)
        mean, scale = train.mean(0), train.std(0) + 1e-6
        train, validation = (train - mean) / scale, (validation - mean) / scale
        gram = train.T @ train + 0.1 * len(train) * np.eye(train.shape[1])
        weights = np.linalg.solve(gram, train.T @ np.eye(20)[labels])
        error = np.mean((validation @ weights).argmax(1) != unseen_labels)
        assert least < error < 0.94  # chance is .95: the measurement itself works


def test_patterns_differ_without_color():
    for index in range(5):
        pictures = [
            gray(paint(scene("train", index), p * len(COLORS))) for p in range(len(PATTERNS))
        ]
        for first in range(len(PATTERNS)):
            for second in range(first):
                assert np.abs(pictures[first] - pictures[second]).max() > 20


def test_a_mirrored_scene_is_another_scene_of_the_same_class():
    turned = ("x", "turn", "tilt", "paper_turn", "light_x")
    for name in turned:
        assert RANGES[name][0] == -RANGES[name][1]
    for label in range(0, len(CLASS_NAMES), 3):
        drawn = scene("train", label)
        values = {name: -value if name in turned else value for name, value in drawn.values.items()}
        # Patterns repeat with their period, so that a phase of -p is as likely as p.
        values["phase_u"] = -values["phase_u"]
        pebbles = np.concatenate([1 - drawn.pebbles[:1], drawn.pebbles[1:]])
        mirrored = synthetic.Scene(values, drawn.coarse[:, :, ::-1], pebbles, drawn.grain[:, ::-1])
        np.testing.assert_array_equal(paint(mirrored, label), paint(drawn, label)[:, ::-1])


def test_position_size_light_ground_and_noise_vary():
    values = [scene("train", index).values for index in range(400)]
    for name, (low, high) in RANGES.items():
        column = np.array([value[name] for value in values])
        assert low <= column.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < column.max() < high
        assert abs(column.mean() - (low + high) / 2) < 0.06 * (high - low)
    pictures = images("train", 200).astype(float)
    assert pictures.std(0).min() > 20  # of any pixel and channel, between images
    assert np.abs(pictures.mean(0) - pictures.mean((0, 1, 2))).max() < 16  # no place is special


@pytest.mark.parametrize("name", RANGES)
def test_every_range_shows_in_the_picture(name):
    low, high = RANGES[name]
    differences = []
    for index in range(
        10
    ):  # a ring is the same however it is turned, but not every scene has rings
        drawn = scene("train", index)
        pair = [
            paint(
                drawn._replace(values={**drawn.values, name: low + share * (high - low)}), 8
            ).astype(int)
            for share in (0.1, 0.7)
        ]
        differences.append(np.abs(pair[0] - pair[1]).max())
    assert max(differences) >= 5


def test_objects_stay_mostly_inside_every_crop():
    """At the worst corner a 64 pixel crop keeps three quarters of the largest object's width."""
    reach = max(RANGES["x"]) + max(RANGES["radius"]) * (1 + max(RANGES["stretch"]))
    lost = 36 + reach - 64
    assert lost < 2 * max(RANGES["radius"]) / 4


def test_unknown_split_and_index_are_refused():
    with pytest.raises(ValueError, match="^split val: .*train, validation, test; try train"):
        Synthetic("val")
    for index in (-1, 1000):
        with pytest.raises(IndexError, match=f"^record {index}: .*0 to 999 .*test"):
            Synthetic("test")[index]


def test_images_are_saved_as_they_are_in_class_folders(tmp_path):
    files = synthetic.save("test", tmp_path / "new", 3)
    names = [str(file.relative_to(tmp_path / "new")) for file in files]
    assert names == [f"test/{CLASS_NAMES[n]}/000{n}.png" for n in range(3)]
    source = synthetic.Synthetic("test")
    for number, file in enumerate(files):
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(image), source[number]["image"])
