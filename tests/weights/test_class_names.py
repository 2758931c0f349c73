"""Names of classes in a text file: whatever people have, read rightly or refused."""

import re

import pytest

from alexnet_jax.data.class_names import ClassNames
from alexnet_jax.weights import class_names

NAMES = ["tench, Tinca tinca", "goldfish", "great white shark"]


def read(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return class_names.read(path)


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(NAMES),
        "\n".join(NAMES) + "\n\n\n",
        ("\r\n".join(NAMES) + "\r\n").encode("utf-8-sig"),
        "\n".join(NAMES).encode("utf-16"),
        '["tench, Tinca tinca", "goldfish", "great white shark"]',
        "['tench, Tinca tinca', 'goldfish',\n 'great white shark',]",
        "classes = ('tench, Tinca tinca', 'goldfish', 'great white shark')\n",
        "{0: 'tench, Tinca tinca',\n 1: 'goldfish',\n 2: 'great white shark'}",
        '{"2": "great white shark", "0": "tench, Tinca tinca", "1": "goldfish"}',
        "{'great white shark': 2, 'tench, Tinca tinca': 0, 'goldfish': 1}",
        '{"id2label": {"0": "tench, Tinca tinca", "1": "goldfish", "2": "great white shark"}}',
        "0: 'tench, Tinca tinca',\n1: 'goldfish',\n2: 'great white shark'",
        "0 tench, Tinca tinca\n1 goldfish\n2 great white shark\n",
        "2,great white shark\n0,tench, Tinca tinca\n1,goldfish\n",
        "'tench, Tinca tinca',\n'goldfish',\n'great white shark'",
    ],
)
def test_every_way_to_write_names(content, tmp_path):
    assert read(tmp_path, content) == NAMES


def test_names_that_are_kept_as_they_are(tmp_path):
    assert read(tmp_path, '{"0": ["n01440764", "tench"]}') == ["n01440764 tench"]
    assert read(tmp_path, "n01440764 tench\nn01443537 goldfish") == [
        "n01440764 tench",
        "n01443537 goldfish",
    ]
    assert read(tmp_path, "10 dollars\n20 dollars") == ["10 dollars", "20 dollars"]
    assert read(tmp_path, "0\n1\n2") == ["0", "1", "2"]
    assert read(tmp_path, "a\x0bb\nc\u2028d") == ["a\x0bb", "c\u2028d"]


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("", "is empty; name a file"),
        (b"\n\n", "is empty; name a file"),
        ("a\n\nb\n", "line 2 is empty; write one"),
        ('["a", ""]', "entry 2 is empty; write one"),
        (b"a\nb\xff\nc", "line 2 is not; save it as UTF-8"),
        (b"a\0b", "must be text; name a file"),
        ("{0: 'a', 2: 'b'}", "number its 2 classes from 0 to 1; correct"),
        ("{1: 'a', 2: 'b'}", "number its 2 classes from 0 to 1; correct"),
        ("{0: 'a', 1: ", "none of JSON or Python; write the name"),
        ("[1, 2]", "must hold names"),
        ("[print('a')]", "none of JSON or Python"),
        ("[" * 100_000, "none of JSON or Python"),
    ],
)
def test_what_is_refused(content, pattern, tmp_path):
    with pytest.raises(ValueError, match=rf"class_names .*names\.txt: .*{re.escape(pattern)}"):
        read(tmp_path, content)


def test_names_of_several_classes():
    assert class_names.describe_duplicates(NAMES) == ""
    assert "crane (1, 3)" in class_names.describe_duplicates(["a", "crane", "b", "crane"])
    known = ClassNames(["a", "crane", "b", "crane"])
    assert [known.find(name) for name in ("a", "crane", "b")] == [0, None, 2]
    # Neither does the first word of two names tell classes apart.
    known = ClassNames(["crane bird", "crane machine"])
    assert known.find("crane", by_part=True) is None
    assert known.find("crane machine", by_part=True) == 1


def test_folders_named_after_a_part_of_a_name():
    known = ClassNames(NAMES)
    assert known.find("tench", by_part=True) == 0  # before the comma
    assert known.find("tench") is None
    assert known.find("great", by_part=True) == known.find("great white shark") == 2
    assert ClassNames(["n01 crane, bird", "n02 crane, machine"]).find("n02", by_part=True) == 1
    assert ClassNames(["crane, bird", "crane, machine"]).find("crane", by_part=True) is None
