"""The same networks in plain PyTorch: the same logits and the same gradient of every array.

`pip install '.[parity]' && pytest -m parity`. The weights go through PyTorch's own files.
"""

import dataclasses
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch  # from `pip install '.[parity]'`
from safetensors import torch as safetensors
from torch import nn

from alexnet_jax.model import towers
from alexnet_jax.model.architecture import Architecture
from alexnet_jax.model.features import features
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import PRESETS
from alexnet_jax.retrieval.features import torchvision_nodes
from alexnet_jax.weights import convert, files

pytestmark = pytest.mark.parity

Arrays = dict[str, np.ndarray]


class TowerNorm(nn.Module):
    """Response normalization within each half of the maps."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return torch.cat([self.norm(tower) for tower in x.chunk(2, dim=1)], dim=1)


class Silence(nn.Module):
    """Dropout of a half with a mask from outside: doubling in training, or halving at test."""

    def __init__(self, doubles):
        super().__init__()
        self.doubles = doubles
        self.keep = None

    def forward(self, x):
        if self.keep is None:
            return x if self.doubles else x * 0.5
        return x * self.keep * 2 if self.doubles else x * self.keep


def pool():
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def lrn(k, alpha):
    # PyTorch divides alpha by the 5 maps.
    return nn.LocalResponseNorm(5, alpha=alpha, beta=0.75, k=k)


def network_of_2012(maps, inputs, units, classes, pad, groups, behind, doubles):
    """Return the layers of P3.5; `behind` is what follows the ReLU of conv1 and of conv2."""
    c1, c2, c3, c4, c5 = maps
    layers = OrderedDict(
        pad=nn.ZeroPad2d((0, pad, 0, pad)),
        **dict(conv1=nn.Conv2d(3, c1, 11, stride=4), relu1=nn.ReLU(), behind1=behind()),
        conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=groups),
        **dict(relu2=nn.ReLU(), behind2=behind()),
        **dict(conv3=nn.Conv2d(c2, c3, 3, padding=1), relu3=nn.ReLU()),
        **dict(conv4=nn.Conv2d(c3, c4, 3, padding=1, groups=groups), relu4=nn.ReLU()),
        **dict(conv5=nn.Conv2d(c4, c5, 3, padding=1, groups=groups), relu5=nn.ReLU()),
        **dict(pool5=pool(), flat=nn.Flatten()),
        **dict(fc6=nn.Linear(inputs, units), relu6=nn.ReLU(), drop6=Silence(doubles)),
        **dict(fc7=nn.Linear(units, units), relu7=nn.ReLU(), drop7=Silence(doubles)),
        fc8=nn.Linear(units, classes),
    )
    return nn.Sequential(layers)


def paper(*sizes):
    def behind():
        return nn.Sequential(TowerNorm(lrn(k=2.0, alpha=5e-4)), pool())

    return network_of_2012(*sizes, pad=3, groups=2, behind=behind, doubles=False)


def merged(*sizes):
    def behind():
        return nn.Sequential(lrn(k=2.0, alpha=5e-4), pool())

    return network_of_2012(*sizes, pad=3, groups=1, behind=behind, doubles=False)


def caffenet(*sizes):
    """Follow CAFFE models/bvlc_reference_caffenet/train_val.prototxt."""

    def behind():
        return nn.Sequential(pool(), lrn(k=1.0, alpha=1e-4))

    return network_of_2012(*sizes, pad=0, groups=2, behind=behind, doubles=True)


def torchvision(maps, inputs, units, classes):
    """Follow torchvision/models/alexnet.py, also in the numbers of the modules.

    Its average pooling to 6 x 6 does nothing at 224 pixels, and is left out here.
    """
    c1, c2, c3, c4, c5 = maps
    features = nn.Sequential(
        *(nn.Conv2d(3, c1, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(
        *(Silence(True), nn.Linear(inputs, units), nn.ReLU()),
        *(Silence(True), nn.Linear(units, units), nn.ReLU()),
        nn.Linear(units, classes),
    )
    return nn.Sequential(OrderedDict(features=features, flat=nn.Flatten(), classifier=classifier))


NETWORKS = {"paper": paper, "merged": merged, "caffenet": caffenet, "torchvision": torchvision}
MAPS = dict.fromkeys(NETWORKS, (96, 256, 384, 384, 256)) | {"torchvision": (64, 192, 384, 256, 256)}
# In pixels. The small ones leave 3 x 3 in pool5, and in `torchvision` a row that no pool looks at.
CROPS = {
    "full": dict(paper=224, merged=224, caffenet=227, torchvision=224),
    "small": dict(paper=128, merged=128, caffenet=131, torchvision=131),
}
# Where a ReLU's input is 0 up to rounding, or two pixels of a pool are equal, two right answers may
# differ by 1e-3 and more in single arrays' gradients. Of the first seeds these stay farthest from
# it: by 3.5e-6 standard deviations of a layer and more.
SEEDS = {
    "full": dict(paper=1, merged=10, caffenet=6, torchvision=0),
    "small": dict.fromkeys(NETWORKS, 1),
}


@dataclasses.dataclass
class Example:
    """A network with weights, images, and the masks of one training step."""

    net: nn.Module
    architecture: Architecture
    images: np.ndarray  # [B, crop, crop, 3]
    labels: np.ndarray
    keep: Arrays  # [B, ..., maps], by layer

    @classmethod
    def make(cls, name: str, size: str) -> "Example":
        share, side, batch, classes = {"full": (1, 6, 2, 1000), "small": (8, 3, 4, 11)}[size]
        maps, units, crop = [n // share for n in MAPS[name]], 4096 // share, CROPS[size][name]
        rng = np.random.default_rng(SEEDS[size][name])
        net = NETWORKS[name](maps, side * side * maps[4], units, classes)
        with torch.no_grad():
            for array in net.parameters():
                # As loud behind a ReLU as before it; less in fully connected layers, or the softmax
                # says 0 and 1 whatever else is wrong.
                std = {1: 0.1, 2: 0.25, 4: 1.0}[array.ndim]
                std *= 1.0 if array.ndim == 1 else np.sqrt(2 / array[0].numel())
                values = rng.standard_normal(tuple(array.shape), np.float32) * np.float32(std)
                array.copy_(torch.from_numpy(values))
        images = rng.uniform(0, 255, (batch, crop, crop, 3)) - [123.0, 117.0, 104.0]
        dropped = {"fc6": (units,), "fc7": (units,)}
        if name == "torchvision":
            images /= [58.4, 57.1, 57.4]
            dropped = {"conv5": (side, side, maps[4]), "fc6": (units,)}
        model = dataclasses.replace(PRESETS[name].model, width=1 / share, precision="highest")
        return cls(
            net,
            build_architecture(model, classes, crop),
            images.astype(np.float32),
            rng.integers(0, classes, batch),
            {layer: rng.random((batch, *shape)) < 0.5 for layer, shape in dropped.items()},
        )

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The state_dict, of torchvision as it is, of others with plain names (conv1_w)."""
        return {plain(name): array for name, array in self.net.state_dict().items()}


