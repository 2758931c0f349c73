"""Names of classes out of a text file: a line for each class, or a list or dictionary as text."""

import ast
import codecs
import collections
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from alexnet_jax.config import invalid

MAX_BYTES = 2**24  # of a file of class names
SHOWN = 5  # names in a message
_NUMBERED = re.compile(r"(\d+)[\s:;,]+(\S.*)")
_ASSIGNMENT = re.compile(r"^[A-Za-z_][\w.]*\s*=\s*(?=[\[{(])")
_ENTRY = re.compile(r"""\d+\s*:\s*(['"]).*\1\s*,?""")


def imagenet() -> list[str]:
    """Return the names of ImageNet's 1,000 classes (ILSVRC-2012) in their order: synset and words.

    The order is that of the synsets, as in Caffe and torchvision. Two classes are a crane and two a
    maillot, which their synsets tell apart.
    """
    file = resources.files("alexnet_jax.weights") / "imagenet_classes.txt"
    return file.read_text("utf-8").splitlines()


def read(path: Path) -> list[str]:
    """Return the names of all classes in the order of the outputs.

    The file has a name on each line; or it is a list of names, or a dictionary of names by number
    or of numbers by name, as JSON or Python write them (Keras's imagenet_class_index.json, the
    id2label of a Hugging Face config.json, torchvision's class_to_idx).

    Raises:
        ValueError: it is not text, a name is empty, or numbers are missing.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise _wrong(path, f"has more than {MAX_BYTES:,} bytes", "name a text file")
    text = _ASSIGNMENT.sub("", _decode(path).strip())
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    if text[:1] in ("{", "[", "("):
        names = _from_value(_parse(text, path), path)
    elif all(_ENTRY.fullmatch(line) for line in lines):  # a dictionary without its braces
        names = _from_value(_parse("{" + ",".join(x.rstrip(",") for x in lines) + "}", path), path)
    else:
        names = _without_numbers(lines)
    empty = [number for number, name in enumerate(names, 1) if not name.strip()]
    if empty:
        rule = f"must have a name for each class, and {_place(text)} {empty[0]} is empty"
        raise _wrong(path, rule, "write one there, or remove the line")
    return names


def describe_duplicates(names: Sequence[str]) -> str:
    """Return a sentence about names that several classes have, "" if there are none."""
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if not twice:
        return ""
    shown = ", ".join(
        f"{name} ({', '.join(str(i) for i, other in enumerate(names) if other == name)})"
        for name in twice[:SHOWN]
    )
    more = " ..." if len(twice) > SHOWN else ""
    return (
        f"Several classes have the same name: {shown}{more}. Predictions do not tell them apart, "
        "and folders of these names are refused in an evaluation; give each class its own name."
    )


def _decode(path: Path) -> str:
    data = path.read_bytes()
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # of Windows's PowerShell
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _wrong(path, f"must be UTF-8, and line {line} is not", "save it as UTF-8") from None
    if "\0" in text or not text.strip():
        rule = "must be text" if text.strip() else "is empty"
        raise _wrong(path, rule, "name a file with the name of a class on each line")
    return text


def _parse(text: str, path: Path) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    rule = "begins like a list or a dictionary, and is none of JSON or Python"
    raise _wrong(path, rule, "write the name of a class on each line")


def _from_value(value: Any, path: Path) -> list[str]:
    if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
        value = value["id2label"]
    if isinstance(value, dict):
        value = _by_number(value, path)
    names = [_name(item) for item in value] if isinstance(value, (list, tuple)) else [None]
    if None in names or not names:
        rule = "must hold names, in a list or by number"
        raise _wrong(path, rule, "write the name of a class on each line")
    return [name for name in names if name is not None]


def _by_number(names: dict[Any, Any], path: Path) -> list[Any]:
    """Return the values of a dictionary in the order of its keys, or the other way round."""
    for pairs in (names.items(), ((value, key) for key, value in names.items())):
        numbered = {
            _number(number): name for number, name in pairs if isinstance(number, (int, str))
        }
        if sorted(n for n in numbered if n is not None) == list(range(len(names))):
            return [numbered[number] for number in range(len(names))]
    rule = f"must number its {len(names):,} classes from 0 to {len(names) - 1:,}"
    raise _wrong(path, rule, "correct the numbers, or write a name on each line")


def _number(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _name(item: Any) -> str | None:
    """Return a name; of a pair it is synset and words, as in ImageNet's synset_words.txt."""
    if isinstance(item, (list, tuple)) and item and all(isinstance(part, str) for part in item):
        return " ".join(item)
    return item if isinstance(item, str) else None


def _without_numbers(lines: Sequence[str]) -> list[str]:
    """Return names in order; where all lines begin with numbers from 0, in the order of those."""
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    numbers = [int(match[1][:9]) if match else -1 for match in matches]
    if sorted(numbers) == list(range(len(lines))) and len(lines) > 1:
        names = [match[2] for match in matches if match]
        return [name for _, name in sorted(zip(numbers, names, strict=True))]
    return [_unquoted(line) for line in lines] if all(map(_quoted, lines)) else list(lines)


def _quoted(line: str) -> bool:
    return re.fullmatch(r"""(['"]).+\1\s*,?""", line) is not None


def _unquoted(line: str) -> str:
    return line.rstrip(" ,")[1:-1]


def _place(text: str) -> str:
    return "entry" if text[:1] in ("{", "[", "(") else "line"


def _wrong(path: Path, rule: str, remedy: str) -> ValueError:
    return invalid("class_names", path, rule, remedy)
