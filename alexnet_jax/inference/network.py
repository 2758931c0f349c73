"""A network out of a run folder, with the preprocessing that its weights want."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.config import Config, DataConfig, unflatten
from alexnet_jax.data import splits as data_splits
from alexnet_jax.data.sources import Folder, Source, image_files, read_image, subfolders
from alexnet_jax.data.wrappers import Relabeled, Resized, center_views, without
from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.features import features
from alexnet_jax.model.preprocess import Preprocess, preprocess
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.training.checkpoint import FOLDER, Checkpoints, check_data
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.setup import fingerprints, make_preprocess
from alexnet_jax.training.state import abstract_state

# Fields of DataConfig that belong to the weights: what an image becomes before the network sees it.
PREPROCESSING = ("image_size", "resize", "filter", "channels", "crop", "mean")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, trained or imported, on a mesh."""

    workdir: Path
    step: int
    config: Config
    class_names: tuple[str, ...]
    architecture: Architecture
    mesh: Mesh
    variables: Any  # {"params": {layer: {"kernel", "bias"}}}, global arrays on the mesh
    statistics: Mapping[str, np.ndarray]  # the fields of `statistics.Statistics`
    meta: Mapping[str, Any]  # the plain part of the checkpoint

    @property
    def preprocess(self) -> Preprocess:
        """What `preprocess.finish` needs to know."""
        return make_preprocess(self.config.data, self.statistics)

    def prepare(self, images: Sequence[Path | str | np.ndarray]) -> Array:
        """Return the center views of images as the network wants them, [B, crop, crop, 3] float32.

        Args:
            images: files, or pictures of any size, uint8 [H, W, 3], RGB; as many as the mesh's
                shards of the batch divide.

        Raises:
            ValueError: one of them is no image, named; or their number does not divide.
        """
        towers.check_batch(len(images), self.mesh)
        pictures = [read_image(image) for image in images]
        batch = towers.put_batch(center_views(pictures, self.config.data), self.mesh)
        return preprocess(batch, self.preprocess)

    def features(self, images: Array | np.ndarray, layers: str | Sequence[str]) -> dict[str, Array]:
        """Return outputs of a layer or several for images as `prepare` leaves them.

        See `model.features.features`.
        """
        layers = (layers,) if isinstance(layers, str) else layers
        params = self.variables["params"]
        return features(params, images, layers, architecture=self.architecture, mesh=self.mesh)


def load_network(
    workdir: Path | str, mesh: Mesh, which: Literal["latest", "best"] = "latest"
) -> Network:
    """Return the network in a run folder, without touching the folder.

    Raises:
        ValueError: there is none, or it was written by another version.
    """
    workdir = Path(workdir)
    if not (workdir / FOLDER).is_dir():
        raise _missing(workdir)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = checkpoints.latest() if which == "latest" else checkpoints.best()
        if step is None:
            raise _missing(workdir, which)
        meta, statistics = checkpoints.meta(step), checkpoints.constants(step)
        config = unflatten(meta["config"])
        architecture = build_architecture(config.model, len(meta["class_names"]), config.data.crop)
        _, target = abstract_state(architecture, paper_sgd(config.optimizer), mesh, config.seed)
        variables = checkpoints.state(step, target).variables
    return Network(
        workdir=workdir,
        step=step,
        config=config,
        class_names=tuple(meta["class_names"]),
        architecture=architecture,
        mesh=mesh,
        variables=variables,
        statistics={name: np.asarray(value) for name, value in statistics.items()},
        meta=meta,
    )


def open_split(network: Network, name: str) -> Source:
    """Return the readable images of a split of the run's own data.

    Raises:
        ValueError: the run has none, they are not where they were, or they have changed.
    """
    if "imported" in network.meta:
        raise ValueError(
            f"{network.workdir}: its weights were imported and it has no images of its own; name a "
            "folder of class folders with --images."
        )
    # Read once: nothing is kept in memory for another time.
    data = dataclasses.replace(network.config.data, cache_gib=0.0)
    splits = data_splits.open_splits(data, network.config.seed)
    check_data(network.meta["data"], fingerprints(splits), network.workdir)
    source = getattr(splits, name)
    if source is None:
        raise ValueError(
            f"--split {name}: the data of {network.workdir} have none; try validation."
        )
    return without(source, {int(index) for index in network.meta["unreadable"].get(name, {})})


def num_unreadable_at_start(network: Network, name: str) -> int:
    """Return how many images `split` leaves out, which could not be read when the run began."""
    return len(network.meta.get("unreadable", {}).get(name, {}))


def label_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """Return the number of each class by its name and, where all differ, by its first word."""
    numbers = {name.split()[0]: label for label, name in enumerate(class_names) if name}
    if len(numbers) < len(class_names):
        numbers = {}  # first words that several classes share tell nothing
    return numbers | {name: label for label, name in enumerate(class_names)}


