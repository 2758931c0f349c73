"""Batches are a function of the step with any threads, start and rows."""

import dataclasses
import itertools
import logging
import threading
import time

import jax
import numpy as np
import pytest

from alexnet_jax.config import DataConfig
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.pipeline import Batch, Batches, evaluation_batches, training_batches
from alexnet_jax.data.sources import Record
from alexnet_jax.data.wrappers import Monitored

CONFIG = DataConfig(image_size=16, crop=12, threads=2, prefetch=3)


class Numbered:
    """Images whose first channel is the record, the others row and column."""

    class_names = ("a", "b", "c")

    def __init__(self, number: int, unreadable: tuple[int, ...] = ()):
        rows, columns = np.mgrid[:16, :16]
        self.images = np.zeros((number, 16, 16, 3), np.uint8)
        self.images[..., 0] = np.arange(number)[:, None, None]
        self.images[..., 1], self.images[..., 2] = rows, columns
        self.unreadable = unreadable
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        self.read.append(index)
        if index in self.unreadable:
            raise UnreadableImage("torn")
        return {"image": self.images[index], "label": index % 3}

    def describe(self, index: int) -> str:
        return f"file-{index}.jpg"

    def fingerprint(self) -> str:
        return f"numbered {len(self)}"


def take(batches: Batches, number: int) -> list[Batch]:
    first = list(itertools.islice(batches, number))
    batches.close()
    return first


def train(source: Numbered, number: int, seed: int = 0, batch: int = 8, **options) -> list[Batch]:
    config = options.pop("config", CONFIG)
    return take(training_batches(source, config, seed, batch, **options), number)


def assert_same(some: list[Batch], others: list[Batch]):
    assert len(some) == len(others) > 0
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def column(batches: list[Batch], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def test_a_batch_has_its_fields():
    (batch,) = train(Numbered(20), 1)
    assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
        "image": ("uint8", (8, 12, 12, 3)),
        "label": ("int32", (8,)),
        "lighting": ("float32", (8, 3)),
        "divisor": ("float32", (8,)),
        "offset": ("int32", (8, 2)),
        "mirror": ("bool", (8,)),
        "index": ("int64", (8,)),
    }


def test_a_cpu_does_not_copy_the_images():
    for batch in train(Numbered(20), 3):
        on_device = jax.device_put(batch["image"])
        assert on_device.unsafe_buffer_pointer() == batch["image"].ctypes.data


def test_every_row_is_the_view_that_it_says():
    source = Numbered(20)
    for batch in train(source, 6):
        for row in range(8):
            top, left = batch["offset"][row]
            image = source.images[batch["index"][row], top : top + 12, left : left + 12]
            np.testing.assert_array_equal(batch["image"][row], image)
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)


def test_every_record_comes_once_an_epoch_in_another_order():
    indices = column(train(Numbered(20), 15), "index").reshape(6, 20)  # 120 = 15 batches, 6 epochs
    for epoch in indices:
        assert sorted(epoch) == list(range(20))
    assert len({tuple(epoch) for epoch in indices}) == 6
    assert not (indices == np.arange(20)).all(axis=1).any()


def test_a_fixed_order_is_shuffled_once():
    config = dataclasses.replace(CONFIG, shuffle="once")
    for seed in (0, 1):
        batches = train(Numbered(20), 15, seed=seed, config=config)
        epochs = column(batches, "index").reshape(6, 20)
        assert (epochs == epochs[0]).all()
        assert sorted(epochs[0]) == list(range(20))
        assert np.count_nonzero(epochs[0] == np.arange(20)) < 10
        first = column(train(Numbered(20), 15, seed=seed), "index")[:20]
        np.testing.assert_array_equal(epochs[0], first)  # reshuffled later, or not
    views = np.unique(column(batches, "lighting"), axis=0)
    assert len(views) == 120  # the views are new in every epoch all the same


