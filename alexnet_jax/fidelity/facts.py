"""What `describe` prints, as plain data."""

from collections.abc import Sequence
from typing import Any

from alexnet_jax.config import Config, flatten
from alexnet_jax.fidelity.comparison import Finding, Point, agreement, answer, compare
from alexnet_jax.fidelity.images import IMAGES
from alexnet_jax.fidelity.layers import LAYERS
from alexnet_jax.fidelity.response_norm import NORMALIZATION
from alexnet_jax.fidelity.saved_run import SavedRun
from alexnet_jax.fidelity.table import network
from alexnet_jax.fidelity.training import START, UPDATE
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS

PARTS: dict[str, Sequence[Point]] = {
    "network": (*LAYERS, *NORMALIZATION),
    "start": START,
    "update": UPDATE,
    "images": IMAGES,
}
NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")  # P3.5
ERRATA = (
    "P3.5 has 253,440 neurons in conv1, which is 55 x 48 x 96; 55 x 55 x 96 are 290,400.",
    "P4.1 has 2,048 variants of an image, 32 x 32 x 2; the code 33 x 33 x 2 = 2,178.",
    "P4.1 lights by eigenvalues of the colors' covariance; the code by their square roots.",
    "P1 gives each convolution at most 1 % of the parameters; conv3 has 1.45 %, conv4 1.09 %.",
    "P3.5 puts a ReLU behind every layer; fc8 has none (layers-145.cfg:294-303).",
)


def describe_network(config: Config, classes: int, saved: SavedRun | None = None) -> dict[str, Any]:
    """Return everything about a network that `describe` says; numbers are numbers.

    Args:
        config: the network and its training.
        classes: outputs.
        saved: of the run whose network it is, if any. Nothing is said of how weights were trained
            that came from a file.

    Raises:
        ValueError: there is no class.
    """
    if classes < 1:
        raise ValueError(f"--classes {classes}: it is at least 1; try 1000.")
    architecture = build_architecture(config.model, classes, config.data.crop)
    parts = _asked_only() if saved and saved.imported else PARTS
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
            missing=[name for name in NAMES if name not in names],
            added=[name for name in names if name not in NAMES],
        ),
        **network(architecture),
        "agreement": agreement(findings),
        "comparison": [_finding(finding, saved) for finding in findings],
        "errata": list(ERRATA),
    }


def brief(facts: dict[str, Any]) -> dict[str, Any]:
    """Return of `describe`'s result the network, and the points on which the paper differs."""
    comparison = [point for point in facts["comparison"] if point["differs_from_paper"]]
    return {**facts, "comparison": comparison, "agreement": {}, "errata": []}


def _asked_only() -> dict[str, Sequence[Point]]:
    """Return the points of a network that is asked and not trained."""
    parts = {name: PARTS[name] for name in ("network", "images")}
    return {name: [p for p in points if not p.training] for name, points in parts.items()}


def _saved(config: Config, saved: SavedRun | None) -> dict[str, Any]:
    if saved is None:
        return {"imported": "", "statistics": None}
    constants = {
        "mean": "color" if config.data.mean == "channel" else "image",
        "mean_color": list(saved.mean_color),
        "scale": list(saved.scale),
        "origin": saved.origin,
    }
    return {"imported": saved.imported, "statistics": constants if saved.scale else None}


def _changed(config: Config, points: Sequence[Point]) -> dict[str, Any]:
    """Return the options, of what these points are about, that are not those of the preset.

    What images undergo in a run is said by its statistics and not by `init`.
    """
    before = flatten(PRESETS[config.preset])
    return {
        name: value
        for name, value in flatten(config).items()
        if value != before[name]
        and (name, value) != ("data.statistics", "init")
        and any(name in point.fields for point in points)
    }


def _finding(finding: Finding, saved: SavedRun | None) -> dict[str, Any]:
    point, options = finding.point, finding.options
    if point.name == "image scale" and saved and saved.scale:
        options = {"x": [round(factor, 6) for factor in saved.scale]}
    return {
        "point": point.name,
        "part": finding.part,
        "options": options,
        "arises": finding.arises,
        "follows": list(finding.follows),
        "differs_from_paper": finding.differs_from("paper"),
        "choices": [
            {"text": choice.text, "by": dict(choice.by), "here": finding.here(choice)}
            for choice in point.choices
        ],
        "silent": [
            source
            for source in ("paper", "2012 code")
            if not any(source in choice.by for choice in point.choices)
        ],
        "why": point.why,
    }
