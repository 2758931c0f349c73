"""Names that are not UTF-8, and names that a terminal would obey, as text."""

import io
import json
import sys
from pathlib import Path

import pytest

from alexnet_jax.cli import errors
from alexnet_jax.predict import Command
from alexnet_jax.storage import atomic
from alexnet_jax.storage.names import as_json, as_utf8, check_utf8, printable

NAMES = [
    # name, as_utf8, printable
    ("café 翘 😀", "café 翘 😀", "café 翘 😀"),
    ("caf\udce9.png", r"caf\xe9.png", r"caf\xe9.png"),
    ("\udcff\udc80", r"\xff\x80", r"\xff\x80"),
    ("\ud800", r"\ud800", r"\ud800"),
    ("a\x1b[31mred\n\x07", "a\x1b[31mred\n\x07", r"a\x1b[31mred\n\x07"),
    ("\x9b2J\r\t\0\x7f", "\x9b2J\r\t\0\x7f", r"\x9b2J\r\t\x00\x7f"),
    ("\u202egpj.exe\u2066\u2028", "\u202egpj.exe\u2066\u2028", r"\u202egpj.exe\u2066\u2028"),
    (r"a\xe9 $\x$", r"a\xe9 $\x$", r"a\xe9 $\x$"),
    (Path("d/caf\udce9"), r"d/caf\xe9", r"d/caf\xe9"),
]


@pytest.mark.parametrize(("name", "utf8", "line"), NAMES, ids=map(str, range(len(NAMES))))
def test_a_name_as_text(name, utf8, line):
    assert (as_utf8(name), printable(name)) == (utf8, line)
    as_utf8(name).encode()  # no error
    assert printable(printable(name)) == line


def test_newlines_of_a_table_are_kept():
    assert printable("a\n\x1bb\r", keep="\n") == "a\n\\x1bb\\r"


@pytest.mark.parametrize("number", [n for n, row in enumerate(NAMES) if row[0] != "\ud800"])
def test_json_of_names_has_no_lone_surrogates_and_the_same_text(number):
    name = str(NAMES[number][0])
    value = {"file": name, "classes": [name, "x"], "n": 1.5}
    text = as_json(value)
    assert text.isascii()
    read = json.loads(text)
    json.dumps(read, ensure_ascii=False).encode()  # no error: no lone surrogate
    assert read == {"file": as_utf8(name), "classes": [as_utf8(name), "x"], "n": 1.5}


def test_json_leaves_what_only_looks_like_a_surrogate():
    assert json.loads(as_json([r"\udce9", "💎e9", "\\\udce9"])) == [r"\udce9", "💎e9", r"\\xe9"]


def test_a_text_file_takes_any_name(tmp_path):
    atomic.write_text(tmp_path / "unreadable.txt", "caf\udce9.png: torn\n")
    assert (tmp_path / "unreadable.txt").read_text() == "caf\\xe9.png: torn\n"


def test_paths_for_other_libraries_must_be_utf8(tmp_path):
    check_utf8("workdir", tmp_path / "café")
    for path in (tmp_path / "caf\udce9", tmp_path / "caf\udce9" / "run"):
        with pytest.raises(ValueError, match=r"^workdir .*caf\\xe9.*: must be UTF-8.*; rename"):
            check_utf8("workdir", path)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_a_command_prints_any_name_in_any_encoding(encoding, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def run() -> None:
        print("翘 caf\udce9")
        raise ValueError("workdir a\x1b[2J\udce9\n翘: must not be; rename it.")

    assert errors.run_command(run, Command, "") == 2
    for stream in (out, err):
        stream.flush()
    printed, message = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))
    chinese = "翘" if encoding == "utf-8" else r"\u7fd8"
    assert printed == f"{chinese} caf\\xe9\n"
    assert message == (
        f"alexnet_jax: --workdir a\\x1b[2J\\xe9\\n{chinese}: must not be; rename it.\n"
    )


def test_the_escapes_of_a_stream_are_not_left_to_whoever_has_replaced_it(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as in a notebook: it has no encoding
    assert errors.run_command(lambda: print("a"), Command, "") == 0
