"""Weights that others have published, by name: downloaded, verified and imported once, then kept.

What a name stands for is in `PUBLISHED`, with where that was read. JAX is imported only to import
weights, as the command line needs names before.
"""

import concurrent.futures.process
import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_jax.config import PublishedName, invalid
from alexnet_jax.storage.digest import file_digest
from alexnet_jax.storage.download import download
from alexnet_jax.storage.local import check_local
from alexnet_jax.storage.lock import hold_lock
from alexnet_jax.storage.names import printable
from alexnet_jax.training.stopping import StopCheck, no_check

if TYPE_CHECKING:
    from alexnet_jax.weights.import_plan import ImportPlan

CACHE_VARIABLE = "ALEXNET_JAX_CACHE"
MAX_BYTES = 2**28  # of a published file; each has fewer than 2.5e8


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """A file of weights, as its publishers describe it."""

    name: str
    url: str
    megabytes: float  # 10^6 bytes
    algorithm: str  # of the digest, by its name in hashlib
    digest: str
    preset: str  # the network
    top1: float  # accuracy on ImageNet's validation images, center crop, percent
    top5: float
    license: str
    source: str  # where accuracy, license and digest are published

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]

    @property
    def folder(self) -> Path:
        """Where the file and the run made of it are kept."""
        return cache_folder() / "weights" / f"{self.name}-{self.digest[:8]}"

    @property
    def path(self) -> Path:
        """Where the file is kept, and where it can be put by hand."""
        return self.folder / self.file

    @property
    def run(self) -> Path:
        """The folder of the run that is made of the file."""
        return self.folder / "run"

    @property
    def accuracy(self) -> str:
        """The published accuracy as a clause."""
        return f"{self.top1:g} % top-1, {self.top5:g} % top-5"


def _caffe(
    name: PublishedName, model: str, sha1: str, top1: float, top5: float
) -> PublishedWeights:
    """Return what `models/MODEL/readme.md` of BVLC/caffe (9b89154) says.

    It gives no size: that of 60,965,224 float32 parameters, which the rest does not round up.
    """
    return PublishedWeights(
        name=name,
        url=f"http://dl.caffe.berkeleyvision.org/{model}.caffemodel",
        megabytes=243.9,
        algorithm="sha1",
        digest=sha1,
        preset=name,
        top1=top1,
        top5=top5,
        license="unrestricted use",
        source=f"https://github.com/BVLC/caffe/blob/master/models/{model}/readme.md",
    )


PUBLISHED: dict[PublishedName, PublishedWeights] = {
    # torchvision/models/alexnet.py of pytorch/vision, AlexNet_Weights.IMAGENET1K_V1. The file's
    # name has the first 8 digits of its SHA-256, and torch.hub compares no more; the others are
    # those that people who have downloaded the file have noted, all the same.
    "torchvision": PublishedWeights(
        name="torchvision",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        megabytes=244.4,
        algorithm="sha256",
        digest="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        preset="torchvision",
        top1=56.522,
        top5=79.066,
        license="BSD-3-Clause",
        source="https://github.com/pytorch/vision/blob/main/torchvision/models/alexnet.py",
    ),
    "bvlc_alexnet": _caffe(
        *("bvlc_alexnet", "bvlc_alexnet", "9116a64c0fbe4459d18f4bb6b56d647b63920377"),
        *(57.1, 80.2),  # the snapshot of iteration 360,000
    ),
    "caffenet": _caffe(
        *("caffenet", "bvlc_reference_caffenet", "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"),
        *(57.4, 80.4),  # the snapshot of iteration 310,000
    ),
}


