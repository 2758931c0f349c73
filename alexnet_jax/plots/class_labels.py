"""Class names short enough to draw."""

import collections
import re
from collections.abc import Sequence

from alexnet_jax.storage.names import printable

MAX_LENGTH = 24  # characters


def short(name: str) -> str:
    """Return the first synonym of a class name without its synset ID, truncated if it is long.

    "n01440764 tench, Tinca tinca" becomes "tench", as in the paper's Figure 4.
    """
    plain = _first_synonym(name)
    return plain if len(plain) <= MAX_LENGTH else f"{plain[: MAX_LENGTH - 1]}…"


def short_names(class_names: Sequence[str]) -> list[str]:
    """Return the `short` names of all classes, no two of them the same.

    Of names that begin alike the end is shown, too; those that are still the same, as ImageNet's
    two cranes, get their label: "crane (134)".
    """
    names = [short(name) for name in class_names]
    count = collections.Counter(names)
    names = [
        _middle_left_out(_first_synonym(whole)) if count[name] > 1 else name
        for name, whole in zip(names, class_names, strict=True)
    ]
    count = collections.Counter(names)
    return [_labeled(name, label) if count[name] > 1 else name for label, name in enumerate(names)]


def _first_synonym(name: str) -> str:
    return printable(re.sub(r"^n\d{8}[ _-]+", "", name).split(",")[0].strip())


def _middle_left_out(plain: str) -> str:
    half = MAX_LENGTH // 2
    return plain if len(plain) <= MAX_LENGTH else f"{plain[: half - 1]}…{plain[-half:]}"


def _labeled(name: str, label: int) -> str:
    end = f" ({label})"
    return f"{name[: MAX_LENGTH - len(end)]}{end}"
