"""Batches of augmented images from prepared records, compared with PyTorch in turns on one core.

    pip install '.[parity]'
    python experiments/benchmarks/pipeline.py --path DIR --encoding jpeg --json pipeline.json

Photographs (or, without --path, the synthetic images) are resized to squares of 256 pixels and
written to ArrayRecord, as JPEG or raw. From there every contestant, pinned to the same core, makes
the network's input: random crops of 224 pixels, half of them flipped, minus the mean of their
pixels, with PCA lighting (P4.1), float32; alexnet_jax on the device, PyTorch as tensors. PyTorch
draws random numbers as it goes; alexnet_jax draws each view from (seed, position), so that a run
resumes exactly.

alexnet_jax decodes JPEGs with simplejpeg (libjpeg-turbo), PyTorch with Pillow, as nearly all
PyTorch programs do, and with simplejpeg too where a contestant says so.

"torch" processes image by image in its data set, as nearly all PyTorch programs do, but leaner: in
place, flipped as bytes, without torchvision transforms. "torch, finished by batch" makes batches of
bytes, as alexnet_jax does, and processes whole batches. Both then write the floats to the memory of
the batch before, as a training step does, which gets no fresh pages from the system. The two
contestants that end in "bytes" omit that processing, alexnet_jax also the flip, which runs on the
device.

"reader and decoder alone" makes no batches: it is a lower bound of the time. "default threads"
reads ahead: its threads start with a repetition, and images that it has read ahead in vain at the
end count against it. "plain files" has each record in its own file.
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
from typing import Literal

import side_by_side

SIZE, CROP = 256, 224


def add_arguments(parser: argparse.ArgumentParser, records: str) -> None:
    """Add the images and the batch size; `records` is the folder of the prepared records."""
    parser.add_argument("--path", default="", help="a folder of class folders of photographs")
    parser.add_argument("--encoding", choices=("jpeg", "raw"), default="jpeg")
    parser.add_argument("--subsampling", choices=("4:4:4", "4:2:0"), default="4:4:4")
    parser.add_argument("--images", type=int, default=4096, help="number of records; images repeat")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--core", type=int, default=0, help="the core that all are pinned to")
    parser.add_argument("--records", default=records, help=argparse.SUPPRESS)


def prepare(args: argparse.Namespace) -> None:
    """Write the images as records, and each one also as a file."""
    from alexnet_jax.data.array_record import write_array_records
    from alexnet_jax.data.crops import resize_center
    from alexnet_jax.data.images import encode
    from alexnet_jax.data.sources import Folder
    from alexnet_jax.data.synthetic import Synthetic

    source = Folder(Path(args.path)) if args.path else Synthetic("train")
    distinct = []
    for index in range(min(args.images, len(source))):
        record = source[index]
        square = resize_center(record["image"], SIZE)
        encoded = encode(square, args.encoding, args.subsampling)
        distinct.append((encoded, record["label"]))
    records = [distinct[index % len(distinct)] for index in range(args.images)]
    for index, (encoded, _) in enumerate(records):
        Path(args.records, f"{index}.image").write_bytes(encoded)
    write_array_records(Path(args.records), "train", records, source.class_names)
    mean = sum(len(encoded) for encoded, _ in records) / len(records)
    print(f"{len(records):,} records of {len(distinct):,} images, {mean:,.0f} bytes each")


def floor(args: argparse.Namespace) -> side_by_side.Run:
    """Return the contestant that only reads and decodes records."""
    os.sched_setaffinity(0, {args.core})
    import grain
    import numpy as np
    import simplejpeg

    paths = [str(path) for path in sorted(Path(args.records).glob("train-*"))]
    records = grain.sources.ArrayRecordDataSource(paths)
    indices = itertools.cycle(np.random.default_rng(0).permutation(len(records)).tolist())

    def run(steps: int) -> int:
        for index in itertools.islice(indices, steps * args.batch):
            record = records[index]
            if args.encoding == "jpeg":
                simplejpeg.decode_jpeg(memoryview(record)[4:])
        return steps * args.batch

    run(1)
    return run


def constants():
    """Return a mean image, float32 [SIZE, SIZE, 3], and axes of PCA lighting, float32 [3, 3]."""
    import numpy as np

    rng = np.random.default_rng(0)
    mean = rng.uniform(90, 130, (SIZE, SIZE, 3)).astype(np.float32)
    return mean, rng.normal(0, 20, (3, 3)).astype(np.float32)


def alexnet_jax(threads: int = 0, finished: bool = True):
    """Return the contestant that reads in this number of threads; 0: in the main one."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        os.sched_setaffinity(0, {args.core})  # threads inherit it
        import jax
        import jax.numpy as jnp

        from alexnet_jax.config import DataConfig
        from alexnet_jax.data.array_record import ArrayRecords
        from alexnet_jax.data.pipeline import training_batches
        from alexnet_jax.data.wrappers import Resized
        from alexnet_jax.model import preprocess, towers

        config = DataConfig(image_size=SIZE, crop=CROP, threads=threads)
        source = Resized(ArrayRecords(Path(args.records), "train"), config)
        mesh = towers.make_mesh(towers=1, data=1, batch=args.batch)
        arrays = preprocess.Preprocess(*map(jnp.asarray, constants()), scale=jnp.ones(3))

        @functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
        def finish(_, batch):
            return preprocess.preprocess(batch, arrays)

        def run(steps: int) -> int:
            result = jnp.zeros((args.batch, CROP, CROP, 3))
            with contextlib.closing(training_batches(source, config, 0, args.batch)) as batches:
                for batch in itertools.islice(batches, steps):
                    on_device = towers.put_batch(batch, mesh)
                    result = jax.block_until_ready(
                        finish(result, on_device) if finished else on_device
                    )
            return steps * args.batch

        run(1)
        return run

    return make


