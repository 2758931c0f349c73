"""Streaming statistics equal plain numpy with any number of threads; published constants."""

from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data import statistics
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.sources import Record


class Colored:
    """150 images of correlated colors, some of them unreadable."""

    class_names = ("a", "b")

    def __init__(self, unreadable: tuple[int, ...] = ()):
        rng = np.random.default_rng(3)
        mixing = np.array([[50, 20, 8], [45, -5, -18], [40, -15, 10]])
        pixels = 120 + rng.standard_normal((150, 12, 12, 3)) @ mixing.T
        pixels += np.linspace(-40, 40, 12)[:, None, None]  # a mean image that is not flat
        self.images = pixels.clip(0, 255).astype(np.uint8)
        self.unreadable = unreadable

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        if index in self.unreadable:
            raise UnreadableImage("torn")
        return {"image": self.images[index], "label": index % 2}

    def describe(self, index: int) -> str:
        return f"file-{index}.jpg"

    def fingerprint(self) -> str:
        return "colored"


def check(computed: statistics.Statistics, images: np.ndarray):
    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(computed.mean_image, images.mean(0), rtol=1e-6)
    np.testing.assert_allclose(computed.mean_color, pixels.mean(0), rtol=1e-6)
    variances, axes = np.linalg.eigh(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(computed.lighting_std, np.sqrt(variances), rtol=1e-5)
    overlap = (computed.lighting_axes * axes).sum(0)  # of each axis with its twin, sign aside
    np.testing.assert_allclose(np.abs(overlap), 1, rtol=1e-5)
    # Noise of these axes and deviations has the covariance of the pixels.
    scaled = computed.lighting_axes * computed.lighting_std
    np.testing.assert_allclose(scaled @ scaled.T, np.cov(pixels.T, bias=True), rtol=1e-4)
    assert (computed.lighting_axes[np.abs(computed.lighting_axes).argmax(0), range(3)] > 0).all()


def test_statistics_equal_plain_numpy():
    source = Colored()
    computed, unreadable = statistics.compute_statistics(source, threads=2, progress=False)
    assert unreadable == {}
    check(computed, source.images)
    assert computed.mean_image.shape == (12, 12, 3)
    assert computed.scale.tolist() == [1, 1, 1]
    assert {array.dtype for array in vars(computed).values()} == {np.dtype(np.float32)}


def test_statistics_do_not_depend_on_threads():
    results = [
        statistics.compute_statistics(Colored(), threads, progress=False)[0]
        for threads in (0, 1, 4)
    ]
    for other in results[1:]:
        for name, array in vars(results[0]).items():
            np.testing.assert_array_equal(getattr(other, name), array, err_msg=name)


def test_unreadable_records_are_reported_and_left_out():
    source = Colored(unreadable=(0, 70, 149))
    computed, unreadable = statistics.compute_statistics(source, threads=2, progress=False)
    assert unreadable == {index: f"file-{index}.jpg: torn" for index in (0, 70, 149)}
    check(computed, np.delete(source.images, [0, 70, 149], axis=0))
    assert statistics.find_unreadable(source, "test", threads=2, progress=False) == unreadable


def test_no_readable_image_is_an_error_that_names_a_file():
    source = Colored(unreadable=tuple(range(150)))
    with pytest.raises(ValueError, match=r"150 training images.*file-0\.jpg: torn"):
        statistics.compute_statistics(source, threads=1, progress=False)


def test_progress_counts_every_image(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    statistics.compute_statistics(Colored(), threads=2)
    assert "150/150" in capsys.readouterr().err


def test_one_flat_color_has_no_spread():
    source = Colored()
    source.images[:] = (10, 20, 30)
    computed, _ = statistics.compute_statistics(source, threads=1, progress=False)
    np.testing.assert_array_equal(computed.mean_color, [10, 20, 30])
    np.testing.assert_allclose(computed.lighting_std, 0, atol=1e-4)
    assert np.isfinite(computed.lighting_axes).all()


def test_gray_images_have_one_principal_axis():
    # Rounding may make a variance of zero slightly negative, of which the root would be NaN.
    for number in range(5):
        source = Colored()
        gray = np.random.default_rng(number).integers(0, 256, (150, 12, 12, 1), np.uint8)
        source.images = np.repeat(gray, 3, axis=3)
        computed, _ = statistics.compute_statistics(source, threads=1, progress=False)
        assert np.isfinite(computed.lighting_std).all()
        np.testing.assert_allclose(computed.lighting_std[:2], 0, atol=1e-4)
        expected = np.sqrt(3) * gray.std(dtype=np.float64)
        np.testing.assert_allclose(computed.lighting_std[2], expected, rtol=1e-6)
        np.testing.assert_allclose(computed.lighting_axes[:, 2], np.sqrt(1 / 3), rtol=1e-6)


def test_negative_variances_are_clipped():
    # As rounding leaves them: here the sum of products is smaller than the mean squared.
    sums = statistics.Sums(1, np.full((1, 1, 3), 10), np.full((3, 3), 99))
    computed = sums.statistics()
    np.testing.assert_allclose(computed.lighting_std, 0, atol=1e-6)
    assert np.isfinite(computed.lighting_axes).all()


@pytest.mark.parametrize("least", [255, 250])
def test_sums_of_products_are_exact_on_large_bright_images(least: int):
    side = 600  # sums of products are above 2**34, float32 is exact up to 2**24
    image = np.random.default_rng(0).integers(least, 256, (side, side, 3), np.uint8)
    sums = statistics.Sums.empty(side)
    for _ in range(3):
        sums.add(image)
    channels = [image[..., channel].ravel().tolist() for channel in range(3)]
    expected = [[3 * sum(map(int.__mul__, a, b)) for b in channels] for a in channels]
    assert sums.products.tolist() == expected
    assert sums.pixels.tolist() == (3 * image.astype(int)).tolist()


def test_imagenets_constants_are_those_published():
    published = statistics.published("imagenet", 256)
    np.testing.assert_allclose(published.mean_color, [127.30, 119.72, 104.91], atol=0.01)
    np.testing.assert_allclose(published.lighting_std, [19.7208, 37.0939, 121.7801], atol=1e-4)
    np.testing.assert_allclose(
        published.lighting_axes[:, 2], [-0.5635, -0.5762, -0.5920], atol=1e-4
    )
    axes = published.lighting_axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert published.mean_image.shape == (256, 256, 3)
    assert (published.mean_image == published.mean_color).all()
    assert published.scale.tolist() == [1, 1, 1]


def test_caffes_mean_is_that_of_its_file(real_data: Path):
    file = np.load(real_data / "meta" / "caffe_ilsvrc_2012_mean_bgr_3x256x256.npy")
    published = statistics.published("caffe", 8)
    assert published.mean_color.dtype == np.float32
    mean = file.astype(np.float64).mean((1, 2))[::-1]  # BGR to RGB
    np.testing.assert_allclose(published.mean_color, mean, rtol=1e-7)


def test_caffes_and_torchvisions_constants_are_those_published():
    caffe, torchvision = (statistics.published(name, 8) for name in ("caffe", "torchvision"))
    np.testing.assert_allclose(caffe.mean_color, [122.68, 116.67, 104.01], atol=0.005)
    assert caffe.scale.tolist() == [1, 1, 1]
    np.testing.assert_allclose(torchvision.mean_color / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(1 / torchvision.scale / 255, [0.229, 0.224, 0.225], rtol=1e-6)
    for other in (caffe, torchvision):
        assert (other.mean_image == other.mean_color).all()
        assert (
            other.lighting_std.tolist() == statistics.published("imagenet", 8).lighting_std.tolist()
        )
        assert {array.dtype for array in vars(other).values()} == {np.dtype(np.float32)}


def test_imagenets_constants_equal_krizhevskys_file(real_data: Path):
    with np.load(real_data / "meta" / "krizhevsky_cuda_convnet2_input_meta.npz") as meta:
        published = statistics.published("imagenet", 8)
        mean = meta["data_mean_rgb_3x256x256"].astype(np.float64).mean((1, 2))
        np.testing.assert_array_equal(published.mean_color, mean.astype(np.float32))
        np.testing.assert_array_equal(
            published.lighting_std, meta["color_stdevs"].astype(np.float32)
        )
        np.testing.assert_array_equal(
            published.lighting_axes, meta["color_eigvec"].astype(np.float32)
        )
