"""JSON objects from files that may be damaged: one reason for everything that can be wrong."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

MAX_INTEGER = 2**63 - 1


def parse_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: it is something else, holds a number that is not finite or no 64-bit integer, or
            is nested too deeply; the message is a clause, "it is not JSON (...)".
    """
    try:
        value = json.loads(
            content, parse_float=_float, parse_int=_integer, parse_constant=_refuse_number
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}: {error.msg}"
        raise ValueError(f"it is not JSON ({where})" if content else "it is empty") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; a ValueError names the file, an OSError too."""
    try:
        return parse_object(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def is_number(value: object) -> bool:
    """Return whether a value of JSON is a number; its truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _integer(text: str) -> int:
    # Short first: Python refuses to convert thousands of digits, with a sentence about itself.
    if len(text) > 20 or abs(value := int(text)) > MAX_INTEGER:
        _refuse_number(text)
    return value


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"it holds the number {text[:20]}")
