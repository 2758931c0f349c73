"""Files of a run that are damaged: an unreadable summary is none, the others are named."""

import gzip
import json
import types
from typing import Any

import numpy as np
import pytest

from alexnet_jax.config import Config, flatten
from alexnet_jax.fidelity.saved_run import read_saved_run
from alexnet_jax.plots import curves
from alexnet_jax.storage.atomic import write_json
from alexnet_jax.training import data_files
from alexnet_jax.training.finetune import defaults_from
from alexnet_jax.training.metrics import METRICS, MetricsWriter, read_metrics
from alexnet_jax.training.run_config import CONFIG
from alexnet_jax.training.run_meta import read_meta
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.summary import SUMMARY, read_summary
from alexnet_jax.training.timing import earlier_time, no_time

NO_OBJECT = {
    "empty": b"",
    "cut": b'{"config": {"seed": 1,',
    "list": b"[]",
    "number": b"17",
    "null": b"null",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"a": "\xff"}',
    "nan": b'{"seconds": NaN}',
    "zeros": b"\0" * 100,
    "folder": None,
}


def damage(path, content):
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


SCORES = {"loss": 1.0, "top1_error": 0.5, "top5_error": 0.25, "count": 12}
WHOLE = {
    "validation": SCORES,
    "source": "folder",
    "classes": 3,
    "training_images": 90,
    "epochs": 2,
    "steps": 20,
    "seconds": 1.5,
    "ended_on_plateau": False,
}


@pytest.mark.parametrize("name", NO_OBJECT)
def test_a_summary_that_cannot_be_read_is_none(tmp_path, name):
    damage(tmp_path / SUMMARY, NO_OBJECT[name])
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": None},
        {"validation": []},
        {"validation": {**SCORES, "top1_error": "0.5"}},
        {"validation": {"loss": 1.0}},
        {"test": "none"},
        {"epochs": "2"},
        {"steps": 2.5},
        {"seconds": None},
        {"classes": [3]},
        {"source": 7},
        {"ended_on_plateau": "no"},
    ],
)
def test_a_summary_of_other_types_is_none(tmp_path, changes):
    write_json(tmp_path / SUMMARY, WHOLE)
    assert read_summary(tmp_path) == WHOLE
    write_json(tmp_path / SUMMARY, WHOLE | changes)
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize("name", NO_OBJECT)
@pytest.mark.parametrize("read", [read_saved_run, lambda run: defaults_from(run, Config())])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path, name, read):
    damage(tmp_path / CONFIG, NO_OBJECT[name])
    with pytest.raises(ValueError, match=rf"^(workdir|init_from) {tmp_path}: {CONFIG} .*; name"):
        read(tmp_path)


@pytest.mark.parametrize(
    "config", [None, [], "seed", {"seed": []}, {"seed": {}}, {"no.such": 1}, {"data.crop": "x"}]
)
@pytest.mark.parametrize("read", [read_saved_run, lambda run: defaults_from(run, Config())])
def test_a_configuration_of_other_types_is_named(tmp_path, config, read):
    write_json(tmp_path / CONFIG, {"config": config, "class_names": ["a"]})
    with pytest.raises(ValueError, match=rf"^(workdir|init_from) {tmp_path}: {CONFIG} .*; name"):
        read(tmp_path)


@pytest.mark.parametrize("names", [None, [], "abc", [1, 2], {"a": 1}])
def test_class_names_of_other_types_are_named(tmp_path, names):
    write_json(tmp_path / CONFIG, {"config": flatten(Config()), "class_names": names})
    with pytest.raises(ValueError, match=rf"workdir {tmp_path}: {CONFIG} .*class_names.*; name"):
        read_saved_run(tmp_path)


LINES = [
    *('{"step": NaN}', '{"step": true}', '{"step": -1}', '{"step": 1.5}', '{"step": [3]}'),
    *('{"step": 3, "split": 7}', '{"step": 3, "split": null}', '{"step": 3, "loss": "low"}'),
    *('{"step": 3, "loss": Infinity}', '{"step": 3, "loss": [1]}', '{"step": 3, "loss": true}'),
    *('{"step": 3, "seconds": null}', '{"step": 3, "loss": 1e999}', "[" * 100_000),
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_metrics_that_is_no_record_is_named_and_kept(tmp_path, line):
    text = f'{{"step": 3}}\n{line}\n'
    (tmp_path / METRICS).write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}/{METRICS} line 2 .*; remove that line"):
        MetricsWriter(tmp_path, 3)
    assert (tmp_path / METRICS).read_text() == text


