"""The facts about a network as text, 100 columns wide at most."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

WIDTH = 100
MIB = 2**20
FEW = 8  # at most so many differing points are named in the summary of sources
TITLES = {
    "network": "Network",
    "initialization": "Initialization",
    "update": "Update rule",
    "images": "Images",
}


def render(facts: dict[str, Any], name_of: Callable[[str], str] = str) -> str:
    """Return the result of `facts.describe_network` as text.

    Args:
        facts: the result, or what `facts.brief` leaves of it.
        name_of: what the reader calls a field; by default "model.lrn_k" is printed as such.
    """
    sections = (
        _heading(facts, name_of),
        _layers(facts),
        _devices(facts),
        _comparison(facts, name_of),
        _notes(facts),
        _errata(facts),
    )
    return "\n\n".join(text for section in sections if (text := "\n".join(section)))


def compare_with_paper(facts: dict[str, Any]) -> str:
    """Return a table: each point of the comparison, the paper's choice and this network's."""
    rows = [("", "paper", facts["preset"])]
    for point in facts["comparison"]:
        choices = point["choices"]
        paper = next((c["text"] for c in choices if "paper" in c["sources"]), "not stated")
        values = ", ".join(_value(value) for value in point["fields"].values())
        chosen = next((choice["text"] for choice in choices if choice["chosen"]), values)
        rows.append((point["point"], paper, chosen))
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
    """Yield a line for each row; columns in `left` are left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _heading(facts: dict[str, Any], name_of: Callable[[str], str]) -> Iterator[str]:
    changed = _settings(facts["changed"], name_of)
    crop = facts["crop"]
    yield from _wrapped(
        f"{facts['preset']}{' with ' if changed else ''}{changed}: {crop}\xa0x\xa0{crop} pixels, "
        f"{facts['classes']:,} classes"
    )
    if facts["imported"]:
        yield from _wrapped(
            f"weights imported from {facts['imported']}; how they were trained is not known"
        )
    if facts["untrained"]:
        yield from _wrapped(f"at initial random values: {', '.join(facts['untrained'])}")
    if facts["statistics"]:
        yield from _wrapped(_images(facts["statistics"]))
    yield ""
    yield "Is this the network of the paper?"
    yield from _wrapped(facts["is_the_paper"], "  ")


def _settings(fields: Mapping[str, Any], name_of: Callable[[str], str]) -> str:
    # A name without a section, such as the scale in statistics.npz, is not a field.
    names = [name_of(name) if "." in name else name for name in fields]
    return " ".join(f"{name} {_value(v)}" for name, v in zip(names, fields.values(), strict=True))


def _value(value: Any) -> str:
    """Return a value as on a command line."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else f"{value}"


def _images(statistics: dict[str, Any]) -> str:
    mean = {"color": "mean color", "image": "mean image, on average"}[statistics["mean"]]
    colors = ", ".join(f"{color:.1f}" for color in statistics["mean_color"])
    factors = ", ".join(f"{factor:.4g}" for factor in statistics["scale"])
    scaled = "" if set(statistics["scale"]) == {1.0} else f"; then x ({factors})"
    return (
        f"images as saved with the run: 0 to 255, minus the {mean} ({colors}), "
        f"{statistics['origin']}{scaled}"
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
        f"{totals['multiply_adds']:,} multiply-adds per image, forward; "
        f"{totals['neurons']:,} neurons."
    )
    yield from _wrapped(
        "field: side of the receptive field in pixels, ignoring the image's edge; "
        "M madds: millions of multiply-adds per image."
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
        f"A device holds {totals['parameters']:,} parameters, {totals['bytes'] / MIB:.1f} MiB, "
        "and in training their gradients and velocities. In the forward pass "
        f"{totals['crossing']:,} values per image cross in each direction; on one device, none."
    )
    if any(row["name"] == "bottleneck" for row in facts["devices"]):
        yield from _wrapped(
            "The 2012 code has half of the classes on each GPU, and both see all of the bottleneck "
            "(layers-146-2011.cfg:358-371); the logits are the same."
        )
    elif any(row["sees"] == "own tower" for row in facts["devices"]):
        yield from _wrapped(
            "The 2012 code has all of fc8 on one GPU, to which the other sends its half of fc7 "
            "(layers-145.cfg:294-299); the logits are the same."
        )


def _comparison(facts: dict[str, Any], name_of: Callable[[str], str]) -> Iterator[str]:
    points = facts["comparison"]
    if facts["agreement"]:
        yield "The sources it follows"
    else:
        yield "What differs from the paper" if points else "Nothing differs from the paper's text"
    for name, counts in facts["agreement"].items():
        few = 0 < len(counts["different"]) <= FEW
        differs = f"; not in {', '.join(counts['different'])}" if few else ""
        line = f"{name:<12}  {counts['same']:>2} of the {counts['of']} points it states{differs}"
        yield from _wrapped(line, "  ", " " * 16)
    if points:
        yield ""
        yield "> marks the choice of this network; P3.3 is section 3.3 of the paper."
    part = None
    texts = [choice["text"] for point in points for choice in point["choices"]]
    column = max(map(len, texts), default=0)
    for point in points:
        if point["part"] != part:
            part = point["part"]
            yield ""
            yield TITLES[part]
        yield from _point(point, column, name_of)


def _point(point: dict[str, Any], column: int, name_of: Callable[[str], str]) -> Iterator[str]:
    follows = ", ".join(point["follows"])
    if not point["applies"]:
        verdict = "does not apply"
    else:
        verdict = f"follows {follows}" if follows else "none of them (this configuration's choice)"
    yield ""
    yield f"  {point['point']}: {verdict}"
    if point["applies"] and not follows:
        yield from _wrapped(_settings(point["fields"], name_of), "  > ", "    ")
    for choice in point["choices"]:
        cited = (f"{source} ({citation})" for source, citation in choice["sources"].items())
        # A line ends between sources or citations, not within one.
        sources = "; ".join(re.sub("(?<!;) ", "\xa0", text) for text in cited)
        line = f"{choice['text']:<{column}}  {sources}"
        mark = ">" if choice["chosen"] else " "
        yield from _wrapped(line, f"  {mark} ", " " * (column + 6))
    if point["silent"]:
        yield f"    {'not stated':<{column}}  {', '.join(point['silent'])}"
    yield from _wrapped(f"why: {point['why']}", "    ", " " * 9)


def _notes(facts: dict[str, Any]) -> Iterator[str]:
    if not facts["notes"]:
        return
    yield "How the preset follows its source"
    for note in facts["notes"]:
        yield from _wrapped(f"- {note}", "  ", "    ")


def _errata(facts: dict[str, Any]) -> Iterator[str]:
    if not facts["errata"]:
        return
    yield "Errors in the paper, and where its text and code differ"
    for erratum in facts["errata"]:
        yield from _wrapped(f"- {erratum}", "  ", "    ")
