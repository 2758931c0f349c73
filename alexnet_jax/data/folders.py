"""Folders of images: what is listed in them, and what is passed over.

Hidden files and the files of systems and tools, such as thumbnails, are not photographs. Everything
that is passed over is counted, so that every command can say what it did not take.
"""

import collections
import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from alexnet_jax.data.formats import suffix

# Suffixes of files that are not images; all other files are tried.
NON_IMAGE_SUFFIXES = frozenset(
    (".aae", ".avi", ".csv", ".db", ".doc", ".docx", ".gz", ".h5", ".hdf5", ".htm", ".html")
    + (".ini", ".ipynb", ".json", ".jsonl", ".lnk", ".log", ".m4v", ".mat", ".md", ".mkv", ".mov")
    + (".mp3", ".mp4", ".npy", ".npz", ".pdf", ".pkl", ".pt", ".pth", ".py", ".rar", ".rtf", ".sh")
    + (".tar", ".tgz", ".thm", ".tsv", ".txt", ".url", ".wav", ".webm", ".xls", ".xlsx", ".xml")
    + (".xmp", ".yaml", ".yml", ".zip", ".7z")
)

# Files and folders that systems and tools leave among photographs, in lower case.
SYSTEM_NAMES = frozenset(
    ("@eadir", "#recycle", "#snapshot", "@sharebin", "@tmp")  # Synology
    + ("@__thumb", "@recently-snapshot", "@recycle", "@transcode")  # QNAP
    + ("__macosx", ".ds_store", ".appledouble", ".fseventsd", ".spotlight-v100", ".trashes")
    + (".apdisk", ".localized", ".temporaryitems", ".volumeicon.icns", "icon\r")  # macOS
    + ("network trash folder", "temporary items")
    + ("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini")
    + ("$recycle.bin", "recycled", "recycler", "system volume information", "found.000")  # Windows
    + ("lost+found", "lost.dir", ".directory", ".nomedia", ".thumbnails", ".trash", "~snapshot")
    + (
        ".picasa.ini",
        "picasa.ini",
        "zbthumbnail.info",
        ".picasaoriginals",
        ".comments",
        ".@__thumb",
        ".dropbox",
        ".dropbox.cache",
    )
    + (".stfolder", ".stversions", ".sync", ".snapshot", ".snapshots", ".zfs")
    + (".git", ".gitattributes", ".gitignore", ".gitkeep", ".gitmodules", ".hg", ".svn", ".dvc")
    + (".cache", ".idea", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache")
    + (".venv", ".vscode", "__pycache__", "node_modules")
)
SYSTEM_PREFIXES = ("._", ".trash-", ".nfs", ".fuse_hidden", "~$")
SYSTEM_SUFFIXES = (
    *(".aplibrary", ".lrdata", ".photoslibrary"),  # catalogs, with their thumbnails
    *("~", ".bak", ".orig", ".swp", ".tmp"),  # earlier copies
    *(".crdownload", ".download", ".part", ".partial"),  # downloads that have not ended
)
SHOWN = 3  # names in a message
# Folders for runs, in lower case.
OF_RUNS = ("runs", "run", "experiments", "results", "output", "outputs", "models", "logs")


@dataclasses.dataclass(frozen=True)
class Scan:
    """The names in one folder, each list sorted."""

    folders: list[str]
    images: list[str]  # files that are tried as images
    non_images: list[str]  # other files, by their suffix
    hidden: list[str]  # files
    hidden_folders: list[str]
    system: list[str]  # of systems and tools
    links: list[str]  # among folders, images and non_images
    loops: list[str]  # links to this folder, or to one above it
    broken: list[str]  # links to nothing; one with the suffix of an image is among the images too
    runs: list[str]  # folders of runs, and folders that hold nothing else


@dataclasses.dataclass
class PassedOver:
    """What lies in folders and is not taken for an image."""

    system: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    hidden: list[str] = dataclasses.field(default_factory=list)  # paths of files
    # Paths, with the number of images in them.
    hidden_folders: dict[str, int] = dataclasses.field(default_factory=dict)
    non_images: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    loops: list[str] = dataclasses.field(default_factory=list)  # paths of links
    broken: list[str] = dataclasses.field(default_factory=list)  # paths of links
    runs: list[str] = dataclasses.field(default_factory=list)  # paths of folders

    def add(self, tree: "Tree", path: str, scan: Scan) -> None:
        """Count what is passed over in a folder that has been scanned."""
        self.system.update("._*" if name.startswith("._") else name for name in scan.system)
        self.hidden += [f"{path}/{name}" for name in scan.hidden]
        self.non_images.update(suffix(name) for name in scan.non_images)
        self.loops += [f"{path}/{name}" for name in scan.loops]
        self.broken += [f"{path}/{name}" for name in scan.broken]
        self.runs += [f"{path}/{name}" for name in scan.runs]
        for name in scan.hidden_folders:
            hidden, images = f"{path}/{name}", []
            with contextlib.suppress(ValueError):  # not ours to read
                images = tree.images(hidden, PassedOver(), [])
            self.hidden_folders[hidden] = len(images)

    def merge(self, other: "PassedOver") -> None:
        """Add what `other` has."""
        self.system.update(other.system)
        self.hidden += other.hidden
        self.hidden_folders |= other.hidden_folders
        self.non_images.update(other.non_images)
        self.loops += other.loops
        self.broken += other.broken
        self.runs += other.runs

    def describe(self, root: str) -> tuple[str, ...]:
        """Return a sentence for each kind of thing that was passed over below `root`."""
        notes = []
        if self.system:
            notes.append(
                f"passed over files and folders of systems and tools: {_counts(self.system)}"
            )
        for path, images in self.hidden_folders.items():
            held = (
                f"with {images:,} images; rename it if they are wanted" if images else "(no images)"
            )
            notes.append(f"passed over the hidden folder {_below(root, path)} {held}")
        if self.hidden:
            names = [_below(root, path) for path in self.hidden]
            notes.append(f"passed over hidden files: {len(names):,} ({some(names)})")
        if self.non_images:
            number = self.non_images.total()
            kinds = _counts(self.non_images)
            notes.append(f"ignored files that are not images by their suffix: {number:,} ({kinds})")
        if self.loops:
            names = some(_below(root, path) for path in self.loops)
            notes.append(
                "passed over links that lead to their own folder or to one above it: "
                f"{len(self.loops):,} ({names})"
            )
        if self.broken:
            names = some(_below(root, path) for path in self.broken)
            notes.append(
                f"broken links: {len(self.broken):,} ({names}); restore what they lead to, or "
                "remove them"
            )
        if self.runs:
            names = some(_below(root, path) for path in self.runs)
            notes.append(f"passed over folders of runs: {len(self.runs):,} ({names})")
        return tuple(f"{root}: {note}." for note in notes)


class Tree:
    """Folders on a disk, each of which is listed once, however often it is asked for."""

    def __init__(self) -> None:
        self._scans: dict[str, Scan] = {}

    def scan(self, path: str) -> Scan:
        """Return the names in a folder; ValueError if it does not exist or cannot be read."""
        if path not in self._scans:
            self._scans[path] = _scan(path)
        return self._scans[path]

    def images(self, folder: str, passed: PassedOver, links: list[str]) -> list[str]:
        """Return the paths of the images below a folder, at any depth, in no certain order.

        Links are followed; a folder that several paths lead to is listed once. What is passed over
        is added to `passed`, and links to `links`.
        """
        images, seen, stack = [], set(), [folder]
        while stack:
            path = stack.pop()
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            scan = self.scan(path)
            passed.add(self, path, scan)
            links += [f"{path}/{name}" for name in scan.links]
            stack += [f"{path}/{name}" for name in reversed(scan.folders)]
            images += [f"{path}/{name}" for name in scan.images]
        return images

    def all_images(self, folder: str) -> list[str]:
        """Return the paths of the images below a folder, without what is passed over."""
        return self.images(folder, PassedOver(), [])


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images below a folder."""

    files: list[Path]  # sorted
    notes: tuple[str, ...]  # what was passed over, in sentences


def list_images(path: Path) -> Listing:
    """List the images below a folder, at any depth, or the file itself.

    Raises:
        ValueError: the folder cannot be read.
    """
    if not path.is_dir():
        return Listing([path], ())
    passed = PassedOver()
    files = sorted(map(Path, Tree().images(str(path), passed, [])))
    return Listing(files, passed.describe(str(path)))


def is_system(name: str) -> bool:
    """Return whether systems or tools give this name to files or folders of their own."""
    lower = name.lower()
    return (
        lower in SYSTEM_NAMES
        or lower.startswith(SYSTEM_PREFIXES)
        or lower.endswith(SYSTEM_SUFFIXES)
    )


def some(names: Iterable[str]) -> str:
    """Return the first names of many, separated by commas."""
    names = list(names)
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def _scan(path: str) -> Scan:
    scan = Scan([], [], [], [], [], [], [], [], [], [])
    above: frozenset[str] = frozenset()
    for entry in _entries(path):
        name = entry.name
        if is_system(name):
            scan.system.append(name)
            continue
        is_link, is_broken = entry.is_symlink(), _is_broken(entry)
        is_folder = _is_folder(entry)
        if name.startswith("."):
            (scan.hidden_folders if is_folder else scan.hidden).append(name)
            continue
        if is_folder and _holds_runs(entry.path, name):
            scan.runs.append(name)
            continue
        if is_link and is_folder:
            above = above or _above(path)
            if os.path.realpath(entry.path) in above:
                scan.loops.append(name)
                continue
        if is_broken:
            scan.broken.append(name)
            # An image that is missing is unreadable; without a suffix, it may have been a folder.
            if suffix(name) and suffix(name) not in NON_IMAGE_SUFFIXES:
                scan.images.append(name)
            continue
        if is_folder:
            scan.folders.append(name)
        elif suffix(name) in NON_IMAGE_SUFFIXES:
            scan.non_images.append(name)
        else:
            scan.images.append(name)
        if is_link:
            scan.links.append(name)
    for field in dataclasses.fields(scan):
        getattr(scan, field.name).sort()
    return scan


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        remedy = "correct the path or the permissions"
        if isinstance(error, NotADirectoryError):
            remedy = "unpack it if it is an archive, and name the folder"
        raise ValueError(
            f"{error.filename}: {error.strerror}; images are read from a folder: {remedy}."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder without permission: reading reports it
        return False


def _holds_runs(path: str, name: str) -> bool:
    """Return whether a folder is that of a run, or has a name for runs and holds nothing else.

    A run that trains on a folder may write into the same one; its figures are no photographs.
    """
    if _is_run(path):
        return True
    if name.lower() not in OF_RUNS:
        return False
    with contextlib.suppress(OSError):
        inner = [str(folder) for folder in Path(path).iterdir() if folder.name[0] != "."]
        return bool(inner) and all(map(_is_run, inner))
    return False


def _is_run(path: str) -> bool:
    config, checkpoints = f"{path}/config.json", f"{path}/checkpoints"
    return os.path.isfile(config) and os.path.isdir(checkpoints)  # noqa: PTH112, PTH113  (fast)


def _is_broken(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return False
    try:
        entry.stat()  # is_dir takes the result of it
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _above(path: str) -> frozenset[str]:
    """Return a folder and all above it, by their real paths: on the disk, and as it was reached."""
    real = Path(os.path.realpath(path))
    reached = (os.path.realpath(folder) for folder in Path(path).parents)
    return frozenset((*map(str, (real, *real.parents)), *reached))


def _counts(counter: collections.Counter[str]) -> str:
    return ", ".join(f"{number:,} {name or 'without'}" for name, number in counter.most_common())


def _below(root: str, path: str) -> str:
    return os.path.relpath(path, root)