def test_a_line_of_metrics_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / METRICS).write_bytes(b'{"step": 3, "split": "\xff"}\n')
    with pytest.raises(ValueError, match=rf"{METRICS} line 1 .*not UTF-8"):
        read_metrics(tmp_path)


def test_a_folder_in_the_place_of_metrics_is_named(tmp_path):
    (tmp_path / METRICS).mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        read_metrics(tmp_path)
    assert refused.value.filename == str(tmp_path / METRICS)


def test_a_line_without_its_time_takes_none():
    assert earlier_time(no_time(), 3, [{"step": 3}, {"step": 4, "seconds": 2.0}]) == {
        **no_time(),
        "repeated": 2.0,
    }


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('["a", 1]\n17\n', "line 2"),
        ('["a", "1"]\n', "line 1"),
        ('[["a"], 1]\n', "line 1"),
        ('{"a": 1}\n', "line 1"),
        ('["a", 1]\n["b", 2, 3]\n', "line 2"),
        ('["a", 1]\n["b", tr', "line 2"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_a_damaged_list_of_files_is_named_and_written_again(tmp_path, caplog, lines, where):
    path = tmp_path / data_files.NAME
    path.write_bytes(gzip.compress(lines.encode()))
    assert not data_files.check({"a": 1}, tmp_path)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: {where} ")
    assert "sizes" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(b"\xff", mtime=0), None])
def test_a_list_of_files_that_is_none_is_named(tmp_path, caplog, content):
    damage(tmp_path / data_files.NAME, content)
    assert not data_files.check({"a": 1}, tmp_path)
    assert str(tmp_path / data_files.NAME) in caplog.text


META = {
    "config": flatten(Config()),
    "class_names": ["a", "b"],
    "progress": vars(Progress()),
    "time": no_time(),
    "data": {"train": "0123"},
    "line_sums": {"loss": 1.0},
    "epoch_sums": {},
    "unreadable": {"train": {"3": "no image"}},
}


def saved(workdir, meta) -> Any:
    """Return what stands for checkpoints whose plain part has these values."""
    content = json.loads(json.dumps(meta))
    return types.SimpleNamespace(workdir=workdir, meta=lambda _: content)


def test_the_plain_part_of_a_checkpoint_is_returned(tmp_path):
    assert read_meta(saved(tmp_path, META), 3) == json.loads(json.dumps(META))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in META for value in (None, [], 7, "text")),
        *(("class_names", value) for value in ([1], {"a": 1})),
        *(("progress", value) for value in ({}, {**vars(Progress()), "epoch": "3"})),
        *(("progress", {**vars(Progress()), name: []}) for name in ("best", "ended", "since")),
        *(("time", value) for value in ({}, {**no_time(), "start": "1"})),
        *(("data", {"train": 1}), ("line_sums", {"loss": None}), ("epoch_sums", {"loss": "1"})),
        *(("unreadable", {"train": {"x": "no"}}), ("unreadable", {"train": {"1": 2}})),
    ],
)
def test_a_plain_part_of_other_types_is_refused(tmp_path, name, value):
    match = rf"workdir {tmp_path}: {name} in the checkpoint of step 3 .*; restore"
    with pytest.raises(ValueError, match=match):
        read_meta(saved(tmp_path, {**META, name: value}), 3)
    with pytest.raises(ValueError, match=match):
        read_meta(saved(tmp_path, {key: META[key] for key in META if key != name}), 3)


def test_curves_leave_out_records_without_what_they_show():
    whole = {"step": 3, "epoch": 0.5, "split": "train", "loss": 1.0, "top1_error": 0.5}
    records = [{"step": 1}, whole, {**whole, "epoch": None}, {**whole, "epoch": 0.0}, whole]
    axes = curves.draw(records).axes[1]
    (line,) = (line for line in axes.lines if line.get_gid() == "train records")
    assert np.asarray(line.get_xdata()).size == 3
