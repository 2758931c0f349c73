"""Draw what a run has learned: `python -m alexnet_jax.figures --workdir runs/a`."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from alexnet_jax import plots
from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.plots import feature_maps
from alexnet_jax.plots import specialization as scatter

if TYPE_CHECKING:
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.figures"
EXAMPLES = 8  # images in the panel of predictions: 2 rows of 4, as in the paper's Figure 4

Kind = Literal["curves", "filters", "predictions", "specialization"]


@dataclasses.dataclass(frozen=True)
class Command:
    """Draw the figures of a run into PNG files, and what they show into JSON."""

    # folder of the run, trained or imported
    workdir: Path
    # which of them; without it all that this run has, or only those that --maps asks for
    only: tuple[Kind, ...] = ()
    # photographs to draw the feature maps of, by tower
    maps: tuple[Path, ...] = ()
    # whose maps: a convolution before its ReLU (conv1) or after it (relu1), or what follows (pool1)
    layer: str = "conv1"
    # which weights: the latest, or those with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"
    # folder for the figures; without it figures/ in --workdir
    out: Path | None = None


class FigureUnavailable(ValueError):
    """This run has no such figure; the message says why."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        draw(parse_command(Command, arguments, PROGRAM))

    return run_command(run, Command, "interrupted; the same command draws them anew.")


def draw(asked: Command) -> None:
    """Draw what is asked for, and say where it is; what the run has not is named.

    Raises:
        ValueError: --only or --maps name what the run has not.
    """
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    network = network_loading.load_network(asked.workdir, mesh, asked.checkpoint)
    folder = asked.out or asked.workdir / "figures"
    for place, photograph in enumerate(asked.maps):
        # Of one name in several folders, as photographs of several classes often are.
        before = [other.stem for other in asked.maps[:place]].count(photograph.stem)
        name = f"maps-{asked.layer}-{photograph.stem}{f'-{before + 1}' if before else ''}.png"
        print(draw_maps(network, photograph, asked.layer, folder / name))
    chosen = asked.only or (() if asked.maps else tuple(_DRAWN))
    for kind in chosen:
        try:
            print(_DRAWN[kind](network, folder))
        except FigureUnavailable as lacking:
            if asked.only:
                raise ValueError(f"--only {kind}: {lacking}") from None
            print(f"No {kind}: {lacking}")


def draw_maps(network: "Network", photograph: Path, layer: str, path: Path) -> Path:
    """Save the maps of one image by tower; return `path`.

    Raises:
        ValueError: no layer is called that, it has no maps, or the file holds no image.
    """
    output = np.asarray(network.features(network.prepare([photograph]), layer)[layer], np.float32)
    if output.ndim != 4:
        raise ValueError(
            f"--layer {layer}: its {output.shape[-1]:,} outputs are no maps; name a convolution "
            "(conv1), or what follows one (relu1, norm1, pool1)."
        )
    drawn = feature_maps.draw(
        output[0], f"{layer} of {photograph.name}", network.architecture.has_towers
    )
    return plots.save(drawn, path)


def _curves(network: "Network", folder: Path) -> Path:
    from alexnet_jax.training.metrics import read_metrics

    metrics = read_metrics(network.workdir)
    if not metrics:
        raise FigureUnavailable(
            "nothing was recorded in metrics.jsonl; imported weights have no history."
        )
    return plots.curves(metrics, folder / "curves.png")


def _filters(network: "Network", folder: Path) -> Path:
    return plots.filters(_kernel(network), folder / "filters.png", network.architecture.has_towers)


def _predictions(network: "Network", folder: Path) -> Path:
    """Draw images from all over the split that scores are reported on, as at the end of a run."""
    import jax

    from alexnet_jax.data.pipeline import evaluation_batches
    from alexnet_jax.data.wrappers import Subset
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers
    from alexnet_jax.model.preprocess import preprocess

    if "imported" in network.meta:
        raise FigureUnavailable(
            "its weights were imported and it has no images of its own; see predict."
        )
    split = "test" if "test" in network.meta["data"] else "validation"
    try:
        source = network_loading.open_split(network, split)
    except ValueError as error:  # the images have been moved or changed
        raise FigureUnavailable(str(error)) from error
    spread = np.random.default_rng(network.config.seed).permutation(len(source))[:EXAMPLES]
    batch = next(evaluation_batches(Subset(source, spread), network.config.data, len(spread)))
    views = {name: batch[name] for name in ("image", "offset", "mirror")}
    images = preprocess(towers.put_batch(views, network.mesh), network.preprocess)
    last = network.architecture.layers[-1].name
    probabilities = np.asarray(jax.nn.softmax(network.features(images, last)[last]))
    shown = np.flatnonzero(batch["mask"])
    return plots.predictions(
        batch["image"][shown],
        probabilities[shown],
        batch["label"][shown],
        network.class_names,
        folder / "predictions.png",
    )


def _specialization(network: "Network", folder: Path) -> Path:
    from alexnet_jax.analysis import tower_specialization

    if not network.architecture.has_towers:
        raise FigureUnavailable("its network has no towers to compare; name a run of one that has.")
    found = tower_specialization.measure_specialization(_kernel(network))
    path = plots.save(scatter.draw(found), folder / "specialization.png")
    text = json.dumps({"step": network.step, **tower_specialization.as_json(found)}, indent=2)
    path.with_suffix(".json").write_text(text + "\n")
    print(tower_specialization.statement(found))
    return path


def _kernel(network: "Network") -> np.ndarray:
    return np.asarray(network.variables["params"]["conv1"]["kernel"], np.float32)


_DRAWN: dict[Kind, Callable[["Network", Path], Path]] = {
    "curves": _curves,
    "filters": _filters,
    "predictions": _predictions,
    "specialization": _specialization,
}


if __name__ == "__main__":
    sys.exit(main())
