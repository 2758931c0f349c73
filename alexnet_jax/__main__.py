"""The list of commands: `python -m alexnet_jax`; `alexnet-jax NAME ...` runs one of them."""

import contextlib
import difflib
import runpy
import sys

from alexnet_jax import __version__
from alexnet_jax.cli import streams

COMMANDS = {
    "main": "train a network, or resume a run",
    "evaluate": "compute the error of one network, or of several together",
    "predict": "name what photographs show",
    "explain": "show what in a photograph speaks for a class",
    "features": "write what any layers answer to images",
    "retrieve": "find the images of a folder that are most like a photograph",
    "describe": "print a network layer by layer, and compare it with the paper",
    "figures": "draw curves, filters, predictions and feature maps of a run",
    "pretrained": "import or export weights of Caffe, torchvision, Theano and NumPy",
    "export": "write a network as one ONNX or StableHLO program",
    "prepare": "resize images once into shards, for example ImageNet's",
}

HINTS = {
    "train": "main",
    "eval": "evaluate",
    "test": "evaluate",
    "classify": "predict",
    "onnx": "export",
}


def usage() -> str:
    """Return the commands, one a line."""
    lines = [f"  python -m alexnet_jax.{name:10}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(["AlexNet (2012) in JAX. Commands (each has --help):", *lines])


def main() -> int:
    """Run the command named by the first argument as `python -m` does; list all if none is."""
    streams.open_closed_streams()
    name, args = sys.argv[1:2], sys.argv[2:]
    if not name or name[0] in ("-h", "--help", "help", "-V", "--version"):
        with streams.guarded_streams(needs_output=True) as output:
            with contextlib.suppress(OSError):  # which the next line reports
                print(__version__ if name and name[0] in ("-V", "--version") else usage())
            return output.end(0)
    if name[0] not in COMMANDS:
        close = difflib.get_close_matches(name[0], COMMANDS, n=1, cutoff=0.0)[0]
        nearest = HINTS.get(name[0], close)
        streams.print_error(f"{name[0]}: no such command; try {nearest}.")
        return 2
    module = f"alexnet_jax.{name[0]}"
    # A command may start its process again, by these arguments (main does, for large pages).
    sys.orig_argv = [sys.executable, "-m", module, *args]
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
