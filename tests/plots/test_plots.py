"""The figures show the numbers that they are drawn from."""

import collections
import math

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.plots import curves, devices, feature_maps, filters, neighbors, predictions
from alexnet_jax.plots.tiles import save

pytestmark = pytest.mark.usefixtures("quick_compilation")


def lines(axes, name):
    """Return the [x, y] pairs of the line called `name`, one array a line."""
    return [np.stack(line.get_data(), -1) for line in axes.get_lines() if line.get_gid() == name]


def train(epoch, error, learning_rate=0.01):
    return {
        "step": int(epoch * 10),
        "epoch": epoch,
        "split": "train",
        "loss": 2 * error,
        "top1_error": error,
        "learning_rate": learning_rate,
    }


METRICS = [
    train(0.5, 0.9),
    train(1.0, 0.7),
    {"step": 10, "epoch": 1, "split": "validation", "loss": 1.1, "top1_error": 0.75},
    train(1.5, 0.5),
    {"step": 20, "epoch": 2, "split": "validation", "loss": None, "top1_error": 0.6},
    train(2.2, 0.4, learning_rate=0.001),
    train(3.0, 0.2, learning_rate=0.001),
    {"step": 30, "epoch": 3, "split": "test", "loss": 0.8, "top1_error": 0.3},
]


def test_curves_plot_the_metrics():
    error, loss = curves.draw(METRICS).axes
    records = [[0.5, 0.9], [1.0, 0.7], [1.5, 0.5], [2.2, 0.4], [3.0, 0.2]]
    np.testing.assert_allclose(lines(error, "train records"), [records])
    # Passes: (0.5, 1.0), (1.5), (2.2, 3.0); each point is the mean of its pass, in which a record
    # counts for the stretch since the one before: 0.7 and 0.8 epochs in the last pass.
    last = [(0.7 * 2.2 + 0.8 * 3.0) / 1.5, (0.7 * 0.4 + 0.8 * 0.2) / 1.5]
    np.testing.assert_allclose(lines(error, "train"), [[[0.75, 0.8], [1.5, 0.5], last]])
    doubled = [[0.75, 1.6], [1.5, 1.0], [last[0], 2 * last[1]]]
    np.testing.assert_allclose(lines(loss, "train"), [doubled])
    np.testing.assert_allclose(lines(error, "validation"), [[[1, 0.75], [2, 0.6]]])
    np.testing.assert_allclose(lines(loss, "validation"), [[[1, 1.1]]])  # null is left out
    np.testing.assert_allclose(lines(error, "test"), [[[3, 0.3]]])


def test_curves_have_the_papers_colors():
    error, _ = curves.draw(METRICS).axes
    colors = {line.get_gid(): to_hex(line.get_color()) for line in error.get_lines()}
    assert colors["train"] == to_hex("black")
    assert colors["validation"] == colors["test"] == to_hex("red")


def test_curves_mark_each_learning_rate_drop_at_the_end_of_its_epoch():
    rates = [train(3.0, 0.2, learning_rate=0.001), train(3.1, 0.2, learning_rate=0.0001)]
    error, loss = curves.draw(METRICS + rates).axes
    for axes in (error, loss):
        assert [line[:, 0].tolist() for line in lines(axes, "drop")] == [[2, 2], [3, 3]]
    assert [text.get_text() for text in error.texts] == [
        "learning rate 0.001",
        "learning rate 0.0001",
    ]


def test_curves_before_the_first_evaluation():
    error, _ = curves.draw(METRICS[:2]).axes
    assert lines(error, "validation")[0].shape == (0, 2)
    assert lines(error, "test") == []


def test_curves_need_a_record():
    with pytest.raises(ValueError, match="at least one record"):
        curves.draw([])


