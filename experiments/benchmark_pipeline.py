"""Batches of augmented images out of prepared records, ours and PyTorch's, in turn on one core.

    pip install '.[parity]'
    python experiments/benchmark_pipeline.py --path DIR --encoding jpeg --json pipeline.json

Photographs (or, without --path, the embedded images) are resized to squares of 256 pixels and
written to ArrayRecord, as JPEG or raw. From there every contestant, held to the same core, makes
batches of random crops of 224 pixels, half of them mirrored, with a lighting draw for each: uint8,
ours as arrays on the device, PyTorch's as tensors. Both decode with Pillow. PyTorch's draws what
comes next; ours draws each view from (seed, position), so that a run goes on exactly.

"reader and decoder alone" makes no batches: that time neither side can save. "default threads"
reads ahead: its threads begin with a repetition, and what they have read in vain at its end counts
against it. "plain files" has each record in a file of its own.
"""

import argparse
import contextlib
import functools
import io
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import side_by_side

SIZE, CROP = 256, 224


def add_arguments(parser: argparse.ArgumentParser, records: str) -> None:
    """Add what is read, and how much of it a step takes; `records` is where it is written."""
    parser.add_argument("--path", default="", help="a folder of class folders of photographs")
    parser.add_argument("--encoding", choices=("jpeg", "raw"), default="jpeg")
    parser.add_argument("--images", type=int, default=4096, help="records, if need be of one image")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--core", type=int, default=0, help="the core that all are held to")
    parser.add_argument("--records", default=records, help=argparse.SUPPRESS)


def prepare(asked: argparse.Namespace) -> None:
    """Write the images as records, and each as a file too."""
    from alexnet_jax.data.augment import resize_centre
    from alexnet_jax.data.decode import encode
    from alexnet_jax.data.embedded import Embedded
    from alexnet_jax.data.shards import write_array_records
    from alexnet_jax.data.sources import Folder

    source = Folder(Path(asked.path)) if asked.path else Embedded("train")
    different = []
    for index in range(min(asked.images, len(source))):
        record = source[index]
        square = resize_centre(record["image"], SIZE)
        different.append((encode(square, asked.encoding), record["label"]))
    records = [different[index % len(different)] for index in range(asked.images)]
    for index, (encoded, _) in enumerate(records):
        Path(asked.records, f"{index}.image").write_bytes(encoded)
    write_array_records(Path(asked.records), "train", records, source.class_names)
    mean = sum(len(encoded) for encoded, _ in records) / len(records)
    print(f"{len(records):,} records of {len(different):,} images, of {mean:,.0f} bytes each")


def floor(asked: argparse.Namespace) -> side_by_side.Run:
    """Return the contestant that reads and decodes records, and does nothing with them."""
    os.sched_setaffinity(0, {asked.core})
    import grain
    import numpy as np
    from PIL import Image

    paths = [str(path) for path in sorted(Path(asked.records).glob("train-*"))]
    records = grain.sources.ArrayRecordDataSource(paths)
    indices = itertools.cycle(np.random.default_rng(0).permutation(len(records)).tolist())

    def run(steps: int) -> int:
        for index in itertools.islice(indices, steps * asked.batch):
            record = records[index]
            if asked.encoding == "jpeg":
                Image.open(io.BytesIO(memoryview(record)[4:])).load()
        return steps * asked.batch

    run(1)
    return run


def ours(threads: int):
    """Return the contestant that reads in so many threads, 0 for none beside the main one."""

    def make(asked: argparse.Namespace) -> side_by_side.Run:
        os.sched_setaffinity(0, {asked.core})  # before there are threads, which inherit it
        import jax

        from alexnet_jax.config import DataConfig
        from alexnet_jax.data.pipeline import training_batches
        from alexnet_jax.data.shards import ArrayRecords
        from alexnet_jax.data.views import Resized
        from alexnet_jax.model import towers

        config = DataConfig(image_size=SIZE, crop=CROP, threads=threads)
        source = Resized(ArrayRecords(Path(asked.records), "train"), config)
        mesh = towers.make_mesh(towers=1, data=1, batch=asked.batch)

        def run(steps: int) -> int:
            with contextlib.closing(training_batches(source, config, 0, asked.batch)) as batches:
                for batch in itertools.islice(batches, steps):
                    jax.block_until_ready(towers.put_batch(batch, mesh))
            return steps * asked.batch

        run(1)
        return run

    return make


def torchs(workers: int, files: bool = False):
    """Return PyTorch's contestant, with so many worker processes, 0 for the main one alone."""

    def make(asked: argparse.Namespace) -> side_by_side.Run:
        os.sched_setaffinity(0, {asked.core})  # before there are processes, which inherit it
        import warnings

        import torch
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Of tensors over the bytes of a record: nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
        paths = [str(path) for path in sorted(Path(asked.records).glob("train-*"))]
        view = _view_of_raw if asked.encoding == "raw" else _view_of_jpeg

        class Dataset(torch.utils.data.Dataset):
            def __init__(self):
                self._records = ArrayRecordDataSource(paths)

            def __len__(self) -> int:
                return len(self._records)

            def __getitem__(self, index: int):
                if files:
                    label, encoded = 0, Path(asked.records, f"{index}.image").read_bytes()
                else:
                    record = self._records[index]
                    label = int.from_bytes(record[:4], "little", signed=True)
                    encoded = memoryview(record)[4:]
                return view(encoded), label, 0.1 * torch.randn(3)

        class Order:
            """As many batches of a shuffled data set as a repetition has steps."""

            def __init__(self, number: int):
                self.number, self.steps = number, 0

            def __iter__(self) -> Iterator[list[int]]:
                for _ in range(self.steps):
                    yield torch.randint(self.number, (asked.batch,)).tolist()

        dataset = Dataset()
        order = Order(len(dataset))
        loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=order, num_workers=workers, persistent_workers=workers > 0
        )

        def run(steps: int) -> int:
            order.steps = steps
            return sum(len(images) for images, _, _ in loader)

        run(1)
        return run

    return make


def _view_of_jpeg(encoded: bytes | memoryview):
    import numpy as np
    import torch
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    if image.mode != "RGB":
        image = image.convert("RGB")
    top, left, mirror = _place()
    # Before it leaves Pillow, whose crop and mirror are faster on four bytes a pixel.
    image = image.crop((left, top, left + CROP, top + CROP))
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.asarray(image))


def _view_of_raw(encoded: bytes | memoryview):
    import torch

    pixels = torch.frombuffer(encoded, dtype=torch.uint8, offset=len(encoded) - SIZE * SIZE * 3)
    top, left, mirror = _place()
    square = pixels.view(SIZE, SIZE, 3)[top : top + CROP, left : left + CROP]
    return square.flip(1) if mirror else square


def _place() -> tuple[int, int, bool]:
    import torch

    top, left, mirror = torch.randint(2 * (SIZE - CROP + 1), (3,)).tolist()
    return top // 2, left // 2, mirror % 2 == 1


CONTESTANTS = {
    "torch, 0 workers": torchs(workers=0),
    "torch, 1 worker": torchs(workers=1),
    "torch, plain files, 0 workers": torchs(workers=0, files=True),
    "ours": ours(threads=0),
    "ours, default threads": ours(threads=2),
    "reader and decoder alone": floor,
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        side_by_side.main(
            __file__,
            CONTESTANTS,
            "images/s",
            functools.partial(add_arguments, records=folder),
            steps=32,
            prepare=prepare,
        )
