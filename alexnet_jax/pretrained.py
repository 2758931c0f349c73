"""Import weights as a run, or export a run's: `python -m alexnet_jax.pretrained --from FILE`."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.config import Preset

PROGRAM = "python -m alexnet_jax.pretrained"


@dataclasses.dataclass(frozen=True)
class Command:
    """Make a run of somebody's weights (--from), or write a run's weights to a file (--to)."""

    # folder of the run: made by --from, read by --to
    workdir: Path
    # torchvision's .pth, .safetensors, .caffemodel, bvlc_alexnet.npy, .npz with conv1_w and so on,
    # or a folder of theano_alexnet's .npy files
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    # .safetensors (torchvision's names where there are no towers, conv1_w and so on where there
    # are) or .npz (conv1_w and so on)
    to: Path | None = None
    # --from: the network that they are of, a preset; without it the file tells, but for .npz
    model: Preset | None = None
    # --from: text file with the name of a class on each line; without it class 0, class 1, ...
    class_names: Path | None = None
    # --from: mean image: a run's statistics.npz, or .npy or .binaryproto with colors in the order
    # that the weights see; without it the published mean color, or the file's own
    mean: Path | None = None
    # merge two towers into one network, split a network whose towers do not see each other
    towers: Literal["keep", "merge", "split"] = "keep"
    # --from: take what there is, leaving the rest at initial values
    partial: bool = False
    # --from: Theano's kernels were trained without being mirrored (lib_conv: cudaconvnet)
    unflipped: bool = False


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        arguments = sys.argv[1:] if args is None else args
        asked = parse_command(Command, arguments, PROGRAM)
        if (asked.source is None) == (asked.to is None):
            raise ValueError("--from, --to: one of the two says what to do; give one of them.")
        (import_weights if asked.to is None else export_weights)(asked)

    return run_command(run, Command, "interrupted; remove what it left, and run the command again.")


def import_weights(asked: Command) -> None:
    """Make `--workdir` of the weights in `--from`."""
    # JAX takes seconds to import, which --help need not wait for.
    from alexnet_jax.weights import files, imported, run_folder

    assert asked.source is not None
    run_folder.check_empty(asked.workdir)
    names = asked.class_names.read_text().splitlines() if asked.class_names else ()
    found = imported.prepare_import(
        files.read(asked.source),
        model=asked.model or "",
        class_names=names,
        mean=files.read_mean(asked.mean) if asked.mean else None,
        towers=asked.towers,
        partial=asked.partial,
        flip=not asked.unflipped,
    )
    run_folder.make(found, asked.source, asked.workdir)
    count = sum(array.size for kinds in found.params.values() for array in kinds.values())
    data, variant, preset = found.config.data, found.config.model.variant, found.config.preset
    network = variant if variant == preset else f"{variant} ({preset})"
    print(
        f"{asked.workdir}: {count:,} parameters of {asked.source}, {network}, "
        f"{len(found.class_names):,} classes; its images are resized to "
        f"{data.image_size} pixels ({data.resize}, {data.filter}), cropped to {data.crop}, "
        f"{data.channels.upper()}, less their {data.mean} mean{_scale(found.statistics.scale)}."
    )
    for note in found.notes:
        print(note)


def _scale(scale: Iterable[float]) -> str:
    """Return what is done to images less the mean, where something is."""
    if all(factor == 1 for factor in scale):
        return ""
    return f", divided by {', '.join(f'{1 / factor:.4g}' for factor in scale)}"


def export_weights(asked: Command) -> None:
    """Write the weights of `--workdir` to `--to`."""
    import jax

    from alexnet_jax.data.statistics import Statistics
    from alexnet_jax.inference import network as network_loading
    from alexnet_jax.model import towers
    from alexnet_jax.weights import convert, files, imported

    assert asked.to is not None
    files.check_target(asked.to)
    given = [
        n for n in ("model", "class_names", "mean", "partial", "unflipped") if getattr(asked, n)
    ]
    if given:
        raise ValueError(
            f"--{given[0].replace('_', '-')}: it goes with --from; leave it out with --to."
        )
    run = network_loading.load_network(asked.workdir, towers.make_mesh(towers=1, data=1, batch=1))
    params = jax.device_get(run.variables["params"])
    config, architecture, params = imported.change_towers(
        run.config, run.architecture, params, asked.towers
    )
    described = imported.export_metadata(config, Statistics(**run.statistics), run.class_names)
    own = any(layer.sees == "own" for layer in architecture.layers)
    named = "plain" if own or asked.to.suffix == ".npz" else "torchvision"
    files.write(asked.to, convert.from_params(params, architecture, named, described))
    first = "conv1_w" if named == "plain" else "features.0.weight, as torchvision does"
    print(f"{asked.to}: the weights of {asked.workdir}, with names such as {first}.")
    if config.data.mean != "channel":
        print(
            "The mean image stays behind, its mean color went along: to use the whole image, "
            f"import with --mean {asked.workdir / 'statistics.npz'}."
        )


if __name__ == "__main__":
    sys.exit(main())