def test_mosaic_of_two_filters_by_hand():
    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[0, 0, :, 0] = -1  # the least of both: black
    kernel[1, 1, :, 1] = [4, 1.5, 0.25]  # 4, the greatest of both: white
    mosaic = filters.filter_mosaic(kernel)
    # One filter a tower: a pixel of margin on each side, the towers 4 more apart.
    assert mosaic.shape == (4 + 4 + 4, 4, 3)
    assert mosaic.dtype == np.uint8
    zero = 51  # 255 (0 + 1) / 5
    np.testing.assert_array_equal(mosaic[1:3, 1:3, 0], [[0, zero], [zero, zero]])
    np.testing.assert_array_equal(mosaic[9:11, 1:3, 0], [[zero, zero], [zero, 255]])
    np.testing.assert_array_equal(mosaic[10, 2], [255, 128, 64])  # 127.5 rounds to even, 63.75
    mosaic[1:3, 1:3] = mosaic[9:11, 1:3] = 255
    assert (mosaic == 255).all()  # the rest is white


@pytest.mark.parametrize(
    ("count", "shape"),
    [
        (96, (3 * 12 + 1 + 4 + 3 * 12 + 1, 16 * 12 + 1, 3)),  # 3 rows of 16 a tower
        (48, (2 * 12 + 1 + 4 + 2 * 12 + 1, 16 * 12 + 1, 3)),  # 16 and 8
        (24, (1 * 12 + 1 + 4 + 1 * 12 + 1, 12 * 12 + 1, 3)),  # 12
    ],
)
def test_mosaic_places_every_filter(count, shape):
    # Filter c is constant with the value c, so that its place can be read off.
    kernel = np.broadcast_to(np.arange(count, dtype=np.float32), (11, 11, 3, count))
    mosaic = filters.filter_mosaic(kernel)
    assert mosaic.shape == shape
    half, tower_height = count // 2, (shape[0] - 4) // 2
    for number in range(count):
        tower, place = divmod(number, half)
        row, column = divmod(place, 16)
        top = tower * (tower_height + 4) + 12 * row + 1
        tile = mosaic[top : top + 11, 12 * column + 1 : 12 * column + 12]
        assert (tile == round(255 * number / (count - 1))).all(), number


def test_mosaic_of_equal_weights_is_black():
    mosaic = filters.filter_mosaic(np.full((2, 2, 3, 2), 0.3, np.float32))
    assert (mosaic[1:3, 1:3] == 0).all()


@pytest.mark.parametrize("shape", [(11, 11, 3, 5), (5, 5, 48, 256), (11, 11, 3)])
def test_mosaic_refuses_other_kernels(shape):
    with pytest.raises(ValueError, match=r"kernel of shape .*: must be \[k, k, 3, C\]"):
        filters.filter_mosaic(np.zeros(shape, np.float32))


def test_filters_file_enlarges_each_weight_six_times(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(11, 11, 3, 24)).astype(np.float32)
    path = save(filters.draw(kernel), tmp_path / "new" / "filters.png")
    assert path == tmp_path / "new" / "filters.png"
    picture = np.rint(255 * matplotlib.image.imread(path)[..., :3])
    mosaic = np.kron(filters.filter_mosaic(kernel), np.ones((6, 6, 1)))
    height, width, _ = mosaic.shape
    # Somewhere in the file, to the pixel, the enlarged mosaic stands (the names are left of it).
    found = [
        np.array_equal(picture[top : top + height, left : left + width], mosaic)
        for top in range(picture.shape[0] - height + 1)
        for left in range(picture.shape[1] - width + 1)
    ]
    assert sum(found) == 1


NAMES = [f"class {number}" for number in range(7)]


def bars(axes):
    """Return (name, width, color) of each bar, from above."""
    names = [text.get_text() for text in axes.texts]
    return [
        (name, pytest.approx(bar.get_width()), to_hex(bar.get_facecolor()))
        for name, bar in zip(names, axes.patches, strict=True)
    ]


