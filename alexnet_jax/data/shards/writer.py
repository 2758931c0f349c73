"""Shards written by many processes, each from its part of a split, and what is known of each."""

import concurrent.futures
import dataclasses
import io
import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.data import array_record
from alexnet_jax.data.images import Encoding, UnreadableImage, decode, encode
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.shards.manifest import File
from alexnet_jax.data.sources import Source
from alexnet_jax.data.statistics import Sums

MANY = 64  # shards of a split, unless they had fewer than LEAST records, or more than shards.SHARD
LEAST = 256
POLL = 0.5  # seconds between two looks at the progress


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """The records of a split that become one shard."""

    split: str
    number: int
    of: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the shard, by which a reader sees that another is missing."""
        return f"{self.split}.array_record-{self.number:05d}-of-{self.of:05d}"


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What came of a part."""

    file: File
    images: int
    left_out: list[str]  # images that could not be read, with the reasons
    sums: Sums | None  # over the images as they will be read, of the training split


@dataclasses.dataclass(frozen=True)
class WriterContext:
    """What every process knows."""

    root: Path
    squares: Mapping[str, Source]  # by split, all of one size
    size: int  # pixels a side
    encoding: Encoding
    done: Any  # images, a number that processes share
    stop: Any  # an event: end without finishing the shard


class _Stopped(Exception):
    """Another process, or the user, has ended the whole."""


def divide(split: str, records: int) -> list[ShardSpec]:
    """Divide a split into parts, by its size alone: the shards do not depend on the machine."""
    size = min(array_record.SHARD, max(LEAST, math.ceil(records / MANY)))
    starts = range(0, records, size)
    return [
        ShardSpec(split, number, len(starts), start, min(start + size, records))
        for number, start in enumerate(starts)
    ]


def write(
    parts: Sequence[ShardSpec],
    root: Path,
    squares: Mapping[str, Source],
    size: int,
    encoding: Encoding,
    processes: int,
) -> None:
    """Write the shards of some parts to `root`; what `recall` tells of them, to a folder in it.

    Raises OSError where the disk is full, ValueError where a process was killed. What is finished
    by then stays.
    """
    context = multiprocessing.get_context("spawn")  # safe beside the threads of record readers
    job = WriterContext(root, squares, size, encoding, context.Value("q", 0), context.Event())
    images = sum(part.stop - part.start for part in parts)
    with (
        # disable=None: no bar where stderr is no terminal.
        tqdm(total=images, desc="preparing", unit="image", disable=None) as bar,
        _pool(job, min(processes, len(parts)), context) as pool,
    ):
        try:
            waiting = {pool.submit(_write, part) for part in parts}
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, POLL, concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    future.result()
                bar.update(job.done.value - bar.n)
        except BrokenProcessPool as error:
            raise ValueError(
                f"{root}: a process that wrote shards was killed, perhaps for want of memory; give "
                "the same command with fewer --processes, and it goes on."
            ) from error
        finally:
            job.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _pool(job: WriterContext, processes: int, context: Any) -> concurrent.futures.Executor:
    if processes == 1:  # nothing to start, nothing to copy
        return concurrent.futures.ThreadPoolExecutor(1, initializer=_take, initargs=(job,))
    return concurrent.futures.ProcessPoolExecutor(processes, context, _begin, (job,))


def _begin(job: WriterContext) -> None:
    """Prepare a process: Ctrl-C is for the one that started it, whose end is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _take(job)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _take(job: WriterContext) -> None:
    global _job
    _job = job


_job: WriterContext


def _write(part: ShardSpec) -> None:
    """Write a shard, then what is known of it: only with both is it finished."""
    job = _job
    source, left_out = job.squares[part.split], []
    sums = Sums.empty(job.size) if part.split == "train" else None

    def records() -> Iterator[tuple[bytes, int]]:
        for index in range(part.start, part.stop):
            if job.stop.is_set():
                raise _Stopped
            try:
                record = source[index]
            except UnreadableImage as error:
                left_out.append(f"{source.describe(index)}: {error}")
            else:
                encoded = encode(record["image"], job.encoding)
                if sums is not None:
                    sums.add(decode(encoded))  # JPEG has changed it
                yield encoded, record["label"]
            with job.done.get_lock():
                job.done.value += 1

    path = job.root / part.name
    array_record.write_shard(path, records())
    about = {
        "file": shard_manifest.describe(path),
        "images": part.stop - part.start - len(left_out),
        "left_out": left_out,
    }
    moments = {} if sums is None else vars(sums)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, about=json.dumps(about), **moments)
    shard_manifest.write_whole(_sidecar(job.root, part), content.getvalue())


def load_result(root: Path, part: ShardSpec) -> ShardResult | None:
    """Return what is known of a part that is finished; None of any other."""
    path = _sidecar(root, part)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        about = json.loads(str(kept["about"]))
        moments = {name: kept[name] for name in kept.files if name != "about"}
    sums = Sums(int(moments.pop("count")), **moments) if moments else None
    outcome = ShardResult(**about, sums=sums)
    shard = root / part.name
    whole = shard.exists() and shard.stat().st_size == outcome.file["bytes"]
    return outcome if whole else None


def _sidecar(root: Path, part: ShardSpec) -> Path:
    return root / shard_manifest.PROGRESS / f"{part.name}.npz"
