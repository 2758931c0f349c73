"""Inference with the full network, compared with PyTorch in turns on the same machine.

    pip install '.[parity]'
    python experiments/benchmarks/inference.py --batch 128 --json inference.json

Full width, 1,000 classes, 224 pixels, LRN on. alexnet_jax starts from uint8 crops and the mean
image, PyTorch from preprocessed images.

The contestants "from records" also read them, JPEGs of 256 pixels, in two threads or two worker
processes, as `evaluate` does: --path is a folder of class folders; without it images are synthetic.
"""

import argparse
import functools
import itertools
import tempfile
from pathlib import Path

import pipeline
import side_by_side

from alexnet_jax.model.variants import build_architecture


def add_arguments(parser: argparse.ArgumentParser, records: str) -> None:
    """Add the batch size and the images; `records` is the folder of the prepared records."""
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--path", default="", help="a folder of class folders of photographs")
    parser.add_argument("--images", type=int, default=512, help="number of records; images repeat")
    parser.add_argument("--records", default=records, help=argparse.SUPPRESS)


def prepare(args: argparse.Namespace) -> None:
    """Write the records."""
    kind = {"encoding": "jpeg", "subsampling": "4:4:4"}
    pipeline.prepare(argparse.Namespace(**{**vars(args), **kind}))


def alexnet_jax(towers: int, from_records: bool = False):
    """Return the contestant that computes on this number of devices."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import jax

        jax.config.update("jax_num_cpu_devices", towers)  # no effect on a GPU
        import numpy as np

        from alexnet_jax.data import statistics
        from alexnet_jax.data.array_record import ArrayRecords
        from alexnet_jax.data.pipeline import evaluation_batches
        from alexnet_jax.data.wrappers import Resized, Subset
        from alexnet_jax.model import towers as model
        from alexnet_jax.presets import PRESETS
        from alexnet_jax.training.optimizer import paper_sgd
        from alexnet_jax.training.setup import make_preprocess
        from alexnet_jax.training.state import abstract_state
        from alexnet_jax.training.step import make_predict_step

        config, batch = PRESETS["paper"], args.batch
        mesh = model.make_mesh(towers=towers, data=1, batch=batch)
        architecture = build_architecture(config.model, 1000, 224)
        constants = make_preprocess(config.data, vars(statistics.published("imagenet", 256)))
        variables = abstract_state(architecture, paper_sgd(config.optimizer), mesh, 0)[
            0
        ]().variables
        predict_step = make_predict_step(architecture, mesh, constants)
        images = model.put_batch(
            {
                "image": np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8),
                "offset": np.full((batch, 2), 16, np.int32),
                "mirror": np.zeros(batch, bool),
            },
            mesh,
        )

        def batches(steps: int):
            if not from_records:
                yield from itertools.repeat(images, steps)
                return
            records = Resized(ArrayRecords(Path(args.records), "train"), config.data)
            source = Subset(records, np.arange(steps * batch) % len(records))
            for read in evaluation_batches(source, config.data, batch):
                views = {name: read[name] for name in ("image", "offset", "mirror")}
                yield model.put_batch(views, mesh)

        def run(steps: int) -> int:
            for views in batches(steps):
                assert np.isfinite(predict_step(variables, views)).all()
            return steps * batch

        run(1)
        return run

    return make


def pytorch(compiled: bool, fast: bool = False):
    """Return PyTorch's contestant."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import torch_alexnet

        return torch_alexnet.inference(args.batch, compiled, fast)

    return make


def pytorch_from_records(workers: int = 2):
    """Return PyTorch's contestant that reads records in worker processes."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        import warnings

        import torch
        import torch_alexnet
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Worker processes inherit it; the pixels of Pillow are read and never written to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        paths = [str(path) for path in sorted(Path(args.records).glob("train-*"))]
        mean = torch.from_numpy(pipeline.constants()[0])[16:240, 16:240]

        class Dataset(torch.utils.data.Dataset):
            def __init__(self):
                self._records = ArrayRecordDataSource(paths)

            def __len__(self) -> int:
                return len(self._records)

            def __getitem__(self, index: int):
                encoded = memoryview(self._records[index])[4:]
                image = pipeline.view_by_pillow(encoded, 16, 16, False).float()
                return (image - mean).permute(2, 0, 1).contiguous()

        class Order:
            steps = 0

            def __iter__(self):
                numbers = (torch.arange(self.steps * args.batch) % len(dataset)).tolist()
                for start in range(0, len(numbers), args.batch):
                    yield numbers[start : start + args.batch]

        dataset, order = Dataset(), Order()
        loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=order, num_workers=workers, persistent_workers=True
        )
        torch.manual_seed(0)
        call = torch.compile(torch_alexnet.network().eval())

        def run(steps: int) -> int:
            order.steps = steps
            with torch.inference_mode():
                for images in loader:
                    assert torch.isfinite(call(images).softmax(1)).all()
            return steps * args.batch

        run(1)
        return run

    return make


CONTESTANTS = {
    "torch.compile": pytorch(compiled=True),
    "torch eager": pytorch(compiled=False),
    "torch.compile, bf16, channels last": pytorch(compiled=True, fast=True),
    "alexnet_jax, 1 device": alexnet_jax(towers=1),
    "alexnet_jax, 2 devices": alexnet_jax(towers=2),
    "torch.compile, from records": pytorch_from_records(),
    "alexnet_jax, 1 device, from records": alexnet_jax(towers=1, from_records=True),
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        side_by_side.main(
            __file__,
            CONTESTANTS,
            "images/s",
            functools.partial(add_arguments, records=folder),
            steps=4,
            prepare=prepare,
        )
