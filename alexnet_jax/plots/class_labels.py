"""Class names short enough to draw."""

import re

from alexnet_jax.storage.names import printable

MAX_LENGTH = 24  # characters


def short(name: str) -> str:
    """Return the first synonym of a class name without its synset ID, truncated if it is long.

    "n01440764 tench, Tinca tinca" becomes "tench", as in the paper's Figure 4.
    """
    plain = printable(re.sub(r"^n\d{8}[ _-]+", "", name).split(",")[0].strip())
    return plain if len(plain) <= MAX_LENGTH else f"{plain[: MAX_LENGTH - 1]}…"
