"""The order of the images is a uniform permutation for each (seed, epoch), and always the same."""

import collections
import threading
import zlib

import numpy as np
import pytest

from alexnet_jax.data import order as module
from alexnet_jax.data.order import Order, permutation


def epochs(number: int, count: int, seed: int = 0) -> np.ndarray:
    """Return the orders of the first epochs, int64 [count, number]."""
    return np.stack([permutation(number, (seed, epoch, module.STREAM)) for epoch in range(count)])


@pytest.mark.parametrize("number", [1, 2, 3, 300, 70_000])
def test_every_record_comes_once(number: int):
    records = Order(number, 0, each_epoch=True)(np.arange(3 * number)).reshape(3, number)
    np.testing.assert_array_equal(records, epochs(number, 3))
    np.testing.assert_array_equal(np.sort(records), np.broadcast_to(np.arange(number), (3, number)))


def test_as_many_records_stay_in_their_place_as_by_chance():
    # The fixed points of a uniform permutation are Poisson distributed with mean and variance 1, up
    # to 1/300!. Grain's shuffle of four rounds had 1.7 on average, 31 standard deviations away.
    count = 2000
    orders = epochs(300, count)
    fixed = (orders == np.arange(300)).sum(axis=1)
    assert abs(fixed.sum() - count) < 4.5 * np.sqrt(count)
    assert abs(fixed.var() - 1) < 4.5 * np.sqrt(3 / count)  # the variance of (x - 1)^2 is 3
    # Neither do they stay where they were in the epoch before, or in the run with the next seed.
    same = (orders[1:] == orders[:-1]).sum() + (orders == epochs(300, count, seed=1)).sum()
    assert abs(same - (2 * count - 1)) < 4.5 * np.sqrt(2 * count)


def test_all_orders_of_four_records_are_equally_frequent():
    count = 24_000
    frequencies = collections.Counter(map(tuple, epochs(4, count).tolist()))
    assert len(frequencies) == 24
    chi2 = sum((frequency - count / 24) ** 2 / (count / 24) for frequency in frequencies.values())
    assert 4.9 < chi2 < 62  # 23 degrees of freedom: 1e-5 lie below and 2e-5 above


def test_neighbors_are_separated():
    # A record follows its neighbor in (n - 1) / n of the permutations, asymptotically Poisson.
    steps = np.diff(epochs(300, 2000), axis=1)
    for step in (1, -1):
        assert abs((steps == step).sum() - 2000 * 299 / 300) < 4.5 * np.sqrt(2000)


def test_the_orders_are_these_with_every_version_of_numpy():
    assert permutation(10, (0, 0, 2)).tolist() == [5, 1, 8, 7, 0, 6, 4, 9, 2, 3]
    large = permutation(10_000, (7, 3, 2))
    assert zlib.crc32(large.astype("<i8").tobytes()) == 3429055318
    first = Order(10, 0, each_epoch=True)(np.arange(10))
    np.testing.assert_array_equal(first, permutation(10, (0, 0, 2)))


def test_equal_keys_are_drawn_again(monkeypatch):
    keys = [np.array([3, 1, 3], np.uint64), np.array([2, 1, 0], np.uint64)]

    class Generator:
        def __init__(self, _: object):
            pass

        def random_raw(self, _: int) -> np.ndarray:
            return keys.pop(0)

    monkeypatch.setattr(module.np.random, "PCG64", Generator)
    assert permutation(3, (0,)).tolist() == [2, 1, 0]
    assert not keys


def test_an_order_for_all_epochs_is_that_of_the_first():
    once = Order(20, 5, each_epoch=False)(np.arange(60)).reshape(3, 20)
    np.testing.assert_array_equal(once, np.broadcast_to(epochs(20, 1, seed=5), (3, 20)))


def test_positions_may_be_of_any_epochs_and_in_any_order():
    expected = epochs(7, 9).ravel()
    positions = np.random.default_rng(0).permutation(63)
    order = Order(7, 0, each_epoch=True)
    np.testing.assert_array_equal(order(positions), expected[positions])
    far = 2**40  # an epoch that no draw before it leads to
    np.testing.assert_array_equal(order(7 * far + np.arange(7)), permutation(7, (0, far, 2)))


def test_threads_draw_an_epoch_once(monkeypatch):
    drawn: list[int] = []

    def draw(number: int, entropy: tuple[int, ...]) -> np.ndarray:
        drawn.append(entropy[1])
        return permutation(number, entropy)

    monkeypatch.setattr(module, "permutation", draw)
    order, expected = Order(50_000, 0, each_epoch=True), permutation(50_000, (0, 0, 2))
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(order(np.arange(49_990, 50_010))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(drawn) == [0, 1]
    for records in results:
        np.testing.assert_array_equal(records[:10], expected[49_990:])
