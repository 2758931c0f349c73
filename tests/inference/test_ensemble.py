"""Ten views and several networks against plain numpy; weights searched on images held out."""

import dataclasses
import hashlib
import json
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
from alexnet_jax.inference import ensemble, paper_scores
from alexnet_jax.inference import network as network_loading
from alexnet_jax.inference.network import Network
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.plots import confusion, predictions
from alexnet_jax.plots.class_labels import short
from tests.noise import Noise

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUMBER, CLASSES, SIZE, CROP = 11, 7, 40, 36
NAMES = tuple("abcdefg")
DATA = DataConfig(image_size=SIZE, crop=CROP, threads=1)
TABLE = build_architecture(ModelConfig(width=0.05, conv345_init_std=0.03), CLASSES, CROP)


def noise(unreadable=(), seed=0):
    return Noise(NUMBER, SIZE, CLASSES, unreadable, seed)


def known(seed, names=NAMES, **fields):
    """Return what a run folder says of a network, but for its weights."""
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
    """Return weights that keep the outputs as loud as the inputs, drawn without a compiler."""
    scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
    return rng.normal(0, scale, leaf.shape).astype(np.float32)


def network_of(seed, data, tower):
    """Return a network with initial weights whose answers differ widely from image to image."""
    mesh = towers.make_mesh(towers=tower, data=data, batch=4)
    shapes, rng = jax.eval_shape(towers.initializer(TABLE), jax.random.key(0)), draws(seed)
    variables = jax.tree.map(lambda leaf: draw_like(leaf, rng), shapes)
    placed = jax.device_put(variables, towers.state_shardings(variables, TABLE, mesh))
    return known(seed, mesh=mesh, variables=placed)


class Guess:
    """Stands for a network compiled: asks nothing of it but its mean image."""

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
    askers = [ensemble.Predictor(network_of(seed, 1, 1), 10) for seed in (0, 1)]
    mixtures = [*np.eye(2), np.array([0.5, 0.5]), np.array(weights)]
    found = ensemble.predict_sources(askers, [source, source], mixtures, 4)
    expected = [*by_network, by_network.mean(axis=0), np.tensordot(weights, by_network, 1)]
    labels = source.labels[kept]
    for answer, probabilities in zip(found, expected, strict=True):
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
    # The two networks, and the views, tell apart: another average would be noticed.
    assert np.abs(by_network[0] - by_network[1]).max() > 0.05
    logits = np.log(by_network).mean(axis=0)
    wrong = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(wrong - expected[2]).max() > 1e-3


def test_ten_views_are_the_same_on_four_devices(reference):
    ask = ensemble.Predictor(network_of(0, 2, 2), 10)
    shares = np.exp(ask(noise().images[:4]))
    np.testing.assert_allclose(shares, reference[0, :4], rtol=1e-4, atol=1e-7)


def test_a_network_alone_is_told_exactly():
    logs = jax.nn.log_softmax(jnp.array(np.random.default_rng(0).normal(0, 40, (3, 5, 7))))
    for place, weights in enumerate(np.eye(3, dtype=np.float32)):
        np.testing.assert_array_equal(ensemble.mix_log_probabilities(logs, weights), logs[place])
    assert np.exp(logs).min() == 0  # of probabilities themselves the loss would be infinite
    assert np.isfinite(ensemble.mix_log_probabilities(logs, np.full(3, 1 / 3, np.float32))).all()


def test_the_weights_searched_have_the_least_loss():
    rng = np.random.default_rng(0)
    right = rng.uniform(size=(200, 3)) < np.array([0.8, 0.7, 0.3])
    likelihood = np.where(right, rng.uniform(0.3, 1, (200, 3)), rng.uniform(0, 0.2, (200, 3)))
    weights = ensemble.search_weights(-np.log(likelihood))
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
    np.testing.assert_allclose(ensemble.search_weights(np.zeros((9, 4))), 0.25)
    # Probabilities that are 0 as numbers.
    np.testing.assert_allclose(ensemble.search_weights(np.array([[2000.0, 1000.0]])), [0, 1])


