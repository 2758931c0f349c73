"""`predict` reads files in as many threads as training does, ahead of the network."""

import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet_jax import predict
from alexnet_jax.config import Config, DataConfig
from alexnet_jax.inference import ensemble

SIZE = 16


def network(threads: int) -> Any:
    data = DataConfig(image_size=SIZE, crop=12, threads=threads)
    return SimpleNamespace(config=dataclasses.replace(Config(), data=data))


class Predictor:
    """Returns the first value of each square, after `wait`."""

    def __init__(self, *_: object, wait=lambda: None):
        self.wait = wait

    def __call__(self, squares) -> np.ndarray:
        self.wait()
        return np.log(np.stack([square[0, 0, :1] + 1.0 for square in squares]))


def square(path: Path) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), int(path.stem), np.uint8)


@pytest.mark.parametrize("threads", [1, 3, 5])
def test_as_many_files_are_read_at_once_as_there_are_threads(threads, monkeypatch):
    # With fewer threads the first files would wait for each other, and the barrier would break.
    barrier, names = threading.Barrier(threads, timeout=20), set()

    def read(path: Path) -> np.ndarray:
        names.add(threading.current_thread().name)
        if int(path.stem) < threads:
            barrier.wait()
        return square(path)

    monkeypatch.setattr(predict, "open_image", read)
    monkeypatch.setattr(ensemble, "Predictor", Predictor)
    files = [Path(f"{number}.png") for number in range(60)]
    found = list(predict.predict(network(threads), files))
    assert len(names) == threads
    assert [prediction.file for prediction in found] == files
    values = [float(p.probabilities[0]) for p in found if p.probabilities is not None]
    np.testing.assert_allclose(values, np.arange(60) + 1, rtol=1e-6)


@pytest.mark.parametrize("threads", [0, 1])
def test_the_next_files_are_read_while_the_network_computes(threads, monkeypatch):
    read_ahead = threading.Event()

    def read(path: Path) -> np.ndarray:
        if int(path.stem) == predict.BATCH:  # the first of the second batch
            read_ahead.set()
        return square(path)

    waited = []

    def wait() -> None:
        waited.append(read_ahead.wait(20))

    monkeypatch.setattr(predict, "open_image", read)
    monkeypatch.setattr(ensemble, "Predictor", lambda *_: Predictor(wait=wait))
    files = [Path(f"{number}.png") for number in range(predict.BATCH + 2)]
    assert len(list(predict.predict(network(threads), files))) == len(files)
    assert waited == [True, True]
