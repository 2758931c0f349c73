"""Gradient and Grad-CAM of torchvision's layout are those of PyTorch's autograd and hooks.

`pip install '.[parity]' && pytest -m parity`.
"""

import jax
import numpy as np
import pytest
import torch  # from `pip install '.[parity]'`

import alexnet_jax as ax
from alexnet_jax.explanations.grad_cam import grad_cam
from alexnet_jax.explanations.gradients import gradient
from tests import untrained

pytestmark = pytest.mark.parity
nn = torch.nn
LABELS = [2, 0]


def by_torch(params, images, module):
    """Return the gradient [B, h, w, 3] and the Grad-CAM [B, H, W] of a module of `features`."""

    def layer(name, **options):
        kernel = np.asarray(params[name]["kernel"])
        if kernel.ndim == 4:
            made = nn.Conv2d(*kernel.shape[2:], kernel.shape[0], **options)
            kernel = kernel.transpose(3, 2, 0, 1)
        else:
            made, kernel = nn.Linear(*kernel.shape), kernel.T
        with torch.no_grad():
            made.weight.copy_(torch.from_numpy(kernel.copy()))
            made.bias.copy_(torch.from_numpy(np.array(params[name]["bias"])))
        return made

    features = nn.Sequential(
        *(layer("conv1", stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(layer("conv2", padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(layer("conv3", padding=1), nn.ReLU(), layer("conv4", padding=1), nn.ReLU()),
        *(layer("conv5", padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(layer("fc6"), nn.ReLU(), layer("fc7"), nn.ReLU(), layer("fc8"))
    kept = {}

    def keep(_, __, output):
        output.retain_grad()
        kept["output"] = output

    features[module].register_forward_hook(keep)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    # Our maps are flattened in the order row, column, map.
    logits = classifier(features(x).movedim(1, -1).flatten(1))
    logits[torch.arange(len(LABELS)), LABELS].sum().backward()
    weights = kept["output"].grad.mean(dim=(2, 3), keepdim=True)
    cam = torch.relu((weights * kept["output"]).sum(dim=1))
    assert x.grad is not None
    return x.grad.movedim(1, -1).numpy(), cam.detach().numpy()


@pytest.mark.parametrize(("module", "layer"), [(11, "relu5"), (3, "conv2"), (5, "pool2")])
def test_they_are_those_of_pytorch(module, layer, tmp_path):
    network = ax.load(untrained.make(tmp_path / "run", "torchvision", crop=96))
    shape = (2, *(network.architecture.crop,) * 2, 3)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    by_pixel, cam = by_torch(jax.device_get(network.params), images, module)
    for actual, expected in (
        (gradient(network, images, LABELS), by_pixel),
        (grad_cam(network, images, LABELS, layer=layer).total, cam),
    ):
        np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())
