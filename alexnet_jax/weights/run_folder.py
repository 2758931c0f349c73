"""A run folder made of imported weights."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import flatten
from alexnet_jax.model import towers
from alexnet_jax.training import summary as run_summary
from alexnet_jax.training.checkpoint import FOLDER, CheckpointData, Checkpoints
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.state import TrainState, abstract_state
from alexnet_jax.weights.imported import Imported


def check_empty(workdir: Path) -> None:
    """Raise a ValueError where `workdir` holds a run already."""
    if any((workdir / name).exists() for name in (FOLDER, run_summary.CONFIG)):
        raise ValueError(
            f"--workdir {workdir}: it holds a run already; name a folder that is not there yet."
        )


def make(imported: Imported, source: Path, workdir: Path) -> None:
    """Write a run that has not begun: config.json, statistics.npz and a checkpoint at step 0."""
    config = imported.config
    mesh = towers.make_mesh(towers=1, data=1, batch=config.optimizer.batch_size)
    state = _state(imported, mesh)
    constants = {
        name: np.asarray(value, np.float32) for name, value in vars(imported.statistics).items()
    }
    meta = {
        "config": flatten(config),
        "progress": dataclasses.asdict(Progress()),
        "line_sums": {},
        "epoch_sums": {},
        "seconds": 0.0,
        "class_names": imported.class_names,
        "data": {},
        "unreadable": {},
        "imported": source.name,
    }
    with Checkpoints(workdir) as checkpoints:
        run_summary.write_about(config, imported.class_names, mesh, constants, workdir, source.name)
        checkpoints.save(0, CheckpointData(state, constants, json.loads(json.dumps(meta))), None)


def _state(imported: Imported, mesh: Mesh) -> TrainState:
    """Return the state of a run that has not begun, what the file lacks at its initial values."""
    config, params = imported.config, imported.params
    tx = paper_sgd(config.optimizer)
    if all(len(params.get(layer.name, ())) == 2 for layer in imported.architecture.layers):
        on_device = jax.device_put(params, jax.devices()[0])  # drawing takes seconds to compile
        return TrainState(jnp.zeros((), jnp.int32), {"params": on_device}, tx.init(on_device))
    create, _ = abstract_state(imported.architecture, tx, mesh, config.seed)
    state = create()
    initial = state.variables["params"]
    whole = {
        name: {**kinds, **jax.device_put(params.get(name, {}), jax.devices()[0])}
        for name, kinds in initial.items()
    }
    return state.replace(variables={"params": whole})
