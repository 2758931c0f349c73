"""Prepared JPEGs have a color for every pixel, or say that they do not."""

import json
import shutil
from pathlib import Path

import grain
import numpy as np
import pytest
import simplejpeg

from alexnet_jax.config import DataConfig
from alexnet_jax.data import images
from alexnet_jax.data.shards.manifest import read_manifest
from alexnet_jax.data.shards.plan import RECORD_OVERHEAD, Preparation
from alexnet_jax.data.synthetic import Synthetic
from alexnet_jax.data.wrappers import Subset
from tests.data.test_prepare import run
from tests.data.test_splits import fill


def records(root: Path) -> list[bytes]:
    paths = [str(path) for path in sorted(root.glob("train.array_record*"))]
    shards = grain.sources.ArrayRecordDataSource(paths)
    return [bytes(shards[index][4:]) for index in range(len(shards))]


@pytest.mark.parametrize(
    ("arguments", "subsampling"),
    [((), "4:4:4"), (("--subsampling", "4:4:4"), "4:4:4"), (("--subsampling", "4:2:0"), "4:2:0")],
)
def test_records_have_the_subsampling_that_the_manifest_says(
    arguments, subsampling, tmp_path, capsys
):
    fill(tmp_path / "folders", {"a": 3, "b": 3})
    assert run(tmp_path / "folders", tmp_path / "to", *arguments) == 0
    assert f"jpeg {subsampling}" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "to")
    assert manifest is not None
    assert manifest["plan"]["subsampling"] == subsampling
    for record in records(tmp_path / "to"):
        found = simplejpeg.decode_jpeg_header(record)[3]
        assert found == subsampling.replace(":", "")


def test_raw_records_have_none(tmp_path, capsys):
    fill(tmp_path / "folders", {"a": 3, "b": 3})
    assert run(tmp_path / "folders", tmp_path / "to", "--encoding", "raw") == 0
    manifest = read_manifest(tmp_path / "to")
    assert manifest is not None
    assert "subsampling" not in manifest["plan"]
    capsys.readouterr()
    wrong = run(tmp_path / "none", tmp_path / "new", "--encoding", "raw", "--subsampling", "4:2:0")
    assert wrong == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--subsampling 4:2:0" in line
    assert "use --encoding jpeg" in line
    assert not (tmp_path / "new").exists()


def test_shards_of_two_kinds_are_not_mixed(tmp_path, capsys):
    fill(tmp_path / "folders", {"a": 3, "b": 3})
    assert run(tmp_path / "folders", tmp_path / "to") == 0
    assert run(tmp_path / "folders", tmp_path / "to", "--subsampling", "4:2:0") == 2
    assert "subsampling 4:4:4, now 4:2:0" in capsys.readouterr().err


def test_the_smaller_kind_is_offered_where_the_disk_is_small(tmp_path, capsys, monkeypatch):
    fill(tmp_path / "folders", {"a": 3, "b": 3})
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert run(tmp_path / "folders", tmp_path / "to") == 2
    assert "--subsampling 4:2:0, a smaller --image-size" in capsys.readouterr().err
    assert run(tmp_path / "folders", tmp_path / "to", "--subsampling", "4:2:0") == 2
    error = capsys.readouterr().err
    assert "or use a smaller --image-size" in error


def test_the_estimate_is_of_the_records_as_they_will_be(tmp_path):
    source = Subset(Synthetic("test"), np.arange(150))
    config = DataConfig(image_size=64, crop=64)
    sizes = {}
    for subsampling in ("4:4:4", "4:2:0"):
        root = tmp_path / subsampling.replace(":", "")
        preparation = Preparation(root, {"train": source}, config, "jpeg", subsampling)
        sizes[subsampling], _ = preparation.estimate()
        preparation.begin()
        preparation.write(1)
        mean = np.mean([len(record) for record in records(root)])
        assert abs(sizes[subsampling] - RECORD_OVERHEAD - mean) < 0.05 * mean
        assert (
            json.loads((root / "manifest.json").read_text())["plan"]["subsampling"] == subsampling
        )
    assert sizes["4:2:0"] < 0.95 * sizes["4:4:4"]


def test_full_color_is_more_exact():
    rows, columns = np.mgrid[:32, :32]
    image = np.stack([rows * 8, columns * 8, (rows ^ columns) * 8], -1).astype(np.uint8)
    error = {
        kind: np.abs(images.decode(images.encode(image, "jpeg", kind)).astype(int) - image).mean()
        for kind in ("4:4:4", "4:2:0")
    }
    np.testing.assert_array_equal(
        images.decode(images.encode(image, "jpeg")),
        images.decode(images.encode(image, "jpeg", "4:4:4")),
    )
    assert error["4:4:4"] < 0.5 * error["4:2:0"]
