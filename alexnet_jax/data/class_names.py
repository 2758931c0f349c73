"""Names of classes, which file systems and people write in several ways."""

import unicodedata
from collections.abc import Sequence


def normalize(name: str) -> str:
    """Return a name with composed characters (Unicode NFC); some file systems decompose them."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class ClassNames:
    """The labels of class names, found by names that are written in other ways.

    Composed and decomposed characters are the same. If no class is written like a name, the one
    that differs from it only in upper and lower case or in spaces at its ends is meant.
    """

    def __init__(self, names: Sequence[str]):
        self._exact = {normalize(name): label for label, name in enumerate(names)}
        self._loose: dict[str, int] = {}
        ambiguous = set()
        for name, label in self._exact.items():
            key = _loosely(name)
            if key in self._loose:
                ambiguous.add(key)
            self._loose[key] = label
        for key in ambiguous:
            del self._loose[key]
        first_words = [name.split()[0] for name in self._exact if name.split()]
        self._first_words = (
            dict(zip(first_words, self._exact.values(), strict=True))
            if len({*first_words}) == len(names)
            else {}
        )

    def find(self, name: str, by_first_word: bool = False) -> int | None:
        """Return the label of a name, None if it is of no class.

        `by_first_word`: the first word of a class is also its name, if all of them differ
        ("n01440764 tench").
        """
        name = normalize(name)
        if (label := self._exact.get(name)) is not None:
            return label
        if by_first_word and (label := self._first_words.get(name)) is not None:
            return label
        return self._loose.get(_loosely(name))

    def has(self, name: str, by_first_word: bool = False) -> bool:
        """Return whether a class is written like this, up to the composition of characters."""
        name = normalize(name)
        return name in self._exact or (by_first_word and name in self._first_words)


def alike(names: Sequence[str]) -> list[str]:
    """Return those of the names that differ from another only in case or in spaces at the ends."""
    keys: dict[str, list[str]] = {}
    for name in names:
        keys.setdefault(_loosely(name), []).append(name)
    return [name for group in keys.values() if len(group) > 1 for name in group]


def _loosely(name: str) -> str:
    return normalize(name).strip().casefold()
