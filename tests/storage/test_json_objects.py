"""Whatever a file holds instead of a JSON object, one clause says it."""

import pytest

from alexnet_jax.storage.json_objects import is_number, parse_object, read_object

WRONG = {
    "empty": (b"", "empty"),
    "cut": (b'{"a": 1,\n "b', "not JSON .*line 2"),
    "list": (b"[1]", "must be a JSON object"),
    "text": (b'"a"', "must be a JSON object"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep object": (b'{"a":' * 100_000, "nested too deeply"),
    "nan": (b'{"a": NaN}', "number NaN"),
    "infinite": (b'{"a": -Infinity}', "number -Infinity"),
    "overflow": (b'{"a": 1e999}', "number 1e999"),
    "huge": (b'{"a": ' + b"9" * 5000 + b"}", "number 999"),
    "large": (b'{"a": 9223372036854775808}', "number 9223372036854775808"),
    "not UTF-8": (b'{"a": "\xff\xfe"}', "not UTF-8"),
    "zeros": (b"\0" * 64, "not JSON|not UTF-8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(tmp_path, name):
    content, reason = WRONG[name]
    with pytest.raises(ValueError, match=f"^it .*({reason})"):
        parse_object(content)
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: it "):
        read_object(path)


def test_objects_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, -9223372036854775807, 2.5, null, true], "b": {"c": "é"}}')
    assert read_object(path) == {"a": [1, -(2**63) + 1, 2.5, None, True], "b": {"c": "é"}}


def test_numbers():
    assert is_number(1)
    assert is_number(0.5)
    assert not any(map(is_number, (True, "1", None, [1])))
