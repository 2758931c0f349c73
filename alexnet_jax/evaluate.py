"""Score networks, alone or together: `python -m alexnet_jax.evaluate --workdir runs/a`."""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import MeshConfig
from alexnet_jax.data.sources import Source
from alexnet_jax.inference import score_table

if TYPE_CHECKING:
    from alexnet_jax.inference.ensemble import Predictions, Predictor
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.evaluate"


@dataclasses.dataclass(frozen=True)
class Command:
    """Score the network in a run folder, or those of several, whose probabilities are averaged."""

    # folder of the run, trained or imported; several are given as --workdir A --workdir B
    workdir: tyro.conf.UseAppendAction[tuple[Path, ...]]
    # which of the run's own images
    split: Literal["validation", "test", "train"] = "validation"
    # score all images of this folder of class folders instead; the class folders bear the names of
    # the network's classes, or their first words (synset numbers)
    images: Path | None = None
    # of each image: the center, or four corners and the center with their mirror images (P4.1),
    # whose probabilities are averaged; ten take ten times as long
    views: Literal[1, 10] = 1
    # of several networks: equal, or searched for the least loss on images held out, which are the
    # run's validation split or --held-out; never on those that are scored
    weights: Literal["equal", "searched"] = "equal"
    # with --weights searched: a folder of class folders to search on, which --images needs
    held_out: Path | None = None
    # which weights: the latest, or those with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # images at a time
    batch: int = 128
    # a line for each class too, the worst first
    per_class: bool = False
    # draw which class is taken for which into this file
    confusion: Path | None = None
    # print one JSON object
    json: bool = False
    # devices: shards of the batch times towers of the network
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        asked = parse_command(Command, arguments, PROGRAM)
        emulate_devices(asked.mesh)
        scores = evaluate(asked)
        print(json.dumps(scores) if asked.json else score_table.format_scores(scores))

    return run_command(run, Command, "interrupted; nothing was written.")


def evaluate(asked: Command) -> dict[str, Any]:
    """Return the scores, what they are of, and how they compare; draw the picture asked for.

    `loss`, `top1_error`, `top5_error` and `count` are those of the network, or of all together;
    `members` has those of each. `unreadable` images are in no score. What `--json` prints.
    """
    _check(asked)
    from alexnet_jax import plots
    from alexnet_jax.inference import ensemble, paper_scores
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.plots import confusion

    networks = _load(asked)
    if asked.confusion:
        confusion.check_classes(len(networks[0].class_names))
    of, sources = _open(asked, networks)
    askers = [ensemble.Predictor(network, asked.views) for network in networks]
    count = len(networks)
    mixtures = list(np.eye(count))
    equal = np.full(count, 1 / count)
    mixtures += [equal] if count > 1 else []
    weighing: dict[str, Any] = {}
    if asked.weights == "searched":
        weighing = _search(asked, networks, askers, sources)
        mixtures.append(np.array(weighing["weights"]))
    found = ensemble.predict_sources(askers, sources, mixtures, asked.batch)
    final, names = found[-1], networks[0].class_names
    left_out = (
        0 if asked.images else network_loading.num_unreadable_at_start(networks[0], asked.split)
    )
    by_class = np.bincount(final.label, minlength=len(names))
    configs = [network.config.data for network in networks]
    row, said = paper_scores.comparable_row(names, by_class, configs, asked.views)
    if asked.confusion:
        plots.save(confusion.draw(final.label, final.best, names), asked.confusion)
    alone = [
        {"workdir": str(network.workdir), "step": network.step, **answer.scores()}
        for network, answer in zip(networks, found, strict=False)
    ]
    together = {"members": alone, "weights": equal.tolist()} if count > 1 else alone[0]
    return {
        **together,
        **({"average": found[count].scores(), **weighing} if weighing else {}),
        "of": of,
        "views": asked.views,
        "classes": len(names),
        "count": len(final.label),
        "unreadable": left_out + len(sources[0]) - len(final.label),
        **final.scores(),
        "paper": dataclasses.asdict(row) if row else None,
        "about_paper": said,
        **({"per_class": per_class(final, names)} if asked.per_class else {}),
        **({"confusion": str(asked.confusion)} if asked.confusion else {}),
    }


def _check(asked: Command) -> None:
    """Raise a ValueError for what can be refused before anything is read."""
    shards = 1 if asked.mesh.data == "auto" else asked.mesh.data
    if asked.batch < 1 or asked.batch % shards:
        raise ValueError(
            f"--batch {asked.batch}: it is at least 1 image, and divides into --mesh.data "
            f"{shards} shards; try {max(1, round(asked.batch / shards)) * shards}."
        )
    if not asked.workdir:
        raise ValueError("--workdir: it is needed; name the folder of a run.")
    real = [os.path.realpath(workdir) for workdir in asked.workdir]
    if len(set(real)) < len(real):
        raise ValueError(
            f"--workdir {' '.join(map(str, asked.workdir))}: each network counts once; name "
            "different runs."
        )
    if asked.confusion:
        check_picture(asked.confusion, "--confusion")
    _check_search(asked)


