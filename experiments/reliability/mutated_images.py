"""Damaged image files through the reader: each loads or is reported, in bounded time and memory.

    python experiments/reliability/mutated_images.py --files DIR --number 10000 --seed 0

The images of `--files` are written in every format that a mutation starts from; each mutated file
is a function of (seed, number). A worker process reads them one after the other under a limit of
its address space; the system kills it where one takes longer than `--seconds`, so that a crash or a
hang costs one file, is counted, and the next worker goes on behind it.
"""

import argparse
import io
import json
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage, decode
from alexnet_jax.data.sources import image_files

SIDE = 320  # pixels of the longer side of what is mutated
# Pillow's format, its mode, and how it is saved.
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("JPEG", "RGB", {"quality": 90, "comment": b"mutate me", "icc_profile": b"p" * 400}),
    "JPEG, progressive": ("JPEG", "RGB", {"progressive": True}),
    "JPEG, CMYK": ("JPEG", "CMYK", {}),
    "PNG": ("PNG", "RGB", {"icc_profile": b"p" * 400}),
    "PNG, palette": ("PNG", "P", {"transparency": 0}),
    "PNG, RGBA": ("PNG", "RGBA", {}),
    "GIF": ("GIF", "P", {}),
    "WebP": ("WEBP", "RGB", {}),
    "WebP, lossless": ("WEBP", "RGBA", {"lossless": True}),
    "BMP": ("BMP", "RGB", {}),
    "TIFF": ("TIFF", "RGB", {}),
    "TIFF, LZW": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF, JPEG": ("TIFF", "RGB", {"compression": "jpeg"}),
    "PPM": ("PPM", "RGB", {}),
}


