"""Write a network as one file that runs elsewhere: `python -m alexnet_jax.export --to net.onnx`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one, run_of
from alexnet_jax.config import PublishedName, invalid

PROGRAM = "python -m alexnet_jax.export"
SUFFIXES = (".onnx", ".stablehlo")


@dataclasses.dataclass(frozen=True)
class Command:
    """Write a run's network, weights and preprocessing as one program for other software."""

    # file to write: .onnx for ONNX Runtime and others, .stablehlo for `jax.export.deserialize`; its
    # folder is made if missing
    to: Path
    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # latest: the last checkpoint; best: the one with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> None:
        export(parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM))

    return run_command(run, Command, "interrupted; nothing was written.", needs_output=False)


def export(args: Command) -> None:
    """Write the program to `--to`, and print what it takes and returns."""
    check_one(args.workdir, args.weights)
    _check_target(args.to)

    import jax

    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers
    from alexnet_jax.storage import atomic

    workdir = run_of(args.workdir, args.weights)
    network = load_network(workdir, towers.make_mesh(towers=1, data=1, batch=1), args.checkpoint)
    network.check_trained()
    params = jax.device_get(network.params)
    data = network.config.data
    fixed = network.architecture, params, jax.device_get(network.constants), data.image_size
    if args.to.suffix == ".onnx":
        from alexnet_jax.data.statistics import Statistics
        from alexnet_jax.weights import onnx_graph
        from alexnet_jax.weights.metadata import export_metadata

        statistics = Statistics(**network.statistics)
        metadata = export_metadata(network.config, statistics, network.class_names)
        del metadata["format"]  # of safetensors
        content = onnx_graph.build_model(*fixed, metadata).SerializeToString()
    else:
        from alexnet_jax.weights import stablehlo

        content = stablehlo.build_program(*fixed)
    atomic.make_parent(args.to, "to")
    atomic.write_bytes(args.to, content)
    print(
        f"{args.to}: {len(content) / 1e6:,.1f} MB. Input: uint8 [N, {data.image_size}, "
        f"{data.image_size}, 3], RGB, resized ({data.resize}, {data.filter}); output: "
        f"probabilities [N, {len(network.class_names)}]."
    )


def _check_target(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise invalid("to", path, "must end in .onnx or .stablehlo", f"try {path.stem}.onnx")
    if path.exists():
        raise invalid("to", path, "exists already", "name another file, or remove it")
    if path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
        except ImportError:
            rule = "needs the package onnx"
            raise invalid("to", path, rule, "run pip install '.[export]'") from None


if __name__ == "__main__":
    sys.exit(main())
