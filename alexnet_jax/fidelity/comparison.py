"""Which source a configuration follows, on each point where the sources differ."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from alexnet_jax.config import Config

# "P" is Krizhevsky, Sutskever and Hinton (2012); the 2012 code is net 145 unless another net is
# named; "cuda-convnet2" is the authors' later code. "Caffe" stands for both of Caffe's networks.
#
# Citations are a section of the paper or `file:lines`, several of them joined by "; ". Lines are
# those of computerhistory/AlexNet-Source-Code 2f8b81f (the 2012 code; its folders layers/ and src/
# are left out), akrizhevsky/cuda-convnet2 3238bf0 (conv_util.cu, data.py, gpumodel.py, make-data.py
# and pyext.cpp, which the 2012 code lacks), BVLC/caffe 9b89154 (without a folder:
# models/bvlc_alexnet, of CaffeNet models/bvlc_reference_caffenet; examples/imagenet, src/caffe),
# torchvision 0.21 (models/, torchvision/datasets/), references/classification of pytorch/vision
# (presets.py 080836e, train.py 017e9b9), and torch 2.13. What the lines say is in
# tests/fidelity/test_citations.py.
Source = Literal[
    "paper",
    "2012 code",
    "net 145-half",
    "net 146",
    "Caffe",
    "bvlc_alexnet",
    "CaffeNet",
    "torchvision",
    "cuda-convnet2",
    "text, literally",
]
# Networks that a configuration is compared with as a whole, and the sources that describe each.
NETWORKS: dict[str, tuple[Source, ...]] = {
    "paper": ("paper",),
    "2012 code": ("2012 code",),
    "bvlc_alexnet": ("Caffe", "bvlc_alexnet"),
    "CaffeNet": ("Caffe", "CaffeNet"),
    "torchvision": ("torchvision",),
}
# The parts of a configuration besides the network, as `answer` names them.
TRAINING_PARTS = {
    "initialization": "initialization",
    "update": "update rule",
    "images": "images",
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to do it, and the sources that do it this way."""

    value: Any  # as `Point.value` returns it; None where no configuration can express it
    text: str
    citations: Mapping[Source, str]


