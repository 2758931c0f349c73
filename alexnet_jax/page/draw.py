"""Draw the page of a run: `draw(network, path)`."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alexnet_jax.inference.network import Network
from alexnet_jax.inference.scores import TOP5_FROM
from alexnet_jax.model import towers
from alexnet_jax.page import configuration, confusion, curves, facts, pictures
from alexnet_jax.page.outputs import Outputs, compute_outputs
from alexnet_jax.plots.class_labels import short
from alexnet_jax.storage.atomic import write_text
from alexnet_jax.storage.names import printable
from alexnet_jax.training import processes
from alexnet_jax.training.metrics import read_metrics

PAGE = "index.html"  # in the folder of a run
TEMPLATES = resources.files("alexnet_jax.page") / "template"


def draw(network: Network, path: Path, commands: Mapping[str, str]) -> Path:
    """Write the page of a run into one file that needs no other; return `path`.

    What a run does not have (history, images, a test split) is named in its place. With several
    processes all have to call; the main process writes the file, whole or not at all.

    Args:
        network: of the run, on a mesh of any shape.
        path: of the file; its folder is made if missing.
        commands: that go on from here, by what they do.
    """
    outputs, reason = None, ""
    if "imported" in network.meta:
        reason = "the weights were imported and come without images"
    else:
        try:
            outputs = compute_outputs(network)
        except ValueError as error:  # the images have been moved or changed
            reason = str(error).rstrip(".")
    kernel = towers.fetch(network.variables["params"]["conv1"]["kernel"])
    if processes.is_main_process():
        filters = pictures.filters_of(kernel, network.architecture.has_towers)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render(_content(network, outputs, reason, filters, commands)))
    return path


def render(content: Mapping[str, Any]) -> str:
    """Return the page as HTML; all text in `content` is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": facts.duration, "short": short}
    script = _template("page.js")
    # The browser runs this script alone and fetches nothing, whatever a class is called.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        **content, script=Markup(script), script_digest=digest, style=Markup(_template("page.css"))
    )


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _text(value: Any) -> Any:
    """Return text without control characters and bytes that are not UTF-8."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value, keep="\n") if is_text else value


def _content(
    network: Network,
    outputs: Outputs | None,
    no_images: str,
    filters: Sequence[Mapping[str, Any]],
    commands: Mapping[str, str],
) -> dict[str, Any]:
    """Return what the template shows."""
    try:
        metrics, no_metrics = read_metrics(network.workdir), ""
    except (OSError, ValueError) as error:
        metrics, no_metrics = [], str(error).rstrip(".")
    top5 = len(network.class_names) >= TOP5_FROM
    scores, time = facts.scores_of(network, metrics, outputs), facts.time_of(network)
    return {
        "title": Path(network.workdir).absolute().name,
        "state": facts.state_of(network),
        "untrained": network.untrained,
        "numbers": facts.numbers_of(network, metrics, scores, time["seconds"]),
        "top5": top5,
        "scores": scores,
        "best": facts.best_validation(metrics),
        "step": network.step,
        "paper": facts.paper_of(network, outputs),
        "charts": curves.chart_data(metrics, top5),
        "thinned": len(metrics) if curves.is_thinned(metrics) else 0,
        "epochs": curves.epoch_table(metrics),
        "no_metrics": no_metrics,
        "no_images": no_images,
        "filters": filters,
        "has_towers": network.architecture.has_towers,
        "network_picture": pictures.network_of(network.architecture),
        "variant": network.config.model.variant,
        "crop": network.architecture.crop,
        "time": time,
        "preset": network.config.preset,
        "configuration": configuration.grouped(network.config),
        "environment": facts.environment_of(network),
        "commands": commands,
        **_answers(network, outputs),
    }


def _answers(network: Network, outputs: Outputs | None) -> dict[str, Any]:
    """Return examples and confusions, if there are images."""
    if outputs is None:
        return {"outputs": None}
    names, label, best = network.class_names, outputs.label, outputs.best
    number = len(names)
    examples, mistakes = facts.examples_of(network, outputs)
    matrix, picture = None, ""
    if number <= confusion.MAX_TABLE:
        matrix = confusion.table(label, best, names)
    elif number <= confusion.MAX_PICTURE:
        picture = pictures.drawing(confusion.picture(label, best, number))
    return {
        "outputs": {
            "split": outputs.split,
            "count": len(label),
            "wrong": int((label != best).sum()),
        },
        "examples": examples,
        "mistakes": mistakes,
        "matrix": matrix,
        "matrix_picture": picture,
        "pairs": confusion.worst_pairs(label, best, names),
        "worst": confusion.worst_classes(label, best, names),
    }
