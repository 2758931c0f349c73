"""What a run writes into its folder: refused at the start where something else has a name of it."""

import contextlib
from pathlib import Path

from PIL import Image

from alexnet_jax.config import invalid, is_local
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.formats import suffix
from alexnet_jax.storage.lock import NAME as LOCK
from alexnet_jax.training import data_files
from alexnet_jax.training.metrics import METRICS
from alexnet_jax.training.nonfinite import REPORT
from alexnet_jax.training.run_config import CONFIG, has_checkpoint, read_config
from alexnet_jax.training.run_data import UNREADABLE
from alexnet_jax.training.summary import STATISTICS, SUMMARY

FILES = (CONFIG, METRICS, STATISTICS, SUMMARY, REPORT, UNREADABLE, data_files.NAME)
FILES += ("index.html", LOCK)
NAMED_LIKE_OTHERS = (CONFIG, SUMMARY, METRICS, "index.html")  # other programs', or one's own
FOLDERS = ("tensorboard", "figures", "profile")  # and that of the checkpoints, which is tried


def check_entries(workdir: Path, data_path: str) -> None:
    """Raise a ValueError if a file of the run would be written where something else is.

    Else a folder would be found where it is written: the summary when training has ended. A folder
    of images would no longer be one, as folders that hold runs are passed over.
    """
    has_begun = has_checkpoint(workdir) or (workdir / LOCK).is_file()
    if not has_begun and _is_of_images(workdir, data_path):
        rule = f"is a folder of images in data.path={data_path}"
        raise invalid("workdir", workdir, rule, "use a folder of its own")
    if not has_begun and (foreign := _foreign_files(workdir)):
        rule = f"holds no run, which would overwrite {', '.join(foreign)} in it"
        raise invalid("workdir", workdir, rule, "move that away, or use another folder")
    for names, is_wrong, kind, other in (
        (FILES, Path.is_dir, "file", "folder"),
        (FOLDERS, Path.is_file, "folder", "file"),
    ):
        if wrong := [name for name in names if is_wrong(workdir / name)]:
            rule = f"{', '.join(wrong)} in it must be a {kind}, and is a {other}"
            raise invalid("workdir", workdir, rule, "move it away, or use another folder")


def _foreign_files(workdir: Path) -> list[str]:
    """Return the files with names of a run's in a folder that holds none."""
    names = [name for name in NAMED_LIKE_OTHERS if (workdir / name).is_file()]
    if CONFIG in names:
        with contextlib.suppress(ValueError):
            read_config(workdir, "workdir")
            return []
    return names


def _is_of_images(workdir: Path, data_path: str) -> bool:
    if not data_path or not is_local(data_path) or not workdir.is_dir():
        return False
    if Path(data_path).resolve() not in workdir.resolve().parents:
        return False
    known = Image.registered_extensions()  # a log has a suffix of its own
    return any(suffix(file.name) in known for file in list_images(workdir).files)
