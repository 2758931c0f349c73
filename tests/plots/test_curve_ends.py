"""The ends of curves can be read: their scale, and their last values."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from alexnet_jax.plots import curves


def run(errors, losses, splits=("train", "validation"), rates=None):
    """Return the records of one of each split an epoch."""
    return [
        {"epoch": n, "split": split, "top1_error": error, "loss": loss}
        | ({"learning_rate": (rates or [1] * len(errors))[n - 1]} if split == "train" else {})
        for n, (error, loss) in enumerate(zip(errors, losses, strict=True), 1)
        for split in splits
    ]


def last_values(axes):
    return [text.get_text() for text in axes.texts if text.get_gid() == "last value"]


def heights_of(axes):
    marks = [text for text in axes.texts if isinstance(text, Annotation)]
    return [mark.xy[1] for mark in marks if mark.get_gid() == "last value"]


def draw(metrics):
    figure = curves.draw(metrics)
    FigureCanvasAgg(figure).draw()  # warnings are errors
    return figure.axes


def test_the_last_values_are_written_at_the_ends_of_the_lines():
    test = {"epoch": 3, "split": "test", "top1_error": 0.007, "loss": 0.0157}
    error, loss = draw([*run([0.9, 0.2, 0.004], [3, 0.5, 0.01234]), test])
    assert last_values(error) == ["training 0.4%", "validation 0.4%", "test 0.7%"]
    assert last_values(loss) == ["training 0.0123", "validation 0.0123", "test 0.0157"]
    heights = sorted(heights_of(error))
    assert min(np.diff(heights)) >= curves.LABEL - 1e-9  # although two are the same
    assert 0 <= heights[0]
    assert heights[-1] <= 1


def test_labels_at_the_top_stay_within_the_axes():
    error, _ = draw(run([0.99] * 3, [4.6] * 3))
    heights = heights_of(error)
    assert max(heights) <= 1
    assert abs(heights[0] - heights[1]) >= curves.LABEL - 1e-9


def test_small_values_are_drawn_on_a_logarithmic_axis():
    error, loss = draw(run([0.9, 0.2, 0.004], [3, 0.5, 0.01]))
    assert error.get_yscale() == loss.get_yscale() == "log"
    assert "logarithmic" in error.get_ylabel()
    shown = [label.get_text() for label in error.get_yticklabels()]
    assert {"1%", "10%"} <= {*shown}


def test_a_plateau_is_drawn_on_a_linear_axis_from_zero():
    for axes in draw(run([0.99, 0.99], [4.61, 4.62])):
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[0] == 0
        assert "logarithmic" not in axes.get_ylabel()


def test_an_error_of_zero_is_on_the_axis():
    error, _ = draw(run([0.9, 0.01, 0.0], [1, 1, 1]))
    assert error.get_ylim()[0] <= 0
    assert error.transData.transform((1, 0))[1] >= error.bbox.y0
    assert last_values(error) == ["training 0.0%", "validation 0.0%"]
    error, _ = draw(run([0.0, 0.0], [1, 1]))
    assert error.get_yscale() == "linear"


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("splits", [("train",), ("train", "validation")])
def test_few_epochs_and_no_validation(epochs, splits):
    error, _ = draw(run([0.9, 0.8][:epochs], [3, 2][:epochs], splits))
    assert len(last_values(error)) == len(splits)
    legend = [text.get_text() for text in error.figure.legends[0].texts]
    assert any("validation" in text for text in legend) == ("validation" in splits)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged(value):
    error, loss = draw(run([0.9, 0.5, 0.99], [3, 2, value]))
    word = "NaN" if math.isnan(value) else "infinite"
    assert last_values(loss) == [f"training {word}", f"validation {word}"]
    assert last_values(error) == ["training 99.0%", "validation 99.0%"]
    _, loss = draw(run([0.9, 0.5, 0.99], [value] * 3, rates=[1, 0.1, 0.01]))
    assert loss.get_xlim()[1] > 3


def test_of_many_drops_the_last_is_labeled():
    rates = [0.5**n for n in range(12)]
    for axes in draw(run([0.9] * 12, [2] * 12, rates=rates)):
        labels = [text.get_text() for text in axes.texts if text.get_gid() == "learning rate"]
        assert labels == [f"{rates[-1]:.2g}"]
        assert sum(line.get_gid() == "drop" for line in axes.get_lines()) == 11
