"""Addresses of remote stores are refused, and paths that look a little like them are not."""

from pathlib import Path

import pytest

from alexnet_jax.storage.local import check_local


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/a",
        Path("gs://bucket/a"),  # which has one slash left
        *("s3://bucket", "hdfs://host:9000/a", "file:///a", "https://host/a.jpg", "hf-x://a"),
    ],
)
def test_addresses_are_refused(address):
    with pytest.raises(ValueError, match=rf"workdir {address}: .*local.*; use a local folder"):
        check_local(address, "workdir")


@pytest.mark.parametrize("path", ["a", "runs/a", "exp:1/run", "/mnt/gs:/a", "12:30", "C:/a", ""])
def test_paths_pass(path):
    check_local(path, "workdir")
