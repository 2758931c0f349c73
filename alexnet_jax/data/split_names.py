"""Names of folders that stand for a split, such as Training, val2017 and seg_test."""

import re
import unicodedata
from collections.abc import Sequence

# Words that name a split, alone or with words that say nothing ("train_images", "val2017").
_SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "devel", "development")
    + ("eval", "evaluation"),
    "test": ("test", "testing", "tests", "tst"),
}
SPLIT_OF_WORD = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
NEUTRAL = ("set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs")
NEUTRAL += ("pictures", "photos", "split", "splits", "folder", "part", "ilsvrc", "imagenet")
_COMPOUND = re.compile(f"({'|'.join(SPLIT_OF_WORD)})({'|'.join(NEUTRAL)})")


def split_of(name: str) -> str | None:
    """Return the split that a folder's name stands for: train, validation, test or None."""
    split, rest = split_and_rest(name)
    return None if rest else split


def split_and_rest(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the split in a name, and the words in it that are part of no such name."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    words = [part for word in words for part in _parts(word)]
    splits = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    if len(splits) != 1:
        return None, ()
    return splits.pop(), tuple(w for w in words if w not in SPLIT_OF_WORD and w not in NEUTRAL)


def _parts(word: str) -> Sequence[str]:
    compound = _COMPOUND.fullmatch(word)
    return compound.groups() if compound else (word,)
