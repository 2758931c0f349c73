"""What is recorded survives crashes, once each, and is valid JSON."""

import io
import json
import math
import os
import sys
import time

import numpy as np
import pytest

# pyrefly: ignore [missing-module-attribute]  # protobuf makes these classes when imported
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from alexnet_jax.training.metrics import MetricsWriter, read_metrics

pytestmark = pytest.mark.usefixtures("quick_compilation")


def without_time(records):
    return [{name: value for name, value in record.items() if name != "time"} for record in records]


def events(workdir):
    """Return the events of all TensorBoard files: length, its CRC, the record, its CRC."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        stream = io.BytesIO(path.read_bytes())
        while head := stream.read(12):
            size, crc = np.frombuffer(head, "<u8", 1)[0], np.frombuffer(head, "<u4", 1, 8)[0]
            assert crc == masked_crc32c(head[:8])
            found.append(Event.FromString(stream.read(int(size))))
            stream.read(4)
    return found


def scalars(workdir):
    return [
        (value.tag, event.step, pytest.approx(value.simple_value))
        for event in events(workdir)
        for value in event.summary.value
    ]


def test_a_record_is_one_json_line(tmp_path):
    before = time.time()
    with MetricsWriter(tmp_path, 0, 10) as writer:
        writer.train(5, 0.5, loss=2.5, top1_error=0.75, rate=0.01, images_per_second=80.0)
        writer.evaluation("validation", 10, 1, loss=2.0, top1_error=0.5, top5_error=0.25)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    records = [json.loads(line) for line in text.splitlines()]
    assert records == read_metrics(tmp_path)
    assert without_time(records) == [
        {
            "step": 5,
            "epoch": 0.5,
            "split": "train",
            "loss": 2.5,
            "top1_error": 0.75,
            "rate": 0.01,
            "images_per_second": 80.0,
        },
        {
            "step": 10,
            "epoch": 1,
            "split": "validation",
            "loss": 2.0,
            "top1_error": 0.5,
            "top5_error": 0.25,
        },
    ]
    assert all(before - 0.001 <= record["time"] <= time.time() + 0.001 for record in records)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.train(5, 0.5, loss=2.5, rate=0.01)
        writer.evaluation("test", 10, 1, top1_error=0.5)
    assert scalars(tmp_path) == [
        ("train/loss", 5, 2.5),
        ("train/rate", 5, 0.01),
        ("test/top1_error", 10, 0.5),
    ]


def test_numbers_of_arrays_and_those_that_json_cannot_say(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.train(
            3,
            0.5,
            loss=np.float32(0.25),
            images=np.int32(7),
            top1_error=math.nan,
            rate=np.float64(np.inf),
        )
    (record,) = without_time(read_metrics(tmp_path))
    assert record == {
        "step": 3,
        "epoch": 0.5,
        "split": "train",
        "loss": 0.25,
        "images": 7,
        "top1_error": None,
        "rate": None,
    }
    assert scalars(tmp_path) == [("train/loss", 3, 0.25), ("train/images", 3, 7)]


def test_each_line_can_be_read_while_the_run_goes_on(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.train(1, 0.1, loss=1.0)
        assert [record["step"] for record in read_metrics(tmp_path)] == [1]


def test_resuming_cuts_what_will_be_run_again(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        for step in (10, 20, 30):
            writer.train(step, step / 20, loss=1 / step)
        writer.evaluation("validation", 20, 1, loss=0.5)
    with MetricsWriter(tmp_path, 20) as writer:
        kept = read_metrics(tmp_path)
        writer.train(30, 1.5, loss=7.0)
    assert [(record["step"], record["split"]) for record in kept] == [
        (10, "train"),
        (20, "train"),
        (20, "validation"),
    ]
    assert kept[0]["loss"] == 1 / 10  # to the last bit
    assert read_metrics(tmp_path)[:3] == kept
    assert read_metrics(tmp_path)[3]["loss"] == 7.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]
    # TensorBoard drops what it has read from step 21 on when it meets this event.
    purges = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert purges == [1, 21]


def test_what_is_recorded_at_the_step_of_the_checkpoint_is_not_recorded_twice(tmp_path):
    for loss in (0.5, 0.25):  # of a look, and of the same once more
        with MetricsWriter(tmp_path, 4) as writer:
            writer.evaluation("validation", 4, 1, loss=loss)
            writer.flush()
            writer.evaluation("test", 4 + (loss == 0.25), 1, loss=loss)
    records = read_metrics(tmp_path)
    assert [(line["split"], line["step"], line["loss"]) for line in records] == [
        ("validation", 4, 0.5),
        ("test", 4, 0.5),
        ("test", 5, 0.25),
    ]
    assert len(scalars(tmp_path)) == 3


def test_two_resumptions_in_one_second_keep_both_event_files(tmp_path):
    for step in (0, 1, 2):
        with MetricsWriter(tmp_path, step) as writer:
            writer.train(step + 1, 0.5, loss=float(step))
    assert sorted(step for _, step, _ in scalars(tmp_path)) == [1, 2, 3]


@pytest.mark.parametrize("torn", ['{"step": 4, "epo', '{"step": 4, "loss": 1.0}', "\0\0\0"])
def test_a_line_torn_by_a_crash_is_dropped(tmp_path, torn):
    whole = '{"step": 3, "loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_text(whole + torn)
    assert read_metrics(tmp_path) == [{"step": 3, "loss": 2.0}]
    MetricsWriter(tmp_path, 100).close()
    assert (tmp_path / "metrics.jsonl").read_text() == whole


@pytest.mark.parametrize("line", ["no JSON", "[1, 2]", '{"loss": 2.0}', '{"step": "3"}', ""])
def test_any_other_bad_line_is_named_and_kept(tmp_path, line):
    text = f'{{"step": 3}}\n{line}\n{{"step": 4}}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"metrics.jsonl line 2 is .*remove that line"):
        MetricsWriter(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path) == []


def test_flush_reaches_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with MetricsWriter(tmp_path, 0) as writer:
        writer.train(1, 0.1, loss=1.0)
        assert (tmp_path / "metrics.jsonl").stat().st_ino not in synced
        writer.flush()
        assert (tmp_path / "metrics.jsonl").stat().st_ino in synced


def test_closing_twice_is_closing_once(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.train(1, 0.1, loss=1.0)
    writer.close()
    writer.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def set_terminal(monkeypatch) -> Terminal:
    """Make standard error a terminal; in the test itself, pytest resets it after fixtures."""
    fake = Terminal()
    monkeypatch.setattr(sys, "stderr", fake)
    return fake


def test_the_bar_starts_at_the_restored_step_and_shows_numbers(tmp_path, monkeypatch):
    terminal = set_terminal(monkeypatch)
    with MetricsWriter(tmp_path, 40, 100) as writer:
        assert "40/100" in terminal.getvalue()
        writer.advance(60, 2.3456, 0.721, 83.4)
    last = terminal.getvalue().split("\r")[-1]
    assert "60/100" in last
    assert "error 72.1%, 83 images/s, loss 2.346" in last


def test_lines_stand_alone_above_the_bar(tmp_path, monkeypatch, capsys):
    terminal = set_terminal(monkeypatch)
    with MetricsWriter(tmp_path, 0, 100) as writer:
        writer.print_line("epoch 1: validation error 50.0 %")
        writer.advance(100, 1.0, 0.5, 80.0)
    assert capsys.readouterr().out == "epoch 1: validation error 50.0 %\n"
    assert "epoch 1" not in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1  # one bar for the whole run


def test_a_log_file_gets_the_lines_and_no_bar(tmp_path, capsys):
    with MetricsWriter(tmp_path, 0, 100) as writer:
        writer.advance(1, 2.0, 0.5, 80.0)
        writer.print_line("epoch 1")
        writer.advance(100, 1.0, 0.4, 80.0)
    captured = capsys.readouterr()
    assert captured.out == "epoch 1\n"
    assert captured.err == ""
