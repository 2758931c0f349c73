"""Evaluate networks, alone or averaged: `python -m alexnet_jax.evaluate --workdir runs/a`."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.devices import emulate_devices
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one, run_of
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import MeshConfig, PublishedName, invalid
from alexnet_jax.data.sources import Source
from alexnet_jax.inference import scores as scoring
from alexnet_jax.storage.names import as_json

if TYPE_CHECKING:
    from alexnet_jax.inference.datasets import Split
    from alexnet_jax.inference.ensemble import Predictor
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.evaluate"


@dataclasses.dataclass(frozen=True)
class Command:
    """Evaluate the network in a run folder, or the average of the probabilities of several.

    The paper is Krizhevsky, Sutskever and Hinton (2012); P3.2 is its section 3.2.
    """

    # folder of the run, trained or imported; several are given as --workdir A --workdir B
    workdir: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    # published weights, downloaded and imported once; with or without runs
    weights: tyro.conf.UseAppendAction[tuple[PublishedName, ...]] = ()
    # which of the run's own images; by default validation
    split: Literal["validation", "test", "train"] | None = None
    # where the run's images are now, if they have moved since it was trained: its --data.path
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    # evaluate on all images of this folder of class folders instead; their names are the network's
    # class names, or the first words of those (synset numbers)
    images: Path | None = None
    # views of each image: the center crop, or the four corner crops, the center crop and their
    # mirror images (P4.1), whose probabilities are averaged; ten take ten times as long
    views: Literal[1, 10] = 1
    # weights of several networks: equal, or searched for the lowest loss on held-out images, which
    # are the run's validation split or --held-out and never those that are evaluated
    ensemble_weights: Literal["equal", "searched"] = "equal"
    # folder of class folders for --ensemble-weights searched; required together with --images
    held_out: Path | None = None
    # which checkpoint: the latest, or the one with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # images at a time
    batch_size: int = 128
    # print a line for each class too, the worst first
    per_class: bool = False
    # draw the confusion matrix into this file
    confusion: Path | None = None
    # print one JSON object
    json: bool = False
    # devices: shards of the batch times towers of the network
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        command = parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM)
        emulate_devices(command.mesh)
        scores = evaluate(command)
        print(as_json(scores) if command.json else scoring.format_scores(scores))

    names = {"batch": "--batch-size", "optimizer.batch_size": "--batch-size"}
    return run_command(run, Command, "interrupted; nothing was written.", names)


def evaluate(args: Command) -> dict[str, Any]:
    """Return the scores, what they are of, and how they compare; draw the confusion matrix.

    `loss`, `top1_error`, `top5_error` and `count` are those of the network, or of the average;
    `members` has those of each network. `unreadable` images are in no score. --json prints this.
    """
    _check(args)
    from alexnet_jax.inference import datasets, ensemble
    from alexnet_jax.plots import confusion
    from alexnet_jax.plots.tiles import save

    networks = _load(args)
    class_names = networks[0].class_names
    if args.confusion:
        confusion.check_classes(len(class_names))
    name, sources = _open(args, networks)
    predictors = [ensemble.Predictor(network, args.views) for network in networks]
    candidates = list(np.eye(len(networks)))
    if len(networks) > 1:
        candidates.append(np.full(len(networks), 1 / len(networks)))
    search: dict[str, Any] = {}
    if args.ensemble_weights == "searched":
        search = _search(args, networks, predictors, sources)
        candidates.append(np.array(search["weights"]))
    predictions = ensemble.predict_sources(predictors, sources, candidates, args.batch_size)
    final = predictions[-1]
    images_by_class = np.bincount(final.label, minlength=len(class_names))
    preprocessing = [network.config.data for network in networks]
    row, note = scoring.comparable_row(class_names, images_by_class, preprocessing, args.views)
    if args.confusion:
        save(confusion.draw(final.label, final.best, class_names), args.confusion)
    left_out = 0 if args.images else datasets.num_unreadable_at_start(networks[0], _split(args))
    return {
        **_by_network(networks, predictions, search),
        "of": name,
        "views": args.views,
        "classes": len(class_names),
        "count": len(final.label),
        "unreadable": left_out + len(sources[0]) - len(final.label),
        **final.scores(),
        "paper": dataclasses.asdict(row) if row else None,
        "about_paper": note,
        **({"per_class": scoring.per_class(final, class_names)} if args.per_class else {}),
        **({"confusion": str(args.confusion)} if args.confusion else {}),
    }


def _by_network(
    networks: Sequence["Network"], predictions: Sequence[Any], search: dict[str, Any]
) -> dict[str, Any]:
    """Return the scores of each network; of several also the weights, and the equal average."""
    count = len(networks)
    members = [
        {
            "workdir": str(network.workdir),
            "step": network.step,
            **alone.scores(),
            **network.caveats,
        }
        for network, alone in zip(networks, predictions, strict=False)
    ]
    if count == 1:
        return members[0]
    if search:
        return {"members": members, "average": predictions[count].scores(), **search}
    return {"members": members, "weights": [1 / count] * count}


def _check(args: Command) -> None:
    """Raise a ValueError for everything that can be refused before anything is read."""
    shards = 1 if args.mesh.data == "auto" else args.mesh.data
    if args.batch_size < 1 or args.batch_size % shards:
        divisible = f" and divisible by --mesh.data {shards}" if shards > 1 else ""
        rule = f"must be at least 1{divisible}"
        remedy = f"try {max(1, round(max(args.batch_size, 128) / shards)) * shards}"
        raise invalid("--batch-size", args.batch_size, rule, remedy)
    if not (args.workdir or args.weights):
        check_one(None, None)
    real = [os.path.realpath(workdir) for workdir in args.workdir]
    if len(set(real)) < len(real):
        raise invalid("--workdir", args.workdir, "must be different runs", "leave one out")
    if len({*args.weights}) < len(args.weights):
        raise invalid("--weights", args.weights, "must be different ones", "leave one out")
    for option, value in (("--data.path", args.data_path), ("--split", args.split)):
        if value and args.images:
            rule = "is not used together with --images"
            raise invalid(option, value, rule, "leave one of them out")
    if args.confusion:
        check_picture(args.confusion, "--confusion")
    _check_search(args)


def _check_search(args: Command) -> None:
    """Raise a ValueError unless weights are searched on images other than those evaluated."""
    if args.ensemble_weights == "equal":
        if args.held_out:
            rule = "must be given together with --ensemble-weights searched"
            raise invalid("--held-out", args.held_out, rule, "give both or neither")
        return
    if len(args.workdir) + len(args.weights) == 1:
        rule, remedy = "needs several networks", "name two or more with --workdir or --weights"
    elif args.images and not args.held_out:
        rule = "needs images other than those of --images"
        remedy = "name a folder of class folders with --held-out"
    elif _split(args) == "validation" and not args.held_out:
        rule = "searches on the validation split, which cannot be evaluated then"
        remedy = "evaluate another one with --split test"
    else:
        return
    raise invalid("--ensemble-weights", "searched", rule, remedy)


def _load(args: Command) -> list["Network"]:
    """Return the networks, all on one mesh; raise a ValueError if their classes differ."""
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.inference.datasets import with_data_path
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=args.mesh.towers, data=args.mesh.data, batch=args.batch_size)
    folders = [*args.workdir, *(run_of(None, name) for name in args.weights)]
    networks = [network_loading.load_network(folder, mesh, args.checkpoint) for folder in folders]
    if args.data_path:
        networks = [with_data_path(network, args.data_path) for network in networks]
    first = networks[0]
    for network in networks[1:]:
        if network.class_names != first.class_names:
            rule = (
                f"has other classes ({_first_names(network.class_names)}) than {first.workdir} "
                f"({_first_names(first.class_names)}), and only networks with the same classes in "
                "the same order can be averaged"
            )
            raise invalid("--workdir", network.workdir, rule, "leave one out")
    return networks


def _first_names(names: Sequence[str]) -> str:
    return f"{len(names):,}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _split(args: Command) -> "Split":
    return args.split or "validation"


def _open(args: Command, networks: Sequence["Network"]) -> tuple[str, list[Source]]:
    """Return the name of the images to evaluate on, and the images for each network."""
    if args.images:
        return str(args.images), _open_folder(networks, args.images, "images")
    remedy = "use images that all of them hold out: --split test if there is one, or --images"
    return _split(args), _open_same(networks, _split(args), remedy)


def _open_folder(networks: Sequence["Network"], folder: Path, name: str) -> list[Source]:
    """Return the images of a folder for each network, and say what was taken for what."""
    from alexnet_jax.inference import datasets

    opened = [datasets.open_image_folder(network, folder, name) for network in networks]
    for note in opened[0][1]:
        print(note, file=notes())
    return [source for source, _ in opened]


def _open_same(networks: Sequence["Network"], split: "Split", remedy: str) -> list[Source]:
    """Return a split of each network's data; raise a ValueError unless the images are the same."""
    from alexnet_jax.inference import datasets

    sources = [datasets.open_split(network, split) for network in networks]
    for network, source in zip(networks, sources, strict=True):
        if source.fingerprint() != sources[0].fingerprint():
            rule = (
                f"its {split} images are not those of {networks[0].workdir}, and it may have been "
                "trained on these (which images are held out for validation depends on --seed)"
            )
            raise invalid("--workdir", network.workdir, rule, remedy)
    return sources