def _check_search(asked: Command) -> None:
    """Raise a ValueError unless weights are searched on images apart from those that are scored."""
    if asked.weights == "equal":
        if asked.held_out:
            raise ValueError(
                f"--held-out {asked.held_out}: it is for weights that are searched; add "
                "--weights searched, or leave it out."
            )
        return
    rule = "--weights searched: "
    if len(asked.workdir) == 1:
        raise ValueError(f"{rule}there is one network only; name two or more with --workdir.")
    if asked.held_out:
        return
    if asked.images:
        raise ValueError(
            f"{rule}they are searched on images other than those of --images; name a folder of "
            "class folders with --held-out."
        )
    if asked.split == "validation":
        raise ValueError(
            f"{rule}they are searched on the validation split, and what they were searched on "
            "tells nothing of them; score another one with --split test."
        )


def _load(asked: Command) -> list["Network"]:
    """Return the networks, all on one mesh; ValueError where their classes differ."""
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=asked.mesh.towers, data=asked.mesh.data, batch=asked.batch)
    networks = [
        network_loading.load_network(workdir, mesh, asked.checkpoint) for workdir in asked.workdir
    ]
    first, *others = networks
    for other in others:
        if other.class_names != first.class_names:
            raise ValueError(
                f"--workdir {other.workdir}: it tells apart other classes "
                f"({_few(other.class_names)}) than {first.workdir} ({_few(first.class_names)}); "
                "networks are averaged that have the same, in the same order: leave one out."
            )
    return networks


def _few(names: Sequence[str]) -> str:
    return f"{len(names):,}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _open(asked: Command, networks: Sequence["Network"]) -> tuple[str, list[Source]]:
    """Return the name of what is scored, and the images as each network wants them."""
    from alexnet_jax.inference import network as network_loading

    if asked.images:
        return str(asked.images), [
            network_loading.open_image_folder(network, asked.images) for network in networks
        ]
    score = "score images that all of them hold out: --split test where there is one, or --images"
    return asked.split, _same(networks, asked.split, score)


def _same(networks: Sequence["Network"], split: str, remedy: str) -> list[Source]:
    """Return a split of each network's data; ValueError where they are not the same images."""
    from alexnet_jax.inference import network as network_loading

    sources = [network_loading.open_split(network, split) for network in networks]
    for network, source in zip(networks, sources, strict=True):
        if source.fingerprint() != sources[0].fingerprint():
            raise ValueError(
                f"--workdir {network.workdir}: its {split} images are others than those of "
                f"{networks[0].workdir}, and it may have been trained on these (which images are "
                f"held out for validation depends on --seed); {remedy}."
            )
    return sources


def _search(
    asked: Command,
    networks: Sequence["Network"],
    askers: Sequence["Predictor"],
    sources: Sequence[Source],
) -> dict[str, Any]:
    """Return the weights with the least loss on the images held out, and what was held out."""
    from alexnet_jax.inference import ensemble
    from alexnet_jax.inference import network as network_loading

    if asked.held_out:
        folder = asked.held_out
        held = [
            network_loading.open_image_folder(network, folder, "--held-out") for network in networks
        ]
        name = str(folder)
    else:
        remedy = "search on images that none of them was trained on: --held-out"
        name, held = "validation", _same(networks, "validation", remedy)
    if shared := _places(held[0]) & _places(sources[0]):
        raise ValueError(
            f"--weights searched: {len(shared):,} of the {len(held[0]):,} images of {name} are "
            "among those that are scored; search on others: --held-out."
        )
    alone = ensemble.predict_sources(askers, held, list(np.eye(len(askers))), asked.batch)
    weights = ensemble.search_weights(np.stack([answer.loss for answer in alone], axis=1))
    return {
        "weights": weights.tolist(),
        "searched_on": name,
        "searched_on_count": len(alone[0].label),
    }


def _places(source: Source) -> set[str]:
    """Return where the images of a source lie, however they were come by."""
    return {os.path.realpath(source.describe(index)) for index in range(len(source))}


def per_class(found: "Predictions", names: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class with images its errors and what it is most often taken for."""
    rows = []
    for label in np.unique(found.label).tolist():
        here = found.label == label
        others = np.bincount(found.best[here], minlength=len(names))
        others[label] = 0
        most = int(others.argmax())
        rows.append(
            {
                "class": names[label],
                "count": int(here.sum()),
                "top1_error": float(found.top1_error[here].mean()),
                "top5_error": float(found.top5_error[here].mean()),
                "taken_for": names[most] if others[most] else None,
                "taken_for_count": int(others[most]),
            }
        )
    return sorted(rows, key=lambda row: -row["top1_error"])


if __name__ == "__main__":
    sys.exit(main())
