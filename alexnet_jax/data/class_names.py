"""Names of classes, which file systems and people write in several ways."""

import collections
import unicodedata
from collections.abc import Iterable, Sequence

from alexnet_jax.config import invalid


def normalize(name: str) -> str:
    """Return a name with composed characters (Unicode NFC); some file systems decompose them."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes; ValueError unless they are different texts."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise invalid("class_names", names, "must be a list of names", f"try ['{names}']")
    for name in names:
        if not isinstance(name, str):
            remedy = f"try {str(name)!r}"
            raise invalid("class_names", repr(name), "must be text, as must each name", remedy)
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        rule = "names two classes, which could not be told apart"
        raise invalid("class_names", twice[0], rule, f"rename one, {twice[0] + ' 2'!r}")
    return tuple(names)


class ClassNames:
    """The labels of class names, found by names that are written in other ways.

    Composed and decomposed characters are the same. If no class is written like a name, the one
    that differs from it only in upper and lower case or in spaces at its ends is meant. A name that
    several classes have is that of none.
    """

    def __init__(self, names: Sequence[str]):
        whole = [normalize(name) for name in names]
        self._exact = _unique(whole)
        self._loose = _unique(map(_loosely, whole))
        self._parts: dict[str, int] = {}
        for part in (_first_word, _before_comma):
            parts = [part(name) for name in whole]
            self._parts |= _unique(parts) if len({*parts}) == len(parts) else {}
        self.twice = {name for name, count in collections.Counter(whole).items() if count > 1}

    def find(self, name: str, by_part: bool = False) -> int | None:
        """Return the label of a name, None if it is of no class.

        `by_part`: the first word of a class is also its name, if all of them differ ("n01440764
        tench"), and so is what precedes its first comma ("tench, Tinca tinca").
        """
        name = normalize(name)
        if (label := self._exact.get(name)) is not None:
            return label
        if by_part and (label := self._parts.get(name)) is not None:
            return label
        return self._loose.get(_loosely(name))

    def has(self, name: str, by_part: bool = False) -> bool:
        """Return whether a class is written like this, up to the composition of characters."""
        name = normalize(name)
        return name in self._exact or (by_part and name in self._parts)


def alike(names: Sequence[str]) -> list[str]:
    """Return those of the names that differ from another only in case or in spaces at the ends."""
    keys: dict[str, list[str]] = {}
    for name in names:
        keys.setdefault(_loosely(name), []).append(name)
    return [name for group in keys.values() if len(group) > 1 for name in group]


def _unique(names: Iterable[str]) -> dict[str, int]:
    """Return the labels of those names that no other class has, and that are not empty."""
    names = list(names)
    count = collections.Counter(names)
    return {name: label for label, name in enumerate(names) if name and count[name] == 1}


def _first_word(name: str) -> str:
    return (name.split() or [""])[0]


def _before_comma(name: str) -> str:
    return name.partition(",")[0].strip()


def _loosely(name: str) -> str:
    return normalize(name).strip().casefold()
