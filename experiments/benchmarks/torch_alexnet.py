"""The two-tower network in idiomatic PyTorch, for speed comparisons.

Grouped convolutions, LRN within each tower, dropout on fc6 and fc7. Needs the `parity` extra.
"""

import torch
from torch import nn
from torch.nn import functional as F


class TowerNorm(nn.Module):
    """Response normalization within each of two towers (P3.3)."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # torch divides by 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` [B, C, H, W], normalized."""
        batch, channels, height, width = x.shape
        towers = x.reshape(batch * 2, channels // 2, height, width)
        return self.norm(towers).reshape(batch, channels, height, width)


def network(num_classes: int = 1000) -> nn.Sequential:
    """Return the network for float images [B, 3, 224, 224]: 60,965,224 parameters."""
    return nn.Sequential(
        *(nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), nn.ReLU(), TowerNorm()),
        nn.MaxPool2d(3, 2),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), TowerNorm()),
        nn.MaxPool2d(3, 2),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU()),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        *(nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, num_classes),
    )


def training_step(batch: int, compiled: bool, fast: bool, device: str = "cpu"):
    """Return `run(steps)`, which trains on one synthetic batch.

    Args:
        batch: images a step.
        compiled: use torch.compile.
        fast: use bfloat16 autocast and channels last.
        device: "cpu", or "cuda", where products of float32 are in TF32, as JAX's are.
    """
    torch.manual_seed(0)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    net = network().to(device)
    images = torch.randn(batch, 3, 224, 224, device=device) * 60
    labels = torch.randint(1000, (batch,), device=device)
    if fast:
        net, images = (x.to(memory_format=torch.channels_last) for x in (net, images))
    optimizer = torch.optim.SGD(
        net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True
    )
    call = torch.compile(net) if compiled else net

    def run(steps: int) -> int:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=fast):
                loss = F.cross_entropy(call(images).float(), labels)
            loss.backward()
            optimizer.step()
            assert torch.isfinite(loss)
        return steps * batch

    run(1)
    return run


def inference(batch: int, compiled: bool, fast: bool):
    """Return `run(steps)`, which computes probabilities; see `training_step`."""
    torch.manual_seed(0)
    net, images = network().eval(), torch.randn(batch, 3, 224, 224) * 60
    if fast:
        net, images = (x.to(memory_format=torch.channels_last) for x in (net, images))
    call = torch.compile(net) if compiled else net

    def run(steps: int) -> int:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            for _ in range(steps):
                probabilities = call(images).float().softmax(1)
                assert torch.isfinite(probabilities).all()
        return steps * batch

    run(1)
    return run
