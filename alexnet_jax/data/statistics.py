"""Statistics of a training split: mean image, mean color, principal axes of color."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.sources import Source

CHUNK = 64  # images per task

# Of the ILSVRC-2012 training images, RGB: cuda-convnet2 (3238bf0) make-data/input_meta,
# color_stdevs and color_eigvec.
COLOR_STD = (19.720833049149668, 37.09388853298572, 121.78006099293066)
COLOR_AXES = (
    (0.4179551316634632, -0.7125794528735844, -0.5635104535486105),
    (-0.8169806183780459, -0.02354167129954881, -0.5761843966188692),
    (0.3973111842256688, 0.7011963441539094, -0.5920029643797313),
)

# Mean color, and the divisor of an image after the mean is subtracted, RGB.
PUBLISHED = {
    # data_mean of the same file, averaged over all positions
    "imagenet": ((127.30490273237228, 119.7154206931591, 104.91260719671845), (1.0, 1.0, 1.0)),
    # python/caffe/imagenet/ilsvrc_2012_mean.npy of Caffe, which is BGR, averaged over all positions
    "caffe": ((122.67891434, 116.66876762, 104.00698793), (1.0, 1.0, 1.0)),
    # Normalize() of torchvision's weights, which is for images from 0 to 1
    "torchvision": (
        (255 * 0.485, 255 * 0.456, 255 * 0.406),
        (255 * 0.229, 255 * 0.224, 255 * 0.225),
    ),
}


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of the pixels of a split, RGB, in gray levels from 0 to 255.

    Where statistics are passed on as a mapping or saved (statistics.npz of a run and of shards,
    checkpoints), the fields are the keys.
    """

    mean_image: np.ndarray  # float32 [S, S, 3]
    mean_color: np.ndarray  # float32 [3]
    lighting_std: np.ndarray  # float32 [3], standard deviations along the principal axes, ascending
    lighting_axes: np.ndarray  # float32 [3, 3], column i is the unit vector of axis i
    scale: np.ndarray  # float32 [3], factor of an image after the mean is subtracted


@dataclasses.dataclass
class Sums:
    """Sums over images in exact integers, so that the result does not depend on their order."""

    count: int
    pixels: np.ndarray  # int64 [S, S, 3]
    products: np.ndarray  # int64 [3, 3], of the channels of a pixel, over all pixels

    @classmethod
    def empty(cls, size: int) -> "Sums":
        """Return the sums over no images of `size` x `size` pixels."""
        return cls(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))

    def add(self, image: np.ndarray) -> None:
        """Add an image, uint8 [S, S, 3]."""
        # Sums over one image stay below 2**53, so that the product in float64 is exact.
        colors = image.reshape(-1, 3).astype(np.float64)
        self.count += 1
        self.pixels += image
        self.products += (colors.T @ colors).astype(np.int64)

    def merge(self, other: "Sums") -> None:
        """Add the images of `other`."""
        self.count += other.count
        self.pixels += other.pixels
        self.products += other.products

    def statistics(self) -> Statistics:
        """Return the statistics of the images, of which there must be at least one."""
        number = self.count * self.pixels.shape[0] * self.pixels.shape[1]
        mean = self.pixels.sum(axis=(0, 1)) / number
        variances, axes = np.linalg.eigh(self.products / number - np.outer(mean, mean))
        # The sign of an eigenvector is arbitrary: make its largest component positive.
        largest = np.abs(axes).argmax(axis=0)
        axes *= np.sign(axes[largest, range(3)])
        return Statistics(
            (self.pixels / self.count).astype(np.float32),
            mean.astype(np.float32),
            np.sqrt(variances.clip(0)).astype(np.float32),
            axes.astype(np.float32),
            np.ones(3, np.float32),
        )


def _never_stop() -> None:
    pass


def compute_statistics(
    source: Source,
    threads: int,
    progress: bool = True,
    check_stop: Callable[[], None] = _never_stop,
) -> tuple[Statistics, dict[int, str]]:
    """Read the training split once: statistics, and unreadable records with the reasons.

    The result does not depend on `threads`. `check_stop` is called between chunks of images; an
    exception it raises ends the reading.

    Raises:
        ValueError: no image is readable.
    """
    total, unreadable = None, {}
    chunks = _read_chunks(source, "train", threads, progress, check_stop, with_sums=True)
    for sums, reasons in chunks:
        unreadable |= reasons
        if sums is not None and total is not None:
            total.merge(sums)
        total = total or sums
    if total is None:
        raise ValueError(
            f"None of the {len(source)} training images is readable; training needs some: check "
            f"the files, first {next(iter(unreadable.values()), 'none')}."
        )
    return total.statistics(), unreadable


def find_unreadable(
    source: Source,
    split: str,
    threads: int,
    progress: bool = True,
    check_stop: Callable[[], None] = _never_stop,
) -> dict[int, str]:
    """Read a split once and return its unreadable records with the reasons.

    `split` is shown by the progress bar; `check_stop` is as in `compute_statistics`.
    """
    unreadable = {}
    chunks = _read_chunks(source, split, threads, progress, check_stop, with_sums=False)
    for _, reasons in chunks:
        unreadable |= reasons
    return unreadable


def published(name: str, size: int) -> Statistics:
    """Return the constants in PUBLISHED under a name.

    None of them has a mean image; [size, size, 3] of the mean color is returned instead. Axes and
    standard deviations of color are always Krizhevsky's, the only ones published.
    """
    mean, deviation = PUBLISHED[name]
    color = np.array(mean, np.float32)
    return Statistics(
        np.broadcast_to(color, (size, size, 3)).copy(),
        color,
        np.array(COLOR_STD, np.float32),
        np.array(COLOR_AXES, np.float32),
        (1 / np.array(deviation)).astype(np.float32),
    )


def _read_chunks(
    source: Source,
    split: str,
    threads: int,
    progress: bool,
    check_stop: Callable[[], None],
    with_sums: bool,
) -> Iterator[tuple[Sums | None, dict[int, str]]]:
    starts = range(0, len(source), CHUNK)
    # disable=None: no bar if stderr is not a terminal.
    with (
        tqdm(
            total=len(source),
            desc=f"reading {split} images",
            unit="image",
            disable=None if progress else True,
        ) as bar,
        ThreadPoolExecutor(max(threads, 1), thread_name_prefix="statistics") as pool,
    ):
        try:
            results = pool.map(lambda start: _read_chunk(source, start, with_sums), starts)
            for start, result in zip(starts, results, strict=True):
                check_stop()
                yield result
                bar.update(min(CHUNK, len(source) - start))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read_chunk(source: Source, start: int, with_sums: bool) -> tuple[Sums | None, dict[int, str]]:
    sums, unreadable = None, {}
    for index in range(start, min(start + CHUNK, len(source))):
        try:
            image = source[index]["image"]
        except UnreadableImage as error:
            unreadable[index] = f"{source.describe(index)}: {error}"
            continue
        if with_sums:
            sums = sums or Sums.empty(len(image))
            sums.add(image)
    return sums, unreadable
