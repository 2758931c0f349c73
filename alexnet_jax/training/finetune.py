"""What a new run takes from another: the model, the preprocessing and the weights to fine-tune."""

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import (
    PREPROCESSING,
    Config,
    fields_marked,
    flatten,
    invalid,
    unflatten,
)
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.storage.json_objects import read_object
from alexnet_jax.storage.local import check_local
from alexnet_jax.training import processes
from alexnet_jax.training.checkpoint import FOLDER, Checkpoints, read_checkpoints
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.run_config import CONFIG, read_config
from alexnet_jax.training.run_meta import read_meta
from alexnet_jax.training.state import abstract_state

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The network in a checkpoint of a run folder, trained or imported."""

    folder: Path
    step: int
    config: Config
    class_names: tuple[str, ...]
    architecture: Architecture
    params: Any  # {layer: {"kernel", "bias"}}, global arrays on the mesh
    statistics: Mapping[str, np.ndarray]  # the fields of `statistics.Statistics`
    meta: Mapping[str, Any]  # the plain part of the checkpoint


def load_origin(
    folder: Path,
    mesh: Mesh,
    which: Literal["latest", "best"] = "latest",
    name: str = "init_from",
) -> Origin:
    """Return the network in a run folder without changing the folder.

    Args:
        folder: of a run, which may be in progress.
        mesh: that the parameters are placed on.
        which: the latest checkpoint, or the one with the lowest validation error.
        name: of the argument that named the folder, for messages.

    Raises:
        ValueError: there is no such checkpoint, or this version cannot read it.
    """
    if which not in ("latest", "best"):
        raise invalid("which", which, "must be latest or best", "use latest")
    kind = "checkpoint with a validation error" if which == "best" else "checkpoint"
    missing = invalid(name, folder, f"holds no {kind}", "name the folder of a run that has started")
    check_local(folder, name)
    if not (folder / FOLDER).is_dir():
        raise missing

    def read(checkpoints: Checkpoints) -> Origin:
        step = checkpoints.latest() if which == "latest" else checkpoints.best()
        if step is None:
            raise missing
        return _read_origin(checkpoints, step, mesh)

    return read_checkpoints(folder, name, read)


def _read_origin(checkpoints: Checkpoints, step: int, mesh: Mesh) -> Origin:
    meta, statistics = read_meta(checkpoints, step), checkpoints.statistics(step)
    config, class_names, architecture = read_network(checkpoints.workdir, meta)
    _, target = abstract_state(architecture, paper_sgd(config.optimizer), mesh, config.seed)
    return Origin(
        folder=checkpoints.workdir,
        step=step,
        config=config,
        class_names=class_names,
        architecture=architecture,
        params=checkpoints.state(step, target).variables["params"],
        statistics={field: np.asarray(value) for field, value in statistics.items()},
        meta=meta,
    )


def read_network(
    folder: Path, meta: Mapping[str, Any]
) -> tuple[Config, tuple[str, ...], Architecture]:
    """Return configuration, class names and layers of the network that `read_meta` describes.

    Raises:
        ValueError: there is no such network.
    """
    try:
        config, class_names = unflatten(meta["config"]), meta["class_names"]
        architecture = build_architecture(config.model, len(class_names), config.data.crop)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        rule = f"has a checkpoint whose options or class names are damaged ({error})"
        raise invalid("workdir", folder, rule, f"restore {FOLDER} from a backup") from error
    return config, tuple(class_names), architecture


def defaults_from(origin_folder: Path, config: Config) -> Config:
    """Return `config` with the model and the preprocessing of the run in `origin_folder`.

    The precision of products is no part of it: imported weights are evaluated at the highest, which
    need not be that of training.

    Reads config.json alone, as the command line needs its defaults before JAX is imported.

    Raises:
        ValueError: there is no config.json, or it is not that of a run.
    """
    inherited = _inherited(read_config(origin_folder, "init_from"))
    started = {"init_from": str(origin_folder), "data.statistics": "init"}
    return unflatten(flatten(config) | inherited | started)


def _inherited(config: Config) -> dict[str, Any]:
    """Return the fields that a run starts with from that of init_from: model, preprocessing."""
    return {
        field: value
        for field, value in flatten(config).items()
        if (field.startswith("model.") and field != "model.precision")
        or field in fields_marked(PREPROCESSING)
    }


def describe_origin(origin: Config, config: Config) -> str:
    """Return one sentence: what a run with init_from has from there, and what it has not."""
    old, new = _inherited(origin), _inherited(config)
    others = [f"{field}={value}" for field, value in new.items() if value != old[field]]
    if config.data.statistics != "init":
        others.append(f"data.statistics={config.data.statistics}")
    text = f"Model ({origin.model.variant}) and preprocessing are those of {config.init_from}"
    return f"{text}, except {', '.join(others)}." if others else f"{text}."


def fit_to_classes(config: Config, class_names: Sequence[str], given: Collection[str]) -> Config:
    """Return `config` with a new last layer if these are not the classes of init_from.

    That layer then has ten times the learning rate of the others, as in the 2012 code's pretrained
    nets (layer-params-146-2012-2011.cfg:186).

    Args:
        config: with init_from.
        class_names: that are to be learned.
        given: fields that keep their values.
    """
    folder = Path(config.init_from)
    origin_names = read_object(folder / CONFIG).get("class_names")
    init, optimizer = config.init, config.optimizer
    if "init.reinit_layers" not in given and origin_names != list(class_names):
        init = dataclasses.replace(init, reinit_layers=("fc8",))
    if "optimizer.layer_learning_rates" not in given:
        rates = tuple(f"{layer}=10" for layer in init.reinit_layers)
        optimizer = dataclasses.replace(optimizer, layer_learning_rates=rates)
    return dataclasses.replace(config, init=init, optimizer=optimizer)


def check_preset(config: Config) -> None:
    """Raise a ValueError if a preset is for weights of another run and there are none, or not."""
    if config.preset == "finetune" and not config.init_from:
        rule = "starts from another run, and init_from names none"
        raise invalid("preset", "finetune", rule, "add init_from=FOLDER, or use preset=small")
    if config.preset == "small" and config.init_from:
        rule = "trains from random weights, at a rate too high for those of init_from"
        raise invalid("preset", "small", rule, "use preset=finetune")


def init_from_pretrained(
    origin: Origin,
    params: Any,
    reinit_layers: Sequence[str],
    class_names: Sequence[str],
    frozen: Collection[str] = (),
) -> tuple[Any, str]:
    """Return `params` with the origin's weights in all layers but `reinit_layers`, and a message.

    Args:
        origin: the network to start from.
        params: initial parameters of the new run, global arrays on its mesh.
        reinit_layers: layers that keep their initial parameters.
        class_names: of the new run.
        frozen: layers that will not be trained.

    Raises:
        ValueError: the network has no such layer, a layer's shape is not the origin's, or a layer
            that no run has trained is frozen.
    """
    _check_layers(origin, params, reinit_layers)
    untrained = [name for name in origin.meta.get("untrained", ()) if name not in reinit_layers]
    if stuck := [name for name in untrained if name in frozen]:
        rule = f"{', '.join(stuck)} came without weights and would stay at random values"
        remedy = "give these layers a learning rate"
        raise invalid("optimizer.layer_learning_rates", " ".join(stuck), rule, remedy)
    copied = [name for name in params if name not in reinit_layers]
    unused = [name for name in origin.params if name not in params]
    placed = {
        name: jax.device_put(origin.params[name], jax.tree.map(lambda x: x.sharding, params[name]))
        for name in copied
    }
    message = f"Weights of {origin.folder}, step {origin.step:,}: {', '.join(copied)}"
    message += f"; initialized at random: {', '.join(reinit_layers)}" if reinit_layers else ""
    if "fc8" in reinit_layers and len(origin.class_names) == len(class_names):
        pairs = zip(origin.class_names, class_names, strict=True)
        before, now = next(((a, b) for a, b in pairs if a != b), ("", ""))
        message += f" (other classes: {before!r} is now {now!r})" if now else ""
    message += f"; at random values there, too: {', '.join(untrained)}" if untrained else ""
    message += f"; not used: {', '.join(unused)}" if unused else ""
    if "fc8" not in reinit_layers and processes.is_main_process():
        _warn_of_names(origin.class_names, class_names)
    return {**params, **placed}, f"{message}."


def _check_layers(origin: Origin, params: Any, reinit_layers: Sequence[str]) -> None:
    if unknown := [name for name in reinit_layers if name not in params]:
        rule = f"must be layers of the network, which are {', '.join(params)}"
        raise invalid("init.reinit_layers", unknown, rule, "name some of them")
    origin_shapes, shapes = (
        {name: np.shape(layer["kernel"]) for name, layer in tree.items()}
        for tree in (origin.params, params)
    )
    differ = [
        name
        for name in params
        if name not in reinit_layers and origin_shapes.get(name) != shapes[name]
    ]
    if differ:
        pairs = (
            f"{name} ({origin_shapes.get(name, 'missing')} and not {shapes[name]})"
            for name in differ
        )
        rule = f"has other shapes in {', '.join(pairs)}"
        remedy = f"add init.reinit_layers={' '.join([*reinit_layers, *differ])}"
        if differ == ["fc8"]:
            remedy = f"use preset=finetune, or {remedy}"
        raise invalid("init_from", origin.folder, rule, remedy)


def _warn_of_names(origin_names: Sequence[str], class_names: Sequence[str]) -> None:
    """Warn if fc8 keeps its weights and its classes have other names."""
    pairs = list(zip(origin_names, class_names, strict=True))
    differ = [pair for pair in pairs if pair[0] != pair[1]]
    if differ:
        LOGGER.warning(
            "%d of %d classes have other names than in the run that fc8 comes from (%r is now %r); "
            "if they are other classes, use preset=finetune, or add init.reinit_layers=fc8.",
            *(len(differ), len(pairs), *differ[0]),
        )
