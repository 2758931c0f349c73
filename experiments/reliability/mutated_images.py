"""Read damaged image files: each must load or be reported, in bounded time and memory.

    python experiments/reliability/mutated_images.py --files DIR --number 10000 --seed 0

The images of `--files` are saved in every format, and then damaged; each damaged file is a function
of (seed, number). A worker process reads them one after the other with limited address space, and
is killed if a file takes longer than `--seconds`. A crash or a hang is counted and costs one file;
the next worker continues after it.
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
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.images import UnreadableImage, decode

SIDE = 320  # longer side of the images, pixels
# Pillow's format, its mode and options of `save`.
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
    """Cut the file off."""
    return file[: int(rng.integers(0, len(file)))]


def splice(file: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Replace the start of the file by that of another file, perhaps of another format."""
    first, second = (int(2 ** rng.uniform(0, 12)) for _ in range(2))
    return other[:first] + file[second:]


def overwrite(file: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Overwrite 1 to 8 places near the start with 4 bytes that encode extreme lengths and sizes."""
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
    """Repeat a section up to 1,000 times."""
    start = int(rng.integers(0, len(file)))
    section = file[start : start + int(2 ** rng.uniform(0, 10))]
    return file[:start] + section * int(2 ** rng.uniform(1, 10)) + file[start:]


def flip_with_valid_checksums(file: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Flip bits and correct the checksums of a PNG, which would reveal the damage."""
    damaged, place = bytearray(flip(file, rng, other)), 8
    while damaged.startswith(b"\x89PNG") and place + 8 < len(damaged):
        end = place + 8 + int.from_bytes(damaged[place : place + 4], "big")
        damaged[end : end + 4] = zlib.crc32(damaged[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(damaged)


Mutation = Callable[[bytes, np.random.Generator, bytes], bytes]
MUTATIONS: tuple[Mutation, ...] = (
    flip,
    flip_with_valid_checksums,
    truncate,
    splice,
    overwrite,
    repeat,
)


def originals(folder: Path, number: int = 20) -> list[tuple[str, bytes]]:
    """Return (format, file) of `number` images of a folder, in every format."""
    files = list_images(folder).files
    encoded = []
    for path in files[:: max(1, len(files) // number)][:number]:
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        for name, (form, mode, options) in FORMATS.items():
            buffer = io.BytesIO()
            small.convert(mode).save(buffer, form, **options)
            encoded.append((name, buffer.getvalue()))
    return encoded


def mutated(files: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, str, bytes]:
    """Return the format, the mutation and the bytes of one damaged file."""
    rng = np.random.default_rng([seed, number])
    name, file = files[number % len(files)]
    other = files[rng.integers(len(files))][1]
    mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
    return name, mutation.__name__, mutation(file, rng, other)


def read(file: bytes) -> str:
    """Return "loaded", or "reported: " and the message of the reader."""
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
    """Return the peak memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(args: argparse.Namespace) -> None:
    """Read files from `--start` on; print a line of JSON before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (args.gib * 2**30, args.gib * 2**30))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also within C code
    files = originals(Path(args.files))
    for number in range(args.start, args.number):
        name, mutation, file = mutated(files, args.seed, number)
        print(json.dumps({"number": number, "format": name, "mutation": mutation}), flush=True)
        before, began = peak(), time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, args.seconds)
        try:
            outcome = read(file)
        except Exception as error:  # noqa: BLE001  (must not happen; counted)
            outcome = f"raised: {type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - began
        line = {"outcome": outcome, "seconds": seconds, "grown": peak() - before, "peak": peak()}
        print(json.dumps(line), flush=True)


def results(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for each file its format, mutation, outcome, seconds and memory."""
    outcomes: list[dict[str, Any]] = []
    while len(outcomes) < args.number:
        arguments = ["--files", args.files, "--number", args.number, "--seed", args.seed]
        arguments += ["--seconds", args.seconds, "--gib", args.gib, "--start", len(outcomes)]
        command = [sys.executable, __file__, "--worker", *map(str, arguments)]
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if args.quiet else None
        )
        out, _ = worker.communicate()
        lines = [json.loads(line) for line in out.splitlines()]
        pairs = zip(lines[::2], lines[1::2], strict=False)
        outcomes += [{**begun, **ended} for begun, ended in pairs]
        if worker.returncode == 0:
            continue
        if not len(lines) % 2:
            raise RuntimeError(
                f"The worker ended with exit code {worker.returncode} between files."
            )
        hung = worker.returncode == -signal.SIGALRM
        outcome = "hung" if hung else f"crashed: {worker.returncode}"
        lost = {"outcome": outcome, "seconds": args.seconds if hung else 0, "grown": 0, "peak": 0}
        outcomes.append({**lines[-1], **lost})
    return outcomes


def print_tables(outcomes: list[dict[str, Any]]) -> None:
    """Print the outcomes by format and by mutation, and the most frequent reports."""
    kinds = ("loaded", "reported", "raised", "crashed", "hung")
    for key in ("format", "mutation"):
        print(f"\n| {key} | files | {' | '.join(kinds)} | slowest, s |\n|{'---|' * 8}")
        for name in [*dict.fromkeys(line[key] for line in outcomes), "all"]:
            some = [line for line in outcomes if name in ("all", line[key])]
            counts = Counter(line["outcome"].partition(":")[0] for line in some)
            slowest = max(line["seconds"] for line in some)
            cells = " | ".join(f"{counts[kind]:,}" for kind in kinds)
            print(f"| {name} | {len(some):,} | {cells} | {slowest:.2f} |")
    reasons = Counter(
        " ".join(line["outcome"].split()[:6])
        for line in outcomes
        if line["outcome"].startswith("reported")
    )
    print("\nMost frequent reports:")
    for reason, count in reasons.most_common(12):
        print(f"  {count:6,}  {reason}")
    for line in outcomes:
        if line["outcome"].startswith(("raised", "crashed", "hung")):
            print(f"FAILED: {line}")
    print(f"\nPeak memory of a worker: {max(line['peak'] for line in outcomes) / 2**20:,.0f} MiB.")


def main() -> int:
    """Return 0 if every file loaded or was reported."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", required=True, help="folder of the original images")
    parser.add_argument("--number", type=int, default=10_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="limit for one file")
    parser.add_argument("--gib", type=int, default=4, help="address space of a worker, GiB")
    parser.add_argument("--json", help="write every outcome to this file")
    parser.add_argument(
        "--quiet", action="store_true", help="discard what decoders write to stderr"
    )
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return 0
    began = time.perf_counter()
    outcomes = results(args)
    print_tables(outcomes)
    print(f"{len(outcomes):,} files in {time.perf_counter() - began:.0f} s.")
    if args.json:
        Path(args.json).write_text("".join(json.dumps(line) + "\n" for line in outcomes))
    good = ("loaded", "reported")
    return 0 if all(line["outcome"].startswith(good) for line in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
