"""The folder of a file that is to be written is made, as is the folder of a run."""

import pytest

from alexnet_jax.storage.atomic import make_parent


def test_folders_that_are_missing_are_made_and_others_stay(tmp_path):
    for _ in range(2):
        make_parent(tmp_path / "a" / "b" / "file.npz", "to")
        assert [*(tmp_path / "a" / "b").iterdir()] == []


@pytest.mark.parametrize("below", ["file/net.onnx", "file/more/net.onnx"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=rf"^to {tmp_path / below}: .*{tmp_path}/file.*; name a"):
        make_parent(tmp_path / below, "to")
    assert (tmp_path / "file").read_text() == "mine"
