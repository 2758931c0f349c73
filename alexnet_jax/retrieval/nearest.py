"""Exact nearest neighbors by Euclidean distance, among more points than fit into memory."""

import numpy as np

from alexnet_jax.config import invalid

BLOCK = 4096  # points in one matrix product; with fewer, threads wait for each other more often
COPY_ROWS = 256  # points converted to float64 at a time
ROUNDING = 2.0**-24  # of one operation in float32, relative


def nearest(points: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` points nearest to each query, and their distances.

    |a|^2 - 2ab + |b|^2, computed by matrix products block by block, selects a few candidates, with
    a margin for rounding errors. Their distances are then computed from the differences in float64.

    Args:
        points: float32 [N, D], finite; may be memory-mapped, and is read once.
        queries: float32 [Q, D], finite.
        count: neighbors to return; all points if there are fewer.

    Returns:
        Numbers of the points, int64 [Q, min(count, N)], nearest first and, of equally
        near ones, the first first; their distances, float64 of the same shape.

    Raises:
        ValueError: the shapes do not agree, or count is below 1.
    """
    if count < 1:
        raise invalid("count", count, "must be at least 1", "try 6")
    if points.ndim != 2 or queries.shape[1:] != points.shape[1:]:
        rule = f"must be [Q, D] for points [N, D], here {list(points.shape)}"
        remedy = "take the features of one layer of one network"
        raise invalid("queries", str(list(queries.shape)), rule, remedy)
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
    """Return lower and upper bounds of the squared distances [Q, N], float64.

    A sum of D float32 products in any order is in error by at most D u / (1 - D u) times the sum of
    their absolute values (Higham, Accuracy and Stability, 3.1), here at most (|a|^2 + |b|^2) / 2.
    """
    width = points.shape[1]
    error = width * ROUNDING / (1 - width * ROUNDING)
    error *= 2.1  # |a|^2, |b|^2 and twice ab; and the lengths in the bound are themselves rounded
    smallest = 4 * width * float(np.finfo(np.float32).tiny)  # products may underflow below it
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
    for start in range(0, len(candidates), COPY_ROWS):
        block = points[candidates[start : start + COPY_ROWS]].astype(np.float64)
        block -= query
        squares[start : start + COPY_ROWS] = np.vecdot(block, block)
    return squares
