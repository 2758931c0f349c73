"""The figures show the numbers that they are drawn from."""

import collections
import math
import re

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from alexnet_jax.config import ModelConfig
from alexnet_jax.model import towers
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.plots import curves, devices, feature_maps, filters, palette, predictions
from alexnet_jax.plots.class_labels import short_names
from alexnet_jax.plots.text import width_of
from alexnet_jax.plots.tiles import DPI, save

pytestmark = pytest.mark.usefixtures("quick_compilation")


def lines(axes, name):
    """Return the [x, y] pairs of the line called `name`, one array a line."""
    return [np.stack(line.get_data(), -1) for line in axes.get_lines() if line.get_gid() == name]


def texts_of(axes, name):
    return [text.get_text() for text in axes.texts if text.get_gid() == name]


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


def test_curves_are_told_apart_by_color_and_marker():
    error, _ = curves.draw(METRICS).axes
    drawn = {line.get_gid(): line for line in error.get_lines()}
    colors = {name: to_hex(line.get_color()) for name, line in drawn.items()}
    assert colors["train"] == to_hex(palette.TRAINING)
    assert colors["validation"] == colors["test"] == to_hex(palette.VALIDATION)
    assert len({drawn[name].get_marker() for name in ("train", "validation", "test")}) == 3


def test_curves_mark_each_learning_rate_drop_at_the_end_of_its_epoch():
    rates = [train(3.0, 0.2, learning_rate=0.001), train(3.1, 0.2, learning_rate=0.0001)]
    error, loss = curves.draw(METRICS + rates).axes
    for axes in (error, loss):
        assert [line[:, 0].tolist() for line in lines(axes, "drop")] == [[2, 2], [3, 3]]
    assert texts_of(error, "learning rate") == ["0.001", "0.0001"]


def test_curves_before_the_first_evaluation():
    error, _ = curves.draw(METRICS[:2]).axes
    assert lines(error, "validation") == lines(error, "test") == []
    assert [text.split()[0] for text in texts_of(error, "last value")] == ["training"]


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
        (96, (4 * 12 + 1 + 4 + 4 * 12 + 1, 12 * 12 + 1, 3)),  # 4 rows of 12 a tower
        (60, (3 * 12 + 1 + 4 + 3 * 12 + 1, 12 * 12 + 1, 3)),  # 12, 12 and 6
        (20, (1 * 12 + 1 + 4 + 1 * 12 + 1, 10 * 12 + 1, 3)),  # 10
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
        row, column = divmod(place, 12)
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


def test_a_weight_is_seven_by_seven_pixels_of_the_file(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(11, 11, 3, 24)).astype(np.float32)
    figure = filters.draw(kernel)
    path = save(figure, tmp_path / "new" / "filters.png")
    assert path == tmp_path / "new" / "filters.png"
    picture = np.rint(255 * matplotlib.image.imread(path)[..., :3])
    mosaic = np.kron(filters.filter_mosaic(kernel), np.ones((7, 7, 1)))
    height, width, _ = mosaic.shape
    box = figure.axes[0].get_position()
    # To the pixel, the enlarged mosaic is where its axes are.
    first_row, first_column = (round(x) for x in ((1 - box.y1) * len(picture), box.x0 * 10_000))
    first_column = round(first_column * picture.shape[1] / 10_000)
    found = [
        np.array_equal(picture[top : top + height, left : left + width], mosaic)
        for top in range(first_row - 2, first_row + 3)
        for left in range(first_column - 2, first_column + 3)
    ]
    assert sum(found) == 1


def test_filters_say_what_is_seen():
    kernel = np.zeros((2, 2, 3, 4), np.float32)
    kernel[0, 0, 0] = [-1, 0.01, 2, 0]
    title, range_ = (text.get_text() for text in filters.draw(kernel).texts)
    assert "4 filters" in title
    assert title.index("tower 0") < title.index("tower 1")
    assert {"-1", "2"} <= {*re.findall(r"-?\d+", range_)}
    title, range_ = (text.get_text() for text in filters.draw(kernel, False, "filter").texts)
    assert "tower" not in title
    assert "each filter" in range_


