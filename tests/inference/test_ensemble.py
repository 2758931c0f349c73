"""Ten views and several networks against plain numpy; weights searched on held-out images."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax import evaluate, predict
from alexnet_jax.config import Config, DataConfig, ModelConfig
from alexnet_jax.data.wrappers import Subset
from alexnet_jax.inference import datasets, ensemble
from alexnet_jax.inference import network as network_loading
from alexnet_jax.inference import scores as scoring
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.plots import confusion, predictions
from alexnet_jax.plots.class_labels import short
from alexnet_jax.storage.digest import digest
from tests.noise import Noise

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUMBER, CLASSES, SIZE, CROP = 11, 7, 40, 36
NAMES = tuple("abcdefg")
DATA = DataConfig(image_size=SIZE, crop=CROP, threads=1)
TABLE = build_architecture(ModelConfig(width=0.05, conv345_init_std=0.03), CLASSES, CROP)


def noise(unreadable=(), seed=0):
    return Noise(NUMBER, SIZE, CLASSES, unreadable, seed)


def make_network(seed, names=NAMES, **fields):
    """Return a network with the given fields for its mesh and weights."""
    rng = np.random.default_rng(seed)
    statistics = {
        "mean_image": rng.uniform(90, 150, (SIZE, SIZE, 3)).astype(np.float32),
        "mean_color": np.full(3, 120, np.float32),
        "lighting_axes": np.eye(3, dtype=np.float32),
        "lighting_std": np.ones(3, np.float32),
        "scale": np.ones(3, np.float32),
    }
    return Network(
        workdir=Path(f"runs/{seed}"),
        step=5 + seed,
        config=dataclasses.replace(Config(), data=DATA),
        class_names=names,
        architecture=TABLE,
        statistics=statistics,
        meta={},
        **fields,
    )


def draws(seed):
    return np.random.default_rng((seed, 1))


def draw_like(leaf, rng):
    """Return weights that preserve the variance of activations, drawn without compiling."""
    scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
    return rng.normal(0, scale, leaf.shape).astype(np.float32)


def network_of(seed, data, tower):
    """Return a network with random weights whose predictions differ widely between images."""
    mesh = towers.make_mesh(towers=tower, data=data, batch=4)
    shapes, rng = jax.eval_shape(towers.initializer(TABLE), jax.random.key(0)), draws(seed)
    variables = jax.tree.map(lambda leaf: draw_like(leaf, rng), shapes)
    placed = jax.device_put(variables, towers.state_shardings(variables, TABLE, mesh))
    return make_network(seed, mesh=mesh, variables=placed)


class Guess:
    """Replaces a compiled network: a linear classifier of the mean over the rows of an image."""

    def __init__(self, network, views):
        rng = np.random.default_rng(network.step)
        self.data, self._views = network.config.data, views
        self._kernel = rng.normal(0, 0.1, (3 * SIZE, CLASSES))

    def __call__(self, squares):
        rows = np.asarray(squares, np.float64).mean(axis=1).reshape(len(squares), -1)
        logits = (rows - 120) @ self._kernel
        return np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))


@pytest.fixture(scope="module")
def reference():
    """Return mean probabilities over ten views, [2 networks, N, K], from crops made here."""
    networks, edge = [network_of(seed, 1, 1) for seed in (0, 1)], SIZE - CROP
    corners = [(0, 0), (0, edge), (edge, 0), (edge, edge), (edge // 2, edge // 2)]
    apply, means = jax.jit(towers.forward(TABLE, networks[0].mesh)), []
    for network in networks:
        for square in noise().images:
            centered = square.astype(np.float32) - network.statistics["mean_image"]
            crops = [centered[top : top + CROP, left : left + CROP] for top, left in corners]
            crops += [crop[:, ::-1] for crop in crops]
            logits = np.asarray(apply(network.variables, np.stack(crops)), np.float64)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            means.append((shares / shares.sum(axis=1, keepdims=True)).mean(axis=0))
    return np.reshape(means, (2, NUMBER, CLASSES))


def scores_of(probabilities, labels):
    """Return loss, top-1 and top-5 error of each image."""
    true = probabilities[np.arange(len(labels)), labels]
    rank = np.sum(probabilities > true[:, None], axis=1)
    return -np.log(true), rank >= 1, rank >= 5


def test_views_and_networks_are_averaged_as_probabilities(reference):
    source, weights = noise(unreadable=(3,)), [0.3, 0.7]
    kept = [index for index in range(NUMBER) if index != 3]
    by_network = reference[:, kept]
    predictors = [ensemble.Predictor(network_of(seed, 1, 1), 10) for seed in (0, 1)]
    candidates = [*np.eye(2), np.array([0.5, 0.5]), np.array(weights)]
    predictions = ensemble.predict_sources(predictors, [source, source], candidates, 4)
    expected = [*by_network, by_network.mean(axis=0), np.tensordot(weights, by_network, 1)]
    labels = source.labels[kept]
    for answer, probabilities in zip(predictions, expected, strict=True):
        np.testing.assert_array_equal(answer.label, labels)
        np.testing.assert_array_equal(answer.best, probabilities.argmax(axis=1))
        loss, top1, top5 = scores_of(probabilities, labels)
        np.testing.assert_allclose(answer.loss, loss, rtol=1e-4)
        np.testing.assert_array_equal(answer.top1_error, top1)
        np.testing.assert_array_equal(answer.top5_error, top5)
        assert answer.scores() == {
            "loss": pytest.approx(loss.mean(), rel=1e-4),
            "top1_error": pytest.approx(top1.mean()),
            "top5_error": pytest.approx(top5.mean()),
        }
    # The two networks differ, so that another average would fail.
    assert np.abs(by_network[0] - by_network[1]).max() > 0.05
    logits = np.log(by_network).mean(axis=0)
    wrong = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(wrong - expected[2]).max() > 1e-3


def test_an_image_that_one_of_two_networks_cannot_read_counts_for_neither():
    """Each network reads the images at its own size, and so may fail on its own."""
    networks = [network_of(seed, 1, 1) for seed in (0, 1)]
    predictors: list[Any] = [Guess(network, 1) for network in networks]
    sources = [noise(unreadable=(3,)), noise(unreadable=(7,))]
    candidates = [*np.eye(2), np.array([0.5, 0.5])]
    predictions = ensemble.predict_sources(predictors, sources, candidates, 4)
    kept = [index for index in range(NUMBER) if index not in (3, 7)]
    logs = [predictor(noise().images[kept]).astype(np.float64) for predictor in predictors]
    expected = [*logs, np.logaddexp(*logs) - np.log(2)]
    labels = noise().labels[kept]
    for answer, rows in zip(predictions, expected, strict=True):
        np.testing.assert_array_equal(answer.label, labels)
        np.testing.assert_array_equal(answer.best, rows.argmax(axis=1))
        loss = -rows[np.arange(len(labels)), labels]
        np.testing.assert_allclose(answer.loss, loss, rtol=1e-4, atol=1e-6)


def test_ten_views_are_the_same_on_four_devices(reference):
    predictor = ensemble.Predictor(network_of(0, 2, 2), 10)
    shares = np.exp(predictor(noise().images[:4]))
    np.testing.assert_allclose(shares, reference[0, :4], rtol=1e-4, atol=1e-7)


def test_a_network_alone_is_exact():
    logs = jax.nn.log_softmax(jnp.array(np.random.default_rng(0).normal(0, 40, (3, 5, 7))))
    for place, weights in enumerate(np.eye(3, dtype=np.float32)):
        np.testing.assert_array_equal(ensemble.mix_log_probabilities(logs, weights), logs[place])
    assert np.exp(logs).min() == 0  # of probabilities themselves the loss would be infinite
    assert np.isfinite(ensemble.mix_log_probabilities(logs, np.full(3, 1 / 3, np.float32))).all()


def test_the_searched_weights_have_the_lowest_loss():
    rng = np.random.default_rng(0)
    right = rng.uniform(size=(200, 3)) < np.array([0.8, 0.7, 0.3])
    likelihood = np.where(right, rng.uniform(0.3, 1, (200, 3)), rng.uniform(0, 0.2, (200, 3)))
    weights = ensemble.search_ensemble_weights(-np.log(likelihood))
    assert weights.sum() == pytest.approx(1)
    grid = np.linspace(0, 1, 101)
    losses = {
        (a, b): -np.log(likelihood @ [a, b, 1 - a - b]).mean()
        for a in grid
        for b in grid
        if a + b <= 1 + 1e-9
    }
    least = min(losses, key=lambda pair: losses[pair])
    np.testing.assert_allclose(weights[:2], least, atol=0.011)
    assert -np.log(likelihood @ weights).mean() <= losses[least] + 1e-9
    np.testing.assert_allclose(ensemble.search_ensemble_weights(np.zeros((9, 4))), 0.25)
    # Probabilities that underflow to 0.
    np.testing.assert_allclose(
        ensemble.search_ensemble_weights(np.array([[2000.0, 1000.0]])), [0, 1]
    )
    impossible = np.array([[np.inf, np.inf], [np.inf, 1.0]])  # the first for both networks
    np.testing.assert_allclose(ensemble.search_ensemble_weights(impossible), [0, 1], atol=1e-4)


def test_outputs_that_are_nan_have_no_best_class():
    network = network_of(0, 1, 1)
    kernel = network.variables["params"]["fc8"]["kernel"]
    network.variables["params"]["fc8"]["kernel"] = kernel.at[0, 0].set(np.nan)
    with pytest.raises(ValueError, match=r"^workdir runs/0: .*step 5.* NaN for 4 images; use "):
        ensemble.Predictor(network, 1)(noise().images[:4])


class Runs:
    """The runs that `evaluate` loads in a test, and what it opens of them."""

    def __init__(self):
        mesh = towers.make_mesh(towers=1, data=1, batch=4)
        self.networks = {n: make_network(s, mesh=mesh, variables={}) for s, n in enumerate("ab")}
        self.networks["c"] = make_network(2, tuple("abcdefh"), mesh=mesh, variables={})
        self.splits = {"validation": noise(seed=1), "test": noise(seed=2)}
        self.other_splits = {}  # by network and split
        self.meta = {}
        self.opened = []

    def load_network(self, workdir, *_):
        return dataclasses.replace(self.networks[workdir.name], workdir=workdir, meta=self.meta)

    def open_split(self, network, split):
        self.opened.append(split)
        return self.other_splits.get((network.workdir.name, split), self.splits[split])


@pytest.fixture
def runs(monkeypatch):
    """Have `evaluate` load networks and splits made here."""
    runs = Runs()
    monkeypatch.setattr(ensemble, "Predictor", Guess)
    monkeypatch.setattr(network_loading, "load_network", runs.load_network)
    monkeypatch.setattr(datasets, "open_split", runs.open_split)
    return runs


COMMON = ["--batch-size", "4", "--mesh.towers", "1", "--mesh.data", "1"]


def scores_of_command(capsys, *arguments):
    assert evaluate.main([*COMMON, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    """Run a command that must be refused; return its error message."""
    assert evaluate.main([*COMMON, *arguments]) == 2
    *_, line = capsys.readouterr().err.splitlines()  # the others say what was taken for what
    return line.removeprefix("alexnet_jax: ")


def test_averages_and_weights_searched_on_other_images_than_those_evaluated(runs, capsys):
    both = ["--workdir", "a", "--workdir", "b", "--split", "test"]
    equal = scores_of_command(capsys, *both)
    assert runs.opened == ["test", "test"]
    assert equal["weights"] == [0.5, 0.5]
    searched = scores_of_command(capsys, *both, "--ensemble-weights", "searched", "--per-class")
    assert searched["searched_on"] == "validation"
    # They depend on the held-out images alone.
    runs.splits["test"] = noise(seed=3)
    assert (
        scores_of_command(capsys, *both, "--ensemble-weights", "searched")["weights"]
        == searched["weights"]
    )
    runs.splits["validation"] = noise(seed=4)
    assert (
        scores_of_command(capsys, *both, "--ensemble-weights", "searched")["weights"]
        != searched["weights"]
    )
    runs.splits["test"] = noise(seed=2)
    alone = [scores_of_command(capsys, "--workdir", name, "--split", "test") for name in "ab"]
    for scores, (name, step) in zip(alone, (("a", 5), ("b", 6)), strict=True):
        assert (scores["workdir"], scores["step"]) == (name, step)
    for one, member in zip(alone, equal["members"], strict=True):
        assert member["loss"] == pytest.approx(one["loss"])
    assert searched["average"]["loss"] == pytest.approx(equal["loss"])
    assert searched["paper"] is None
    classes = searched["per_class"]
    assert sum(row["count"] for row in classes) == NUMBER == searched["count"]
    mean = sum(row["count"] * row["top1_error"] for row in classes) / NUMBER
    assert mean == pytest.approx(searched["top1_error"])
    assert [row["top1_error"] for row in classes] == sorted(
        (row["top1_error"] for row in classes), reverse=True
    )


def test_the_table(runs, capsys):
    arguments = [
        "--workdir",
        "a",
        "--workdir",
        "b",
        "--split",
        "test",
        "--ensemble-weights",
        "searched",
    ]
    assert evaluate.main([*COMMON, *arguments, "--per-class", "--views", "10"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("test: 11 images, 7 classes, ten views\n")
    rows = [line for line in out.splitlines() if "%" in line]
    assert rows[0].startswith("a, step 5 ")
    assert rows[2].startswith("average, equal weights ")
    assert rows[3].startswith("average, weights searched on validation, 11 images ")
    assert re.search(r"Table 2 .* 1,000 classes of ILSVRC-2012, .* 7 others\.$", out, re.MULTILINE)
    runs.splits["test"] = noise(unreadable=(3,), seed=2)
    assert scores_of_command(capsys, "--workdir", "a", "--split", "test")["unreadable"] == 1
    assert evaluate.main([*COMMON, "--workdir", "a", "--split", "test"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"test: 10 images \(1 more .*\), 7 classes, center view", first)
    # Those that were unreadable when the run started are not part of the split.
    runs.meta["unreadable"] = {"test": {"3": "torn", "5": "empty"}}
    assert scores_of_command(capsys, "--workdir", "a", "--split", "test")["unreadable"] == 3


SEARCHED = ["--workdir", "a", "--workdir", "b", "--ensemble-weights", "searched"]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [([], "--split test"), (["--images", "x"], "--held-out")],
)
def test_weights_searched_on_the_images_evaluated_are_refused(arguments, remedy, runs, capsys):
    line = refused(capsys, *SEARCHED, *arguments)
    assert re.fullmatch(f"--ensemble-weights searched: .*; .* with {remedy}\\.", line), line
    assert runs.opened == []


@pytest.mark.usefixtures("runs")
def test_weights_are_searched_on_a_folder_of_other_images(tmp_path, capsys):
    for number, square in enumerate(noise().images):
        path = tmp_path / ("held", "scored")[number % 2] / "ab"[number % 3 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(path)
    held, scored = tmp_path / "held", tmp_path / "scored"
    on_images = [*SEARCHED, "--images", str(scored), "--held-out", str(held)]
    assert scores_of_command(capsys, *on_images)["searched_on"] == str(held)
    assert evaluate.main([*COMMON, *on_images]) == 0
    assert f"No file of {held}, where the weights were searched" in capsys.readouterr().out
    assert (
        scores_of_command(capsys, *SEARCHED, "--split", "test", "--held-out", str(held))["of"]
        == "test"
    )
    (held / "b" / "link.png").symlink_to(scored / "b" / "1.png")
    line = refused(capsys, *on_images)
    assert f"--ensemble-weights searched: 1 of the 7 images of {held} " in line
    assert line.endswith("with --held-out.")
    line = refused(capsys, *on_images[:-1], str(tmp_path))
    assert re.match(rf"--held-out {tmp_path}: 2 .* \(held, scored\) .*; rename them", line)


def test_a_held_out_split_with_images_that_are_evaluated_is_refused(runs, capsys):
    runs.splits["test"] = Subset(noise(seed=1), np.array([3, 5]))
    line = refused(capsys, *SEARCHED, "--split", "test")
    assert line.startswith("--ensemble-weights searched: 2 of the 11 images of validation ")
    assert line.endswith("; search on others with --held-out.")


@pytest.mark.parametrize("extra", [[], ["--split", "test", "--ensemble-weights", "searched"]])
def test_images_that_one_network_may_have_been_trained_on_are_refused(extra, runs, capsys):
    runs.other_splits["b", "validation"] = noise(seed=7)
    line = refused(capsys, "--workdir", "a", "--workdir", "b", *extra)
    assert re.match("--workdir b: its validation images .* of a, .*; ", line)
    assert line.endswith("--held-out." if extra else "--split test if there is one, or --images.")


@pytest.mark.usefixtures("runs")
def test_networks_with_other_classes_are_refused(capsys):
    line = refused(capsys, "--workdir", "a", "--workdir", "c")
    assert re.match(r"--workdir c: .*\(7: a, b, c \.\.\.\) .* a \(7: a, b.*; leave one out", line)


SYNSETS = [f"n{number:08d} thing {number}" for number in range(1000)]
PAPERS = DataConfig(image_size=256, crop=224)


ROWS = {
    "1 CNN": scoring.PaperRow("1 CNN", top1_error=0.407, top5_error=0.182),
    "5 CNNs": scoring.PaperRow("5 CNNs", top1_error=0.381, top5_error=0.164),
}


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "1 CNN", "50 images each"),
        ({"networks": [PAPERS] * 5}, "5 CNNs", "50 images each"),
        ({"networks": [PAPERS] * 2}, None, "1 network and 5, .* 2"),
        ({"views": 1}, None, "ten views .* one; evaluate ten"),
        ({"class_names": SYNSETS[:-1]}, None, "1,000 classes .* 999 others"),
        ({"class_names": [*SYNSETS[:-1], "n99999999"]}, None, "1,000 classes .* are others"),
        ({"images_by_class": np.full(1000, 49)}, None, "50 of each class, .* 49,000"),
        ({"networks": [DataConfig(image_size=72, crop=64)]}, None, "224 .* 256, .* 64 of 72 "),
    ],
)
def test_the_papers_rows_compare_with_one_and_five_networks(changes, name, reason, monkeypatch):
    synsets = digest([name[:9] for name in SYNSETS])
    monkeypatch.setattr(scoring, "ILSVRC_2012", synsets)
    usual: dict[str, Any] = {
        "class_names": SYNSETS[::-1],
        "images_by_class": np.full(1000, 50),
        "networks": [PAPERS],
        "views": 10,
    }
    row, sentence = scoring.comparable_row(**{**usual, **changes})
    assert row == (ROWS[name] if name else None)
    assert re.search(reason, sentence)


def test_the_classes_of_ilsvrc_2012_are_known(real_data):
    lines = (real_data / "meta" / "synset_words.txt").read_text().splitlines()
    row, _ = scoring.comparable_row(lines, np.full(1000, 50), [PAPERS], 10)
    assert row == ROWS["1 CNN"]


@pytest.mark.parametrize(("count", "name"), [(1, "1 CNN"), (5, "5 CNNs")])
def test_the_papers_row_is_printed_with_the_scores(count, name):
    network = {"workdir": "a", "step": 1, "loss": 1.0, "top1_error": 0.5, "top5_error": 0.25}
    members = {"members": [network] * count, "weights": [1 / count] * count} if count > 1 else {}
    paper = dataclasses.asdict(scoring.TABLE_2[count])
    table = scoring.format_scores(
        {
            **network,
            **members,
            "of": "validation",
            "views": 10,
            "classes": 1000,
            "count": 50_000,
            "unreadable": 0,
            "paper": paper,
            "about_paper": "",
        }
    )
    (line,) = (line for line in table.splitlines() if "Krizhevsky et al. 2012" in line)
    errors = {"1 CNN": ["40.7%", "18.2%"], "5 CNNs": ["38.1%", "16.4%"]}[name]
    assert name in line
    assert line.split()[-2:] == errors


def test_a_picture_of_what_is_taken_for_what():
    label, best = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 0])
    figure = confusion.draw(label, best, ("ant", "bee", "cat", "dog"))
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(drawn[0], [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(drawn[3], [1, 0, 0, 0])
    assert np.isnan(drawn[2]).all()
    assert [text.get_text() for text in figure.axes[0].texts] == [*("67%", "33%", "100%", "100%")]
    with pytest.raises(ValueError, match="2,001"):
        confusion.draw(label, best, [str(number) for number in range(2001)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n01440764 tench, Tinca tinca", "tench"),
        ("n01440764", "n01440764"),
        ("red", "red"),
        ("a" * 30, "a" * 23 + "…"),
    ],
)
def test_names_short_enough_to_draw(name, expected):
    assert short(name) == expected


@pytest.fixture
def folder(tmp_path):
    """Return a folder of 20 images of two classes, one unknown, one broken, and an empty folder."""
    images = noise().images
    for number in range(20):
        place = tmp_path / "abz"[number % 3]
        place.mkdir(exist_ok=True)
        Image.fromarray(images[number % NUMBER]).save(place / f"{number:02d}.png")
    (tmp_path / "b" / "04.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture
def network(monkeypatch):
    """Return a network to predict with that compiles nothing."""
    monkeypatch.setattr(ensemble, "Predictor", Guess)
    network = make_network(0, mesh=towers.make_mesh(towers=1, data=1, batch=4), variables={})
    monkeypatch.setattr(network_loading, "load_network", lambda *_: network)
    return network


def test_files_are_predicted_in_order_and_unreadable_ones_skipped(folder, network):
    files = predict.find([folder, folder / "empty", folder / "nprediction.png"])
    predictions = list(predict.predict(network, files))
    assert [prediction.file.name for prediction in predictions[-2:]] == ["empty", "nprediction.png"]
    assert [prediction.error for prediction in predictions[-2:]] == [
        "holds no images",
        "No such file or directory",
    ]
    assert [prediction.file for prediction in predictions[:20]] == sorted(folder.glob("*/*.png"))
    for prediction in predictions[:20]:
        if prediction.file.name == "04.png":
            assert prediction.probabilities is None
            continue
        picture = np.asarray(Image.open(prediction.file))
        np.testing.assert_array_equal(prediction.square, picture)
        assert prediction.probabilities is not None
        shares = np.exp(Guess(network, 1)(picture[None]))[0]
        np.testing.assert_allclose(prediction.probabilities, shares, rtol=1e-5)


@pytest.mark.usefixtures("network")
def test_the_option_views_is_used(folder, monkeypatch):
    values = []

    class Noted(Guess):
        def __init__(self, network, views):
            super().__init__(network, views)
            values.append(views)

    monkeypatch.setattr(ensemble, "Predictor", Noted)
    for extra in ([], ["--views", "10"]):
        assert predict.main([str(folder / "a"), "--workdir", "x", *extra]) == 0
    assert values == [1, 10]


def test_the_option_checkpoint_is_used(folder, network, monkeypatch):
    values = []

    def load_network(_workdir, _mesh, which):
        values.append(which)
        return network

    monkeypatch.setattr(network_loading, "load_network", load_network)
    for extra in ([], ["--checkpoint", "best"]):
        assert predict.main([str(folder / "a"), "--workdir", "x", *extra]) == 0
    assert values == ["latest", "best"]


def test_files_are_read_one_batch_ahead(folder, network):
    reads = []

    def endless():
        while True:
            reads.append(1)
            yield folder / "a" / "00.png"

    for number, _ in enumerate(predict.predict(network, endless())):
        assert len(reads) <= number + 2 * predict.BATCH
        if number > 2 * predict.BATCH:
            break


@pytest.mark.usefixtures("network")
def test_the_panel_shows_eight_and_prints_so(folder, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(predictions, "draw", lambda *arguments: drawn.append(arguments) or Figure())
    command = [str(folder), "--workdir", "x", "--save", str(folder / "p.png")]
    assert predict.main(command) == 1
    printed = capsys.readouterr()
    assert re.search(r"p.png: 8 of 19 images", printed.err)
    assert "04.png: no image format known to Pillow (8 bytes); skipped\n" in printed.err
    assert printed.err.endswith("1 of 20 are unreadable.\n")
    ((images, probabilities, labels, names, files, caption),) = drawn
    assert images.shape == (8, SIZE, SIZE, 3)
    assert probabilities.shape == (8, CLASSES)
    best = probabilities.argmax(axis=1)
    known = labels >= 0
    assert {*labels.tolist()} == {-1, 0, 1}  # folders in turn
    wrong = known & (best != labels)
    assert wrong.tolist() == sorted(wrong.tolist())  # the mistakes are the last
    assert 0 < wrong.sum() <= max(4, 8 - (~wrong).sum())
    assert names == NAMES
    assert len(files) == 8
    assert f"the last {wrong.sum()} are mistakes" in caption
    assert (folder / "p.png").exists()
    for wrong, better in (("p.jpeg", "p.png"), (str(folder), str(folder / "picture.png"))):
        assert predict.main([*command[:3], "--save", wrong]) == 2
        printed = capsys.readouterr().err
        assert f"--save {wrong}: " in printed
        assert printed.endswith(f"; try {better}.\n")


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(("count", "shown"), [(1, 1), (3, 3), (20, 19), (100, 19)])
def test_the_panel_shows_as_many_as_wanted(count, shown, folder, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(predictions, "draw", lambda *arguments: drawn.append(arguments) or Figure())
    command = [str(folder), "--workdir", "x", "--save", str(folder / "p.png")]
    assert predict.main([*command, "--save-count", str(count)]) == 1
    assert len(drawn[0][0]) == shown
    assert f"{shown} of 19 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "p.png", "--save-count", "0"], "--save-count 0: .*1 to 100.*; try 8"),
        (["--save", "p.png", "--save-count", "101"], "--save-count 101: .*1 to 100.*; try 8"),
        (["--save-count", "3"], "--save-count 3: .*; name its file with --save"),
    ],
)
def test_a_panel_of_no_size_or_no_file_is_refused(options, message, capsys):
    assert predict.main(["a.jpg", "--workdir", "x", *options]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed), printed
    assert printed.count("\n") == 1


def test_an_unknown_label_is_not_drawn():
    shares = np.full((2, CLASSES), 1 / CLASSES)
    figure = predictions.draw(noise().images[:2], shares, np.array([2, -1]), NAMES)
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["✗ c", ""]
