"""Score a trained or imported network: `python -m alexnet_jax.evaluate --workdir runs/a`."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from alexnet_jax import command
from alexnet_jax.config import MeshConfig

PROGRAM = "python -m alexnet_jax.evaluate"


@dataclasses.dataclass(frozen=True)
class Command:
    """Score the network in a run folder, one centre view an image."""

    # folder of the run, trained or imported
    workdir: Path
    # which of the run's own images
    split: Literal["validation", "test", "train"] = "validation"
    # score all images of this folder of class folders instead; the class folders bear the names of
    # the network's classes, or their first words (synset numbers)
    images: Path | None = None
    # which weights: the latest, or those with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # images at a time
    batch: int = 128
    # print one JSON object
    json: bool = False
    # devices: shards of the batch times towers of the network
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        asked = command.parse(Command, arguments, PROGRAM, booleans=tyro.conf.FlagCreatePairsOff)
        command.emulate_devices(asked.mesh)
        scores = evaluate(asked)
        print(json.dumps(scores) if asked.json else describe(scores))

    return command.run(run, "interrupted; nothing was written.")


def evaluate(asked: Command) -> dict[str, Any]:
    """Return `loss`, `top1_error`, `top5_error`, `count`, and what they are of."""
    from alexnet_jax.model import towers
    from alexnet_jax.training import evaluation, trained
    from alexnet_jax.training.step import make_eval_step

    shards = 1 if asked.mesh.data == "auto" else asked.mesh.data
    if asked.batch < 1 or asked.batch % shards:
        raise ValueError(
            f"--batch {asked.batch}: it is at least 1 image, and divides into --mesh.data "
            f"{shards} shards; try {max(1, round(asked.batch / shards)) * shards}."
        )
    mesh = towers.make_mesh(towers=asked.mesh.towers, data=asked.mesh.data, batch=asked.batch)
    network = trained.load(asked.workdir, mesh, asked.checkpoint)
    source = (
        trained.images(network, asked.images)
        if asked.images
        else trained.split(network, asked.split)
    )
    eval_step = make_eval_step(network.table, mesh, network.preprocess)
    scores = evaluation.evaluate(
        eval_step, network.variables, source, network.config.data, asked.batch, mesh, progress=True
    )
    return {
        "workdir": str(asked.workdir),
        "step": network.step,
        "of": str(asked.images or asked.split),
        "classes": len(network.class_names),
        **scores,
    }


def describe(scores: Mapping[str, Any]) -> str:
    """Return the scores in a line."""
    # Among five classes or fewer it is 0 whatever the network.
    top5 = f", top-5 error {scores['top5_error']:.2%}" if scores["classes"] > 5 else ""
    return (
        f"{scores['workdir']}, step {scores['step']:,}, {scores['of']}, {scores['count']:,} "
        f"images, centre view: top-1 error {scores['top1_error']:.2%}{top5}, "
        f"loss {scores['loss']:.4f} nats."
    )


if __name__ == "__main__":
    sys.exit(main())