def plain(name: str) -> str:
    if name.startswith(("features", "classifier")):
        return name
    layer, kind = name.split(".")
    return f"{layer}_{kind[0]}"


def raw(arrays: dict[str, torch.Tensor]) -> files.RawWeights:
    format = "torchvision" if "features.0.weight" in arrays else "plain"
    return files.RawWeights(format, {name: array.numpy() for name, array in arrays.items()})


def by_torch(example: Example, keep: Arrays | None):
    """Return logits, and the gradients of the mean cross-entropy as our parameters have them."""
    silences = [module for module in example.net.modules() if isinstance(module, Silence)]
    masks = [None, None] if keep is None else map(torch.from_numpy, keep.values())
    for silence, mask in zip(silences, masks, strict=True):
        silence.keep = None if mask is None else mask.movedim(-1, 1).flatten(1)
    example.net.zero_grad()
    logits = example.net(torch.from_numpy(example.images).movedim(-1, 1))
    nn.functional.cross_entropy(logits, torch.from_numpy(example.labels)).backward()
    gradients = {plain(name): array.grad for name, array in example.net.named_parameters()}
    return logits.detach().numpy(), convert.to_params(raw(gradients), example.architecture)


def by_jax(example: Example, keep: Arrays | None, params: convert.Params, devices: int):
    """Return the same of our network on a mesh."""
    mesh = towers.make_mesh(towers=devices, data=1, batch=len(example.images))
    apply = towers.forward(example.architecture, mesh)

    def loss(params, images, keep):
        logits = apply({"params": params}, images, keep)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, example.labels)
        return losses.mean(), logits

    params = jax.device_put(params, towers.state_shardings(params, example.architecture, mesh))
    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params, example.images, keep)
    return jax.device_get((logits, gradients))