def test_contrast_by_filter_shows_weak_filters():
    kernel = np.zeros((1, 2, 3, 3), np.float32)
    kernel[0, :, :, 0] = [[-1] * 3, [1] * 3]
    kernel[0, :, :, 1] = [[0] * 3, [0.001] * 3]  # weak
    by_layer = filters.filter_mosaic(kernel, towers=False)
    by_filter = filters.filter_mosaic(kernel, towers=False, contrast="filter")
    assert by_layer[1, 4:6, 0].tolist() == [128, 128]
    assert by_filter[1, 4:6, 0].tolist() == [0, 255]
    assert by_filter[1, 1:3, 0].tolist() == [0, 255]
    assert by_filter[1, 7:9, 0].tolist() == [0, 0]  # all its weights are the same


NAMES = [f"class {number}" for number in range(7)]


def bars(axes):
    """Return (name, percent, width, color) of each bar, from above."""
    texts = [text.get_text() for text in axes.texts]
    return [
        (name, percent, pytest.approx(bar.get_width()), to_hex(bar.get_facecolor()))
        for name, percent, bar in zip(texts[::2], texts[1::2], axes.patches, strict=True)
    ]


def test_predictions_show_the_five_best_classes_and_the_true_one_red():
    probabilities = np.array([[0.05, 0.3, 0.02, 0.4, 0.03, 0.1, 0.1], [1, 0, 0, 0, 0, 0, 0]])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    files = ["a.jpg", "b.jpg"]
    figure = predictions.draw(images, probabilities, np.array([1, 6]), NAMES, files, "Two of 9.")
    first, bars_of_first, second, bars_of_second = figure.axes
    red, blue = "#ffaaaa", "#aaaaff"
    assert bars(bars_of_first) == [
        ("class 3", "40.0%", 0.4, blue),
        ("class 1", "30.0%", 0.3, red),
        ("class 5", "10.0%", 0.1, blue),
        ("class 6", "10.0%", 0.1, blue),
        ("class 0", "5.0%", 0.05, blue),
    ]
    # The true class is not among the five: no bar is red.
    assert {color for *_, color in bars(bars_of_second)} == {blue}
    assert [axes.get_title().split(maxsplit=1)[1] for axes in (first, second)] == [
        "class 1",
        "class 6",
    ]
    assert [axes.get_xlabel() for axes in (first, second)] == files
    np.testing.assert_array_equal(first.images[0].get_array(), images[0])
    np.testing.assert_array_equal(second.images[0].get_array(), images[1])
    bottom, top = bars_of_first.get_ylim()
    assert bottom > 4  # bars stand at 0 to 4, the most probable class above
    assert top < 0
    assert [text.get_text() for text in figure.texts] == ["Two of 9."]
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert ["true class" in text for text in legend] == [True, False, False]
    assert to_hex(figure.legends[0].get_patches()[0].get_facecolor()) == red


