"""Import weights as a run, or export a run's: `python -m alexnet_jax.pretrained --from FILE`.

FILE may also be the name of published weights, which are downloaded: `--from torchvision`.
"""

import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from alexnet_jax.cli.arguments import given_options, option_name, parse_command, peek_option
from alexnet_jax.cli.errors import option_names, run_command, with_options
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import DataConfig, ModelConfig, Preset, flatten, invalid
from alexnet_jax.presets import PRESETS
from alexnet_jax.weights import published

PROGRAM = "python -m alexnet_jax.pretrained"
IMPORT_ONLY = ("preset", "class_names", "mean", "key", "head", "partial", "no_kernel_flip")
SECTIONS = ("model", "data")


@dataclasses.dataclass(frozen=True)
class Command:
    """Make a run of weights (--from), or write a run's weights to a file (--to).

    Weights are those of a file, or published ones: torchvision, bvlc_alexnet or caffenet, which are
    downloaded once. ALEXNET_JAX_CACHE is the folder that keeps them, by default the user's cache.

    Arrays do not show everything about their network: what is assumed is printed, and --preset,
    --model.* and --data.* say otherwise. The defaults printed for these are those of --preset.
    """

    # folder of the run, which --from creates and --to reads
    workdir: Path | None = None
    # name of published weights (--list), or a path (./torchvision is one): torchvision's .pth, a
    # checkpoint with such weights, .safetensors (or its shards), .caffemodel, bvlc_alexnet.npy,
    # .npz with conv1_w and so on, or a folder of theano_alexnet's .npy files
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="NAME|PATH")] = None
    # a .safetensors file (torchvision's names if the network has no towers, otherwise conv1_w and
    # so on) or an .npz file (conv1_w and so on); its folder is made if missing
    to: Path | None = None
    # --from: preset whose network the weights are of; by default inferred from the file, which is
    # impossible for .npz files of other programs
    preset: Preset | None = None
    # list the published weights: name, size, digest, published accuracy, license and source
    list: bool = False
    # --from: text file with the name of a class on each line, or a list or dictionary of them, or
    # imagenet (ImageNet's 1,000 in their order, which published weights have anyway); by default
    # class 0, class 1, ...
    class_names: Annotated[str | None, tyro.conf.arg(metavar="imagenet|PATH")] = None
    # --from: mean image: a run's statistics.npz, or an .npy or .binaryproto file with colors in the
    # order of the weights; by default the published mean color, or the file's own
    mean: Path | None = None
    # --from: entry of a checkpoint that holds the weights, such as ema, if several do
    key: str = ""
    # --from: name of the last layer, if it is not fc8 and cannot be found by its shape
    head: str = ""
    # merge two towers into one network, or split a network whose towers are not connected
    towers: Literal["keep", "merge", "split"] = "keep"
    # --from: import the arrays that match and leave the rest at initial values
    partial: bool = False
    # --from: do not flip Theano's kernels, as they were trained with lib_conv: cudaconvnet
    no_kernel_flip: bool = False
    # --from: the network that the weights are of
    model: tyro.conf.FlagConversionOff[ModelConfig] = dataclasses.field(default_factory=ModelConfig)
    # --from: the images that the weights need; data.channels is the order that conv1 sees
    data: tyro.conf.FlagConversionOff[DataConfig] = dataclasses.field(default_factory=DataConfig)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        command, fields = parse(sys.argv[1:] if args is None else args)
        if command.list:
            if command.source or command.to or command.workdir:
                raise ValueError("--list: must be given alone; leave out the others.")
            print(published.describe())
            return
        if command.workdir is None:
            raise ValueError("Missing: --workdir (folder of the run); see --help.")
        if (command.source is None) == (command.to is None):
            raise ValueError("--from, --to: must be exactly one of the two; see --help.")
        if command.to is None:
            import_weights(command, command.workdir, fields)
        else:
            export_weights(command, command.workdir, command.to, fields)

    interrupted = (
        "interrupted; run the same command again to continue a download; a --workdir or file that "
        "was begun has to be removed before."
    )
    names = {"path": "--to", "kernel_flip=False": "--no-kernel-flip"}
    return run_command(run, Command, interrupted, names)


def parse(args: Sequence[str]) -> tuple[Command, dict[str, Any]]:
    """Return the command, and the fields of the network and its images that are given.

    Raises:
        ValueError: an option is unknown or wrong.
    """
    base = PRESETS.get(peek_option(args, "--preset") or "", PRESETS["torchvision"])
    default = Command(model=base.model, data=base.data)
    command = parse_command(Command, args, PROGRAM, default)
    given = given_options(args)
    config = flatten(dataclasses.replace(base, model=command.model, data=command.data))
    fields = {
        name: value
        for name, value in config.items()
        if name.partition(".")[0] in SECTIONS and option_name(name) in given
    }
    return command, fields