def errors(result, expected) -> dict[str, float]:
    """Return the largest difference in each array, relative to the array's largest value."""
    relative = jax.tree.map(
        lambda a, b: np.max(np.abs(a - b)) / np.max(np.abs(b)), result, expected
    )
    return {jax.tree_util.keystr(path): e for path, e in jax.tree.leaves_with_path(relative)}


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param((name, "small"), id=f"small-{name}") for name in NETWORKS),
        *(
            pytest.param((name, "full"), id=f"full-{name}", marks=pytest.mark.slow)
            for name in NETWORKS
        ),
    ],
)
def example(request) -> Example:
    return Example.make(*request.param)


@pytest.fixture(scope="module")
def imported(example, tmp_path_factory) -> convert.Params:
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(example.state, path)
    params = convert.to_params(files.read(path), example.architecture)
    path.unlink()  # pytest would keep a quarter of a gigabyte
    return params


@pytest.fixture(scope="module", params=["test", "training"])
def mode(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def keep(example, mode) -> Arrays | None:
    return example.keep if mode == "training" else None


@pytest.fixture(scope="module")
def expected(example, keep):
    return by_torch(example, keep)


@pytest.mark.parametrize("devices", [1, 2])
def test_logits_and_every_gradient_are_those_of_pytorch(example, imported, keep, expected, devices):
    assert list(example.architecture.dropped) == list(example.keep)
    logits, gradients = expected
    logits_of_jax, gradients_of_jax = by_jax(example, keep, imported, devices)
    worst = errors({"logits": logits_of_jax, **gradients_of_jax}, {"logits": logits, **gradients})
    assert len(worst) == 1 + 16
    assert max(worst.values()) < 1e-4, worst


def test_weights_go_back_to_pytorch_bit_for_bit(example, imported, tmp_path: Path):
    out = convert.from_params(imported, example.architecture, raw(example.state).format)
    path = tmp_path / "weights.safetensors"
    files.write(path, out)
    returned = safetensors.load(path.read_bytes())
    path.unlink()
    assert returned.keys() == example.state.keys()
    for name, array in example.state.items():
        assert torch.equal(returned[name], array), name


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_container_of_pytorch_holds_the_same_weights(name, container, tmp_path: Path):
    example, path = Example.make(name, "small"), tmp_path / "weights"
    if container == "safetensors":
        safetensors.save_file(example.state, path)
    else:
        torch.save(example.state, path, _use_new_zipfile_serialization=container == "zip")
    result = files.read(path)
    assert result.format == raw(example.state).format
    assert result.arrays.keys() == example.state.keys()
    for array, tensor in example.state.items():
        np.testing.assert_array_equal(result.arrays[array], tensor.numpy(), strict=True)


def test_features_by_torchvisions_names_are_those_of_its_modules():
    example, outputs = Example.make("torchvision", "small"), {}
    for name, module in example.net.named_modules():
        if name.partition(".")[0] in ("features", "classifier") and "." in name:
            module.register_forward_hook(
                lambda _, __, result, name=name: outputs.update({name: result})
            )
    by_torch(example, None)
    nodes = torchvision_nodes(example.architecture)
    assert nodes.keys() == outputs.keys()
    params = convert.to_params(raw(example.state), example.architecture)
    taken = features(params, example.images, [*nodes.values()], architecture=example.architecture)
    for name, output in nodes.items():
        if name == "classifier.0":  # torchvision's is flat, in the order map, row, column
            continue
        expected = outputs[name].detach().numpy()
        expected = np.moveaxis(expected, 1, -1) if expected.ndim == 4 else expected
        scale = np.abs(expected).max()
        np.testing.assert_allclose(taken[output], expected, atol=1e-5 * scale, err_msg=name)