def open_image_folder(network: Network, root: Path, option: str = "--images") -> Source:
    """Return all images below a folder of class folders, as the network's classes number them.

    `option` named the folder.

    Raises:
        ValueError: there are no class folders, or one bears the name of none of the classes.
    """
    folders = subfolders(root)
    if not folders:
        raise ValueError(
            f"{option} {root}: it holds {len(image_files(root))} images and no class folders; "
            "scores need a folder for each class, called as the class or its synset: name the "
            "folder that holds those."
        )
    numbers = label_by_name(network.class_names)
    unknown = [name for name in folders if name not in numbers]
    if splits := [name for name in unknown if name in data_splits.NAMES]:
        within = " or ".join(str(Path(root) / name) for name in splits)
        raise ValueError(f"{option} {root}: it holds {', '.join(splits)}; name one: {within}.")
    if unknown:
        shown = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        raise ValueError(
            f"{option} {root}: {len(unknown)} class folders ({shown}) bear no name of "
            f"the network's classes ({', '.join(network.class_names[:3])} ...); rename them, or "
            "give the network their names when it is imported."
        )
    folder = Folder(root)
    labels = [numbers[name] for name in folder.class_names]
    return Resized(Relabeled(folder, labels, network.class_names), network.config.data)


def _missing(workdir: Path, which: str = "latest") -> ValueError:
    kind = "no checkpoint with a validation error" if which == "best" else "no checkpoint"
    return ValueError(f"{workdir}: it holds {kind}; name the folder of a run that has begun.")


def defaults_from(origin: Path, config: Config, workdir: Path) -> Config:
    """Return `config` with the model and the preprocessing of the run in `origin`.

    Reads config.json alone, so that the command line can know its defaults at once; a run in
    `workdir` that began from there knows them itself, and goes on without `origin`.

    Raises:
        ValueError: there is no config.json, or none that a run of this version wrote.
    """
    saved = None
    if (workdir / "config.json").exists():
        saved = _saved_config(workdir)
    if saved is None or saved.init_from != str(origin):
        saved = _saved_config(origin)
    wanted = {name: getattr(saved.data, name) for name in PREPROCESSING}
    data: DataConfig = dataclasses.replace(config.data, **wanted, statistics="init")
    return dataclasses.replace(config, init_from=str(origin), model=saved.model, data=data)


def _saved_config(workdir: Path) -> Config:
    try:
        return unflatten(json.loads((workdir / "config.json").read_text())["config"])
    except OSError as error:
        raise ValueError(
            f"--init-from {workdir}: {error.strerror} (config.json); name the folder of a run."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--init-from {workdir}: its config.json was not written by a run of this version; "
            "name the folder of a run."
        ) from error


def init_from_pretrained(
    origin: Network, params: Any, reset: Sequence[str], class_names: Sequence[str]
) -> tuple[Any, str]:
    """Return `params` with the weights of `origin`, but for the layers in `reset`, and what to say.

    Raises:
        ValueError: a layer in `reset` is none, or one of the others has another shape.
    """
    theirs = origin.variables["params"]
    if unknown := [name for name in reset if name not in params]:
        raise ValueError(
            f"--init.reinit-layers {' '.join(unknown)}: the layers are {', '.join(params)}; name some of "
            "them."
        )
    shapes, wanted = (
        {n: np.shape(w["kernel"]) for n, w in tree.items()} for tree in (theirs, params)
    )
    differ = [name for name in params if name not in reset and shapes.get(name) != wanted[name]]
    if differ:
        details = "; ".join(
            f"{n} {shapes.get(n, 'missing')} there, {wanted[n]} here" for n in differ
        )
        raise ValueError(
            f"--init-from {origin.workdir}: {details}; layers of other shapes start anew: add "
            f"--init.reinit-layers {' '.join([*reset, *differ])}."
        )
    taken = [name for name in params if name not in reset]
    ours = {
        name: jax.device_put(theirs[name], jax.tree.map(lambda x: x.sharding, params[name]))
        for name in taken
    }
    sentence = f"Weights of {origin.workdir}, step {origin.step:,}: {', '.join(taken)}"
    sentence += f"; anew: {', '.join(reset)}" if reset else ""
    left = [name for name in theirs if name not in params]
    sentence += f"; left behind: {', '.join(left)}" if left else ""
    warning = "" if "fc8" in reset else _renamed(origin.class_names, class_names)
    return {**params, **ours}, f"{sentence}.{warning}"


def _renamed(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Return a warning where as many classes bear other names, else nothing."""
    differ = [names for names in zip(theirs, ours, strict=True) if names[0] != names[1]]
    if not differ:
        return ""
    there, here = differ[0]
    return (
        f"\nfc8 comes with other names for {len(differ)} of {len(ours)} classes ({there!r} there "
        f"is {here!r} here): unless they mean the same, add --init.reinit-layers fc8."
    )
