"""What the page says of a run: its state, scores, time and examples, as the template takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_jax.inference.network import Network
from alexnet_jax.inference.scores import TOP5_FROM, comparable_row
from alexnet_jax.model.architecture import trace
from alexnet_jax.page import pictures
from alexnet_jax.page.outputs import Outputs, read_images
from alexnet_jax.storage.json_objects import is_number, read_object
from alexnet_jax.training.nonfinite import REPORT
from alexnet_jax.training.summary import CONFIG, SCORES, read_summary
from alexnet_jax.training.timing import PARTS

EXAMPLES = 12  # images, and mistakes, that are shown
Record = dict[str, Any]

PART_TITLES = {
    "start": "start: data, network, compilation",
    "steps": "training steps",
    "data": "waiting for data",
    "evaluation": "evaluation",
    "saving": "saving checkpoints",
    "repeated": "steps repeated after a crash",
}


def state_of(network: Network) -> dict[str, Any]:
    """Return `kind` (finished, unfinished, diverged or imported) and a sentence."""
    meta, step = network.meta, network.step
    if "imported" in meta:
        return {"kind": "imported", "text": f"Weights imported from {meta['imported']}."}
    epochs, epoch = network.config.schedule.epochs, meta["progress"]["epoch"]
    where = f"step {step:,}, after {epoch:,} of {epochs:,} epochs"
    summary = read_summary(network.workdir)
    if summary and summary.get("steps") == step:
        plateau = ", at a plateau after the last drop of the learning rate"
        end = plateau if summary["ended_on_plateau"] else ""
        text = f"Finished at step {step:,}, after {epoch:,} epochs{end}."
        return {"kind": "finished", "text": text}
    if summary:
        text = f"Finished; this page shows an earlier checkpoint: {where}."
        return {"kind": "finished", "text": text}
    if report := _diverged(network):
        text = f"Ended at step {report['step']:,}: {report['reason']}. This page shows {where}."
        return {"kind": "diverged", "text": text}
    return {"kind": "unfinished", "text": f"Not finished. The latest checkpoint is {where}."}


def _diverged(network: Network) -> Record | None:
    """Return what nonfinite.json says, if training has not passed its step since."""
    try:
        report = read_object(network.workdir / REPORT)
    except (OSError, ValueError):
        return None
    step, reason = report.get("step"), report.get("reason")
    later = type(step) is int and step > network.step and isinstance(reason, str)
    return report if later else None


def scores_of(
    network: Network, metrics: Sequence[Record], outputs: Outputs | None
) -> list[dict[str, Any]]:
    """Return the scores of these weights by split, as recorded, or as computed for this page."""
    recorded = {
        line["split"]: line
        for line in metrics
        if line["step"] == network.step
        and line.get("split") in ("validation", "test")
        and all(is_number(line.get(name)) for name in SCORES)
    }
    if outputs and outputs.split not in recorded:
        recorded[outputs.split] = outputs.scores
    return [
        {"split": split, **{name: recorded[split][name] for name in SCORES}}
        for split in ("validation", "test")
        if split in recorded
    ]


def best_validation(metrics: Sequence[Record]) -> Record | None:
    """Return the evaluation with the lowest validation error, the newest of equal ones."""
    lines = [
        line
        for line in metrics
        if line.get("split") == "validation" and is_number(line.get("top1_error"))
    ]
    return min(reversed(lines), key=lambda line: line["top1_error"], default=None)


def paper_of(network: Network, outputs: Outputs | None) -> dict[str, Any]:
    """Return the paper's row if it compares, and a sentence, as `evaluate` says it."""
    if outputs is None:
        return {"row": None, "text": ""}
    by_class = np.bincount(outputs.label, minlength=len(network.class_names))
    row, text = comparable_row(network.class_names, by_class, [network.config.data], 1)
    return {"row": row, "text": text}


def time_of(network: Network) -> dict[str, Any]:
    """Return the seconds of a run and its parts, which sum to them."""
    spent = network.meta.get("time", {})
    summary = read_summary(network.workdir)
    if summary and summary.get("steps") == network.step and _has_time(summary.get("time")):
        spent = summary["time"]
    total = sum(spent.values())
    parts = [
        {
            "name": part,
            "title": PART_TITLES[part],
            "seconds": spent.get(part, 0.0),
            "share": spent.get(part, 0.0) / total if total else 0.0,
        }
        for part in PARTS
    ]
    return {"seconds": total, "parts": parts}


def _has_time(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def environment_of(network: Network) -> dict[str, Any]:
    """Return devices, Python and packages, as config.json has them of the last start."""
    try:
        about = read_object(network.workdir / CONFIG)
    except (OSError, ValueError):
        about = {}
    versions = about.get("versions")
    versions = versions if isinstance(versions, Mapping) else network.meta.get("versions", {})
    return {
        "devices": about.get("devices") or "not recorded",
        "python": about.get("python") or "not recorded",
        "packages": dict(versions),
    }


def numbers_of(
    network: Network, metrics: Sequence[Record], scores: Sequence[Record], seconds: float
) -> list[tuple[str, str]]:
    """Return the few numbers at the top of the page, with their names."""
    numbers = []
    if scores:
        last = scores[-1]
        numbers.append((f"{last['split']} top-1 error", f"{last['top1_error']:.2%}"))
        if len(network.class_names) >= TOP5_FROM:
            numbers.append((f"{last['split']} top-5 error", f"{last['top5_error']:.2%}"))
    parameters = sum(row.parameters for row in trace(network.architecture))
    numbers += [("classes", f"{len(network.class_names):,}"), ("parameters", f"{parameters:,}")]
    speeds = [line["images_per_second"] for line in metrics if line.get("images_per_second")]
    if speeds:
        numbers.append(("images per second", f"{np.median(speeds):,.0f}"))
    if seconds:
        numbers.append(("time", duration(seconds)))
    return numbers


def duration(seconds: float) -> str:
    """Return a time as people say it: 41 s, 3.0 min, 5.2 h, 4.1 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def examples_of(network: Network, outputs: Outputs) -> tuple[list[Any], list[Any]]:
    """Return images drawn at random, and the mistakes that the network is surest of."""
    count = len(outputs.label)
    some = np.random.default_rng(network.config.seed).permutation(count)[:EXAMPLES]
    wrong = np.flatnonzero(outputs.best != outputs.label)
    order = np.argsort(-outputs.probabilities[wrong, 0], kind="stable")
    return (
        _examples(network, outputs, some),
        _examples(network, outputs, wrong[order][:EXAMPLES]),
    )


def _examples(network: Network, outputs: Outputs, rows: np.ndarray) -> list[dict[str, Any]]:
    images = read_images(network, outputs, rows)
    names = network.class_names
    return [
        {
            "picture": pictures.photograph(image),
            "true": names[outputs.label[row]],
            "right": outputs.best[row] == outputs.label[row],
            "true_probability": float(outputs.true_probability[row]),
            "guesses": [
                {
                    "name": names[label],
                    "probability": float(probability),
                    "right": label == outputs.label[row],
                }
                for label, probability in zip(
                    outputs.classes[row].tolist(), outputs.probabilities[row], strict=True
                )
            ],
        }
        for row, image in zip(rows.tolist(), images, strict=True)
        if image is not None
    ]
