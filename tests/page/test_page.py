"""The page of a run says what the run has, names what it lacks, and escapes what it quotes."""

import base64
import errno
import hashlib
import html.parser
import io
import json
import math
import os
import re
import shlex
import subprocess

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import figures
from alexnet_jax import main as training
from alexnet_jax.cli.commands_of_run import commands_of_run, quoted
from alexnet_jax.config import flatten, unflatten
from alexnet_jax.inference.network import load_network
from alexnet_jax.page import confusion, curves, facts, outputs, pictures
from tests import untrained
from tests.page import runs
from tests.training.test_metrics import events

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Parsed(html.parser.HTMLParser):
    """What a browser would see: texts, attributes, scripts, and whether tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.words, self.scripts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("img", "meta", "link"):  # those that have no end
            self.stack.append(tag)
            if tag == "script":
                self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "script" in self.stack:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def charts(self):
        (data,) = [text for attrs, text in self.scripts if attrs.get("id") == "chart-data"]
        return {chart["id"]: chart for chart in json.loads(data)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return runs.train(tmp_path_factory.mktemp("trained"))


def drawn(workdir, *args):
    """Draw the page of a run; return it as text and parsed."""
    assert figures.main(["--workdir", str(workdir), "--only", "page", *map(str, args)]) == 0
    text = (workdir / "index.html").read_text("utf-8")
    return text, Parsed(text)


def check_self_contained(text, page):
    """Check that nothing but data: and anchors is named, in HTML and in CSS."""
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", text)
    assert not re.search(r"url\((?!#)|@import", text)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster"):
            assert value.startswith(("data:", "#")), f"{tag} {name}={value[:60]}"


def test_training_draws_the_page_of_a_finished_run(trained):
    text = (trained / "index.html").read_text("utf-8")
    page = Parsed(text)
    check_self_contained(text, page)
    assert "Finished at step 5, after 2 epochs." in page.text
    assert set(page.charts) == {"loss", "top1_error", "learning_rate", "images_per_second"}
    summary = json.loads((trained / "summary.json").read_text())
    assert f"{summary['validation']['top1_error']:.2%}" in page.text
    parts = json.loads((trained / "summary.json").read_text())["time"]
    assert f"{parts['steps'] / sum(parts.values()):.1%}" in page.text
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(sources) >= 9 + 2 + 1  # images, two towers' filters, the network
    alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(alts) == len(sources)
    assert all(alts)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    anchors = {value[1:] for _, name, value in page.attributes if name == "href" and "#" in value}
    assert anchors <= set(ids)
    assert "model.width" in page.text
    assert len(text) < 3e6
    assert not list(trained.glob(".*partial"))


def test_tensorboard_has_what_training_draws(trained):
    tags = [value.tag for event in events(trained) for value in event.summary.value]
    assert {tag for tag in tags if "figures" in tag} == {
        f"figures/{name}" for name in figures.AFTER_TRAINING
    }
    assert tags.count("_hparams_/session_start_info") == 1
    assert "validation/loss" in tags
    assert "validation/count" not in tags


def test_the_script_that_runs_is_the_one_that_the_page_allows(trained):
    page = Parsed((trained / "index.html").read_text("utf-8"))
    (script,) = [text for attrs, text in page.scripts if not attrs]
    (policy,) = [value for _, name, value in page.attributes if "default-src" in value]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_names_are_text_whatever_they_hold(trained):
    text = (trained / "index.html").read_text("utf-8")
    page = Parsed(text)
    assert len(page.scripts) == 2
    assert "alert" not in "".join(text for _, text in page.scripts)
    assert runs.SCRIPT in page.text
    assert runs.ARABIC in page.text
    assert r"caf\xe9" in page.text
    assert "a run & <b>" in page.text
    assert f"<bdi>{runs.ARABIC}</bdi>" in text  # does not reorder what is next to it


def test_a_stopped_run_says_so(trained, tmp_path):
    workdir = runs.copy(trained, tmp_path / "a")
    (workdir / "summary.json").unlink()
    _, page = drawn(workdir)
    assert "Not finished. The latest checkpoint is step 5, after 2 of 2 epochs." in page.text
    assert "up to this checkpoint" in page.text
    network = load_network(workdir)
    report = {"step": 9, "reason": "the loss is nan"}
    (workdir / "nonfinite.json").write_text(json.dumps(report))
    assert facts.state_of(network)["text"].startswith("Ended at step 9: the loss is nan.")
    (workdir / "nonfinite.json").write_text(json.dumps({**report, "step": 3}))
    assert facts.state_of(network)["kind"] == "unfinished"  # the run has passed it since


def test_moved_images_and_damaged_metrics_are_named_in_their_place(trained, tmp_path):
    workdir = runs.copy(trained, tmp_path / "a")
    for name in ("config.json", "summary.json"):
        (workdir / name).write_text("{")
    (workdir / "metrics.jsonl").write_text("{}\n")
    images = trained.parent / "images"
    images.rename(trained.parent / "moved")
    try:
        _, page = drawn(workdir)
        assert str(images) in page.text
        assert "metrics.jsonl line 1" in page.text
        assert "not recorded" in page.text
        assert "Most frequent" not in page.text
        _, page = drawn(workdir, "--data.path", trained.parent / "moved")
        assert "Most frequent" in page.text
    finally:
        (trained.parent / "moved").rename(images)


def test_metrics_without_numbers_and_a_single_point():
    lines = [runs.record(1, 0.5), runs.record(2, 1.0, loss=None, top1_error=None)]
    lines += [runs.record(3, None), {"step": 4, "split": "other", "epoch": 2}]
    charts = {chart["id"]: chart["series"] for chart in curves.chart_data(lines, top5=True)}
    assert charts["loss"][0]["y"] == [1.0, None]
    charts = curves.chart_data([runs.record(1, 0.5)], top5=True)
    assert [one["x"] for chart in charts for one in chart["series"]] == [[0.5]] * 6
    chart = curves.chart_data([runs.record(1, 0.5, loss=None)], top5=True)[0]
    assert [one["y"] for one in chart["series"]] == [[None], [None]]
    assert curves.chart_data([], top5=True) == []


def test_a_long_run_has_a_short_page_that_says_so(trained, tmp_path):
    workdir = runs.copy(trained, tmp_path / "a")
    count = 100_000
    lines = [runs.record(step, step / 100) for step in range(1, count + 1)]
    lines[54_321]["loss"] = 777.0
    lines[65_432]["loss"] = None
    validation = {"split": "validation", "loss": 1.0, "top1_error": 0.5, "top5_error": 0.1}
    lines += [{"step": count, "epoch": epoch, **validation} for epoch in range(1, 1001)]
    runs.write_metrics(workdir, lines)
    text, page = drawn(workdir)
    assert len(text) < 2e6
    assert "The run has 101,000 records" in page.text
    (records, *_) = page.charts["loss"]["series"]
    assert 1000 < len(records["x"]) <= 2100
    assert max(value for value in records["y"] if value is not None) == 777.0
    assert None in records["y"]
    assert records["step"][0] == 1
    assert records["step"][-1] == count


def test_imported_weights_have_no_history(tmp_path):
    workdir = untrained.make(tmp_path / "a")
    text, page = drawn(workdir)
    check_self_contained(text, page)
    assert "Weights imported from random.npz." in page.text
    assert "no training history" in page.text
    assert "nothing has been trained here" in page.text
    assert "--images DIR" in page.text
    assert page.scripts[0][0] == {}  # without data for curves
    workdir = untrained.make(tmp_path / "one-tower", "torchvision")
    alts = [value for _, name, value in drawn(workdir)[1].attributes if name == "alt"]
    assert len(alts) == 2  # filters without towers, the network


def test_the_page_goes_where_the_figures_go(tmp_path, capsys):
    workdir = untrained.make(tmp_path / "a")
    out = tmp_path / "elsewhere"
    assert figures.main(["--workdir", str(workdir), "--only", "page", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "index.html")]
    assert not (workdir / "index.html").exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(trained, tmp_path, monkeypatch, capsys):
    workdir = runs.copy(trained, tmp_path / "a")
    (workdir / "index.html").write_text("old")
    monkeypatch.setattr("alexnet_jax.storage.atomic._fsync", full_disk)
    assert figures.main(["--workdir", str(workdir), "--only", "page"]) == 2
    assert "free some space" in capsys.readouterr().err
    assert (workdir / "index.html").read_text() == "old"
    assert not list(workdir.glob(".*partial"))


def full_disk(path):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_outputs_that_are_nan_are_refused(trained, monkeypatch):
    best = outputs._best
    monkeypatch.setattr(outputs, "_best", lambda p, label: best(np.full_like(p, np.nan), label))
    with pytest.raises(ValueError, match="NaN for 9 images"):
        outputs.compute_outputs(load_network(trained))


def test_of_a_large_split_some_images_are_drawn(trained, monkeypatch):
    network = load_network(trained)
    whole = outputs.compute_outputs(network)
    assert whole.split == "validation"
    assert len(whole.label) == whole.scores["count"] == 9
    assert whole.scores["top1_error"] == pytest.approx((whole.best != whole.label).mean())
    np.testing.assert_allclose(whole.scores["loss"], -np.log(whole.true_probability).mean(), 1e-4)
    monkeypatch.setattr(outputs, "MAX_IMAGES", 5)
    assert len(outputs.compute_outputs(network).label) == 5


def test_the_command_that_resumes_has_the_configuration_of_the_run(trained, tmp_path):
    workdir = runs.copy(trained, tmp_path / "it's $HOME")
    commands = commands_of_run(workdir, {"data": {}})
    command = training.parse(shlex.split(commands["Resume"])[3:])
    assert command.workdir == workdir
    saved = json.loads((workdir / "config.json").read_text())["config"]
    assert flatten(command.config) == flatten(unflatten(saved))


def test_the_command_that_fine_tunes_starts_from_the_run(tmp_path):
    origin = untrained.make(tmp_path / "a b", "caffenet")
    commands = commands_of_run(origin, {"imported": {}})
    assert "Resume" not in commands
    words = shlex.split(commands["Fine-tune on your own images"])[3:]
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "train" / name).mkdir()
        for number in range(3):
            path = tmp_path / "photos" / "train" / name / f"{number}.png"
            Image.new("RGB", (8, 8)).save(path)
    config = training.parse([str(tmp_path / "photos") if w == "DIR" else w for w in words]).config
    assert (config.preset, config.init_from) == ("finetune", str(origin))


def test_a_folder_that_is_no_text_is_quoted_for_bash():
    name = os.fsdecode(b"caf\xe9'\\\x1b ab\n")
    printed = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True
    )
    assert printed.stdout == os.fsencode(name)
    assert quoted(name).isascii()


def test_thinning_keeps_the_shape():
    y = np.sin(np.arange(50_000) / 500)
    y[12_345], y[30_000:30_010] = 9, math.nan
    x, step, thin = curves.thin(np.arange(50_000.0), np.arange(50_000.0), y)
    assert len(x) <= 2100
    assert (np.diff(x) > 0).all()
    assert np.nanmax(thin) == 9
    assert np.isnan(thin).any()
    np.testing.assert_array_equal(x, step)
    short = curves.thin(x[:7], step[:7], thin[:7])
    np.testing.assert_array_equal(short[2], thin[:7])


def test_the_mean_of_an_epoch_weighs_records_by_their_steps():
    lines = [
        runs.record(20, 0.8, loss=1.0),
        runs.record(25, 1.0, loss=2.0),
        runs.record(45, 1.8, loss=3.0),
        runs.record(50, 2.0, loss=None),
    ]
    (chart, *_) = curves.chart_data(lines, top5=False)
    (mean,) = [one for one in chart["series"] if one["name"] == "training, mean of the epoch"]
    assert mean["x"] == [1.0, 2.0]
    assert mean["y"] == [1.2, 3.0]
    assert [row["loss"] for row in curves.epoch_table(lines)] == [1.2, 3.0]


def test_filters_are_opaque_and_what_is_between_them_is_not():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    for towers, number in ((True, 2), (False, 1)):
        found = pictures.filters_of(kernel, towers)
        assert len(found) == number
        content = base64.b64decode(found[0]["address"].partition(",")[2])
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (5, 4 * 8 // number + 1, 4)
        assert found[0]["width"] == pixels.shape[1]
        assert (pixels[..., 3] == 255).sum() == 9 * 8 // number
        assert set(np.unique(pixels[..., 3])) == {0, 255}


@pytest.mark.parametrize("number", [2, 26, 131, 1000])
def test_confusions_of_few_and_many_classes(number):
    names = [f"class {n}" for n in range(number)]
    label = np.r_[np.arange(number), 0, 0, 0, 1]
    best = np.r_[np.arange(number), 1, 1, 0, 0]
    first, second = confusion.worst_pairs(label, best, names)
    assert (first["true"], first["predicted"]) == ("class 0", "class 1")
    assert (first["count"], first["total"]) == (2, 4)
    assert (second["true"], second["count"], second["total"]) == ("class 1", 1, 2)
    assert [row["wrong"] for row in confusion.worst_classes(label, best, names)] == [2, 1]
    pixels = confusion.picture(label, best, number)
    assert pixels.shape == (number, number, 4)
    assert pixels[0, 0, 3] > 0
    assert pixels[1, 0, 3] > 0
    table = confusion.table(label, best, names)
    assert table["rows"][0]["counts"][:2] == [2, 2]
    assert table["numbered"] == (number <= 25)


def test_of_equal_errors_the_newest_is_the_best_as_of_checkpoints():
    errors = [0.5, 0.25, 0.25, 0.3, None]
    lines = [{"split": "validation", "step": n, "top1_error": e} for n, e in enumerate(errors)]
    best = facts.best_validation([*lines, {"split": "test", "step": 9, "top1_error": 0.1}])
    assert best is not None
    assert best["step"] == 2
