"""A source of images on which networks with random weights disagree."""

import numpy as np

from alexnet_jax.data.images import UnreadableImage


class Noise:
    """Square images of noise, each of another brightness, in classes drawn at random."""

    def __init__(self, number, size, classes, unreadable=(), seed=0):
        rng = np.random.default_rng(seed)
        level = np.linspace(20, 200, number)[:, None, None, None]
        self.images = (rng.uniform(0, 55, (number, size, size, 3)) + level).astype(np.uint8)
        self.labels = rng.integers(0, classes, number)
        self.class_names = tuple("abcdefghijklmnopqrstuvwxyz"[:classes])
        self._unreadable, self._seed = unreadable, seed

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index in self._unreadable:
            raise UnreadableImage("torn")
        return {"image": self.images[index], "label": int(self.labels[index])}

    def describe(self, index):
        return f"noise of seed {self._seed}:{index}"

    def fingerprint(self):
        return f"noise of seed {self._seed}"
