"""Time and memory of exact nearest neighbors among features of 100,000 images.

    pip install '.[parity]'
    python experiments/benchmarks/retrieval.py --folder DIR

Compared, in turns, with what PyTorch programs do: `torch.cdist` and `topk` over all points, which
are mapped into memory, too. The features are synthetic: clusters, ReLU, 4,096 an image; the file of
1.6 GB is written once. The first search reads it from disk unless it is cached, the others from the
page cache.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_jax.retrieval.nearest import nearest

CLUSTERS = 1000
COUNTS = (1, 5, 16, 32)  # queries at once; `retrieve` has up to 32


def main() -> None:
    """Write the features unless they exist, search, print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the file of features")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=4096, help="features per image")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / f"{args.images}x{args.width}.npy"
    centers = np.random.default_rng(0).normal(size=(CLUSTERS, args.width)).astype(np.float32)
    if not path.exists():
        write(path, args.images, centers)
    points = np.load(path, mmap_mode="r")
    queries = draw(np.random.default_rng(1), centers, COUNTS[-1])
    by_torch = nearest_by_torch(path)
    searches = {"alexnet_jax": lambda some: nearest(points, some, 6), "torch": by_torch}
    for count in COUNTS:
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(args.repeats):
            for name, search in searches.items():
                start = time.perf_counter()
                search(queries[:count])
                seconds[name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            median = float(np.median(times))
            print(
                f"{count:3} queries, {name:11}: first {times[0]:.2f} s, median {median:.2f} s, "
                f"range {min(times):.2f} to {max(times):.2f}; {count / median:.1f} queries/s; "
                f"memory {memory()}"
            )
        differ = (nearest(points, queries[:count], 6)[0] != by_torch(queries[:count])).sum()
        print(f"    neighbors that differ: {differ} of {count * 6}")
    start = time.perf_counter()
    expected = nearest_in_float64(points, queries[0], 6)
    print(f"differences in float64: {time.perf_counter() - start:.2f} s a query")
    assert (nearest(points, queries[:1], 6)[0][0] == expected).all()


def draw(rng: np.random.Generator, centers: np.ndarray, count: int) -> np.ndarray:
    """Return features of `count` images, float32 [count, width]; half of them are zero."""
    noise = rng.normal(size=(count, centers.shape[1])).astype(np.float32)
    return np.maximum(centers[rng.integers(0, len(centers), count)] + noise, 0)


def write(path: Path, images: int, centers: np.ndarray) -> None:
    """Write the features of all images."""
    rng, width = np.random.default_rng(2), centers.shape[1]
    file = np.lib.format.open_memmap(path, "w+", np.float32, (images, width))
    for start in range(0, images, 4096):
        file[start : start + 4096] = draw(rng, centers, min(4096, images - start))
    file.flush()


def nearest_by_torch(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return PyTorch's search for the 6 nearest neighbors."""
    import torch

    points = torch.from_numpy(np.load(path, mmap_mode="c"))  # "r" would be refused as read-only

    def search(queries: np.ndarray) -> np.ndarray:
        distances = torch.cdist(torch.from_numpy(queries), points)
        return distances.topk(6, largest=False).indices.numpy()

    return search


def nearest_in_float64(points: np.ndarray, query: np.ndarray, count: int) -> np.ndarray:
    """Return the nearest neighbors by differences in float64."""
    squares = np.concatenate(
        [
            ((points[start : start + 512].astype(np.float64) - query) ** 2).sum(axis=1)
            for start in range(0, len(points), 512)
        ]
    )
    return np.argsort(squares, kind="stable")[:count]


def memory() -> str:
    """Return the memory of this process: its own, and pages of the file, which can be dropped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kinds = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if "kB" in line}
    return f"{kinds['RssAnon']} MiB own, {kinds['RssFile']} MiB of the file's pages"


if __name__ == "__main__":
    main()
