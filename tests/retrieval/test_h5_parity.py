"""An .h5 file of features, read by h5py, has what an .npz file has."""

import h5py
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import features
from tests import untrained

pytestmark = pytest.mark.parity


def test_h5_has_every_layer_and_the_names(tmp_path):
    workdir, files = untrained.make(tmp_path / "run"), []
    for number in range(3):
        files.append(str(tmp_path / f"é{number}.png"))
        Image.effect_noise((90, 80), 50 + number).convert("RGB").save(files[-1])
    options = ["--workdir", str(workdir), "--layers", "pool5", "fc7"]
    for file in ("f.h5", "f.npz"):
        assert features.main([*files, *options, "--to", str(tmp_path / file)]) == 0
    with h5py.File(tmp_path / "f.h5") as file, np.load(tmp_path / "f.npz") as archive:
        assert file["files"].asstr()[:].tolist() == archive["files"].tolist() == files
        for layer in ("pool5", "fc7"):
            np.testing.assert_array_equal(file[layer][:], archive[layer])
