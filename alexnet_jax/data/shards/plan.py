"""A folder of squares of any source, as ArrayRecord shards with their statistics and a manifest.

Records stay in the order of their source: the pipeline draws another order each epoch by number, so
nothing is gained by shuffling them on the disk.
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

from alexnet_jax.config import DataConfig
from alexnet_jax.data import array_record
from alexnet_jax.data.images import Encoding, UnreadableImage, decode, encode
from alexnet_jax.data.shards import manifest as shard_manifest
from alexnet_jax.data.shards import writer
from alexnet_jax.data.shards.manifest import Manifest, Split
from alexnet_jax.data.shards.writer import ShardResult, ShardSpec
from alexnet_jax.data.sources import Source, Stored
from alexnet_jax.data.statistics import Statistics, Sums, compute_statistics
from alexnet_jax.data.wrappers import Resized
from alexnet_jax.storage.digest import digest

PLAN = "plan.json"
UNREADABLE = "unreadable.txt"
SAMPLE = 64  # images that tell how large all will be
RECORD, SHARD = 128, 2**17  # bytes that ArrayRecord adds to each
MARGIN = 1.05  # of room, over what a sample says


class Preparation:
    """Shards that are to be made, or made whole again, of the splits of a source.

    Args:
        root: folder of the shards; made where it is missing.
        sources: by split, "train" among them.
        config: its `image_size`, `resize` and `filter` make the squares.
        encoding: of the records.

    Raises:
        ValueError: the folder holds something else, or shards of other images or made otherwise.
    """

    def __init__(
        self, root: Path, sources: Mapping[str, Source], config: DataConfig, encoding: Encoding
    ):
        self.root, self.encoding, self.size = Path(root), encoding, config.image_size
        self.squares = {split: Resized(source, config) for split, source in sources.items()}
        self.plan = _plan(sources, config, encoding)
        self.manifest = shard_manifest.read_manifest(self.root)
        self._check_folder()
        self.parts = [p for split, s in sources.items() for p in writer.divide(split, len(s))]
        self.waiting = [part for part in self.parts if not self._is_done(part)]
        self.images_waiting = sum(part.stop - part.start for part in self.waiting)

    def _check_folder(self) -> None:
        begun = self.root / shard_manifest.PROGRESS / PLAN
        if self.manifest is not None:
            plan = self.manifest["plan"]
        elif begun.exists():
            plan = json.loads(begun.read_text("utf-8"))
        elif self.root.exists() and {path.name for path in self.root.iterdir()} - {
            shard_manifest.PROGRESS
        }:
            raise ValueError(
                f"--to {self.root}: it holds files that no preparation has put there; give a new "
                "folder."
            )
        else:
            return
        if others := [name for name in self.plan if self.plan[name] != plan.get(name)]:
            each = ", ".join(f"{name} {plan.get(name)}, now {self.plan[name]}" for name in others)
            raise ValueError(
                f"--to {self.root}: it was begun with other images or in another way ({each}); "
                "give the same again, or a new folder."
            )

    def _is_done(self, part: ShardSpec) -> bool:
        if self.manifest is None:
            return writer.load_result(self.root, part) is not None
        path = self.root / part.name
        return path.exists() and path.stat().st_size == self.manifest["files"][part.name]["bytes"]

    def estimate(self) -> tuple[float, float]:
        """Return bytes of a record, and seconds that a process takes for one, from a sample."""
        numbers = [(p.split, index) for p in self.waiting for index in range(p.start, p.stop)]
        sample = numbers[:: max(1, len(numbers) // SAMPLE)][:SAMPLE]
        sizes, start = [], time.perf_counter()
        for split, index in sample:
            with contextlib.suppress(UnreadableImage):
                encoded = encode(self.squares[split][index]["image"], self.encoding)
                decode(encoded)
                sizes.append(len(encoded) + RECORD)
        seconds = time.perf_counter() - start
        return sum(sizes) / max(1, len(sizes)), seconds / max(1, len(sample))

    def check_room(self, each: float) -> tuple[float, int]:
        """Return the bytes that records of `each` bytes take, and those that are free.

        Raises ValueError where these are too few.
        """
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        needed = self.images_waiting * each + len(self.waiting) * SHARD
        sums = len(self.parts) * self.size**2 * 24  # of each part, until all are done
        if needed * MARGIN + sums > free:
            smaller = "--encoding jpeg, " if self.encoding == "raw" else ""
            raise ValueError(
                f"--to {self.root}: {self.images_waiting:,} images take about {format_bytes(needed)} "
                f"({each / 1e3:,.1f} kB each), and {format_bytes(free)} are free; make room, or give "
                f"{smaller}a smaller --image-size or another disk."
            )
        return needed, free

    def begin(self) -> Path:
        """Make the folder, and return the one in it that is there until all is done."""
        progress = self.root / shard_manifest.PROGRESS
        progress.mkdir(parents=True, exist_ok=True)
        shard_manifest.write_whole(progress / PLAN, json.dumps(self.plan, indent=1).encode())
        return progress

    def write(self, processes: int) -> Manifest:
        """Write the shards that are missing, and what lies beside them; to be called after `begin`.

        Whatever ends it, finished shards are kept, and another call goes on.
        """
        if self.waiting:
            arguments = (self.root, self.squares, self.size, self.encoding, processes)
            writer.write(self.waiting, *arguments)
        array_record.write_class_names(self.root, self.squares["train"].class_names)
        manifest = self._repaired(self.manifest, processes) if self.manifest else self._finished()
        shutil.rmtree(self.root / shard_manifest.PROGRESS)
        return manifest

    def _finished(self) -> Manifest:
        outcomes = {p: o for p in self.parts if (o := writer.load_result(self.root, p)) is not None}
        if len(outcomes) < len(self.parts):  # it ended while this one was looking what to do
            raise ValueError(
                f"--to {self.root}: another process has written to it; give the same command again."
            )
        splits = {
            split: self._split(split, [o for part, o in outcomes.items() if part.split == split])
            for split in self.squares
        }
        sums = Sums.empty(self.size)
        for outcome in outcomes.values():
            if outcome.sums is not None:
                sums.merge(outcome.sums)
        _write_statistics(self.root, sums.statistics())
        if reasons := [reason for split in splits.values() for reason in split["left_out"]]:
            text = "".join(f"{reason}\n" for reason in reasons)
            shard_manifest.write_whole(self.root / UNREADABLE, text.encode(errors="replace"))
        files = {part.name: outcome.file for part, outcome in outcomes.items()}
        for name in (array_record.CLASSES, shard_manifest.STATISTICS):
            files[name] = shard_manifest.describe(self.root / name)
        manifest: Manifest = {"plan": self.plan, "splits": splits, "files": files}
        shard_manifest.write_manifest(self.root, manifest)
        return manifest

    def _split(self, split: str, outcomes: Sequence[ShardResult]) -> Split:
        images = sum(outcome.images for outcome in outcomes)
        left_out = [reason for outcome in outcomes for reason in outcome.left_out]
        if not images:
            raise ValueError(
                f"None of the {split} images can be read; every split needs some: check the files, "
                f"first {left_out[0]}."
            )
        fingerprint = array_record.ArrayRecords(self.root, split).fingerprint()
        return {"images": images, "left_out": left_out, "fingerprint": fingerprint}

    def _repaired(self, manifest: Manifest, threads: int) -> Manifest:
        """Return the manifest, if what was written anew is what it says."""
        if not (self.root / shard_manifest.STATISTICS).exists():
            train = array_record.ArrayRecords(self.root, "train")
            _write_statistics(self.root, compute_statistics(train, threads)[0])
        for name in [
            *(part.name for part in self.waiting),
            array_record.CLASSES,
            shard_manifest.STATISTICS,
        ]:
            if shard_manifest.describe(self.root / name) != manifest["files"][name]:
                raise ValueError(
                    f"{self.root / name}: it is not what it was when all was prepared; prepare the "
                    "images anew, in another folder."
                )
        return manifest


def format_bytes(size: float) -> str:
    """Return a number of bytes as people read it."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if size >= u), (1e3, "kB"))
    return f"{size / unit:,.1f} {name}"


def _write_statistics(root: Path, statistics: Statistics) -> None:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **vars(statistics))
    shard_manifest.write_whole(root / shard_manifest.STATISTICS, content.getvalue())


def _plan(sources: Mapping[str, Source], config: DataConfig, encoding: Encoding) -> dict[str, Any]:
    """Return, as JSON has it, all that decides the bytes of the shards."""
    files = {s: source.inventory() for s, source in sources.items() if isinstance(source, Stored)}
    return {
        "images": digest({split: source.fingerprint() for split, source in sources.items()}, files),
        "image_size": config.image_size,
        "resize": config.resize,
        "filter": config.filter,
        "encoding": encoding,
        "Pillow": PIL.__version__,
    }