def test_right_and_wrong_predictions_differ_in_symbol_and_frame():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    images, labels = np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 1, -1])
    figure = predictions.draw(images, probabilities, labels, ["a", "b"])
    pictures = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in pictures] == ["✓ a", "✗ b", ""]
    right, wrong, unknown = (axes.spines["top"] for axes in pictures)
    assert to_hex(right.get_edgecolor()) == palette.RIGHT
    assert to_hex(wrong.get_edgecolor()) == palette.WRONG
    assert right.get_linestyle() != wrong.get_linestyle()
    assert not unknown.get_visible()
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert [text[0] for text in legend[2:]] == ["✓", "✗"]
    # Without a true class there is nothing to be right or wrong about.
    figure = predictions.draw(images[:1], probabilities[:1], labels[2:], ["a", "b"])
    (text,) = (text.get_text() for text in figure.legends[0].texts)
    assert "unknown" in text


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 3), (8, 4), (11, 4), (20, 5), (64, 8)])
def test_any_number_of_predictions_is_drawn_in_rows(count, columns):
    images = np.zeros((count, 4, 4, 3), np.uint8)
    probabilities = np.full((count, 7), 1 / 7)
    labels = np.arange(count) % 7
    figure = predictions.draw(images, probabilities, labels, NAMES, caption="Some of many. " * 9)
    pictures = [axes.get_position() for axes in figure.axes if axes.images]
    assert len(pictures) == count
    assert len({round(box.x0, 6) for box in pictures}) == columns
    assert len({round(box.y0, 6) for box in pictures}) == -(-count // columns)
    assert pictures[0].y0 == max(box.y0 for box in pictures)
    if count <= 20:  # drawing more takes seconds
        check_layout(figure)


def check_layout(figure):
    """Check that nothing is cut off, and that no text is over another one or over an image."""
    figure.dpi = DPI
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [item for item in figure.findobj(Text) if item.get_text() and item.get_visible()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    edge = figure.bbox
    for text, box in zip(texts, boxes, strict=True):
        inside = edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
        assert inside, text
    corners = np.array([box.extents for box in boxes])
    images = np.array([axes.get_window_extent().extents for axes in figure.axes if axes.images])
    for number, box in enumerate(corners):
        others = (
            np.concatenate([corners[:number], corners[number + 1 :], images])
            if len(images)
            else np.delete(corners, number, axis=0)
        )
        apart = (
            (others[:, 0] >= box[2] - 1)
            | (others[:, 2] <= box[0] + 1)
            | (others[:, 1] >= box[3] - 1)
            | (others[:, 3] <= box[1] + 1)
        )
        assert apart.all(), texts[number]


LONG = [f"a class name of more than sixty characters that ends in its number {n}" for n in range(9)]
CHINESE = ["直剪止血钳" * 6 + str(number) for number in range(9)]


@pytest.mark.parametrize("names", [LONG, CHINESE])
def test_long_names_fit_and_stay_apart(names):
    images, files = np.zeros((9, 4, 4, 3), np.uint8), [f"{name}.jpeg" for name in names]
    probabilities = np.eye(9) * 0.5 + 0.5 / 9
    figure = predictions.draw(images, probabilities, np.arange(9), names, files)
    if names is LONG:  # the other font is not installed everywhere
        check_layout(figure)
    titles = {axes.get_title() for axes in figure.axes if axes.images}
    assert len(titles) == 9
    for axes in figure.axes:
        shown = [text.get_text() for text in axes.texts[::2]]
        assert len({*shown}) == len(shown)
        assert all(width_of(text, 8) <= 72 * 2.2 / 1.3 for text in shown)


def test_class_names_that_begin_alike_are_told_apart():
    assert short_names(["n02012849 crane", "n03126707 crane", "n01440764 tench, Tinca tinca"]) == [
        "crane (0)",
        "crane (1)",
        "tench",
    ]
    shown = short_names(LONG)
    assert [name[-1] for name in shown] == [*"012345678"]
    assert {len(name) for name in shown} == {24}


def test_predictions_call_classes_by_their_first_synonym():
    names = ["n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus"]
    picture, drawn = predictions.draw(
        np.zeros((1, 4, 4, 3), np.uint8), np.array([[0.2, 0.8]]), np.array([0]), names
    ).axes
    assert picture.get_title().endswith(" tench")
    assert [text.get_text() for text in drawn.texts] == ["goldfish", "80.0%", "tench", "20.0%"]


def test_predictions_of_fewer_than_five_classes():
    figure = predictions.draw(
        np.zeros((1, 4, 4, 3), np.uint8), np.array([[0.2, 0.8]]), np.array([0]), ["a", "b"]
    )
    expected = [("b", "80.0%", 0.8, "#aaaaff"), ("a", "20.0%", 0.2, "#ffaaaa")]
    assert bars(figure.axes[1]) == expected


def test_predictions_refuse_arrays_that_disagree():
    images, probabilities = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 7), 1 / 7)
    with pytest.raises(ValueError, match="2 images, 2 rows of probabilities, 1 labels"):
        predictions.draw(images, probabilities, np.array([0]), NAMES)
    with pytest.raises(ValueError, match="0 images"):
        predictions.draw(images[:0], probabilities[:0], np.array([]), NAMES)
    with pytest.raises(ValueError, match="7 probabilities per image and 2 class names"):
        predictions.draw(images, probabilities, np.array([0, 1]), NAMES[:2])
    with pytest.raises(ValueError, match="1 files and 2 images"):
        predictions.draw(images, probabilities, np.array([0, 1]), NAMES, ["a.jpg"])
    many = np.zeros(101, int)
    with pytest.raises(ValueError, match="101 images: .* 100"):
        predictions.draw(images[many], probabilities[many], many, NAMES)


