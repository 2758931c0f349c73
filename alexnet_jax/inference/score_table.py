"""What `evaluate` prints: a table of scores, the paper's beside them where they compare."""

from collections.abc import Mapping, Sequence
from typing import Any

TOP5_FROM = 6  # classes; among five or fewer the top-5 error is 0 whatever the network


def format_scores(scores: Mapping[str, Any]) -> str:
    """Return the table of what `evaluate.evaluate` returned, and what is to be said of it."""
    top5, members = scores["classes"] >= TOP5_FROM, scores.get("members")
    views = "ten views" if scores["views"] == 10 else "center view"
    rows = [["", "top-1 error", *(["top-5 error"] if top5 else []), "loss (nats)"]]
    rows[0] += ["weight"] if members else []
    for one, weight in zip(members or [scores], scores.get("weights", [None]), strict=True):
        name = f"{one['workdir']}, step {one['step']:,}"
        rows.append(_row(name, one, top5) + ([f"{weight:.3f}"] if members else []))
    if members and "searched_on" in scores:
        rows.append(_row("average, equal weights", scores["average"], top5))
        where = f"{scores['searched_on']}, {scores['searched_on_count']:,} images"
        rows.append(_row(f"average, weights searched on {where}", scores, top5))
    elif members:
        rows.append(_row(f"average of {len(members)}", scores, top5))
    if paper := scores["paper"]:
        # As the paper prints them: to a tenth of a per cent.
        errors = [f"{paper['top1_error']:.1%}", f"{paper['top5_error']:.1%}"]
        rows.append([f"Krizhevsky et al. 2012, {paper['name']}", *errors])
    gone = f" ({scores['unreadable']:,} more cannot be read)" if scores["unreadable"] else ""
    lines = [
        f"{scores['of']}: {scores['count']:,} images{gone}, {scores['classes']:,} classes, {views}",
        *_aligned(rows),
        scores["about_paper"],
    ]
    if scores.get("searched_on", "validation") != "validation":
        lines.append(
            f"No file of {scores['searched_on']}, where weights were searched, is among those "
            "scored; that none is a copy of one, and none was trained on, is yours to know."
        )
    if "per_class" in scores:
        lines += ["", *_aligned(_by_class(scores["per_class"], top5))]
    if "confusion" in scores:
        lines.append(f"Which class is taken for which: {scores['confusion']}")
    return "\n".join(lines)


def _row(name: str, scores: Mapping[str, Any], top5: bool) -> list[str]:
    errors = [scores["top1_error"], *([scores["top5_error"]] if top5 else [])]
    return [name, *(f"{error:.2%}" for error in errors), f"{scores['loss']:.4f}"]


def _by_class(classes: Sequence[Mapping[str, Any]], top5: bool) -> list[list[str]]:
    rows = [["class", "images", "top-1 error", *(["top-5 error"] if top5 else []), "taken for"]]
    for one in classes:
        errors = [one["top1_error"], *([one["top5_error"]] if top5 else [])]
        taken = f"{one['taken_for']} ({one['taken_for_count']})" if one["taken_for"] else ""
        rows.append(
            [one["class"], f"{one['count']:,}", *(f"{error:.1%}" for error in errors), taken]
        )
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, in columns: the first to the left, the others to the right."""
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return [
        "  ".join(
            cell.rjust(size) if place else cell.ljust(size)
            for place, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in full
    ]
