"""The figures of explanations: signs, scales, towers and what is written beside them."""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from alexnet_jax.explanations.patches import Patch, Unit
from alexnet_jax.explanations.photographs import Explanation
from alexnet_jax.plots import explanations, patches
from alexnet_jax.plots.tiles import save

NAMES = tuple(f"class {number}" for number in range(9))


def explained(name="a.png", label=0, towers=True):
    rng = np.random.default_rng(0)
    signed = np.zeros((8, 8), np.float32)
    signed[1, 2], signed[5, 6] = 4, -2
    parts = np.stack([signed, -signed / 2])
    return Explanation(
        file=Path(name),
        image=rng.integers(100, 156, (8, 8, 3), np.uint8),
        probabilities=np.linspace(0.2, 0.04, 9),
        label=label,
        class_names=NAMES,
        score=3.0,
        maps={"occlusion": signed, "gradient": np.abs(signed), "gradcam": np.maximum(signed, 0)},
        towers=parts if towers else None,
        raw={},
    )


def picture(axes):
    return np.asarray(axes.images[0].get_array())


def test_red_speaks_for_the_class_and_blue_against_it():
    photograph, _, occlusion, _, cam, first, second = explanations.draw(
        [explained()], "relu5", "probability"
    ).axes
    np.testing.assert_array_equal(picture(photograph), explained().image)
    assert occlusion.get_title() == "occlusion"
    assert occlusion.get_xlabel() == "drop of the probability\n-2 to 4"
    for axes, row, column, sign in [
        *((occlusion, 1, 2, 1), (occlusion, 5, 6, -1), (cam, 1, 2, 1)),
        *((first, 1, 2, 1), (first, 5, 6, -1), (second, 1, 2, -1), (second, 5, 6, 1)),
    ]:
        red, _, blue = picture(axes)[row, column]
        assert (red - blue) * sign > 0.2
    red, green, blue = picture(cam)[5, 6]  # against: not in the total
    assert red == green == blue


def test_towers_are_named_and_on_the_scale_of_the_total():
    *_, cam, first, second = explanations.draw([explained()], "pool2").axes
    titles = [axes.get_title() for axes in (cam, first, second)]
    assert titles == ["Grad-CAM pool2", "tower 0", "tower 1"]
    np.testing.assert_array_equal(picture(first)[1, 2], picture(cam)[1, 2])
    weaker = np.ptp(picture(second)[5, 6])  # 1 of 4
    assert weaker == pytest.approx(np.ptp(picture(first)[1, 2]) / 4, rel=0.05)
    without = explanations.draw([explained(towers=False)], "relu5").axes
    assert [axes.get_title() for axes in without][-1] == "Grad-CAM relu5"


def test_the_explained_class_has_the_red_bar_even_if_it_is_improbable():
    for label, place in ((1, 1), (8, 4)):
        bars = explanations.draw([explained(label=label)], "relu5").axes[1]
        colors = [bar.get_facecolor() for bar in bars.patches]
        assert [color != colors[place] for color in colors].count(False) == 1
        assert f"class {label}" in bars.texts[place].get_text()
        assert bars.get_title() == f"why class {label}?"


def test_a_row_for_each_photograph_and_no_title_is_cut(tmp_path):
    long = "a photograph with a very long name of many words.png"
    rows = [explained(long if number % 2 else "a.png") for number in range(8)]
    for count in (1, 8):
        figure = explanations.draw(rows[:count], "relu_conv6")
        assert len(figure.axes) == 7 * count
        path = save(figure, tmp_path / f"{count}.png")
        drawn = matplotlib.image.imread(path)[..., :3]
        for edge in (drawn[:4], drawn[-4:], drawn[:, :4], drawn[:, -4:]):
            assert edge.min() == 1  # white
    assert "…" in figure.axes[7].get_title()


def test_patches_have_one_scale_and_their_units_name_the_tower():
    rng = np.random.default_rng(0)
    whole, clipped = (rng.integers(0, 200, (side, 9, 3), np.uint8) for side in (9, 4))
    found = [
        Patch(Path(f"folder/{number}.png"), 2.5, (0, 0), (0, 0, 9, len(image)), image)
        for number, image in enumerate((whole, clipped))
    ]
    figure = patches.draw({Unit("conv5", 3, 0): found, Unit("fc8", 1, None): found[:1]})
    assert [text.get_text() for text in figure.texts] == ["conv5:3\ntower 0", "fc8:1"]
    first, second, _ = figure.axes
    np.testing.assert_array_equal(picture(first), whole)
    np.testing.assert_array_equal(picture(second)[2:6], clipped)
    assert (picture(second)[:2] == 255).all()
    assert re.fullmatch(r"2\.500\nfolder/1\.png", second.get_xlabel())


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one photograph; name one"):
        explanations.draw([], "relu5")
    with pytest.raises(ValueError, match="at least one for each unit; name"):
        patches.draw({})
