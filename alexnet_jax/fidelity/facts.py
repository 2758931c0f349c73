"""What the command `describe` prints, as plain data."""

from collections.abc import Sequence
from typing import Any

from alexnet_jax.config import Config, flatten, invalid
from alexnet_jax.fidelity.comparison import Finding, Point, agreement, answer, compare
from alexnet_jax.fidelity.images import IMAGES
from alexnet_jax.fidelity.layers import LAYERS
from alexnet_jax.fidelity.response_norm import NORMALIZATION
from alexnet_jax.fidelity.saved_run import SavedRun
from alexnet_jax.fidelity.table import describe_layers
from alexnet_jax.fidelity.training import INITIALIZATION, UPDATE
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import FITTED, NOTES, PRESETS

PARTS: dict[str, Sequence[Point]] = {
    "network": (*LAYERS, *NORMALIZATION),
    "initialization": INITIALIZATION,
    "update": UPDATE,
    "images": IMAGES,
}
PAPER_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")  # P3.5
ERRATA = (
    "P3.5 counts 253,440 neurons in conv1, which is 55 x 48 x 96; 55 x 55 x 96 is 290,400.",
    "P4.1 counts 2,048 variants of an image, 32 x 32 x 2; the code has 33 x 33 x 2 = 2,178.",
    "P4.1 scales PCA lighting by eigenvalues; the code by their square roots.",
    "P1 says that a convolution has at most 1 % of the parameters; conv3 has 1.45 %, conv4 1.09 %.",
    "P3.5 applies the ReLU to every layer; fc8 has none (layers-145.cfg:294-303).",
)


def describe_network(config: Config, classes: int, saved: SavedRun | None = None) -> dict[str, Any]:
    """Return a network's layers, what two devices hold, and the comparison with its sources.

    The values are those of JSON; settings are named by their fields ("model.lrn_k").

    Args:
        config: the network and its training.
        classes: number of outputs.
        saved: the run whose network it is, if any. If its weights were imported, points about
            training are left out, as the configuration does not say how they were trained.

    Raises:
        ValueError: `classes` is less than 1.
    """
    if classes < 1:
        raise invalid("classes", classes, "must be at least 1", "try 1000")
    architecture = build_architecture(config.model, classes, config.data.crop)
    parts = _inference_parts() if saved and saved.imported else PARTS
    findings = compare(config, parts)
    names = [layer.name for layer in architecture.layers]
    return {
        "preset": config.preset,
        "changed": _changed(config, [point for part in parts.values() for point in part]),
        **_saved(config, saved),
        "classes": classes,
        "crop": architecture.crop,
        "is_the_paper": answer(
            findings,
            missing=[name for name in PAPER_LAYERS if name not in names],
            added=[name for name in names if name not in PAPER_LAYERS],
        ),
        **describe_layers(architecture),
        "agreement": agreement(findings),
        "comparison": [_finding(finding, saved) for finding in findings],
        "notes": _notes(config, saved),
        "errata": list(ERRATA),
    }


def _notes(config: Config, saved: SavedRun | None) -> list[str]:
    """Return the notes of a preset that hold for a network; a fitted one's are on its defaults."""
    if saved and (saved.imported or config.preset in FITTED):
        return []
    return list(NOTES.get(config.preset, ()))


def brief(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the result of `describe_network` with only the points that differ from the paper."""
    comparison = [point for point in facts["comparison"] if point["differs_from_paper"]]
    return {**facts, "comparison": comparison, "agreement": {}, "errata": []}


def _inference_parts() -> dict[str, Sequence[Point]]:
    """Return the points that have an effect on a trained network."""
    parts = {name: PARTS[name] for name in ("network", "images")}
    return {name: [p for p in points if not p.training_only] for name, points in parts.items()}


def _saved(config: Config, saved: SavedRun | None) -> dict[str, Any]:
    if saved is None:
        return {"imported": "", "untrained": [], "statistics": None}
    constants = {
        "mean": "color" if config.data.mean == "channel" else "image",
        "mean_color": list(saved.mean_color),
        "scale": list(saved.scale),
        "origin": saved.origin,
    }
    return {
        "imported": saved.imported,
        "untrained": list(saved.untrained),
        "statistics": constants if saved.scale else None,
    }


def _changed(config: Config, points: Sequence[Point]) -> dict[str, Any]:
    """Return the fields of these points whose values are not the preset's.

    Not `data.statistics=init`: "statistics" describes what the images of a run undergo.
    """
    preset = flatten(PRESETS[config.preset])
    return {
        name: value
        for name, value in flatten(config).items()
        if value != preset[name]
        and (name, value) != ("data.statistics", "init")
        and any(name in point.fields for point in points)
    }


def _finding(finding: Finding, saved: SavedRun | None) -> dict[str, Any]:
    point, fields = finding.point, finding.fields
    if point.name == "image scale" and saved and saved.scale:
        fields = {"scale": [round(factor, 6) for factor in saved.scale]}
    return {
        "point": point.name,
        "part": finding.part,
        "fields": fields,
        "applies": finding.applies,
        "follows": list(finding.follows),
        "differs_from_paper": finding.differs_from("paper"),
        "choices": [
            {
                "text": choice.text,
                "sources": dict(choice.citations),
                "chosen": finding.is_chosen(choice),
            }
            for choice in point.choices
        ],
        "silent": [source for source in ("paper", "2012 code") if not point.cites(source)],
        "why": point.why,
    }
