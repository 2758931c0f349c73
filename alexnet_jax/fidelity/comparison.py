"""Which source a configuration follows, point by point, where the sources differ."""

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from alexnet_jax.config import Config

# "P" is Krizhevsky, Sutskever and Hinton (2012); the 2012 code is net 145 where nothing else is
# said. What both of Caffe's networks do is Caffe's.
Source = Literal[
    "paper",
    "2012 code",
    "net 145-half",
    "net 146",
    "Caffe",
    "bvlc_alexnet",
    "CaffeNet",
    "torchvision",
    "text, literally",
]
# The networks that a configuration is held against as a whole, with the sources that speak of them.
NETWORKS: dict[str, tuple[Source, ...]] = {
    "paper": ("paper",),
    "2012 code": ("2012 code",),
    "bvlc_alexnet": ("Caffe", "bvlc_alexnet"),
    "CaffeNet": ("Caffe", "CaffeNet"),
    "torchvision": ("torchvision",),
}
# What of a configuration is not the network, as an answer calls it.
BESIDE = {"start": "initialization", "update": "update rule", "images": "images"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to do it, and who does it so."""

    value: Any  # as `Point.value` gives it; None where no configuration can say it
    text: str
    by: Mapping[Source, str]  # citations


@dataclasses.dataclass(frozen=True)
class Point:
    """Something on which the sources differ, or that a configuration may do otherwise than all."""

    name: str
    fields: tuple[str, ...]  # of the configuration
    choices: tuple[Choice, ...]
    why: str  # one clause: where the difference comes from, or what it does
    of: Callable[[Config], Any] | None = None  # the value; by default that of the fields
    needs: str = ""  # a field; while it is off, the point does not arise
    training: bool = False  # while a network is trained, and not when it is asked

    def value(self, config: Config) -> Any:
        """Return what this configuration does."""
        return self.of(config) if self.of else operator.attrgetter(*self.fields)(config)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A point, as one configuration has it."""

    part: str
    point: Point
    options: dict[str, Any]  # {"--model.lrn-k": 2.0}
    arises: bool
    choice: Choice | None  # None where nobody else does it so

    @property
    def follows(self) -> tuple[Source, ...]:
        """Who does it so."""
        return tuple(self.choice.by) if self.choice and self.arises else ()

    def here(self, choice: Choice) -> bool:
        """Return whether this configuration made that choice."""
        return self.arises and choice is self.choice

    def stated_by(self, *sources: Source) -> bool:
        """Return whether one of the sources speaks of this point, and it arises."""
        return self.arises and any(s in choice.by for choice in self.point.choices for s in sources)

    def differs_from(self, *sources: Source) -> bool:
        """Return whether one of the sources speaks of this point and has it otherwise."""
        return self.stated_by(*sources) and not set(sources) & set(self.follows)


def compare(config: Config, parts: Mapping[str, Sequence[Point]]) -> list[Finding]:
    """Return a finding for every point of every part, in order."""
    findings = []
    for part, points in parts.items():
        for point in points:
            value = point.value(config)
            choice = next((choice for choice in point.choices if choice.value == value), None)
            options = {field: operator.attrgetter(field)(config) for field in point.fields}
            arises = not point.needs or bool(operator.attrgetter(point.needs)(config))
            findings.append(Finding(part, point, options, arises, choice))
    return findings


def agreement(findings: Sequence[Finding]) -> dict[str, dict[str, Any]]:
    """Return for each network how many points are as there, of those it speaks of, and the rest."""
    counts = {}
    for name, sources in NETWORKS.items():
        stated = [finding for finding in findings if finding.stated_by(*sources)]
        differs = [finding.point.name for finding in stated if finding.differs_from(*sources)]
        counts[name] = {
            "same": len(stated) - len(differs),
            "of": len(stated),
            "different": differs,
        }
    return counts


def answer(
    findings: Sequence[Finding], missing: Sequence[str] = (), added: Sequence[str] = ()
) -> str:
    """Answer in a few sentences: is this the network of the paper?

    Args:
        findings: of all points.
        missing, added: layers that the paper has and this has not, and the other way round.
    """
    silent = [
        f.point.name for f in findings if f.stated_by("2012 code") and not f.stated_by("paper")
    ]
    by_code = agreement(findings)["2012 code"]["different"]
    network, rest = [
        [f.point.name for f in findings if f.differs_from("paper") and inside(f)]
        for inside in (lambda f: f.part == "network", lambda f: f.part != "network")
    ]
    if not network and not rest:
        stated = [name for name in by_code if name not in silent]
        unstated = [name for name in by_code if name in silent]
        beside = f"; and in {', '.join(unstated)}, on which the text is silent" if unstated else ""
        return (
            "Yes, by the text as far as it can be meant; it differs from the released 2012 code in "
            f"{len(stated)} points: {', '.join(stated)}{beside}."
        )
    differences = ", ".join(network + rest)
    if not by_code:
        beside = f"; the text is silent on {', '.join(silent)}" if silent else ""
        return (
            "It is net 145 of the released 2012 code, which produced the paper's numbers and "
            f"differs from the paper's text in {len(network + rest)} points: {differences}{beside}."
        )
    if not network:
        return f"The network is, by the text; what differs is {differences}."
    return " ".join([_no(findings, network, rest), *_layers(missing, added)])


def _no(findings: Sequence[Finding], network: Sequence[str], rest: Sequence[str]) -> str:
    others = [name for name in ("bvlc_alexnet", "CaffeNet", "torchvision") if _is(name, findings)]
    called = f"it is that of {others[0]}, which" if others else "it"
    beside = f"; and beside the network in {', '.join(rest)}" if rest else ""
    said = f"No: {called} differs from the paper's in {', '.join(network)}{beside}."
    return f"{said} {_training(others[0], findings)}" if others else said


def _layers(missing: Sequence[str], added: Sequence[str]) -> list[str]:
    """Return a sentence for layers that are missing, and one for those that are added."""
    lists = {"It lacks a layer of the paper's": missing, "It has a layer more": added}
    return [f"{said}: {', '.join(names)}." for said, names in lists.items() if names]


def _training(name: str, findings: Sequence[Finding]) -> str:
    """Say of which source the rest is, where the network is that of `name`."""
    parts: dict[str, list[str]] = {name: [], "the paper": [], "neither": []}
    for part, title in BESIDE.items():
        inside = [finding for finding in findings if finding.part == part]
        theirs = [f.point.name for f in inside if f.differs_from(*NETWORKS[name])]
        papers = [f.point.name for f in inside if f.differs_from("paper")]
        if not inside:
            continue
        if not papers and theirs:
            parts["the paper"].append(title)
        elif len(theirs) <= len(papers):
            parts[name].append(f"{title} (but for {', '.join(theirs)})" if theirs else title)
        else:
            parts["neither"].append(title)
    return " ".join(f"From {who}: {', '.join(what)}." for who, what in parts.items() if what)


def _is(name: str, findings: Sequence[Finding]) -> bool:
    inside = [finding for finding in findings if finding.part == "network"]
    return not any(finding.differs_from(*NETWORKS[name]) for finding in inside)
