"""The bars of a run: what is seen on a narrow terminal, and which split is read."""

import contextlib
import dataclasses
import fcntl
import io
import os
import pty
import re
import struct
import termios

import numpy as np
import pytest

from alexnet_jax.data import statistics
from alexnet_jax.presets import PRESETS
from alexnet_jax.training import metrics
from alexnet_jax.training.metrics import MetricsWriter, ProgressBar
from alexnet_jax.training.run_data import open_splits, read_data


def shown(columns, n=1234, total=33360):
    """Return the bar of a run on a terminal of some columns."""
    bar = ProgressBar(total=total, initial=n - 1, ncols=columns, file=io.StringIO(), unit="step")
    bar.set_postfix_str("error 78.9%, 1,234 images/s, loss 2.345", refresh=False)
    bar.update(1)
    text = str(bar)
    bar.close()
    return text


@pytest.mark.parametrize("columns", range(34, 130, 3))
def test_error_and_speed_are_seen_on_every_terminal(columns):
    text = shown(columns)
    assert len(text) <= columns
    assert "error 78.9%" in text
    assert "1,234 images/s" in text


def test_what_matters_least_is_left_out_first():
    assert "loss 2.345" in shown(60)
    assert "left" in shown(60)
    assert "1234/33360" in shown(80)
    assert "step/s" not in shown(80)
    assert all(part in shown(120) for part in ("step/s", "|", "1234/33360", "loss 2.345"))
    assert len(shown(120)) == 120  # the bar takes the rest


def test_a_terminal_of_60_columns(tmp_path, monkeypatch):
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(end, "w") as stream:
        monkeypatch.setattr(metrics.sys, "stderr", stream)
        with MetricsWriter(tmp_path, 0, 33360) as writer:
            for step in (1, 2):
                writer.advance(step, loss=2.345, error=0.789, images_per_second=1234.0)
    printed = ""
    with contextlib.suppress(OSError):  # Linux, where nobody has the other end any more
        while part := os.read(terminal, 65536):
            printed += part.decode()
    os.close(terminal)
    *_, last = (line for line in re.split(r"[\r\n]+", printed) if "%" in line)
    assert "error 78.9%, 1,234 images/s" in last
    assert len(last) <= 60


def test_the_bar_says_which_split_is_read(monkeypatch, photos):
    descriptions = []

    class Bar(statistics.tqdm):
        def __init__(self, total: int, desc: str, **_):
            descriptions.append((desc, total))
            super().__init__(disable=True)

    monkeypatch.setattr(statistics, "tqdm", Bar)
    config = PRESETS["photos"]
    data = dataclasses.replace(config.data, path=str(photos), image_size=40, crop=36)
    optimizer = dataclasses.replace(config.optimizer, batch_size=8)
    config = dataclasses.replace(config, data=data, optimizer=optimizer)
    opened = open_splits(config, None)
    read = read_data(config, opened, None, lambda: None)
    assert np.isfinite(read.statistics["mean_color"]).all()
    assert descriptions == [
        ("reading train images", 30),
        ("reading validation images", 12),
        ("reading test images", 9),
    ]