def test_files_are_drawn_at_150_dots_an_inch(tmp_path):
    path = save(curves.draw(METRICS), tmp_path / "curves.png")
    size = curves.draw(METRICS).get_size_inches()
    height, width, _ = matplotlib.image.imread(path).shape
    assert (width, height) == tuple(math.floor(150 * side) for side in size)


def test_filters_of_a_network_without_towers_are_in_one_block():
    kernel = np.broadcast_to(np.arange(63, dtype=np.float32), (11, 11, 3, 63))
    mosaic = filters.filter_mosaic(kernel, towers=False)
    assert mosaic.shape == (6 * 12 + 1, 12 * 12 + 1, 3)
    assert (mosaic[61:72, 2 * 12 + 1 : 3 * 12] == 255).all()  # the 63rd, the greatest
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
    title, caption = (text.get_text() for text in drawn.texts)
    assert title == "conv9 of a.png"
    assert caption == "34 maps of 5 x 6, tower 0 above tower 1; black -1, white 3"
    assert len(feature_maps.draw(output[..., :1], "conv9", towers=False).axes[0].texts) == 0
    for wrong in (output[..., :33], output[0]):
        with pytest.raises(ValueError, match=r"must be \[H, W, C\]"):
            feature_maps.draw(wrong, "conv9", towers=True)


def test_the_photograph_is_left_of_its_maps():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    figure = feature_maps.draw(np.zeros((5, 5, 4), np.float32), "conv1 of a.png", True, image)
    maps, photograph = figure.axes
    np.testing.assert_array_equal(photograph.images[0].get_array(), image)
    assert "6 x 6" in photograph.texts[0].get_text()
    assert photograph.get_position().x1 < maps.get_position().x0
    check_layout(figure)


def test_contrast_by_map_shows_weak_maps():
    output = np.zeros((1, 2, 2), np.float32)
    output[0, :, 0], output[0, :, 1] = [0, 100], [0, 0.01]
    figure = feature_maps.draw(output, "conv1", towers=False, contrast="filter")
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert picture[1, 4:6, 0].tolist() == [0, 255]
    assert "each map" in figure.texts[1].get_text()
    picture = feature_maps.draw(output, "conv1", towers=False).axes[0].images[0].get_array()
    assert np.asarray(picture)[1, 4:6, 0].tolist() == [0, 0]


@pytest.mark.parametrize("length", [1, 40, 250])
def test_a_title_is_not_cut_off(length):
    name = f"conv1 of a photograph with a long name {length * 'm'}.jpg"
    figure = feature_maps.draw(np.zeros((3, 3, 2)), name, towers=True)
    check_layout(figure)
    title = figure.texts[0].get_text()
    assert title.startswith("conv1 of")
    assert title.endswith("m.jpg")
    assert figure.get_figwidth() < 9


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