@pytest.mark.parametrize("share", [4, 3])
def test_neighbors_in_the_run_share_a_crop_whatever_the_rows_read(share: int):
    # Blocks of 3 run across the ends of batches of 8.
    config = dataclasses.replace(CONFIG, images_per_crop=share, shuffle="once")
    batches = train(Numbered(20), 30, config=config)
    places = np.column_stack([column(batches, "offset"), column(batches, "mirror")])
    blocks = places.reshape(240 // share, share, 3)
    assert (blocks == blocks[:, :1]).all()
    assert len(np.unique(blocks[:, 0], axis=0)) > 20  # of 5 x 5 x 2
    assert len(np.unique(column(batches, "lighting"), axis=0)) == 240
    halves = [train(Numbered(20), 30, config=config, rows=slice(at, at + 4)) for at in (0, 4)]
    for whole, *parts in zip(batches, *halves, strict=True):
        for name, array in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


def test_lighting_and_division_end_with_an_epoch():
    config = dataclasses.replace(CONFIG, train_divisor=1.1, pca_epochs=2)
    batches = train(Numbered(20), 15, config=config)
    throughout = train(Numbered(20), 15, config=dataclasses.replace(config, pca_epochs=0))
    has_lighting = np.arange(120) < 40  # the first 2 epochs of 20 images: 5 batches of 8
    np.testing.assert_array_equal(column(batches, "lighting").all(axis=1), has_lighting)
    np.testing.assert_array_equal(column(batches, "lighting").any(axis=1), has_lighting)
    np.testing.assert_array_equal(
        column(batches, "divisor"), np.where(has_lighting, np.float32(1.1), 1)
    )
    np.testing.assert_array_equal(
        column(batches, "lighting")[has_lighting], column(throughout, "lighting")[has_lighting]
    )
    assert (column(throughout, "divisor") == np.float32(1.1)).all()
    for name in ("index", "image", "offset", "mirror"):  # nothing else changes with it
        np.testing.assert_array_equal(column(batches, name), column(throughout, name))
    odd = column(train(Numbered(11), 4, config=config), "divisor")
    assert odd.tolist().count(1) == 32 - 22  # 22 is amid batch 2


def test_views_of_a_record_differ_from_epoch_to_epoch():
    batches = train(Numbered(16), 60)
    index, lighting = column(batches, "index"), column(batches, "lighting")
    offset, mirror = column(batches, "offset"), column(batches, "mirror")
    for record in range(16):
        mine = index == record
        assert len(np.unique(lighting[mine], axis=0)) == mine.sum() == 30
        assert len(np.unique(offset[mine], axis=0)) > 10
        assert 0 < mirror[mine].mean() < 1


def test_a_seed_decides_everything():
    first = train(Numbered(20), 5)
    assert_same(train(Numbered(20), 5), first)
    other = train(Numbered(20), 5, seed=1)
    assert (column(first, "index") != column(other, "index")).any()
    assert (column(first, "lighting") != column(other, "lighting")).all()


def test_the_draws_of_a_step_never_change():
    # If another release of numpy draws differently, saved runs cannot be resumed.
    (batch,) = train(Numbered(20), 1, seed=3, batch=6, start=7)
    assert batch["index"].tolist() == [8, 1, 10, 5, 17, 9]
    assert batch["offset"].tolist() == [[2, 1], [2, 1], [2, 0], [1, 3], [0, 2], [3, 1]]
    assert batch["mirror"].tolist() == [True, False, True, True, True, True]
    first = [0.07843414, -0.0898608, -0.07040346]
    np.testing.assert_allclose(batch["lighting"][0], first, rtol=1e-6)


def test_one_seeds_epochs_are_not_anothers():
    # A seed that is only added to the epoch would make seed 1 an epoch ahead of seed 0.
    orders = [column(train(Numbered(40), 20, seed=s), "index").reshape(4, 40) for s in range(4)]
    assert len(np.unique(np.concatenate(orders), axis=0)) == 16


def test_batches_do_not_depend_on_threads_or_on_what_is_read_ahead():
    expected = train(Numbered(20), 7)
    for threads, prefetch in ((0, 1), (1, 1), (4, 9)):
        config = DataConfig(image_size=16, crop=12, threads=threads, prefetch=prefetch)
        assert_same(train(Numbered(20), 7, config=config), expected)


@pytest.mark.parametrize("start", [1, 3, 11])
def test_batches_do_not_depend_on_where_a_run_resumes(start: int):
    expected = train(Numbered(20), 14)
    assert_same(train(Numbered(20), 14 - start, start=start), expected[start:])


def test_a_start_far_ahead_is_reached_at_once():
    source = Numbered(20)
    (batch,) = train(source, 1, start=10**12)
    assert set(batch["index"]) <= set(range(20))
    assert len(source.read) <= 8 * (CONFIG.prefetch + 1)


def test_shares_of_the_rows_make_up_the_whole():
    whole = train(Numbered(20), 4)
    source = Numbered(20)
    config = DataConfig(image_size=16, crop=12, threads=0)
    shares = [train(Numbered(20), 4, rows=slice(start, start + 2)) for start in range(0, 8, 2)]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    assert_same(joined, whole)
    blocks = train(source, 4, rows=(slice(0, 2), slice(6, 8)), config=config)
    assert_same(
        blocks, [{name: array[[0, 1, 6, 7]] for name, array in batch.items()} for batch in whole]
    )
    assert len(source.read) == 4 * 4  # the other rows are not decoded


@pytest.mark.parametrize("number", [1, 3])
def test_a_batch_may_be_larger_than_the_data(number: int):
    batches = train(Numbered(number), 6)
    indices = column(batches, "index")
    assert np.bincount(indices).tolist() == [48 // number] * number
    assert len(np.unique(column(batches, "lighting"), axis=0)) == 48


def test_an_unreadable_record_is_replaced_by_the_next_with_one_warning(
    caplog: pytest.LogCaptureFixture,
):
    good = column(train(Numbered(20), 10), "index")
    caplog.set_level(logging.WARNING)
    for threads in (0, 4):
        caplog.clear()
        config = DataConfig(image_size=16, crop=12, threads=threads)
        batches = train(Numbered(20, unreadable=(4, 5, 19)), 10, config=config)
        replaced = np.select([np.isin(good, [4, 5]), good == 19], [6, 0], good)
        np.testing.assert_array_equal(column(batches, "index"), replaced)
        np.testing.assert_array_equal(column(batches, "label"), replaced % 3)
        assert {image[0, 0, 0] for image in column(batches, "image")} == set(replaced)
        messages = sorted(record.getMessage() for record in caplog.records)
        for index, message in zip((19, 4, 5), messages, strict=True):
            assert message.startswith(f"file-{index}.jpg is unreadable")
            assert "torn" in message


def test_nothing_left_to_read_ends_the_run():
    with pytest.raises(ValueError, match="None of the 3 records"):
        train(Numbered(3, unreadable=(0, 1, 2)), 1)


@pytest.mark.parametrize(("number", "batch"), [(20, 8), (16, 8), (5, 8), (1, 1), (20, 20)])
def test_evaluation_reads_every_record_once(number: int, batch: int):
    source = Numbered(number)
    config = dataclasses.replace(CONFIG, train_divisor=1.1, images_per_crop=2)  # of training alone
    batches = list(evaluation_batches(source, config, batch))
    assert len(batches) == -(-number // batch)
    mask = column(batches, "mask")
    assert mask.tolist() == [True] * number + [False] * (len(batches) * batch - number)
    assert column(batches, "index")[mask].tolist() == list(range(number))
    assert column(batches, "label")[mask].tolist() == [index % 3 for index in range(number)]
    images = column(batches, "image")
    np.testing.assert_array_equal(images[mask], source.images[:, 2:14, 2:14])
    assert not images[~mask].any()
    assert (column(batches, "index")[~mask] == -1).all()
    assert (column(batches, "offset")[mask] == 2).all()
    assert not column(batches, "mirror").any()
    assert not column(batches, "lighting").any()
    assert (column(batches, "divisor") == 1).all()
    assert {name: array.dtype.name for name, array in batches[0].items()} == {
        **{name: array.dtype.name for name, array in train(source, 1)[0].items()},
        "mask": "bool",
    }


def test_evaluation_masks_an_unreadable_record_and_warns_the_first_time_only(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.WARNING)
    source = Monitored(Numbered(10, unreadable=(3,)))
    for _ in range(3):
        mask = column(list(evaluation_batches(source, CONFIG, 4)), "mask")
        assert mask.sum() == 9
        assert not mask[3]
    (record,) = caplog.records
    assert record.getMessage().startswith("file-3.jpg is unreadable")
    assert source.unreadable == {3}


def test_as_many_threads_read_as_the_configuration_says():
    together = threading.Barrier(6)

    class Meeting(Numbered):
        def __getitem__(self, index: int) -> Record:
            together.wait(timeout=30)  # a seventh of six would break it
            return super().__getitem__(index)

    config = DataConfig(image_size=16, crop=12, threads=6, prefetch=2)
    batches = list(evaluation_batches(Meeting(6), config, 1))
    assert column(batches, "index").tolist() == list(range(6))


def test_reading_ahead_is_bounded_and_ends_when_closed():
    source = Numbered(20)
    batches = training_batches(source, CONFIG, 0, 8)
    next(batches)
    # Reading goes on in threads: wait until it has come to rest.
    before = -1
    while before != len(source.read):
        before = len(source.read)
        time.sleep(0.05)
    assert len(source.read) <= 8 * (1 + CONFIG.prefetch)
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=10)
            assert not thread.is_alive()