@pytest.fixture
def runs(monkeypatch):
    """Have `evaluate` find networks and splits made here; return what it may be told of them."""
    splits = {"validation": noise(seed=1), "test": noise(seed=2)}
    mesh = towers.make_mesh(towers=1, data=1, batch=4)
    made = {name: known(seed, mesh=mesh, variables={}) for seed, name in enumerate("ab")}
    made["c"] = known(2, names=tuple("abcdefh"), mesh=mesh, variables={})
    told = {"splits": splits, "others": {}, "opened": [], "met": {}}

    def load(workdir, *_):
        return dataclasses.replace(made[workdir.name], workdir=workdir, meta=told["met"])

    def split(network, name):
        told["opened"].append(name)
        return told["others"].get((network.workdir.name, name), splits[name])

    monkeypatch.setattr(ensemble, "Asker", Guess)
    monkeypatch.setattr(network_loading, "load", load)
    monkeypatch.setattr(network_loading, "split", split)
    return told


COMMON = ["--batch", "4", "--mesh.towers", "1", "--mesh.data", "1"]


def told(capsys, *arguments):
    assert evaluate.main([*COMMON, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_networks_together_and_weights_that_never_saw_what_is_scored(runs, capsys):
    both = ["--workdir", "a", "--workdir", "b", "--split", "test"]
    equal = told(capsys, *both)
    assert runs["opened"] == ["test", "test"]
    assert equal["weights"] == [0.5, 0.5]
    searched = told(capsys, *both, "--weights", "searched", "--per-class")
    assert searched["searched_on"] == "validation"
    # They follow the images held out, and not at all those that are scored.
    runs["splits"]["test"] = noise(seed=3)
    assert told(capsys, *both, "--weights", "searched")["weights"] == searched["weights"]
    runs["splits"]["validation"] = noise(seed=4)
    assert told(capsys, *both, "--weights", "searched")["weights"] != searched["weights"]
    runs["splits"]["test"] = noise(seed=2)
    alone = [told(capsys, "--workdir", name, "--split", "test") for name in "ab"]
    for scores, (name, step) in zip(alone, (("a", 5), ("b", 6)), strict=True):
        assert (scores["workdir"], scores["step"]) == (name, step)
    for one, member in zip(alone, equal["members"], strict=True):
        assert member["loss"] == pytest.approx(one["loss"])
    assert searched["average"]["loss"] == pytest.approx(equal["loss"])
    assert searched["paper"] is None
    held = [row for row in searched["per_class"]]
    assert sum(row["count"] for row in held) == NUMBER == searched["count"]
    mean = sum(row["count"] * row["top1_error"] for row in held) / NUMBER
    assert mean == pytest.approx(searched["top1_error"])
    assert [row["top1_error"] for row in held] == sorted(
        (row["top1_error"] for row in held), reverse=True
    )


def test_the_table(runs, capsys):
    arguments = ["--workdir", "a", "--workdir", "b", "--split", "test", "--weights", "searched"]
    assert evaluate.main([*COMMON, *arguments, "--per-class", "--views", "10"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("test: 11 images, 7 classes, ten views\n")
    rows = [line for line in out.splitlines() if "%" in line]
    assert rows[0].startswith("a, step 5 ")
    assert rows[2].startswith("average, equal weights ")
    assert rows[3].startswith("average, weights searched on validation, 11 images ")
    assert "classes of ILSVRC-2012, and these are 7 others." in out
    runs["splits"]["test"] = noise(unreadable=(3,), seed=2)
    assert told(capsys, "--workdir", "a", "--split", "test")["unreadable"] == 1
    assert evaluate.main([*COMMON, "--workdir", "a", "--split", "test"]) == 0
    said = "test: 10 images (1 more cannot be read), 7 classes, center view\n"
    assert capsys.readouterr().out.startswith(said)
    # Those that were so when the run began are no part of the split.
    runs["met"]["unreadable"] = {"test": {"3": "torn", "5": "empty"}}
    assert told(capsys, "--workdir", "a", "--split", "test")["unreadable"] == 3


SEARCHED = ["--workdir", "a", "--workdir", "b", "--weights", "searched"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "score another one with --split test."),
        (["--images", "x"], "name a folder of class folders with --held-out."),
    ],
)
def test_weights_that_are_searched_on_what_is_scored_are_refused(arguments, said, runs, capsys):
    assert evaluate.main([*COMMON, *SEARCHED, *arguments]) == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1
    assert runs["opened"] == []


@pytest.mark.usefixtures("runs")
def test_weights_are_searched_on_a_folder_of_none_of_the_images_that_are_scored(tmp_path, capsys):
    for number, square in enumerate(noise().images):
        path = tmp_path / ("held", "scored")[number % 2] / "ab"[number % 3 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(path)
    held, scored = tmp_path / "held", tmp_path / "scored"
    on_images = [*SEARCHED, "--images", str(scored), "--held-out", str(held)]
    assert told(capsys, *on_images)["searched_on"] == str(held)
    assert evaluate.main([*COMMON, *on_images]) == 0
    assert f"No file of {held}, where weights were searched, is among" in capsys.readouterr().out
    assert told(capsys, *SEARCHED, "--split", "test", "--held-out", str(held))["of"] == "test"
    (held / "b" / "link.png").symlink_to(scored / "b" / "1.png")
    assert evaluate.main([*COMMON, *on_images]) == 2
    assert f"1 of the 7 images of {held} are among those that are" in capsys.readouterr().err
    assert evaluate.main([*COMMON, *on_images[:-1], str(tmp_path)]) == 2
    assert f"--held-out {tmp_path}: 2 class folders (held, scored)" in capsys.readouterr().err


def test_a_held_out_split_that_has_some_of_what_is_scored_is_refused(runs, capsys):
    runs["splits"]["test"] = Subset(noise(seed=1), np.array([3, 5]))
    assert evaluate.main([*COMMON, *SEARCHED, "--split", "test"]) == 2
    assert "2 of the 11 images of validation are among those that are" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [[], ["--split", "test", "--weights", "searched"]])
def test_images_that_one_of_the_networks_may_have_learned_are_refused(extra, runs, capsys):
    runs["others"]["b", "validation"] = noise(seed=7)
    assert evaluate.main([*COMMON, "--workdir", "a", "--workdir", "b", *extra]) == 2
    said = capsys.readouterr().err
    assert "--workdir b: its validation images are others than those of a, and it may h" in said
    assert said.endswith("trained on: --held-out.\n" if extra else "there is one, or --images.\n")


@pytest.mark.usefixtures("runs")
def test_networks_with_other_classes_are_refused(capsys):
    assert evaluate.main([*COMMON, "--workdir", "a", "--workdir", "c"]) == 2
    said = capsys.readouterr().err
    assert "--workdir c: it tells apart other classes (7: a, b, c ...) than a (7: a, b" in said


SYNSETS = [f"n{number:08d} thing {number}" for number in range(1000)]
PAPERS = DataConfig(image_size=256, crop=224)


@pytest.mark.parametrize(
    ("changes", "row", "said"),
    [
        ({}, "1 CNN", "is yours to know"),
        ({"networks": [PAPERS] * 5}, "5 CNNs", "is yours to know"),
        ({"networks": [PAPERS] * 2}, None, "it has 1 network and 5, and these are 2."),
        ({"views": 1}, None, "and this is one: add --views 10."),
        ({"class_names": SYNSETS[:-1]}, None, "and these are 999 others."),
        ({"class_names": [*SYNSETS[:-1], "n99999999"]}, None, "and these are others."),
        ({"images_by_class": np.full(1000, 49)}, None, "of each class, and these are 49,000."),
        ({"networks": [DataConfig(image_size=72, crop=64)]}, None, "and these are 64 of 72 ("),
    ],
)
def test_the_papers_numbers_stand_beside_their_like(changes, row, said, monkeypatch):
    digest = hashlib.sha256("\n".join(name[:9] for name in SYNSETS).encode()).hexdigest()
    monkeypatch.setattr(paper_scores, "ILSVRC_2012", digest)
    usual: dict[str, Any] = {
        "class_names": SYNSETS[::-1],
        "images_by_class": np.full(1000, 50),
        "networks": [PAPERS],
        "views": 10,
    }
    found, why = paper_scores.comparable_row(**{**usual, **changes})
    assert (found.name if found else None) == row
    assert said in why


def test_a_picture_of_what_is_taken_for_what():
    label, best = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 0])
    figure = confusion.draw(label, best, ("ant", "bee", "cat", "dog"))
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(drawn[0], [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(drawn[3], [1, 0, 0, 0])
    assert np.isnan(drawn[2]).all()
    assert [text.get_text() for text in figure.axes[0].texts] == ["67", "33", "100", "100"]
    with pytest.raises(ValueError, match="2,001 classes: a picture of which is taken"):
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
    monkeypatch.setattr(ensemble, "Asker", Guess)
    network = known(0, mesh=towers.make_mesh(towers=1, data=1, batch=4), variables={})
    monkeypatch.setattr(network_loading, "load", lambda *_: network)
    return network


def test_files_are_named_in_order_and_the_bad_ones_passed_over(folder, network):
    files = predict.find([folder, folder / "empty", folder / "none.png"])
    found = list(predict.predict(network, files))
    assert [one.file.name for one in found[-2:]] == ["empty", "none.png"]
    assert [one.error for one in found[-2:]] == ["no images there", "No such file or directory"]
    assert [one.file for one in found[:20]] == sorted(folder.glob("*/*.png"))
    for one in found[:20]:
        if one.file.name == "04.png":
            assert one.probabilities is None
            continue
        picture = np.asarray(Image.open(one.file))
        np.testing.assert_array_equal(one.square, picture)
        assert one.probabilities is not None
        shares = np.exp(Guess(network, 1)(picture[None]))[0]
        np.testing.assert_allclose(one.probabilities, shares, rtol=1e-5)


@pytest.mark.usefixtures("network")
def test_ten_views_are_asked_for(folder, monkeypatch):
    asked = []

    class Noted(Guess):
        def __init__(self, network, views):
            super().__init__(network, views)
            asked.append(views)

    monkeypatch.setattr(ensemble, "Asker", Noted)
    for extra in ([], ["--views", "10"]):
        assert predict.main([str(folder / "a"), "--workdir", "x", *extra]) == 0
    assert asked == [1, 10]


def test_the_checkpoint_is_asked_for(folder, network, monkeypatch):
    asked = []
    monkeypatch.setattr(network_loading, "load", lambda *given: asked.append(given[2]) or network)
    for extra in ([], ["--checkpoint", "best"]):
        assert predict.main([str(folder / "a"), "--workdir", "x", *extra]) == 0
    assert asked == ["latest", "best"]


def test_files_are_read_a_batch_at_a_time(folder, network):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield folder / "a" / "00.png"

    for number, _ in enumerate(predict.predict(network, endless())):
        assert len(taken) <= number + predict.BATCH
        if number > 2 * predict.BATCH:
            break


@pytest.mark.usefixtures("network")
def test_the_panel_shows_eight_and_says_so(folder, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(predictions, "draw", lambda *arguments: drawn.append(arguments) or Figure())
    command = [str(folder), "--workdir", "x", "--save", str(folder / "p.png")]
    assert predict.main(command) == 1
    said = capsys.readouterr()
    assert said.out.endswith("p.png: 8 of 19 images\n")
    assert "04.png: no image format known to Pillow (8 bytes); passed over\n" in said.err
    assert said.err.endswith("1 of 20 could not be read.\n")
    ((images, probabilities, labels, names),) = drawn
    assert images.shape == (8, SIZE, SIZE, 3)
    assert probabilities.shape == (8, CLASSES)
    assert labels.tolist() == [0] * 7 + [1]
    assert names == NAMES
    assert (folder / "p.png").exists()
    for wrong, better in (("p.jpeg", "p.png"), (str(folder), str(folder / "picture.png"))):
        assert predict.main([*command[:3], "--save", wrong]) == 2
        said = capsys.readouterr().err
        assert f"--save {wrong}: it is the name of a picture, in .png" in said
        assert said.endswith(f"; try {better}.\n")


def test_a_label_that_nobody_knows_is_not_drawn():
    shares = np.full((2, CLASSES), 1 / CLASSES)
    figure = predictions.draw(noise().images[:2], shares, np.array([2, -1]), NAMES)
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["c", ""]
