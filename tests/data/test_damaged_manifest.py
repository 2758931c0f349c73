"""A damaged manifest, statistics or list of classes of prepared shards is named, never believed."""

import json

import numpy as np
import pytest

from alexnet_jax.data import array_record
from alexnet_jax.data.array_record import ArrayRecords
from alexnet_jax.data.shards import manifest as shard_manifest
from tests.data.test_prepare import jpeg

FILE = {"bytes": 3, "sha256": "0" * 64}
SPLIT = {"images": 1, "left_out": [], "fingerprint": "a"}
INTACT = {"plan": {}, "splits": {"train": SPLIT}, "files": {"a": FILE}}
MANIFESTS = {
    "nested without end": "[" * 100_000,
    "a list": [],
    "a text": "plan splits files",
    "a number": 3,
    "splits that are a list": INTACT | {"splits": ["train"]},
    "files that are a list": INTACT | {"files": ["a"]},
    "a plan that is text": INTACT | {"plan": "a"},
    "a split that is a number": INTACT | {"splits": {"train": 3}},
    "a split without images": INTACT | {"splits": {"train": {"fingerprint": "a"}}},
    "reasons that are numbers": INTACT | {"splits": {"train": SPLIT | {"left_out": [3]}}},
    "a file that is a number": INTACT | {"files": {"a": 3}},
    "a size that is text": INTACT | {"files": {"a": FILE | {"bytes": "3"}}},
    "a file elsewhere": INTACT | {"files": {"../../a": FILE}},
    "a file at the root": INTACT | {"files": {"/etc/passwd": FILE}},
}


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_damaged_manifest(content, tmp_path):
    text = content if isinstance(content, str) and content[0] == "[" else json.dumps(content)
    (tmp_path / shard_manifest.MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json: is damaged; remove it"):
        shard_manifest.read_manifest(tmp_path)
    (tmp_path / shard_manifest.MANIFEST).write_text(json.dumps(INTACT))
    assert shard_manifest.read_manifest(tmp_path) == INTACT


def test_damaged_statistics_of_the_same_size(tmp_path):
    np.savez(tmp_path / shard_manifest.STATISTICS, mean_image=np.zeros((4, 4, 3)))
    damaged = bytearray((tmp_path / shard_manifest.STATISTICS).read_bytes())
    damaged[-30:] = bytes(30)
    (tmp_path / shard_manifest.STATISTICS).write_bytes(damaged)
    entry = shard_manifest.describe_file(tmp_path / shard_manifest.STATISTICS)
    manifest = {"plan": {}, "splits": {}, "files": {shard_manifest.STATISTICS: entry}}
    shard_manifest.write_manifest(tmp_path, manifest)
    with pytest.raises(ValueError, match=r"statistics\.npz: is damaged .*; remove it, and rerun"):
        shard_manifest.load_statistics(tmp_path, {}, 4)


@pytest.mark.parametrize("names", ['"ab"', '{"a": 1}', "[1, 2]", "3", "null", "[" * 100_000, ""])
def test_class_names_that_are_no_list(names, tmp_path):
    array_record.write_array_records(tmp_path, "train", [(jpeg(0), 0)], ["a", "b"])
    assert ArrayRecords(tmp_path, "train").class_names == ("a", "b")
    (tmp_path / array_record.CLASSES).write_text(names)
    with pytest.raises(ValueError, match=r"classes\.json, a list of class names"):
        ArrayRecords(tmp_path, "train")
