"""Exact nearest neighbors by Euclidean distance, among more points than fit into memory."""

import numpy as np

BLOCK = 4096  # points in one matrix product; with fewer, threads wait for each other more often
COPIED = 256  # points that are copied at a time, as float64
ROUNDING = 2.0**-24  # of one operation in float32, relative


def nearest(points: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` points nearest to each query, and how far they are.

    |a|^2 - 2ab + |b|^2 by matrix products, block by block, narrows the points down to a few: those
    that rounding may have kept from being nearest are among them. Their distances are then
    computed from the differences, in float64.

    Args:
        points: float32 [N, D], finite; perhaps mapped from a file, which is read once.
        queries: float32 [Q, D], finite.
        count: neighbors to return; all points where there are fewer.

    Returns:
        Numbers of the points, int64 [Q, min(count, N)], nearest first and the first of equals
        before the others; their distances, float64 of the same shape.

    Raises:
        ValueError: the shapes do not agree, or count is below 1.
    """
    if points.ndim != 2 or queries.ndim != 2 or points.shape[1] != queries.shape[1] or count < 1:
        raise ValueError(
            f"{count} nearest of {points.shape} to {queries.shape}: at least 1, of [N, D] to "
            "[Q, D]; take the features of one layer of one network."
        )
    count = min(count, len(points))
    numbers = np.empty((len(queries), count), np.int64)
    distances = np.empty((len(queries), count))
    least, greatest = _bounds(points, queries.astype(np.float32, copy=False))
    for row, query in enumerate(queries):
        within = np.partition(greatest[row], count - 1)[count - 1] if count else 0
        candidates = np.flatnonzero(least[row] <= within)
        squares = _squares(points, candidates, query)
        best = np.argsort(squares, kind="stable")[:count]
        numbers[row], distances[row] = candidates[best], np.sqrt(squares[best])
    return numbers, distances


def _bounds(points: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the squared distances [Q, N] are not below and not above, float64.

    A sum of D float32 products in any order is off by no more than D u / (1 - D u) times the sum of
    their absolute values (Higham, Accuracy and Stability, 3.1), here at most (|a|^2 + |b|^2) / 2.
    """
    width = points.shape[1]
    error = width * ROUNDING / (1 - width * ROUNDING)
    error *= 2.1  # |a|^2, |b|^2 and twice ab; and the lengths in the bound are themselves rounded
    smallest = 4 * width * float(np.finfo(np.float32).tiny)  # what products may vanish below
    lengths = np.vecdot(queries, queries).astype(np.float64)
    least = np.empty((len(queries), len(points)))
    greatest = np.empty_like(least)
    for start in range(0, len(points), BLOCK):
        block = np.asarray(points[start : start + BLOCK])
        both = np.vecdot(block, block).astype(np.float64) + lengths[:, None]
        squares = both - 2.0 * (block @ queries.T).T
        margin = error * both + smallest
        least[:, start : start + BLOCK] = squares - margin
        greatest[:, start : start + BLOCK] = squares + margin
    return least, greatest


def _squares(points: np.ndarray, candidates: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the squared distances of some points from the query, float64 [n]."""
    squares = np.empty(len(candidates))
    for start in range(0, len(candidates), COPIED):
        block = points[candidates[start : start + COPIED]].astype(np.float64)
        block -= query
        squares[start : start + COPIED] = np.vecdot(block, block)
    return squares
