"""A folder of squares of any source, as ArrayRecord shards with their statistics and a manifest.

Records keep the order of their source: the pipeline shuffles by record number every epoch, so that
shuffling them on the disk would gain nothing.
"""

import contextlib
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import simplejpeg

from alexnet_jax.config import DataConfig, invalid
from alexnet_jax.data import array_record
from alexnet_jax.data.images import (
    FULL_COLOR,
    Encoding,
    Subsampling,
    UnreadableImage,
    check_subsampling,
    decode,
    encode,
)
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.shards import writer
from alexnet_jax.data.shards.manifest import Manifest, SplitEntry
from alexnet_jax.data.shards.writer import ShardResult, ShardSpec
from alexnet_jax.data.sources import ImageFiles, Source, Stored
from alexnet_jax.data.statistics import Statistics, Sums, compute_statistics
from alexnet_jax.data.wrappers import Resized
from alexnet_jax.storage import atomic
from alexnet_jax.storage.digest import digest
from alexnet_jax.storage.names import check_utf8

PLAN = "plan.json"
UNREADABLE = "unreadable.txt"
SAMPLE = 64  # images from which the size of all is estimated
RECORD_OVERHEAD, SHARD_OVERHEAD = 128, 2**17  # bytes that ArrayRecord adds to each
MARGIN = 1.05  # factor of the estimated size