def flip(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Flip 1 to 64 bits, half of the time only among the first 256 bytes."""
    damaged = bytearray(file)
    reach = min(len(file), 256) if rng.random() < 0.5 else len(file)
    for place in rng.integers(0, reach, int(2 ** rng.uniform(0, 6))):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def truncate(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Keep a beginning."""
    return file[: int(rng.integers(0, len(file)))]


def splice(file: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Put the beginning of another file, perhaps of another format, before the rest of this."""
    first, second = (int(2 ** rng.uniform(0, 12)) for _ in range(2))
    return other[:first] + file[second:]


def overwrite(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Write 4 bytes that stand for extreme lengths and sizes over 1 to 8 places near the front."""
    damaged = bytearray(file)
    extremes = (
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\0\0\xff\xff",
        b"\x80\0\0\0",
    )
    for place in rng.integers(0, min(len(file), 512), int(rng.integers(1, 9))):
        damaged[place : place + 4] = extremes[rng.integers(len(extremes))]
    return bytes(damaged)


def repeat(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Repeat a stretch up to 1,000 times."""
    start = int(rng.integers(0, len(file)))
    stretch = file[start : start + int(2 ** rng.uniform(0, 10))]
    return file[:start] + stretch * int(2 ** rng.uniform(1, 10)) + file[start:]


def mend(file: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Flip bits and put the check sums of a PNG right, which would have given the damage away."""
    damaged, place = bytearray(flip(file, rng, other)), 8
    while damaged.startswith(b"\x89PNG") and place + 8 < len(damaged):
        end = place + 8 + int.from_bytes(damaged[place : place + 4], "big")
        damaged[end : end + 4] = zlib.crc32(damaged[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(damaged)


Mutation = Callable[[bytes, np.random.Generator, bytes], bytes]
MUTATIONS: tuple[Mutation, ...] = (flip, mend, truncate, splice, overwrite, repeat)


def originals(folder: Path, number: int = 20) -> list[tuple[str, bytes]]:
    """Return (format, file) of `number` of the images in a folder, in every format."""
    files = image_files(folder)
    found = []
    for path in files[:: max(1, len(files) // number)][:number]:
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        for name, (form, mode, options) in FORMATS.items():
            buffer = io.BytesIO()
            small.convert(mode).save(buffer, form, **options)
            found.append((name, buffer.getvalue()))
    return found


def mutated(files: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, str, bytes]:
    """Return the format, the mutation and the bytes of one damaged file."""
    rng = np.random.default_rng([seed, number])
    name, file = files[number % len(files)]
    other = files[rng.integers(len(files))][1]
    mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
    return name, mutation.__name__, mutation(file, rng, other)


def read(file: bytes) -> str:
    """Return "loaded", or the report, of a file through the reader."""
    try:
        image = decode(file)
        assert image.dtype == np.uint8, image.dtype
        assert image.ndim == 3, image.shape
        assert image.shape[2] == 3, image.shape
        assert resize_center(image, 256).shape == (256, 256, 3)
    except UnreadableImage as error:
        return f"reported: {error}"
    return "loaded"


def peak() -> int:
    """Return the most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(asked: argparse.Namespace) -> None:
    """Read files from `--start` on, a line of JSON before each and one behind it."""
    resource.setrlimit(resource.RLIMIT_AS, (asked.gib * 2**30, asked.gib * 2**30))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, in the midst of C too
    files = originals(Path(asked.files))
    for number in range(asked.start, asked.number):
        name, mutation, file = mutated(files, asked.seed, number)
        print(json.dumps({"number": number, "format": name, "mutation": mutation}), flush=True)
        before, began = peak(), time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, asked.seconds)
        try:
            outcome = read(file)
        except Exception as error:  # noqa: BLE001  (what must not happen, counted)
            outcome = f"raised: {type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - began
        line = {"outcome": outcome, "seconds": seconds, "grown": peak() - before, "peak": peak()}
        print(json.dumps(line), flush=True)


def results(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for each file its format, mutation, outcome, seconds and memory."""
    found: list[dict[str, Any]] = []
    while len(found) < asked.number:
        arguments = ["--files", asked.files, "--number", asked.number, "--seed", asked.seed]
        arguments += ["--seconds", asked.seconds, "--gib", asked.gib, "--start", len(found)]
        command = [sys.executable, __file__, "--worker", *map(str, arguments)]
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if asked.quiet else None
        )
        out, _ = worker.communicate()
        lines = [json.loads(line) for line in out.splitlines()]
        pairs = zip(lines[::2], lines[1::2], strict=False)
        found += [{**begun, **ended} for begun, ended in pairs]
        if worker.returncode == 0:
            continue
        if not len(lines) % 2:
            raise RuntimeError(f"the worker ended with {worker.returncode} between two files")
        hung = worker.returncode == -signal.SIGALRM
        outcome = "hung" if hung else f"crashed: {worker.returncode}"
        lost = {"outcome": outcome, "seconds": asked.seconds if hung else 0, "grown": 0, "peak": 0}
        found.append({**lines[-1], **lost})
    return found


def print_tables(found: list[dict[str, Any]]) -> None:
    """Print what became of the files, by format and by mutation, and the reasons reported."""
    kinds = ("loaded", "reported", "raised", "crashed", "hung")
    for key in ("format", "mutation"):
        print(f"\n| {key} | files | {' | '.join(kinds)} | slowest, s |\n|{'---|' * 8}")
        for name in [*dict.fromkeys(line[key] for line in found), "all"]:
            some = [line for line in found if name in ("all", line[key])]
            counts = Counter(line["outcome"].partition(":")[0] for line in some)
            slowest = max(line["seconds"] for line in some)
            cells = " | ".join(f"{counts[kind]:,}" for kind in kinds)
            print(f"| {name} | {len(some):,} | {cells} | {slowest:.2f} |")
    reasons = Counter(
        " ".join(line["outcome"].split()[:6])
        for line in found
        if line["outcome"].startswith("reported")
    )
    print("\nMost frequent reports:")
    for reason, count in reasons.most_common(12):
        print(f"  {count:6,}  {reason}")
    for line in found:
        if line["outcome"].startswith(("raised", "crashed", "hung")):
            print(f"NOT AS IT SHOULD BE: {line}")
    print(f"\nMost memory of a worker: {max(line['peak'] for line in found) / 2**20:,.0f} MiB.")


def main() -> int:
    """Return 0 where every file loaded or was reported."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", required=True, help="a folder of images to start from")
    parser.add_argument("--number", type=int, default=10_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="for one file")
    parser.add_argument("--gib", type=int, default=4, help="address space of a worker")
    parser.add_argument("--json", help="write every outcome there")
    parser.add_argument("--quiet", action="store_true", help="drop what decoders write to stderr")
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked)
        return 0
    began = time.perf_counter()
    found = results(asked)
    print_tables(found)
    print(f"{len(found):,} files in {time.perf_counter() - began:.0f} s.")
    if asked.json:
        Path(asked.json).write_text("".join(json.dumps(line) + "\n" for line in found))
    good = ("loaded", "reported")
    return 0 if all(line["outcome"].startswith(good) for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
