"""Crops cover every offset, half are mirrored, lighting its moments, resizing equals Pillow's."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.augment import centre_view, random_view, resize_centre, ten_views

RNG = np.random.default_rng(0)


def coordinates(side: int) -> np.ndarray:
    """An image whose red is the row and green the column."""
    rows, columns = np.mgrid[:side, :side]
    return np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)


def test_views_are_what_they_say_they_are():
    image = coordinates(256)
    for number in range(50):
        view = random_view(image, np.random.default_rng(number), 224, True, 0.1)
        top, left = view["offset"]
        expected = image[top : top + 224, left : left + 224]
        np.testing.assert_array_equal(
            view["image"][:, ::-1] if view["mirror"] else view["image"], expected
        )
        assert view["image"].dtype == np.uint8
        assert view["offset"].dtype == np.int32
        assert view["lighting"].dtype == np.float32


def test_crops_are_uniform_over_33_by_33_offsets_and_half_are_mirrored():
    image = np.zeros((256, 256, 3), np.uint8)
    rng = np.random.default_rng(0)
    views = [random_view(image, rng, 224, True, 0.1) for _ in range(33 * 33 * 20)]
    counts = np.zeros((33, 33), int)
    np.add.at(counts, tuple(np.stack([view["offset"] for view in views]).T), 1)
    assert counts.min() >= 1  # every corner, 0 and 32 included; an IndexError past them
    chi_square = ((counts - 20) ** 2 / 20).sum()  # 1,088 degrees of freedom: 1,088 +- 47
    assert abs(chi_square - 1088) < 5 * 47
    mirrored = np.array([view["mirror"] for view in views])
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(views))
    assert abs(np.corrcoef(mirrored, [view["offset"][1] for view in views])[0, 1]) < 0.035


@pytest.mark.parametrize("deviation", [0.1, 0.5])
def test_lighting_has_the_moments_asked_for(deviation: float):
    image = np.zeros((2, 2, 3), np.uint8)
    rng = np.random.default_rng(0)
    draws = np.stack(
        [random_view(image, rng, 2, True, deviation)["lighting"] for _ in range(20000)]
    )
    np.testing.assert_allclose(draws.mean(0), 0, atol=5 * deviation / np.sqrt(20000))
    np.testing.assert_allclose(draws.std(0), deviation, rtol=5 / np.sqrt(2 * 20000))
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.04)
    fourth = (draws**4).mean(0) / draws.var(0) ** 2  # 3 for a normal draw, 1.8 for a uniform one
    np.testing.assert_allclose(fourth, 3, atol=5 * np.sqrt(96 / 20000))


def test_switching_one_draw_off_leaves_the_others():
    image = coordinates(64)
    both, neither = (
        [random_view(image, np.random.default_rng(n), 48, mirror, lighting) for n in range(40)]
        for mirror, lighting in ((True, 0.1), (False, 0.0))
    )
    assert [tuple(view["offset"]) for view in both] == [tuple(view["offset"]) for view in neither]
    assert {view["mirror"] for view in both} == {True, False}
    assert {view["mirror"] for view in neither} == {False}
    assert not np.stack([view["lighting"] for view in neither]).any()
    assert np.stack([view["lighting"] for view in both]).all()


def test_a_crop_of_the_whole_square_has_one_offset():
    view = random_view(coordinates(9), np.random.default_rng(0), 9, False, 0)
    assert view["offset"].tolist() == [0, 0]
    np.testing.assert_array_equal(view["image"], coordinates(9))


@pytest.mark.parametrize(("side", "crop", "offset"), [(256, 224, 16), (256, 227, 14), (7, 7, 0)])
def test_centre_view(side: int, crop: int, offset: int):
    view = centre_view(coordinates(side), crop)
    assert view["offset"].tolist() == [offset, offset]
    assert not view["mirror"]
    assert not view["lighting"].any()
    np.testing.assert_array_equal(
        view["image"], coordinates(side)[offset : offset + crop, offset : offset + crop]
    )


def test_ten_views_are_corners_centre_and_their_mirrors():
    views = ten_views(coordinates(256), 224)
    corners = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert [tuple(view["offset"]) for view in views] == corners * 2
    assert [view["mirror"] for view in views] == [False] * 5 + [True] * 5
    assert [view["image"][0, 0].tolist()[:2] for view in views] == [
        [top, left] for top, left in corners
    ] + [[top, left + 223] for top, left in corners]


def test_resizing_the_right_size_changes_nothing():
    image = RNG.integers(0, 256, (72, 72, 3), np.uint8)
    assert resize_centre(image, 72) is not None
    np.testing.assert_array_equal(resize_centre(image, 72), image)
    wide = RNG.integers(0, 256, (72, 101, 3), np.uint8)
    np.testing.assert_array_equal(resize_centre(wide, 72), wide[:, 14:86])


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (512, 515), (90, 120), (1000, 256)])
def test_resizing_then_cutting_shows_the_same(shape: tuple[int, int]):
    # The paper's order of the two, by Pillow, on a picture with gradients and an edge.
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([rows * 255 / shape[0], columns * 255 / shape[1], 0 * rows], -1)
    image[shape[0] // 2 :, : shape[1] // 2, 2] = 200
    image = image.astype(np.uint8)
    scale = 256 / min(shape)
    size = (max(256, round(shape[1] * scale)), max(256, round(shape[0] * scale)))
    whole = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = (size[1] - 256) // 2, (size[0] - 256) // 2
    expected = whole[top : top + 256, left : left + 256].astype(int)
    difference = np.abs(resize_centre(image, 256) - expected)
    assert difference[..., :2].max() <= 3  # half a pixel of a gradient
    assert difference[..., 2].mean() < 0.8  # the edge, at most half a pixel beside


def test_shrinking_averages_where_skipping_pixels_would_not():
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    image = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    inner = resize_centre(image, 64)[2:-2, 2:-2].astype(int)
    assert np.abs(inner - 127.5).max() <= 2
