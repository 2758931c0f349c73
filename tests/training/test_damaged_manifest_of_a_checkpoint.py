"""A damaged manifest makes a checkpoint damaged, and its message a short one."""

import json

import pytest

from alexnet_jax.training import checkpoint_digests

CONTENTS = {
    "nested without end": "[" * 100_000,
    "a list": "[]",
    "files that are a list": '{"files": []}',
    "files that are a number": '{"files": 3}',
    "an entry that is a number": '{"files": {"a": 3}}',
    "a size of 5,000 digits": '{"files": {"a": [' + "9" * 5000 + ', ""]}}',
    "a size that is infinite": '{"files": {"a": [Infinity, ""]}}',
    "bytes": "\0",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_manifest_that_is_none(content, tmp_path):
    (tmp_path / checkpoint_digests.NAME).write_text(content)
    assert checkpoint_digests.find_corruption(tmp_path) == "manifest.json cannot be read"


def test_a_long_name_in_a_manifest(tmp_path):
    content = {"files": {name: [1, "a"] for name in ("!" * 5000, *checkpoint_digests.ROOTS)}}
    (tmp_path / checkpoint_digests.NAME).write_text(json.dumps(content))
    fault = checkpoint_digests.find_corruption(tmp_path)
    assert fault.endswith("! is missing")
    assert len(fault) < 250
