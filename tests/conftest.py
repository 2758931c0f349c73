"""Strict settings for every test: an emulated mesh of CPU devices, no silent broadcasting."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]

# For child processes: the same copy of the package, no accelerator, no display.
os.environ["PYTHONPATH"] = str(CHECKOUT)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
# In the background of a script Ctrl-C is ignored, which children inherit: those here answer it.
signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import numpy as np
import pytest
from PIL import Image

jax.config.update("jax_platforms", "cpu")  # where a plugin imported jax before the line above
jax.config.update("jax_num_cpu_devices", 4)  # for meshes up to (2, 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
# From here on for child processes alone, which test runs, signals and files, not numbers.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what imports packages of an extra unless `-m` asks for it: they then must be there.

    Those are PyTorch and ONNX in `test_..._parity.py`, websockets in `test_..._browser.py`.
    """
    marks = config.getoption("markexpr")
    for mark in ("parity", "browser"):
        asked = not marks or (mark in marks and f"not {mark}" not in marks)
        if collection_path.name.endswith(f"_{mark}.py") and not asked:
            return True
    return None


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compile in half the time, for tests of files, runs and commands: numbers may change.

    A file whose tests do not depend on how well XLA optimizes asks for it with `pytestmark`.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of noise in 3 classes: 30 images to train on, 12 to look at, 9 to test."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, number in {"train": 10, "val": 4, "test": 3}.items():
        for name in ("amber", "beige", "coral"):
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 256, (40, 44, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder named by ALEXNET_JAX_REAL_DATA, or skip the test where it is not set."""
    folder = os.environ.get("ALEXNET_JAX_REAL_DATA")
    if not folder:
        pytest.skip("ALEXNET_JAX_REAL_DATA is not set; name the folder that holds the real data")
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"ALEXNET_JAX_REAL_DATA={folder} is no folder; name one or unset it.")
    return path
