"""Names of classes that are short enough to draw."""

import re

LONGEST = 24  # letters


def short(name: str) -> str:
    """Return the first synonym of a class without its synset, cut where it is long.

    "n01440764 tench, Tinca tinca" is "tench"; the paper's Figure 4 has the first synonym too.
    """
    plain = re.sub(r"^n\d{8}[ _-]+", "", name).split(",")[0].strip()
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"