def import_weights(args: Command, workdir: Path, fields: Mapping[str, Any]) -> None:
    """Make `workdir` of the weights in `--from`; `fields` are not those of the preset."""
    # JAX takes seconds to import, which --help need not wait for.
    from alexnet_jax.weights import files, run_folder
    from alexnet_jax.weights.import_plan import plan_import

    assert args.source is not None
    run_folder.check_empty(workdir)
    options: dict[str, Any] = dict(
        preset=args.preset or "",
        fields=fields,
        class_names=_read_class_names(args.class_names),
        mean=files.read_mean(args.mean) if args.mean else None,
        towers=args.towers,
        partial=args.partial,
        kernel_flip=not args.no_kernel_flip,
    )
    accuracy = ""
    if published.is_name(args.source):
        entry = published.find(args.source)
        source, accuracy = published.fetch(entry), f" Published accuracy: {entry.accuracy}."
        plan = published.plan(entry, source, key=args.key, head=args.head, **options)
    else:
        source = Path(args.source)
        _check_exists(args.source)
        plan = plan_import(files.read(source, args.key, args.head), **options)
    run_folder.make(plan, source, workdir)
    count = sum(array.size for kinds in plan.params.values() for array in kinds.values())
    data, variant, preset = plan.config.data, plan.config.model.variant, plan.config.preset
    network = variant if variant == preset else f"{variant} ({preset})"
    print(
        f"{workdir}: {count:,} parameters from {source}, {network}, "
        f"{len(plan.class_names):,} classes; images are resized to {data.image_size} pixels "
        f"({data.resize}, {data.filter}), cropped to {data.crop}, {data.channels.upper()}, minus "
        f"the {data.mean} mean{_divisors(plan.statistics.scale)}.{accuracy}"
    )
    for note in plan.notes:
        print(with_options(note, option_names(Command)))


def _read_class_names(source: str | None) -> list[str]:
    """Return the names in a file, or ImageNet's; none if there is no source."""
    from alexnet_jax.weights import class_names

    if source is None:
        return []
    if source != "imagenet":
        return class_names.read(Path(source))
    if Path(source).exists():
        note = "imagenet: ImageNet's class names are used; ./imagenet is what lies in this folder."
        print(note, file=notes())
    return class_names.imagenet()


def _check_exists(source: str) -> None:
    """Raise a ValueError if nothing is there and published weights may have been meant."""
    if Path(source).exists() or (source != Path(source).name and Path(source).parent.is_dir()):
        return
    by_file = {entry.file: name for name, entry in published.PUBLISHED.items()}
    close = difflib.get_close_matches(source.lower(), [*published.PUBLISHED, *by_file], n=1)
    names = [by_file.get(text, text) for text in close]
    rule = f"no such file, and no published weights, which are {', '.join(published.PUBLISHED)}"
    remedy = f"try {names[0]}, which is downloaded" if names else "correct the path or the name"
    raise invalid("--from", source, rule, remedy)


def _divisors(scale: Iterable[float]) -> str:
    """Return what images are divided by after the mean is subtracted, if it is not 1."""
    if all(factor == 1 for factor in scale):
        return ""
    return f", divided by {', '.join(f'{1 / factor:.4g}' for factor in scale)}"


def export_weights(args: Command, workdir: Path, to: Path, fields: Mapping[str, Any]) -> None:
    """Write the weights of the run in `workdir` to `to`."""
    import jax

    from alexnet_jax.data.statistics import Statistics
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers
    from alexnet_jax.weights import convert, files
    from alexnet_jax.weights.merge import change_towers
    from alexnet_jax.weights.metadata import export_metadata

    files.check_target(to)
    if given := [*(name for name in IMPORT_ONLY if getattr(args, name)), *fields]:
        raise ValueError(f"{option_name(given[0])}: must be given with --from; leave it out.")
    network = load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1))
    network.check_trained()
    params = jax.device_get(network.variables["params"])
    config, architecture, params = change_towers(
        network.config, network.architecture, params, args.towers
    )
    metadata = export_metadata(config, Statistics(**network.statistics), network.class_names)
    has_groups = any(layer.sees == "own" for layer in architecture.layers)
    names = "plain" if has_groups or to.suffix == ".npz" else "torchvision"
    files.write(to, convert.from_params(params, architecture, names, metadata))
    first = "conv1_w" if names == "plain" else "features.0.weight, as in torchvision"
    print(f"{to}: the weights of {workdir}, with names such as {first}.")
    if config.data.mean != "channel":
        print(
            "The file has the mean color, and not the mean image; to use the image, import with "
            f"--mean {workdir / 'statistics.npz'}."
        )


if __name__ == "__main__":
    sys.exit(main())