def test_predictions_show_the_five_best_classes_and_the_true_one_red():
    probabilities = np.array([[0.05, 0.3, 0.02, 0.4, 0.03, 0.1, 0.1], [1, 0, 0, 0, 0, 0, 0]])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    figure = predictions.draw(images, probabilities, np.array([1, 6]), NAMES)
    first, second, bars_of_first, bars_of_second = figure.axes
    red, blue = "#ffaaaa", "#aaaaff"
    assert bars(bars_of_first) == [
        ("class 3", 0.4, blue),
        ("class 1", 0.3, red),
        ("class 5", 0.1, blue),
        ("class 6", 0.1, blue),
        ("class 0", 0.05, blue),
    ]
    # The true class is not among the five: no bar is red.
    assert {color for _, _, color in bars(bars_of_second)} == {blue}
    assert [first.get_title(), second.get_title()] == ["class 1", "class 6"]
    np.testing.assert_array_equal(first.images[0].get_array(), images[0])
    np.testing.assert_array_equal(second.images[0].get_array(), images[1])
    bottom, top = bars_of_first.get_ylim()
    assert bottom > 4  # bars stand at 0 to 4, the most probable class above
    assert top < 0


def test_predictions_show_eight_images_in_two_rows_of_four():
    count = 11
    images = np.zeros((count, 4, 4, 3), np.uint8)
    probabilities = np.full((count, 7), 1 / 7)
    figure = predictions.draw(images, probabilities, np.arange(count) % 7, NAMES)
    titles = {place: axes.get_title() for place, axes in enumerate(figure.axes) if axes.images}
    # Of the grid's four rows of four, bars stand in the second and the fourth.
    places = [0, 1, 2, 3, 8, 9, 10, 11]
    assert titles == {place: f"class {number % 7}" for number, place in enumerate(places)}


def test_predictions_call_classes_by_their_first_synonym():
    names = ["n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus"]
    picture, drawn = predictions.draw(
        np.zeros((1, 4, 4, 3), np.uint8), np.array([[0.2, 0.8]]), np.array([0]), names
    ).axes
    assert picture.get_title() == "tench"
    assert [text.get_text() for text in drawn.texts] == ["goldfish", "tench"]


def test_predictions_of_fewer_than_five_classes():
    figure = predictions.draw(
        np.zeros((1, 4, 4, 3), np.uint8), np.array([[0.2, 0.8]]), np.array([0]), ["a", "b"]
    )
    assert bars(figure.axes[1]) == [("b", 0.8, "#aaaaff"), ("a", 0.2, "#ffaaaa")]


def test_predictions_refuse_arrays_that_disagree():
    images, probabilities = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 7), 1 / 7)
    with pytest.raises(ValueError, match="2 images, 2 rows of probabilities, 1 labels"):
        predictions.draw(images, probabilities, np.array([0]), NAMES)
    with pytest.raises(ValueError, match="0 images"):
        predictions.draw(images[:0], probabilities[:0], np.array([]), NAMES)
    with pytest.raises(ValueError, match="7 probabilities per image and 2 class names"):
        predictions.draw(images, probabilities, np.array([0, 1]), NAMES[:2])


def test_files_are_drawn_at_150_dots_an_inch(tmp_path):
    path = save(curves.draw(METRICS), tmp_path / "curves.png")
    size = curves.draw(METRICS).get_size_inches()
    height, width, _ = matplotlib.image.imread(path).shape
    assert (width, height) == tuple(math.floor(150 * side) for side in size)
    images, probabilities = np.zeros((8, 4, 4, 3), np.uint8), np.full((8, 7), 1 / 7)
    figure = predictions.draw(images, probabilities, np.zeros(8, int), NAMES)
    path = save(figure, tmp_path / "predictions.png")
    assert matplotlib.image.imread(path).shape[:2] == (2 * 3.5 * 150, 4 * 2.3 * 150)


def test_filters_of_a_network_without_towers_are_in_one_block():
    kernel = np.broadcast_to(np.arange(63, dtype=np.float32), (11, 11, 3, 63))
    mosaic = filters.filter_mosaic(kernel, towers=False)
    assert mosaic.shape == (4 * 12 + 1, 16 * 12 + 1, 3)
    assert (mosaic[37:48, 14 * 12 + 1 : 15 * 12] == 255).all()  # the 63rd, the greatest
    assert not list(filters.draw(kernel, towers=False).axes[0].texts)
    named = filters.draw(kernel[..., :62]).axes[0].texts
    assert [text.get_text() for text in named] == ["tower 0", "tower 1"]


