"""What a run writes into its folder: refused at the start where something else has a name of it."""

from pathlib import Path

from alexnet_jax.config import invalid
from alexnet_jax.training import data_files
from alexnet_jax.training.metrics import METRICS
from alexnet_jax.training.nonfinite import REPORT
from alexnet_jax.training.run_config import CONFIG
from alexnet_jax.training.run_data import UNREADABLE
from alexnet_jax.training.summary import STATISTICS, SUMMARY

FILES = (CONFIG, METRICS, STATISTICS, SUMMARY, REPORT, UNREADABLE, data_files.NAME)
FILES += ("index.html", "lock")
FOLDERS = ("tensorboard", "figures", "profile")  # and that of the checkpoints, which is tried


def check_entries(workdir: Path) -> None:
    """Raise a ValueError if a file of the run would be written where a folder is, or the reverse.

    Else that would be found where it is written: the summary when training has ended.
    """
    for names, is_wrong, kind, other in (
        (FILES, Path.is_dir, "file", "folder"),
        (FOLDERS, Path.is_file, "folder", "file"),
    ):
        if wrong := [name for name in names if is_wrong(workdir / name)]:
            rule = f"{', '.join(wrong)} in it must be a {kind}, and is a {other}"
            raise invalid("workdir", workdir, rule, "move it away, or use another folder")
