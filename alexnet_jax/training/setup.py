"""Everything of a run that does not change: data, mesh, network and jitted steps."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.config import Config, DataConfig
from alexnet_jax.data.sources import Source
from alexnet_jax.model import platform, towers
from alexnet_jax.model.architecture import Architecture, trace, training_flop
from alexnet_jax.model.devices import peak
from alexnet_jax.model.preprocess import Preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training import schedule
from alexnet_jax.training.evaluation import evaluate
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.run_data import RunData, check_batch_size
from alexnet_jax.training.state import TrainState, abstract_state
from alexnet_jax.training.step import make_eval_step, make_train_step
from alexnet_jax.training.stopping import StopCheck, no_check


@dataclasses.dataclass(frozen=True)
class TrainSetup:
    """Everything that does not change from step to step."""

    config: Config
    mesh: Mesh
    data: RunData
    architecture: Architecture
    init: Callable[[], TrainState]
    target: TrainState  # of ShapeDtypeStructs: shapes and shardings of a restored state
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]

    def epoch_end(self, epoch: int) -> int:
        """Return the step after which every training image has been seen `epoch` times."""
        return schedule.num_steps(self.config, len(self.data.splits.train), epoch)

    def epochs(self, step: int) -> float:
        """Return how often the training images have been seen after `step` steps."""
        return step * self.config.optimizer.batch_size / len(self.data.splits.train)

    def speed(self, images_per_second: float | None) -> dict[str, float | None]:
        """Return the speed of training as metrics.jsonl has it; None for what is not known.

        TFLOP/s are those of the products, over all devices; `peak_share` is their fraction of what
        the devices can do at most.
        """
        tflop_per_second, peak_share = None, None
        if images_per_second is not None:
            flop = training_flop(self.architecture, self.config.optimizer.frozen)
            tflop_per_second = flop * images_per_second / 1e12
            device_kind = self.mesh.devices.flat[0].device_kind
            dtype, precision = self.architecture.dtype, self.architecture.precision
            if device_peak := peak(device_kind, dtype, precision):
                peak_share = tflop_per_second / (self.mesh.size * device_peak)
        return {
            "images_per_second": images_per_second,
            "tflop_per_second": tflop_per_second,
            "peak_share": peak_share,
        }

    def evaluate(
        self, variables: Any, source: Source, check_stop: StopCheck = no_check
    ) -> dict[str, float]:
        """Return the scores of a split; see `evaluation.evaluate`."""
        data, batch_size = self.config.data, self.config.optimizer.batch_size
        return evaluate(
            self.eval_step, variables, source, data, batch_size, self.mesh, check_stop=check_stop
        )


def build_setup(config: Config, mesh: Mesh, data: RunData) -> TrainSetup:
    """Build the network for this data on this mesh; nothing is computed yet."""
    check_batch_size(config.optimizer.batch_size, len(data.splits.train))  # only readable images
    num_classes = len(data.splits.class_names)
    architecture = build_architecture(config.model, num_classes, config.data.crop)
    tx = paper_sgd(config.optimizer)
    init, target = abstract_state(architecture, tx, mesh, config.seed)
    constants = make_preprocess(config.data, data.statistics)
    return TrainSetup(
        config=config,
        mesh=mesh,
        data=data,
        architecture=architecture,
        init=init,
        target=target,
        train_step=make_train_step(
            *(architecture, tx, mesh, constants, config.seed, config.optimizer.frozen),
            deterministic=config.process.deterministic,
        ),
        eval_step=make_eval_step(architecture, mesh, constants, config.process.deterministic),
    )


def make_preprocess(config: DataConfig, statistics: Mapping[str, Any]) -> Preprocess:
    """Return the constants of preprocessing.

    Args:
        config: of the data.
        statistics: the fields of `data.statistics.Statistics`. Read are `mean_color` [3] if the
            mean is that of each channel, otherwise `mean_image` [S, S, 3]; `lighting_axes` [3, 3]
            and `lighting_std` [3]; and `scale` [3].
    """
    unit = statistics["lighting_std"] ** (2 if config.pca_scale == "eigenvalue" else 1)
    mean = statistics["mean_color" if config.mean == "channel" else "mean_image"]
    return Preprocess(
        mean=jnp.asarray(mean),
        lighting=jnp.asarray(statistics["lighting_axes"] * unit),
        scale=jnp.asarray(statistics["scale"]),
        mean_alignment="center" if config.mean == "image-center" else "aligned",
        channels=config.channels,
    )


def describe_setup(setup: TrainSetup) -> str:
    """Return one sentence about the network, and what is scaled down from 2012's."""
    model, data = setup.config.model, setup.config.data
    rows = trace(setup.architecture)
    parameters = sum(row.parameters for row in rows)
    multiply_adds = sum(row.multiply_adds for row in rows)
    scaled = []
    unscaled = dataclasses.replace(model, scale_init=False)
    if model.width != 1:
        scaled.append(f"width x {model.width:g}")
    if data.crop not in (224, 227):  # the 2012 code's and Caffe's
        scaled.append(f"{data.crop} px crops of {data.image_size} px images")
    if setup.architecture != build_architecture(
        unscaled, setup.architecture.num_classes, data.crop
    ):
        scaled.append("initialization scaled to preserve activation variance")
    text = (
        f"AlexNet ({model.variant}), {parameters:,} parameters, "
        f"{multiply_adds / 1e6:,.4g} M multiply-adds per image, "
        f"on {towers.describe_mesh(setup.mesh)}"
    )
    return f"{text}; scaled from 2012: {', '.join(scaled)}." if scaled else f"{text}."


def describe_products(setup: TrainSetup) -> str:
    """Return one sentence about what this device computes products in."""
    model, device = setup.config.model, setup.mesh.devices.flat[0]
    meaning = platform.describe_precision(model.dtype, model.precision, device)
    return f"Precision {model.precision} on {device.device_kind}: {meaning}."
