"""The facts about a network as text, 100 columns wide at most."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

WIDTH = 100
MIB = 2**20
FEW = 8  # points that are named before the list of all points
TITLES = {
    "network": "The network",
    "start": "Before training",
    "update": "The update rule",
    "images": "The images",
}


def render(facts: dict[str, Any]) -> str:
    """Return `facts.describe`'s result as text."""
    sections = (_heading, _layers, _devices, _comparison, _errata)
    texts = ("\n".join(section(facts)) for section in sections)
    return "\n\n".join(text for text in texts if text)


def beside_paper(facts: dict[str, Any]) -> str:
    """Return a table: each point of the comparison, what the paper says, what this network has."""
    rows = [("", "paper", facts["preset"])]
    for point in facts["comparison"]:
        choices = point["choices"]
        paper = next((one["text"] for one in choices if "paper" in one["by"]), "not said")
        own = ", ".join(_value(value) for value in point["options"].values())
        rows.append((point["point"], paper, next((c["text"] for c in choices if c["here"]), own)))
    return "\n".join(_aligned(rows, left=(0, 1, 2)))


def _wrapped(text: str, indent: str = "", hanging: str | None = None) -> list[str]:
    hanging = indent if hanging is None else hanging
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_on_hyphens=False,
    )
    return [line.replace("\xa0", " ") for line in lines]


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> Iterator[str]:
    """Yield a line a row; columns in `left` begin at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _heading(facts: dict[str, Any]) -> Iterator[str]:
    changed = " ".join(f"{name} {_value(value)}" for name, value in facts["changed"].items())
    crop = facts["crop"]
    yield from _wrapped(
        f"{facts['preset']}{' with ' if changed else ''}{changed}: {crop} x {crop} pixels, "
        f"{facts['classes']:,} classes"
    )
    if facts["imported"]:
        yield from _wrapped(
            f"weights imported from {facts['imported']}; how they were trained is not known here"
        )
    if facts["statistics"]:
        yield from _wrapped(_images(facts["statistics"]))
    yield ""
    yield "Is this the network of the paper?"
    yield from _wrapped(facts["is_the_paper"], "  ")


def _value(value: Any) -> str:
    """Return a value as one would type it."""
    return " ".join(map(str, value)) if isinstance(value, list) else f"{value}"


def _images(statistics: dict[str, Any]) -> str:
    whole = {"color": "mean color", "image": "mean image, on average"}[statistics["mean"]]
    mean = ", ".join(f"{color:.1f}" for color in statistics["mean_color"])
    scale = statistics["scale"]
    scaled = ", ".join(f"{factor:.4g}" for factor in scale)
    return (
        f"images as saved with it: 0 to 255 less the {whole} ({mean}), "
        f"{statistics['origin']}{'' if set(scale) == {1.0} else f'; then x ({scaled})'}"
    )


def _layers(facts: dict[str, Any]) -> Iterator[str]:
    titles = ("layer", "what", "output", "field", "kernel", "parameters", "M madds", "neurons")
    rows: list[Sequence[str]] = [titles]
    for row in facts["layers"]:
        height, width, channels = row["shape"]
        kernel = "x".join(map(str, row["kernel"]))
        if row["kernels"] > 1:
            each = [*row["kernel"][:-1], row["kernel"][-1] // row["kernels"]]
            kernel = f"{row['kernels']} x {'x'.join(map(str, each))}"
        rows.append(
            (
                row["name"],
                row["what"],
                f"{height}x{width}x{channels}" if height > 1 else f"{channels}",
                "all" if row["fully_connected"] else f"{row['receptive_field']}",
                kernel,
                f"{row['parameters']:,}" if kernel else "",
                f"{row['multiply_adds'] / 1e6:.2f}" if kernel else "",
                f"{row['neurons']:,}" if kernel else "",
            )
        )
    yield from _aligned(rows, left=(0, 1, 4))
    totals = facts["totals"]
    yield ""
    yield from _wrapped(
        f"{totals['parameters']:,} parameters (weights {totals['weights']:,} + biases "
        f"{totals['biases']:,}), {totals['bytes'] / MIB:.1f} MiB as float32; "
        f"{totals['multiply_adds']:,} multiply-adds an image, forward; "
        f"{totals['neurons']:,} neurons."
    )
    yield from _wrapped(
        "field: pixels of the image that an output depends on, before the edge cuts them off; "
        "M madds: millions of multiply-adds an image."
    )


def _devices(facts: dict[str, Any]) -> Iterator[str]:
    yield "On two devices"
    titles = ("layer", "sees", "a device holds", "parameters", "crosses", "by")
    rows: list[Sequence[str]] = [titles]
    for row in facts["devices"]:
        crossing = row["crossing"]
        rows.append(
            (
                row["name"],
                row["sees"],
                f"{row['holds']:,} of {row['of']:,} {row['unit']}",
                f"{row['parameters']:,}" if row["parameters"] else "",
                f"{crossing:,}" if crossing else "",
                f"{row['by']} of {row['what']}" if crossing else "",
            )
        )
    yield from _aligned(rows, left=(0, 1, 2, 5))
    totals = facts["device_totals"]
    yield ""
    yield from _wrapped(
        f"A device holds {totals['parameters']:,} parameters, {totals['bytes'] / MIB:.1f} MiB, and "
        f"in training their gradients and velocities; {totals['crossing']:,} values an image cross "
        "each way, forward. On one device, which holds everything, none do."
    )
    # With a bottleneck the 2012 code has half of the classes on each (layers-146-2011.cfg).
    sees = {row["sees"] for row in facts["devices"]}
    if {"own tower", "own half"} <= sees:
        yield from _wrapped(
            "The 2012 code has all of fc8 on one GPU, to which the other sends its half of fc7 "
            "(layers-145.cfg:294-299); the logits are the same."
        )


def _comparison(facts: dict[str, Any]) -> Iterator[str]:
    yield "Whom it follows" if facts["agreement"] else _title(facts["comparison"])
    for name, counts in facts["agreement"].items():
        few = 0 < len(counts["different"]) <= FEW
        differs = f"; not in {', '.join(counts['different'])}" if few else ""
        line = f"{name:<12}  {counts['same']:>2} of the {counts['of']} points it speaks of{differs}"
        yield from _wrapped(line, "  ", " " * 16)
    part = None
    texts = [choice["text"] for point in facts["comparison"] for choice in point["choices"]]
    column = max(map(len, texts), default=0)
    for point in facts["comparison"]:
        if point["part"] != part:
            part = point["part"]
            yield ""
            yield f"{TITLES[part]} (> is what this one has)"
        yield from _point(point, column)


def _title(points: Sequence[dict[str, Any]]) -> str:
    return "What differs from the paper" if points else "Nothing that the paper says differs"


def _point(point: dict[str, Any], column: int) -> Iterator[str]:
    follows = ", ".join(point["follows"])
    if not point["arises"]:
        verdict = "does not arise"
    else:
        verdict = f"follows {follows}" if follows else "none of them (ours)"
    yield ""
    yield f"  {point['point']}: {verdict}"
    if point["arises"] and not follows:
        options = " ".join(f"{name} {_value(v)}" for name, v in point["options"].items())
        yield from _wrapped(options, "  > ", "    ")
    for choice in point["choices"]:
        cited = (f"{source} ({where})" for source, where in choice["by"].items())
        by = "; ".join(one.replace(" ", "\xa0") for one in cited)  # not torn at a line's end
        mark = ">" if choice["here"] else " "
        yield from _wrapped(f"{choice['text']:<{column}}  {by}", f"  {mark} ", " " * (column + 6))
    if point["silent"]:
        yield f"    {'not said':<{column}}  {', '.join(point['silent'])}"
    yield from _wrapped(f"why: {point['why']}", "    ", " " * 9)


def _errata(facts: dict[str, Any]) -> Iterator[str]:
    if not facts["errata"]:
        return
    yield "What the paper prints and cannot mean, or what was run otherwise"
    for erratum in facts["errata"]:
        yield from _wrapped(f"- {erratum}", "  ", "    ")
