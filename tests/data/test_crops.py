"""Crops cover every offset, half are flipped; moments of lighting; resizing by two filters."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.config import DataConfig
from alexnet_jax.data.crops import center_view, random_views, resize_center, take_square, ten_views

RNG = np.random.default_rng(0)


def draw(side: int, number: int, **changes: Any) -> list[dict[str, Any]]:
    """Draw how the first images of a run are seen, squares of one side."""
    config = DataConfig(image_size=side, crop=changes.pop("crop", 224), **changes)
    drawn = random_views(config, 0, np.arange(number))
    return [{name: array[row] for name, array in drawn.items()} for row in range(number)]


def coordinates(side: int) -> np.ndarray:
    """An image whose red is the row and green the column."""
    rows, columns = np.mgrid[:side, :side]
    return np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)


def test_a_square_is_taken_from_where_it_says():
    image = coordinates(256)
    for view in draw(256, 50):
        square = take_square(image, view["offset"], 224)
        assert square.shape == (224, 224, 3)
        np.testing.assert_array_equal(square[0, 0, :2], view["offset"])
        np.testing.assert_array_equal(square[-1, -1, :2], view["offset"] + 223)


def test_draws_have_the_types_of_a_batch():
    drawn = random_views(DataConfig(image_size=64, crop=48), 0, np.arange(5))
    assert {name: (array.dtype.name, array.shape) for name, array in drawn.items()} == {
        "offset": ("int32", (5, 2)),
        "mirror": ("bool", (5,)),
        "lighting": ("float32", (5, 3)),
        "divisor": ("float32", (5,)),
    }


@pytest.mark.parametrize(("offsets", "variants"), [("all", 2178), ("all-but-last", 2048)])
def test_crops_and_mirrors_come_in_the_variants_published_all_as_likely(offsets, variants):
    # 33 x 33 x 2 in the 2012 code, 32 x 32 x 2 in P4.1.
    side = int(np.sqrt(variants / 2))
    # A crop of 8 in 40 has the places of one of 224 in 256.
    views = draw(40, 20 * variants, crop=8, crop_offsets=offsets, pca_std=0)
    counts = np.zeros((2, side, side), int)
    places = [(int(view["mirror"]), *view["offset"]) for view in views]
    np.add.at(counts, tuple(np.array(places).T), 1)  # an IndexError past the last offset
    assert np.count_nonzero(counts) == len(set(places)) == variants  # e**-20 for one to be missed
    freedom = variants - 1
    assert abs(((counts - 20) ** 2 / 20).sum() - freedom) < 5 * np.sqrt(2 * freedom)
    assert abs(counts[1].sum() / len(views) - 0.5) < 5 * 0.5 / np.sqrt(len(views))


@pytest.mark.parametrize("deviation", [0.1, 0.5])
def test_lighting_has_the_configured_moments(deviation: float):
    views = draw(2, 20000, crop=2, pca_std=deviation)
    draws = np.stack([view["lighting"] for view in views])
    np.testing.assert_allclose(draws.mean(0), 0, atol=5 * deviation / np.sqrt(20000))
    np.testing.assert_allclose(draws.std(0), deviation, rtol=5 / np.sqrt(2 * 20000))
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.04)
    fourth = (draws**4).mean(0) / draws.var(0) ** 2  # 3 for a normal draw, 1.8 for a uniform one
    np.testing.assert_allclose(fourth, 3, atol=5 * np.sqrt(96 / 20000))


def test_switching_one_draw_off_leaves_the_others():
    both, neither = (
        draw(64, 40, crop=48, horizontal_flip=mirror, pca_std=lighting)
        for mirror, lighting in ((True, 0.1), (False, 0.0))
    )
    assert [tuple(view["offset"]) for view in both] == [tuple(view["offset"]) for view in neither]
    assert {view["mirror"] for view in both} == {True, False}
    assert {view["mirror"] for view in neither} == {False}
    assert not np.stack([view["lighting"] for view in neither]).any()
    lighting = np.stack([view["lighting"] for view in both])
    assert lighting.all()
    unmirrored = draw(64, 40, crop=48, horizontal_flip=False)
    np.testing.assert_array_equal(np.stack([view["lighting"] for view in unmirrored]), lighting)


def test_images_are_divided_while_there_is_lighting_and_only_then():
    config = DataConfig(image_size=64, crop=48, train_divisor=1.1)
    throughout, ended = (random_views(config, 0, np.arange(8), end) for end in (8, 5))
    assert (throughout["divisor"] == np.float32(1.1)).all()
    assert throughout["lighting"].all()
    assert (ended["divisor"] == [np.float32(1.1)] * 5 + [1] * 3).all()
    assert not ended["lighting"][5:].any()
    np.testing.assert_array_equal(ended["lighting"][:5], throughout["lighting"][:5])
    np.testing.assert_array_equal(ended["offset"], throughout["offset"])
    unlit = draw(64, 3, crop=48, train_divisor=1.1, pca_std=0)
    assert {view["divisor"] for view in unlit} == {1}


def test_a_position_has_one_draw_whatever_it_is_drawn_with():
    # 1,024 and 2,048 begin another block of draws, 3,072 too of crops.
    config = DataConfig(image_size=64, crop=48, images_per_crop=3)
    some = np.array([3072, 0, 1023, 1024, 1024, 7, 2047, 2048])
    drawn = random_views(config, 5, some)
    alone = [random_views(config, 5, some[row : row + 1]) for row in range(len(some))]
    for name, array in drawn.items():
        np.testing.assert_array_equal(array, np.concatenate([one[name] for one in alone]), name)
    assert len(np.unique(drawn["lighting"], axis=0)) == 7


def test_32_images_share_a_crop_and_a_mirror_but_no_lighting():
    views = draw(256, 32 * 40, images_per_crop=32)
    places = np.array([(*view["offset"], view["mirror"]) for view in views]).reshape(40, 32, 3)
    assert (places == places[:, :1]).all()
    assert len(np.unique(places[:, 0], axis=0)) > 35  # of 2,178
    assert len(np.unique([view["lighting"] for view in views], axis=0)) == 32 * 40
    alone = draw(256, 32)
    assert len({tuple(view["offset"]) for view in alone}) > 25


def test_lighting_has_nothing_to_do_with_the_crop():
    # Were both the first draws of one stream, some corners would always have stronger lighting.
    views = draw(256, 10_000)
    columns = np.array([view["offset"][1] for view in views])
    strength = np.abs([view["lighting"][0] for view in views])
    eighths = np.searchsorted(np.quantile(strength, np.arange(1, 8) / 8), strength)
    counts = np.zeros((33, 8))
    np.add.at(counts, (columns, eighths), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / len(views)
    freedom = 32 * 7
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("offsets", ["all", "all-but-last"])
def test_a_crop_of_the_whole_square_has_one_offset(offsets):
    (view,) = draw(9, 1, crop=9, horizontal_flip=False, crop_offsets=offsets)
    assert view["offset"].tolist() == [0, 0]


@pytest.mark.parametrize(("side", "crop", "offset"), [(256, 224, 16), (256, 227, 14), (7, 7, 0)])
def test_center_view(side: int, crop: int, offset: int):
    view = center_view(coordinates(side), crop)
    assert view["offset"].tolist() == [offset, offset]
    assert not view["mirror"]
    np.testing.assert_array_equal(
        view["image"], coordinates(side)[offset : offset + crop, offset : offset + crop]
    )


def test_ten_views_are_corners_center_and_their_mirrors():
    views = ten_views(coordinates(256), 224)
    corners = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert [tuple(view["offset"]) for view in views] == corners * 2
    assert [view["mirror"] for view in views] == [False] * 5 + [True] * 5
    for view in views:
        assert view["image"].shape == (224, 224, 3)
        assert tuple(view["image"][0, 0, :2]) == tuple(view["offset"])


def test_resizing_the_right_size_changes_nothing():
    image = RNG.integers(0, 256, (72, 72, 3), np.uint8)
    assert resize_center(image, 72) is not None
    np.testing.assert_array_equal(resize_center(image, 72), image)
    wide = RNG.integers(0, 256, (72, 101, 3), np.uint8)
    np.testing.assert_array_equal(resize_center(wide, 72), wide[:, 14:86])
    assert resize_center(image, 72, "stretch", "bilinear") is image  # at no cost


def picture(shape: tuple[int, int]) -> np.ndarray:
    """Return gradients and an edge."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([rows * 255 / shape[0], columns * 255 / shape[1], 0 * rows], -1)
    image[shape[0] // 2 :, : shape[1] // 2, 2] = 200
    return image.astype(np.uint8)


@pytest.mark.parametrize("shape", [(300, 400), (401, 300), (512, 515), (90, 120), (1000, 256)])
def test_cropping_is_resizing_the_whole_then_cutting(shape: tuple[int, int]):
    # P2's order of the two, by Pillow, rounding a size once and an offset down.
    scale = 256 / min(shape)
    height, width = round(shape[0] * scale), round(shape[1] * scale)
    for image in (picture(shape), RNG.integers(0, 256, (*shape, 3), np.uint8)):
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        top, left = (height - 256) // 2, (width - 256) // 2
        whole = np.asarray(resized)[top : top + 256, left : left + 256].astype(int)
        assert np.abs(resize_center(image, 256) - whole).max() <= 1


def between_four(image: np.ndarray, size: int) -> np.ndarray:
    """Return bilinear interpolation by its formula, pixel by pixel, unrounded."""
    height, width = image.shape[:2]
    square = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            y, x = (row + 0.5) * height / size - 0.5, (column + 0.5) * width / size - 0.5
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    pixel = image[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
                    square[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * pixel
    return square


@pytest.mark.parametrize("shape", [(81, 106), (20, 33), (40, 40), (1, 70), (200, 41)])
def test_bilinear_is_the_bilinear_of_opencv(shape: tuple[int, int]):
    for image in (picture(shape), RNG.integers(0, 256, (*shape, 3), np.uint8)):
        difference = resize_center(image, 40, "stretch", "bilinear") - between_four(image, 40)
        assert np.abs(difference).max() <= 0.501  # rounded, borders included


@pytest.mark.parametrize(("phase", "seen"), [(0, 0), (1, 100), (2, 100), (3, 0)])
def test_bilinear_uses_the_middle_two_of_four_pixels_and_antialias_all(phase: int, seen: int):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, phase::4] = 200
    assert (resize_center(stripes, 16, filter="bilinear") == seen).all()
    assert np.abs(resize_center(stripes, 16)[:, 2:-2].astype(int) - 50).max() <= 1


@pytest.mark.parametrize("filter", ["antialias", "bilinear"])
@pytest.mark.parametrize(("shape", "turned"), [((50, 90), False), ((90, 50), True)])
def test_stretch_keeps_all_of_the_image_and_shorter_side_its_center(shape, turned, filter):
    longer = np.linspace(0, 255, 90)
    image = np.broadcast_to((longer[:, None] if turned else longer)[..., None], (*shape, 3))
    image = image.astype(np.uint8)
    for resize, low, high in (("stretch", 0, 255), ("shorter-side", 20 / 89 * 255, 69 / 89 * 255)):
        square = resize_center(image, 40, resize, filter).astype(int)
        assert square.shape == (40, 40, 3)
        assert abs(square.min() - low) <= 4
        assert abs(square.max() - high) <= 4


def test_shrinking_averages_where_skipping_pixels_would_not():
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    image = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    inner = resize_center(image, 64)[2:-2, 2:-2].astype(int)
    assert np.abs(inner - 127.5).max() <= 2