def _search(
    args: Command,
    networks: Sequence["Network"],
    predictors: Sequence["Predictor"],
    sources: Sequence[Source],
) -> dict[str, Any]:
    """Return the weights with the lowest loss on held-out images, and what these are."""
    from alexnet_jax.inference import ensemble

    if args.held_out:
        name = str(args.held_out)
        held_out = _open_folder(networks, args.held_out, "held_out")
    else:
        remedy = "search on images that none of them was trained on, with --held-out"
        name, held_out = "validation", _open_same(networks, "validation", remedy)
    if shared := _files(held_out[0]) & _files(sources[0]):
        rule = (
            f"{len(shared):,} of the {len(held_out[0]):,} images of {name} are among those "
            "evaluated"
        )
        raise invalid("--ensemble-weights", "searched", rule, "search on others with --held-out")
    alone = ensemble.predict_sources(
        predictors, held_out, list(np.eye(len(predictors))), args.batch_size
    )
    losses = np.stack([predictions.loss for predictions in alone], axis=1)
    return {
        "weights": ensemble.search_ensemble_weights(losses).tolist(),
        "searched_on": name,
        "searched_on_count": len(alone[0].label),
    }


def _files(source: Source) -> set[str]:
    """Return the real paths of a source's images, links resolved."""
    return {os.path.realpath(source.describe(index)) for index in range(len(source))}


if __name__ == "__main__":
    sys.exit(main())