def test_maps_are_arranged_by_tower_in_a_common_range():
    output = np.zeros((5, 6, 34), np.float32)
    output[..., 0], output[..., 16] = -1, 2  # the first and the last map of tower 0
    output[..., 33] = 3  # the last of tower 1
    drawn = feature_maps.draw(output, "conv9 of a.png", towers=True)
    picture = np.asarray(drawn.axes[0].images[0].get_array())
    tower = 2 * 6 + 1  # two rows of maps of 5 pixels, one pixel around each
    assert picture.shape == (2 * tower + 4, 16 * 7 + 1, 3)
    zero = 64  # 255 (0 + 1) / 4
    assert (picture[1:6, 1:7] == 0).all()
    assert (picture[1:6, 8:14] == zero).all()
    assert (picture[7:12, 1:7] == 191).all()
    assert (picture[tower + 4 + 7 : tower + 4 + 12, 1:7] == 255).all()
    assert [text.get_text() for text in drawn.texts] == [
        "conv9 of a.png",
        "34 maps of 5 x 6; black -1, white 3",
    ]
    assert len(feature_maps.draw(output[..., :1], "conv9", towers=False).axes[0].texts) == 0
    for wrong in (output[..., :33], output[0]):
        with pytest.raises(ValueError, match=r"must be \[H, W, C\]"):
            feature_maps.draw(wrong, "conv9", towers=True)


def test_long_names_of_neighbors_are_shortened_in_the_middle():
    image = np.zeros((4, 4, 3), np.uint8)
    near = [(image, "ants/0001.jpg", 0.5), (image, "Motorbikes/image_0773.jpg", 12.3456)]
    drawn = neighbors.draw([neighbors.Line(image, "photo.jpg", near)])
    names = ["photo.jpg", "ants/0001.jpg\n0.5000", "Motorbikes/…age_0773.jpg\n12.35"]
    assert [axes.get_xlabel() for axes in drawn.axes] == names


def test_a_title_is_not_cut_off(tmp_path):
    name = "conv1 of a photograph with a long name " + 40 * "m"
    path = save(feature_maps.draw(np.zeros((3, 3, 2)), name, towers=True), tmp_path / "a.png")
    picture = matplotlib.image.imread(path)[..., :3]
    assert (picture[:, -5:] == 1).all()
    assert (picture[:30, 80:-80] < 0.5).any()


def test_each_device_has_a_column_of_its_arrays():
    architecture = build_architecture(ModelConfig(), 1000, 224)
    figure = devices.draw(architecture, towers.make_mesh(towers=2, data=2, batch=128), 128)
    texts = collections.Counter(text.get_text() for text in figure.axes[0].texts)
    assert {f"cpu {number}" for number in range(4)} <= set(texts)
    assert texts["64 images"] == 4  # of 128, by both towers of a pair
    assert texts["18,874,368"] == 4  # fc6: half of 9216 x 4096
    assert texts["30,483,112"] == 4  # as `describe` says
    filled = [p for p in figure.axes[0].patches if p.get_alpha() and isinstance(p, Rectangle)]
    blue, orange = (to_hex(color) for color in ("tab:blue", "tab:orange"))
    half = {to_hex(patch.get_facecolor()): patch.get_width() for patch in filled}
    assert len(filled) == 4 * 9
    assert half[blue] == half[orange] == half[to_hex("darkgray")]  # here the batch is halved, too


def test_one_device_holds_both_halves():
    architecture = build_architecture(ModelConfig(), 1000, 224)
    figure = devices.draw(architecture, towers.make_mesh(towers=1, data=1, batch=128), 128)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "128 images" in texts
    assert texts[-2] == "60,965,224"
    assert len([patch for patch in figure.axes[0].patches if patch.get_alpha()]) == 1 + 2 * 8
