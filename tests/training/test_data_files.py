"""The list of a run's files: what differs is named, and a list that is lost or damaged says so."""

import gzip

import pytest

from alexnet_jax.training import data_files

FILES = {f"train/cat/{number}.jpg": 1000 + number for number in range(9)} | {"odd\udcff\t.jpg": 7}


def test_the_same_files_pass(tmp_path):
    data_files.write(FILES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [data_files.NAME]
    assert data_files.check(dict(reversed(FILES.items())), tmp_path)


def test_each_difference_is_counted_and_some_are_named(tmp_path):
    data_files.write(FILES, tmp_path)
    now = dict(FILES)
    for number in range(5):
        del now[f"train/cat/{number}.jpg"]
    now |= {"train/cat/6.jpg": 2_000, "train/cat/7.jpg": -1, "train/dog/0.jpg": 5}
    with pytest.raises(ValueError, match=f"workdir {tmp_path}: ") as refused:
        data_files.check(now, tmp_path)
    for part in (
        "1 added (train/dog/0.jpg); ",
        "5 removed (train/cat/0.jpg, train/cat/1.jpg, train/cat/2.jpg, ...); ",
        "2 changed (train/cat/6.jpg: 1,006 bytes, now 2,000 bytes, ",
        "train/cat/7.jpg: 1,007 bytes, now missing); ",
        "data.path",
        "delete data-files.jsonl.gz",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "no list"])
def test_a_list_that_is_lost_or_damaged_decides_nothing(tmp_path, damage):
    data_files.write(FILES, tmp_path)
    path = tmp_path / data_files.NAME
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 8
        path.write_bytes(content)
    else:
        path.write_bytes(gzip.compress(b"17\n"))
    assert not data_files.check(FILES, tmp_path)


def test_what_lies_in_no_files_leaves_no_list(tmp_path):
    data_files.write({}, tmp_path)
    assert not [*tmp_path.iterdir()]
