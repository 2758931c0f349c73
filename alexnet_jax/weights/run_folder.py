"""A run folder made of imported weights."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import flatten, invalid
from alexnet_jax.model import towers
from alexnet_jax.storage.local import check_local
from alexnet_jax.training import summary as run_summary
from alexnet_jax.training.checkpoint import FOLDER, CheckpointData, Checkpoints
from alexnet_jax.training.metrics import METRICS
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import Progress
from alexnet_jax.training.state import TrainState, abstract_state
from alexnet_jax.training.timing import no_time
from alexnet_jax.weights.import_plan import ImportPlan


def check_empty(workdir: Path) -> None:
    """Raise a ValueError if `workdir` holds a run, or it is no local folder.

    What an import leaves that was killed before it had saved its checkpoint is none.
    """
    check_local(workdir, "workdir")
    checkpoints = workdir / FOLDER
    entries = [*checkpoints.iterdir()] if checkpoints.is_dir() else []
    if (workdir / METRICS).exists() or any(
        entry.name.partition(".")[0].isdigit() for entry in entries if "tmp" not in entry.name
    ):
        raise invalid("workdir", workdir, "holds a run already", "name a new folder")


def make(plan: ImportPlan, source: Path, workdir: Path) -> None:
    """Write a run folder: config.json, statistics.npz and a checkpoint at step 0."""
    config = plan.config
    mesh = towers.make_mesh(towers=1, data=1, batch=config.optimizer.batch_size)
    state = _state(plan, mesh)
    constants = {
        name: np.asarray(value, np.float32) for name, value in vars(plan.statistics).items()
    }
    meta = {
        "config": flatten(config),
        "progress": dataclasses.asdict(Progress()),
        "line_sums": {},
        "epoch_sums": {},
        "time": no_time(),
        "class_names": plan.class_names,
        "data": {},
        "unreadable": {},
        "imported": source.name,
        "untrained": plan.untrained,
    }
    with Checkpoints(workdir) as checkpoints:
        run_summary.write_run_config(
            *(config, plan.class_names, mesh, constants, workdir, source.name, plan.untrained)
        )
        checkpoints.save(0, CheckpointData(state, constants, json.loads(json.dumps(meta))), None)
        checkpoints.wait()
        checkpoints.read_back(0, state)


def _state(plan: ImportPlan, mesh: Mesh) -> TrainState:
    """Return the state at step 0, with what the file lacks at its initial values."""
    config, params = plan.config, plan.params
    tx = paper_sgd(config.optimizer)
    if all(len(params.get(layer.name, ())) == 2 for layer in plan.architecture.layers):
        # Without drawing initial values, which takes seconds to compile.
        on_device = jax.device_put(params, jax.devices()[0])
        return TrainState(jnp.zeros((), jnp.int32), {"params": on_device}, tx.init(on_device))
    create, _ = abstract_state(plan.architecture, tx, mesh, config.seed)
    state = create()
    initial = state.variables["params"]
    complete = {
        name: {**kinds, **jax.device_put(params.get(name, {}), jax.devices()[0])}
        for name, kinds in initial.items()
    }
    return state.replace(variables={"params": complete})