@dataclasses.dataclass(frozen=True)
class Point:
    """Something on which the sources differ, or where a configuration may differ from all."""

    name: str
    fields: tuple[str, ...]  # of the configuration
    choices: tuple[Choice, ...]
    why: str  # one clause: where the difference comes from, or what it does
    compute: Callable[[Config], Any] | None = None  # the value; None: that of the fields
    requires: str = ""  # a field; while it is off, the point does not apply
    training_only: bool = False  # has no effect on a trained network

    def value(self, config: Config) -> Any:
        """Return what this configuration does."""
        return self.compute(config) if self.compute else operator.attrgetter(*self.fields)(config)

    def cites(self, source: Source) -> bool:
        """Return whether a source says anything about this point."""
        return any(source in choice.citations for choice in self.choices)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A point and the choice that one configuration makes there."""

    part: str
    point: Point
    fields: dict[str, Any]  # {"model.lrn_k": 2.0}
    applies: bool
    choice: Choice | None  # None where no source makes the same choice

    @property
    def follows(self) -> tuple[Source, ...]:
        """The sources that make the same choice."""
        return tuple(self.choice.citations) if self.choice and self.applies else ()

    def is_chosen(self, choice: Choice) -> bool:
        """Return whether this configuration makes that choice."""
        return self.applies and choice is self.choice

    def stated_by(self, *sources: Source) -> bool:
        """Return whether the point applies and one of the sources says anything about it."""
        return self.applies and any(self.point.cites(source) for source in sources)

    def differs_from(self, *sources: Source) -> bool:
        """Return whether one of the sources states this point and none makes the same choice."""
        return self.stated_by(*sources) and not set(sources) & set(self.follows)


def compare(config: Config, parts: Mapping[str, Sequence[Point]]) -> list[Finding]:
    """Return a finding for every point of every part, in order."""
    findings = []
    for part, points in parts.items():
        for point in points:
            value = point.value(config)
            choice = next((choice for choice in point.choices if choice.value == value), None)
            fields = {field: operator.attrgetter(field)(config) for field in point.fields}
            applies = not point.requires or bool(operator.attrgetter(point.requires)(config))
            findings.append(Finding(part, point, fields, applies, choice))
    return findings


def agreement(findings: Sequence[Finding]) -> dict[str, dict[str, Any]]:
    """Return for each network: of the points that it states, how many agree and which differ."""
    counts = {}
    for name, sources in NETWORKS.items():
        stated = [finding for finding in findings if finding.stated_by(*sources)]
        different = _names(finding for finding in stated if finding.differs_from(*sources))
        counts[name] = {
            "same": len(stated) - len(different),
            "of": len(stated),
            "different": different,
        }
    return counts


def answer(
    findings: Sequence[Finding], missing: Sequence[str] = (), added: Sequence[str] = ()
) -> str:
    """Answer in a few sentences: is this the network of the paper?

    Args:
        findings: of all points.
        missing: layers that the paper has and this network does not.
        added: layers that this network has and the paper does not.
    """
    silent = _names(f for f in findings if f.stated_by("2012 code") and not f.stated_by("paper"))
    differs_from_code = agreement(findings)["2012 code"]["different"]
    differs = [finding for finding in findings if finding.differs_from("paper")]
    network = _names(finding for finding in differs if finding.part == "network")
    training = _names(finding for finding in differs if finding.part != "network")
    if not differs:
        stated = [name for name in differs_from_code if name not in silent]
        unstated = [name for name in differs_from_code if name in silent]
        also = f"; also in {', '.join(unstated)}, on which the text is silent" if unstated else ""
        return (
            "Yes, as the paper's text describes it. It differs from the released 2012 code in "
            f"{len(stated)} points: {', '.join(stated)}{also}."
        )
    if not differs_from_code:
        also = f"; the text is silent on {', '.join(silent)}" if silent else ""
        return (
            "It is net 145 of the released 2012 code, which produced the paper's numbers. It "
            f"differs from the paper's text in {len(differs)} points: "
            f"{', '.join(network + training)}{also}."
        )
    if not network:
        return f"The network is the paper's; what differs is {', '.join(training)}."
    return " ".join([_no(findings, network, training), *_layers(missing, added)])


def _names(findings: Iterable[Finding]) -> list[str]:
    return [finding.point.name for finding in findings]


def _no(findings: Sequence[Finding], network: Sequence[str], training: Sequence[str]) -> str:
    matches = [name for name in ("bvlc_alexnet", "CaffeNet", "torchvision") if _is(name, findings)]
    what = f"it is the network of {matches[0]}, which" if matches else "it"
    also = f"; besides the network, in {', '.join(training)}" if training else ""
    sentence = f"No: {what} differs from the paper's in {', '.join(network)}{also}."
    return f"{sentence} {_training(matches[0], findings)}" if matches else sentence


def _layers(missing: Sequence[str], added: Sequence[str]) -> list[str]:
    """Return a sentence for layers that are missing, and one for those that are added."""
    lists = {"Layers of the paper that it lacks": missing, "Layers that the paper lacks": added}
    return [f"{text}: {', '.join(names)}." for text, names in lists.items() if names]


def _training(name: str, findings: Sequence[Finding]) -> str:
    """Return which source each other part follows, where the network is that of `name`."""
    parts: dict[str, list[str]] = {name: [], "the paper": [], "neither": []}
    for part, title in TRAINING_PARTS.items():
        inside = [finding for finding in findings if finding.part == part]
        by_name = _names(finding for finding in inside if finding.differs_from(*NETWORKS[name]))
        by_paper = _names(finding for finding in inside if finding.differs_from("paper"))
        if not inside:
            continue
        if not by_paper and by_name:
            parts["the paper"].append(title)
        elif len(by_name) <= len(by_paper):
            parts[name].append(f"{title} (except {', '.join(by_name)})" if by_name else title)
        else:
            parts["neither"].append(title)
    return " ".join(
        f"As in {source}: {', '.join(titles)}." for source, titles in parts.items() if titles
    )


def _is(name: str, findings: Sequence[Finding]) -> bool:
    inside = [finding for finding in findings if finding.part == "network"]
    return not any(finding.differs_from(*NETWORKS[name]) for finding in inside)
