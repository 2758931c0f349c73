"""The figure of a network on two devices shows the numbers of the layer table."""

import dataclasses

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax import describe
from alexnet_jax.fidelity.table import describe_layers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.plots import network
from alexnet_jax.presets import PRESETS


def architecture(preset: str, classes: int = 1000) -> Architecture:
    config = PRESETS[preset]
    return build_architecture(config.model, classes, config.data.crop)


def words(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts]


def crossings(figure: Figure) -> list[str]:
    """Return what stands at a line between the devices; a line is drawn for each."""
    (axes,) = figure.axes
    named = [text for text in words(figure) if text.startswith(("all-", "halo exchange"))]
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(lines) == len(named)
    return [text.replace("\n", " ") for text in named]


def test_the_network_of_2012_has_four_collectives():
    drawn = network.draw(architecture("paper"))
    assert crossings(drawn) == [
        "all-gather of pool2 21,632",
        "all-gather of pool5 4,608",
        "all-gather of drop6 2,048",
        "all-reduce of logits 1,000",
    ]
    for text in (
        *("device 0: tower 0", "device 1: tower 1", "30,483,112 parameters on each device"),
        *("55 × 55 × 48", "13 × 13 × 192", "2,048", "1,000\nlogits", "224 × 224 × 3"),
        *("11 × 11 × 3", "5 × 5 × 48", "3 × 3 × 256", "ReLU LRN pool", "17,472", "18,876,416"),
    ):
        assert text in words(drawn), text


@pytest.mark.parametrize("preset", PRESETS)
def test_every_network_is_drawn_as_it_is_described(preset: str):
    rows = architecture(preset)
    drawn, facts = network.draw(rows), describe_layers(rows)
    expected = [
        f"{row['by']} {'for' if row['by'] == 'halo exchange' else 'of'} "
        f"{row['name'] if row['by'] == 'halo exchange' else row['what']} {row['crossing']:,}"
        for row in facts["devices"]
        if row["crossing"]
    ]
    assert crossings(drawn) == expected
    held = [f"{row['parameters']:,}" for row in facts["devices"] if row["parameters"]]
    assert [text for text in words(drawn) if text in held] == held
    assert f"{sum(row['parameters'] for row in facts['devices']):,} parameters on each device" in (
        words(drawn)
    )
    assert ("device 0: tower 0" in words(drawn)) == rows.has_towers


def test_texts_do_not_overlap_and_lie_within_the_figure():
    for rows in (architecture("source2012"), architecture("merged"), architecture("bvlc_alexnet")):
        drawn = network.draw(rows)
        renderer = FigureCanvasAgg(drawn).get_renderer()
        boxes = [
            text.get_window_extent(renderer) for text in drawn.axes[0].texts if text.get_text()
        ]
        for number, box in enumerate(boxes):
            assert drawn.bbox.x0 <= box.x0 < box.x1 <= drawn.bbox.x1
            assert drawn.bbox.y0 <= box.y0 < box.y1 <= drawn.bbox.y1
            assert not [other for other in boxes[:number] if other.overlaps(box)]


def test_after_a_bottleneck_each_device_has_the_partial_logits_of_all_classes():
    model = dataclasses.replace(PRESETS["source2012"].model, bottleneck=2048)
    drawn = network.draw(build_architecture(model, 21843, 224))
    assert {"1,024", "21,843"} <= {*words(drawn)}  # units of the bottleneck, classes


def test_the_command_saves_the_figure_and_prints_the_text(tmp_path, capsys):
    assert describe.main(["--preset", "quickstart", "--save", str(tmp_path / "a/network.png")]) == 0
    assert "On two devices" in capsys.readouterr().out
    with Image.open(tmp_path / "a/network.png") as image:
        assert image.width > 2 * image.height
    assert describe.main(["--save", "network.txt"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("alexnet_jax: --save network.txt: must end in .png")
