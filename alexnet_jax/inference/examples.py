"""Which of many classified images a figure shows: spread over the classes, mistakes among them."""

import collections
import dataclasses
from collections.abc import Hashable
from typing import Generic, TypeVar

SHOWN, MAX_SHOWN = 8, 100  # images in a figure: by default, as in the paper's Figure 4; at most

T = TypeVar("T")


class Examples(Generic[T]):
    """Up to `count` images to show, chosen while they are classified.

    Half of them are mistakes, if there are as many; the others are right, or of an unknown class.
    Both take one image of each class, then a second one, and so on, the first ones first. At most
    twice `count` images are held.
    """

    def __init__(self, count: int):
        self._count = count
        self._others, self._mistakes = _Spread[T](count), _Spread[T](count)
        self.num_right = self.num_wrong = self.num_unknown = 0

    def add(self, item: T, group: Hashable, is_right: bool | None) -> None:
        """Consider an image of a class, or of a folder; `is_right`: None if it is unknown."""
        self.num_right += is_right is True
        self.num_wrong += is_right is False
        self.num_unknown += is_right is None
        (self._mistakes if is_right is False else self._others).add(item, group)

    @property
    def total(self) -> int:
        """How many images were considered."""
        return self.num_right + self.num_wrong + self.num_unknown

    @property
    def enough(self) -> bool:
        """Whether there are as many as wanted of both kinds."""
        half = self._count // 2
        return len(self._mistakes) >= half and len(self._others) >= self._count - half

    def chosen(self) -> tuple[list[T], int]:
        """Return those to show, mistakes last, each kind in the order added; how many are last."""
        mistakes = max(self._count // 2, self._count - len(self._others))
        mistakes = min(mistakes, len(self._mistakes))
        others = self._others.first(self._count - mistakes)
        return others + self._mistakes.first(mistakes), mistakes

    def describe(self, what: str, group: str) -> str:
        """Return a sentence about those shown: how many of how many `what`, `group` in turn."""
        items, mistakes = self.chosen()
        total = self.total
        parts = [f"{self.num_right:,} right", f"{self.num_wrong:,} wrong"]
        parts += [f"{self.num_unknown:,} of no known class"] if self.num_unknown else []
        known = f" ({', '.join(parts)})" if self.num_unknown < total else ""
        spread = f", {group} in turn" if len(items) < total else ""
        last = f"; the last {mistakes} are mistakes" if 0 < mistakes < len(items) else ""
        return f"{len(items)} of {total:,} {what}{known}{spread}{last}."


@dataclasses.dataclass
class _Entry(Generic[T]):
    order: int
    group: Hashable
    item: T


class _Spread(Generic[T]):
    """At most `count` items, as evenly spread over their groups as those added allow."""

    def __init__(self, count: int):
        self._count = count
        self._entries: list[_Entry[T]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, item: T, group: Hashable) -> None:
        """Keep an item if there is room, or if its group has fewer than the largest one."""
        entry = _Entry(self._added, group, item)
        self._added += 1
        if len(self._entries) < self._count:
            self._entries.append(entry)
            return
        sizes = collections.Counter(entry.group for entry in self._entries)
        largest, size = sizes.most_common(1)[0]
        if sizes[group] + 1 < size:
            last = max(n for n, kept in enumerate(self._entries) if kept.group == largest)
            self._entries[last : last + 1] = []
            self._entries.append(entry)

    def first(self, count: int) -> list[T]:
        """Return `count` items, one of each group, then a second one ..., in the order added."""
        seen = collections.Counter[Hashable]()
        ranked: list[tuple[int, int, T]] = []
        for entry in self._entries:
            ranked.append((seen[entry.group], entry.order, entry.item))
            seen[entry.group] += 1
        chosen = sorted(ranked, key=lambda entry: entry[:2])[:count]
        return [item for _, _, item in sorted(chosen, key=lambda entry: entry[1])]