def cache_folder() -> Path:
    """Return the folder for what can be downloaded again: ALEXNET_JAX_CACHE, or the user's cache.

    Raises:
        ValueError: it is no local path, or the user has no home folder.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        check_local(chosen, CACHE_VARIABLE)
    # The XDG Base Directory Specification ignores paths that are not absolute.
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = chosen or str(Path(base if base.startswith("/") else "~/.cache") / "alexnet_jax")
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:
        rule = "its ~ is no home folder"
        raise invalid("cache folder", folder, rule, f"set {CACHE_VARIABLE} to a folder") from error


def describe() -> str:
    """Return the table of published weights for people to read, and where they are kept."""
    lines = []
    for name, entry in PUBLISHED.items():
        lines += [
            f"{name}",
            f"  {entry.url} ({entry.megabytes:g} MB)",
            f"  {entry.algorithm.upper()} {entry.digest}",
            f"  accuracy on ImageNet's validation images, center crop: {entry.accuracy}",
            f"  license: {entry.license}; published in {entry.source}",
            f"  {'kept in' if entry.path.exists() else 'to be kept in'} {entry.path}",
        ]
    return "\n".join(lines)


def fetch(entry: PublishedWeights, check_stop: StopCheck = no_check) -> Path:
    """Return the path of a published file, downloaded unless it is there, its digest verified.

    Args:
        entry: from `PUBLISHED`.
        check_stop: called again and again during a download; what it raises ends it.

    Raises:
        ValueError: it cannot be downloaded, or the file is another one; the message says where it
            can be put by hand.
        OSError: the folder cannot be read, or the disk is full.
    """
    if not entry.path.exists():  # if it does, a folder that cannot be written to will do
        with _locked(entry, check_stop):
            _fetch(entry, check_stop)
    _verify(entry)
    return entry.path


def run_folder(name: str, check_stop: StopCheck = no_check, own_process: bool = False) -> Path:
    """Return the folder of a run made of published weights, which is made once and then kept.

    Args:
        name: one of `PUBLISHED`.
        check_stop: see `fetch`.
        own_process: whether another process makes the run, so that JAX stays as it is in this one.

    Raises:
        ValueError: there are none of this name; or see `fetch`.
        OSError: see `fetch`.
    """
    entry = find(name)
    if not (damage := _find_damage(entry.run)):
        return entry.run
    with _locked(entry, check_stop):
        if not (damage := _find_damage(entry.run)):  # now: another process made it
            return entry.run
        if entry.run.exists():
            _print(f"{entry.run}: {damage}; it is made again.")
        _fetch(entry, check_stop)
        _verify(entry)
        if own_process:
            _make_run_in_a_process(entry)
        else:
            _make_run(entry)
    return entry.run


def is_name(text: str) -> bool:
    """Return whether a text names published weights rather than a path.

    A name is never a path, whatever is in the working directory: "./torchvision" is one. If both
    could be meant, a note says what is taken.
    """
    if text not in PUBLISHED:
        return False
    if Path(text).exists():
        _print(f"{text}: the published weights are used; ./{text} is what lies in this folder.")
    return True


def find(name: str) -> PublishedWeights:
    """Return the published weights of a name; a ValueError lists the names."""
    for known, entry in PUBLISHED.items():
        if known == name:
            return entry
    rule = f"must be the name of published weights, of {', '.join(PUBLISHED)}"
    raise invalid("weights", name, rule, "use one of them")


def plan(
    entry: PublishedWeights, path: Path, key: str = "", head: str = "", **options: Any
) -> "ImportPlan":
    """Return a published file as what a run is made of, with ImageNet's class names.

    Args:
        entry: what the file is.
        path: of the file.
        key, head: see `files.read`.
        options: of `import_plan.plan_import`.
    """
    from alexnet_jax.weights import class_names, files
    from alexnet_jax.weights.import_plan import plan_import

    if (preset := options.pop("preset", "")) not in ("", entry.preset):
        rule = f"the published weights {entry.name} are those of {entry.preset}"
        raise invalid("preset", preset, rule, "leave it out")
    options["class_names"] = options.get("class_names") or class_names.imagenet()
    return plan_import(files.read(path, key, head), preset=entry.preset, is_known=True, **options)


def _make_run_in_a_process(entry: PublishedWeights) -> None:
    spawn = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=spawn, initializer=_end_with_parent
        ) as pool:
            pool.submit(_make_run, entry).result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ValueError(
            f"{entry.path}: the process that imports it was killed, as happens without enough "
            "memory (2.3 GB are needed); free some, and run the same command again."
        ) from error


def _end_with_parent() -> None:
    """End this process when the one that started it ends, which holds the lock of the cache."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _make_run(entry: PublishedWeights) -> None:
    from alexnet_jax.weights import run_folder as runs

    partial = entry.run.with_name(".run.partial")
    for folder in (partial, entry.run):
        if folder.exists():
            shutil.rmtree(folder)
    runs.make(plan(entry, entry.path), entry.path, partial)
    partial.rename(entry.run)
    _print(f"{entry.name}: imported into {entry.run}; published accuracy: {entry.accuracy}.")


def _fetch(entry: PublishedWeights, check_stop: StopCheck) -> None:
    """Download a file unless it is there; the caller holds the lock."""
    if entry.path.exists():
        return
    size = f"{entry.megabytes:g} MB, {entry.license}"
    _print(f"{entry.name}: downloading {entry.url} ({size}) to {entry.path}")
    download(entry.url, entry.path, entry.algorithm, entry.digest, MAX_BYTES, check_stop=check_stop)


def _verify(entry: PublishedWeights) -> None:
    """Raise a ValueError if the file is not the published one."""
    found = file_digest(entry.path, entry.algorithm)
    if not found.startswith(entry.digest):
        raise ValueError(
            f"{entry.path}: has the {entry.algorithm} digest {found}, and the published weights "
            f"{entry.name} have {entry.digest}; remove the file, and it is downloaded again."
        )


def _find_damage(run: Path) -> str:
    """Return what keeps a run from being used, "" if nothing does."""
    from alexnet_jax.config import unflatten
    from alexnet_jax.storage.json_objects import read_object
    from alexnet_jax.training import checkpoint_digests

    try:
        unflatten(read_object(run / "config.json")["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its config.json cannot be read by this version"
    return checkpoint_digests.find_corruption(run / "checkpoints" / "0")


@contextlib.contextmanager
def _locked(entry: PublishedWeights, check_stop: StopCheck) -> Iterator[None]:
    """Make the folder of a published file, and wait until no other process writes to it."""
    waiting = _waiting(entry, check_stop)
    with contextlib.ExitStack() as stack:
        try:
            entry.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold_lock(entry.folder, "cache folder", waiting))
        except OSError as error:
            rule = f"cannot be written to ({error.strerror})"
            remedy = f"set {CACHE_VARIABLE} to a folder that can"
            raise invalid("cache folder", entry.folder, rule, remedy) from error
        yield


def _waiting(entry: PublishedWeights, check_stop: StopCheck) -> Callable[[str], None]:
    """Return what to do while another process has the lock: say so once, and check for a stop."""
    said: list[str] = []

    def wait(holder: str) -> None:
        check_stop()
        if not said:
            said.append(holder)
            _print(f"{entry.folder}: {holder}; waiting until it ends.")

    return wait


def _print(text: str) -> None:
    """Print on stderr, as results may be JSON."""
    print(printable(text), file=sys.stderr, flush=True)
