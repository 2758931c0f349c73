"""Which column of which table has the labels: said, agreed on, or asked for."""

import pytest

from alexnet_jax.data.label_tables import labels_from_tables

FILES = ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def table(path, header, *columns):
    rows = [",".join([str(n), *map(str, row)]) for n, row in enumerate(zip(*columns, strict=True))]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_column_is_that_of_the_header(tmp_path):
    path = table(tmp_path / "t.csv", "id,fold,breed,age", "0011", "abba", "9876")
    labels = labels_from_tables([path], FILES, None)
    assert labels is not None
    assert labels.class_names == ("a", "b")
    assert [labels.by_file[file] for file in FILES] == [0, 1, 1, 0]
    assert labels.describe() == f"{path}, column breed (its column fold is not used)"


def test_a_single_other_column_of_names(tmp_path):
    labels = labels_from_tables([table(tmp_path / "t.csv", "id,kind", "abab")], FILES, None)
    assert labels is not None
    assert labels.column == "kind"


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("image_id,healthy,rust,scab", ["1000", "0110", "0001"]),  # one of them is 1
        ("image_id,MEL,NV", [("1.0", "0.0") * 2, ("0.0", "1.0") * 2]),
        ("filename,width,height,kind", [[480, 640] * 2, [640, 480] * 2, "abab"]),
        ("image_id,fold", ["0123"]),
        ("id,boneage", [[180, 94, 12, 180]]),
    ],
)
def test_an_unclear_table_is_refused_for_training(header, columns, tmp_path):
    path = table(tmp_path / "t.csv", header, *columns)
    with pytest.raises(ValueError, match=r"t\.csv: .*which column.*; call that column label"):
        labels_from_tables([path], FILES, None)
    # Beside a clear one it is another kind of table.
    clear = table(tmp_path / "z.csv", "id,label", "abab")
    labels = labels_from_tables([path, clear], FILES, None)
    assert labels is not None
    assert labels.path == clear
    # Where classes are known, the column is the one that has them, if there is one.
    assert labels_from_tables([table(path, "id,a,b", "0110", "xyxy")], FILES, ["x", "y"])


def test_tables_that_do_not_agree_are_refused(tmp_path):
    first = table(tmp_path / "a.csv", "id,label", "abab")
    same = table(tmp_path / "b.csv", "id,class", "abab")
    other = table(tmp_path / "c.csv", "id,label", "abba")
    assert labels_from_tables([first, same], FILES, None)
    with pytest.raises(ValueError, match=r"c\.csv: .*a\.csv.*; leave one"):
        labels_from_tables([first, same, other], FILES, None)


def test_an_empty_cell_is_no_class(tmp_path):
    path = table(tmp_path / "t.csv", "id,label", ["a", "b", "", "a"])
    labels = labels_from_tables([path], FILES, None)
    assert labels is not None
    assert labels.class_names == ("a", "b")
    assert labels.num_unlisted == 1