class Order:
    """Random batches for PyTorch's loader, as many as a repetition has steps."""

    def __init__(self, number: int, batch: int):
        self.number, self.batch, self.steps = number, batch, 0

    def __iter__(self) -> Iterator[list[int]]:
        import torch

        for _ in range(self.steps):
            yield torch.randint(self.number, (self.batch,)).tolist()


def pytorch(
    workers: int = 0,
    files: bool = False,
    finished: Literal["by image", "by batch", "no"] = "by image",
    decoder: Literal["Pillow", "simplejpeg"] = "Pillow",
):
    """Return PyTorch's contestant with worker processes; 0: only the main one."""

    def make(args: argparse.Namespace) -> side_by_side.Run:
        os.sched_setaffinity(0, {args.core})  # processes inherit it
        import warnings

        import torch
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Tensors share memory with the bytes of a record, which are never written to.
        warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
        paths = [str(path) for path in sorted(Path(args.records).glob("train-*"))]
        view = _view_of_raw if args.encoding == "raw" else VIEWS_OF_JPEG[decoder]
        mean, axes = map(torch.from_numpy, constants())
        means = {False: mean, True: mean.flip(1)}

        class Dataset(torch.utils.data.Dataset):
            def __init__(self):
                self._records = ArrayRecordDataSource(paths)

            def __len__(self) -> int:
                return len(self._records)

            def __getitem__(self, index: int):
                if files:
                    label, encoded = 0, Path(args.records, f"{index}.image").read_bytes()
                else:
                    record = self._records[index]
                    label = int.from_bytes(record[:4], "little", signed=True)
                    encoded = memoryview(record)[4:]
                place, light = _place(), 0.1 * torch.randn(3)
                square = view(encoded, *place)
                if finished != "by image":
                    return square, label, place, light
                top, left, mirror = place
                left = SIZE - CROP - left if mirror else left
                image = square.float()
                image -= means[mirror][top : top + CROP, left : left + CROP]
                # Row by row is faster than adding 3 numbers to each pixel; see RESULTS.md.
                image.view(CROP, -1).add_((axes @ light).repeat(CROP))
                return image, label

        floats = torch.empty(args.batch, CROP, 3 * CROP)

        def finish(images, places, lights):
            """Do what `preprocess.preprocess` does, by slices: a compiled gather is slower."""
            batch = floats[: len(images)]
            colors = (lights @ axes.T).repeat(1, CROP)
            for number, place in enumerate(zip(*(p.tolist() for p in places), strict=True)):
                top, left, mirror = place
                left = SIZE - CROP - left if mirror else left
                rows = means[mirror].view(SIZE, -1)[top : top + CROP, 3 * left : 3 * (left + CROP)]
                torch.sub(images[number].view(CROP, -1), rows, out=batch[number])
                batch[number] += colors[number]
            return batch

        dataset = Dataset()
        order = Order(len(dataset), args.batch)
        loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=order, num_workers=workers, persistent_workers=workers > 0
        )

        def run(steps: int) -> int:
            order.steps = steps
            images = 0
            for batch in loader:
                if finished == "by batch":
                    finish(batch[0], batch[2], batch[3])
                images += len(batch[0])
            return images

        run(1)
        return run

    return make


def view_by_pillow(encoded: bytes | memoryview, top: int, left: int, mirror: bool):
    """Return a crop of a JPEG, uint8 [CROP, CROP, 3], as PyTorch programs make it."""
    import numpy as np
    import torch
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    if image.mode != "RGB":
        image = image.convert("RGB")
    # Pillow stores four bytes a pixel, which makes its crop and flip faster.
    image = image.crop((left, top, left + CROP, top + CROP))
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.asarray(image))


def _view_by_simplejpeg(encoded: bytes | memoryview, top: int, left: int, mirror: bool):
    import simplejpeg
    import torch

    pixels = torch.from_numpy(simplejpeg.decode_jpeg(encoded))
    square = pixels[top : top + CROP, left : left + CROP]
    return square.flip(1) if mirror else square


VIEWS_OF_JPEG = {"Pillow": view_by_pillow, "simplejpeg": _view_by_simplejpeg}


def _view_of_raw(encoded: bytes | memoryview, top: int, left: int, mirror: bool):
    import torch

    pixels = torch.frombuffer(encoded, dtype=torch.uint8, offset=len(encoded) - SIZE * SIZE * 3)
    square = pixels.view(SIZE, SIZE, 3)[top : top + CROP, left : left + CROP]
    return square.flip(1) if mirror else square


def _place() -> tuple[int, int, bool]:
    import torch

    top, left, mirror = torch.randint(2 * (SIZE - CROP + 1), (3,)).tolist()
    return top // 2, left // 2, mirror % 2 == 1


CONTESTANTS = {
    "torch, 0 workers": pytorch(),
    "torch, 1 worker": pytorch(workers=1),
    "torch, plain files, 0 workers": pytorch(files=True),
    "torch, finished by batch, 0 workers": pytorch(finished="by batch"),
    "torch, simplejpeg, 0 workers": pytorch(decoder="simplejpeg"),
    "torch, simplejpeg, finished by batch, 0 workers": pytorch(
        finished="by batch", decoder="simplejpeg"
    ),
    "torch, bytes": pytorch(finished="no"),
    "alexnet_jax": alexnet_jax(),
    "alexnet_jax, default threads": alexnet_jax(threads=2),
    "alexnet_jax, bytes": alexnet_jax(finished=False),
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
