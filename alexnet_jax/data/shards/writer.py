"""Shards written by several processes, each shard from its part of a split."""

import concurrent.futures
import dataclasses
import functools
import io
import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from alexnet_jax.data import array_record
from alexnet_jax.data.images import Encoding, Subsampling, UnreadableImage, decode, encode
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.shards.manifest import FileEntry
from alexnet_jax.data.sources import Source
from alexnet_jax.data.statistics import Sums
from alexnet_jax.storage import atomic

SHARDS_PER_SPLIT = 64  # unless they had fewer than MIN_RECORDS or more than RECORDS_PER_SHARD
MIN_RECORDS = 256
POLL_SECONDS = 0.5  # between updates of the progress bar


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """The records of a split that become one shard."""

    split: str
    number: int
    total: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of the shard, from which a reader can tell that another one is missing."""
        return f"{self.split}.array_record-{self.number:05d}-of-{self.total:05d}"


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What was written of a ShardSpec."""

    file: FileEntry
    images: int
    left_out: list[str]  # unreadable images, with the reasons
    sums: Sums | None  # of the training split, over the images as they will be read


@dataclasses.dataclass(frozen=True)
class WriterContext:
    """What writing any shard needs."""

    root: Path
    squares: Mapping[str, Source]  # by split, all of one size
    size: int  # side, pixels
    encoding: Encoding
    subsampling: Subsampling
    num_done: Any  # images, a counter that processes share
    stop: Any  # an event: end without finishing the shard


class _Stopped(Exception):
    """Another process, or the user, has stopped all."""


def divide(split: str, records: int) -> list[ShardSpec]:
    """Divide a split into shards, which depend on its size and not on the machine."""
    size = min(
        array_record.RECORDS_PER_SHARD, max(MIN_RECORDS, math.ceil(records / SHARDS_PER_SPLIT))
    )
    starts = range(0, records, size)
    return [
        ShardSpec(split, number, len(starts), start, min(start + size, records))
        for number, start in enumerate(starts)
    ]


def write(
    shards: Sequence[ShardSpec],
    root: Path,
    squares: Mapping[str, Source],
    size: int,
    encoding: Encoding,
    subsampling: Subsampling,
    processes: int,
) -> None:
    """Write shards to `root`, and their results, which `load_result` reads, to a folder in it.

    Finished shards are kept if an error is raised.

    Raises:
        OSError: the disk is full.
        ValueError: a process was killed.
    """
    spawn = multiprocessing.get_context("spawn")  # safe with the threads of record readers
    counter, stop = spawn.Value("q", 0), spawn.Event()
    context = WriterContext(root, squares, size, encoding, subsampling, counter, stop)
    pool, write_one = _start_pool(context, min(processes, len(shards)), spawn)
    total = sum(shard.stop - shard.start for shard in shards)
    with (
        # disable=None: no bar if stderr is not a terminal.
        tqdm(total=total, desc="preparing", unit="image", disable=None) as bar,
        pool,
    ):
        try:
            futures = [pool.submit(write_one, shard) for shard in shards]
            pending = set(futures)
            while pending:
                _, pending = concurrent.futures.wait(
                    pending, POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
                )
                # In order, so that of several errors the first shard's is raised.
                for future in futures:
                    if future.done():
                        future.result()
                bar.update(context.num_done.value - bar.n)
        except BrokenProcessPool as error:
            raise ValueError(
                f"processes {processes}: a process that wrote shards to {root} was killed, perhaps "
                "for lack of memory; rerun the same command with fewer processes to resume."
            ) from error
        finally:
            context.stop.set()
            pool.shutdown(cancel_futures=True)


def _start_pool(
    context: WriterContext, processes: int, spawn: Any
) -> tuple[concurrent.futures.Executor, Callable[[ShardSpec], None]]:
    """Return a pool, and the function that it runs for each shard."""
    if processes == 1:  # starts no process and copies nothing
        return concurrent.futures.ThreadPoolExecutor(1), functools.partial(_write_shard, context)
    pool = concurrent.futures.ProcessPoolExecutor(processes, spawn, _Worker.start, (context,))
    return pool, _Worker.write


class _Worker:
    """A process that writes shards."""

    # Global to the process: locks and events can only be passed when a process starts, not with a
    # task, and a process of the pool keeps nothing else between its start and its tasks.
    context: ClassVar[WriterContext]

    @classmethod
    def start(cls, context: WriterContext) -> None:
        """Prepare the process: Ctrl-C is handled by its parent, and it ends with that."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        cls.context = context

    @classmethod
    def write(cls, shard: ShardSpec) -> None:
        """Write a shard."""
        _write_shard(cls.context, shard)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _write_shard(context: WriterContext, shard: ShardSpec) -> None:
    """Write a shard, then its result: a shard is finished when both exist."""
    source, left_out = context.squares[shard.split], []
    sums = Sums.empty(context.size) if shard.split == "train" else None

    def records() -> Iterator[tuple[bytes, int]]:
        for index in range(shard.start, shard.stop):
            if context.stop.is_set():
                raise _Stopped
            try:
                record = source[index]
            except UnreadableImage as error:
                left_out.append(f"{source.describe(index)}: {error}")
            else:
                encoded = encode(record["image"], context.encoding, context.subsampling)
                if sums is not None:
                    sums.add(decode(encoded))  # JPEG has changed the pixels
                yield encoded, record["label"]
            with context.num_done.get_lock():
                context.num_done.value += 1

    path = context.root / shard.name
    array_record.write_shard(path, records())
    result = {
        "file": shard_manifest.describe_file(path),
        "images": shard.stop - shard.start - len(left_out),
        "left_out": left_out,
    }
    arrays = {} if sums is None else vars(sums)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, result=json.dumps(result), **arrays)
    atomic.write_bytes(_result_path(context.root, shard), content.getvalue())


def load_result(root: Path, shard: ShardSpec) -> ShardResult | None:
    """Return the result of a finished shard; None for any other."""
    path = _result_path(root, shard)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as saved:
        fields = json.loads(str(saved["result"]))
        arrays = {name: saved[name] for name in saved.files if name != "result"}
    sums = Sums(int(arrays.pop("count")), **arrays) if arrays else None
    result = ShardResult(**fields, sums=sums)
    shard_path = root / shard.name
    is_intact = shard_path.exists() and shard_path.stat().st_size == result.file["bytes"]
    return result if is_intact else None


def _result_path(root: Path, shard: ShardSpec) -> Path:
    return root / shard_manifest.PROGRESS / f"{shard.name}.npz"