class Preparation:
    """Shards of the splits of a source that are to be written, or completed.

    Args:
        root: folder of the shards; created if it is missing.
        sources: by split, "train" among them.
        config: its `image_size`, `resize` and `filter` make the squares.
        encoding: of the records.
        subsampling: of the colors of JPEG records.

    Raises:
        ValueError: the folder contains other files, or shards of other images or settings.
    """

    def __init__(
        self,
        root: Path,
        sources: Mapping[str, Source],
        config: DataConfig,
        encoding: Encoding,
        subsampling: Subsampling = FULL_COLOR,
    ):
        check_subsampling(encoding, subsampling)
        self.root, self.size = Path(root), config.image_size
        self.encoding: Encoding = encoding
        self.subsampling: Subsampling = subsampling
        self.squares = {split: Resized(source, config) for split, source in sources.items()}
        _check_classes(sources["train"])
        self.plan = _plan(sources, config, encoding, subsampling)
        self.manifest = shard_manifest.read_manifest(self.root)
        self._check_folder()
        self.shards = [p for split, s in sources.items() for p in writer.divide(split, len(s))]
        self.unfinished = [shard for shard in self.shards if not self._is_finished(shard)]
        self.num_unfinished_images = sum(shard.stop - shard.start for shard in self.unfinished)

    def _check_folder(self) -> None:
        begun = self.root / shard_manifest.PROGRESS / PLAN
        if self.manifest is not None:
            plan = self.manifest["plan"]
        elif begun.exists():
            plan = json.loads(begun.read_text("utf-8"))
        elif self.root.exists() and {path.name for path in self.root.iterdir()} - {
            shard_manifest.PROGRESS
        }:
            rule = "contains files that are not prepared shards"
            raise invalid("to", self.root, rule, "use a new folder")
        else:
            return
        if changed := [name for name in self.plan if self.plan[name] != plan.get(name)]:
            listed = ", ".join(
                f"{name} {plan.get(name)}, now {self.plan[name]}" for name in changed
            )
            rule = f"was begun with other images or settings ({listed})"
            raise invalid("to", self.root, rule, "restore them, or use a new folder")

    def _is_finished(self, shard: ShardSpec) -> bool:
        if self.manifest is None:
            return writer.load_result(self.root, shard) is not None
        path = self.root / shard.name
        return path.exists() and path.stat().st_size == self.manifest["files"][shard.name]["bytes"]

    def estimate(self) -> tuple[float, float]:
        """Return bytes per record, and seconds per record of one process, from a sample."""
        records = [(s.split, index) for s in self.unfinished for index in range(s.start, s.stop)]
        sample = records[:: max(1, len(records) // SAMPLE)][:SAMPLE]
        sizes, start = [], time.perf_counter()
        for split, index in sample:
            with contextlib.suppress(UnreadableImage):
                square = self.squares[split][index]["image"]
                encoded = encode(square, self.encoding, self.subsampling)
                decode(encoded)
                sizes.append(len(encoded) + RECORD_OVERHEAD)
        seconds = time.perf_counter() - start
        return sum(sizes) / max(1, len(sizes)), seconds / max(1, len(sample))

    def check_disk_space(self, record_bytes: float) -> tuple[float, int]:
        """Return the bytes that records of `record_bytes` need, and the free bytes.

        Raises:
            ValueError: there are too few of these.
        """
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        images = self.num_unfinished_images
        needed = images * record_bytes + len(self.unfinished) * SHARD_OVERHEAD
        sums = len(self.shards) * self.size**2 * 24  # of each shard, until all are finished
        if needed * MARGIN + sums > free:
            rule = (
                f"{images:,} images need about {format_bytes(needed)} "
                f"({record_bytes / 1e3:,.1f} kB each), and {format_bytes(free)} are free"
            )
            smaller = "encoding=jpeg, " if self.encoding == "raw" else ""
            if self.encoding == "jpeg" and self.subsampling == FULL_COLOR:
                smaller = "subsampling=4:2:0, "
            raise invalid(
                "to",
                self.root,
                rule,
                f"free some space, or use {smaller}a smaller data.image_size or another disk",
            )
        return needed, free

    def begin(self) -> None:
        """Create the folder, and the one inside it that exists until all is finished."""
        check_utf8("to", self.root)
        progress = self.root / shard_manifest.PROGRESS
        progress.mkdir(parents=True, exist_ok=True)
        atomic.write_json(progress / PLAN, self.plan)

    def write(self, processes: int) -> Manifest:
        """Write the missing shards, the statistics and the manifest; `begin` must come first.

        If it is interrupted, finished shards are kept, and another call resumes.
        """
        if self.unfinished:
            kind = self.encoding, self.subsampling
            arguments = (self.root, self.squares, self.size, *kind, processes)
            writer.write(self.unfinished, *arguments)
        array_record.write_class_names(self.root, self.squares["train"].class_names)
        manifest = self._repaired(self.manifest, processes) if self.manifest else self._finished()
        shutil.rmtree(self.root / shard_manifest.PROGRESS)
        return manifest

    def _finished(self) -> Manifest:
        results = {
            shard: result
            for shard in self.shards
            if (result := writer.load_result(self.root, shard)) is not None
        }
        if len(results) < len(self.shards):
            rule = "another process has written to this folder"
            raise invalid("to", self.root, rule, "rerun the same command")
        splits = {
            split: self._split_entry(
                split, [r for shard, r in results.items() if shard.split == split]
            )
            for split in self.squares
        }
        sums = Sums.empty(self.size)
        for result in results.values():
            if result.sums is not None:
                sums.merge(result.sums)
        _write_statistics(self.root, sums.statistics())
        if reasons := [reason for entry in splits.values() for reason in entry["left_out"]]:
            text = "".join(f"{reason}\n" for reason in reasons)
            atomic.write_bytes(self.root / UNREADABLE, text.encode(errors="replace"))
        files = {shard.name: result.file for shard, result in results.items()}
        for name in (array_record.CLASSES, shard_manifest.STATISTICS):
            files[name] = shard_manifest.describe_file(self.root / name)
        manifest: Manifest = {"plan": self.plan, "splits": splits, "files": files}
        shard_manifest.write_manifest(self.root, manifest)
        return manifest

    def _split_entry(self, split: str, results: Sequence[ShardResult]) -> SplitEntry:
        images = sum(result.images for result in results)
        left_out = [reason for result in results for reason in result.left_out]
        if not images:
            raise ValueError(
                f"None of the {split} images is readable; every split needs some: check the files, "
                f"first {left_out[0]}."
            )
        fingerprint = array_record.ArrayRecords(self.root, split).fingerprint()
        return {"images": images, "left_out": left_out, "fingerprint": fingerprint}

    def _repaired(self, manifest: Manifest, threads: int) -> Manifest:
        """Write missing statistics; return the manifest if the new files match it."""
        if not (self.root / shard_manifest.STATISTICS).exists():
            train = array_record.ArrayRecords(self.root, "train")
            _write_statistics(self.root, compute_statistics(train, threads)[0])
        shards = [shard.name for shard in self.unfinished]
        for name in [*shards, array_record.CLASSES, shard_manifest.STATISTICS]:
            if shard_manifest.describe_file(self.root / name) != manifest["files"][name]:
                raise ValueError(
                    f"{self.root / name}: differs from {shard_manifest.MANIFEST} after it was "
                    "written again; prepare the images in a new folder."
                )
        return manifest


def _check_classes(train: Source) -> None:
    """Raise a ValueError if no image of a class can be read, before all of them are."""
    if not isinstance(train, ImageFiles):
        return
    labels = train.labels()
    for label in np.unique(labels):
        reasons = []
        for index in np.flatnonzero(labels == label):
            try:
                train[int(index)]
                break
            except UnreadableImage as error:
                reasons.append(f"{train.describe(int(index))}: {error}")
        else:
            raise ValueError(
                f"None of the training images of class {train.class_names[label]} can be read, "
                f"first {reasons[0]}; replace or convert the images, or remove the class."
            )


def format_bytes(size: float) -> str:
    """Return a number of bytes with a unit."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if size >= u), (1e3, "kB"))
    return f"{size / unit:,.1f} {name}"


def _write_statistics(root: Path, statistics: Statistics) -> None:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **vars(statistics))
    atomic.write_bytes(root / shard_manifest.STATISTICS, content.getvalue())


def _plan(
    sources: Mapping[str, Source],
    config: DataConfig,
    encoding: Encoding,
    subsampling: Subsampling,
) -> dict[str, Any]:
    """Return everything that determines the bytes of the shards, as JSON values."""
    files = {s: source.inventory() for s, source in sources.items() if isinstance(source, Stored)}
    return {
        "images": digest({split: source.fingerprint() for split, source in sources.items()}, files),
        "image_size": config.image_size,
        "resize": config.resize,
        "filter": config.filter,
        "encoding": encoding,
        **({"subsampling": subsampling} if encoding == "jpeg" else {}),
        "Pillow": PIL.__version__,
        "simplejpeg": simplejpeg.__version__,
    }
